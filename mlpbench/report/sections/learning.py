"""Learning curves: error against the number of training frames."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from mlpbench.metrics import HEADLINE, metric
from mlpbench.report import facts
from mlpbench.report.drawing import Look, canvas, legend, logarithmic, looks, series
from mlpbench.report.estimates import cells
from mlpbench.report.fits import finding, fit_table, unfitted
from mlpbench.report.section import Block, Figure, Panel, Section
from mlpbench.study.study import Study, select

ORDER = 30
FLOOR_SEEN = 10.0  # the labels' noise is drawn where an error comes this near; else it would squeeze the curves


def build(study: Study) -> Section | None:
    """One figure for each data set that has at least two training sizes."""
    blocks: list[Block] = []
    found = ""
    for dataset in study.datasets:
        split = study.in_distribution(dataset)
        if split is None or len(facts.train_sizes(study, dataset)) < 2:
            continue
        present = study.metrics_of(dataset, split)
        panels = [_panel(study, dataset, name, split) for name in HEADLINE if name in present]
        caption = (
            f"Error on {facts.split_words(study, dataset, split)} against the number of training frames, "
            f"{dataset}; both axes "
            "logarithmic, so that a power law is a straight line. Small points: single trials; large points "
            "and bars: "
            f"{facts.mean_words(study, dataset)}, with 95 % interval; an open ring: a training that is not at rest. "
            "Validation frames "
            f"({', '.join(str(n) for n in sorted(study.trials['n_valid'].unique()))}) are labels too and "
            f"come on top."
        )
        noise = study.label_noise(dataset, "force_mae")
        if noise:
            caption += f" The labels' own noise, a floor for every potential, is {noise:g} meV/Å in the force error."
        table, missing = fit_table(study, dataset, split), unfitted(study, dataset, split)
        blocks += [Figure(caption, panels), *([table] if table else [])]
        blocks += missing
        found = found or finding(study, dataset, split)
    return Section("learning", "Learning curves", found, blocks) if blocks else None


def _panel(study: Study, dataset: str, name: str, split: str) -> Panel:
    entry, style = metric(name), looks(study)
    table = cells(study, dataset, name, split)
    points = study.part(dataset, name, split)
    names = [c for c in study.lines(dataset) if any(c == key[0] for key in table)]
    with canvas() as (figure, axes):
        for index, candidate in enumerate(names):
            shift = 1.0 + 0.018 * (index - (len(names) - 1) / 2)  # side by side: bars must not hide each other
            means = {n: mean for (c, n), mean in sorted(table.items()) if c == candidate}
            series(axes, [n * shift for n in means], list(means.values()), style[candidate], candidate)
            _trials(axes, select(points, candidate=candidate), style[candidate], shift)
        floor = study.label_noise(dataset, name)
        if floor and any(mean.value < FLOOR_SEEN * floor for mean in table.values()):
            axes.axhline(floor, color="0.5", linewidth=1.0, linestyle=":", label="noise of the labels")
        logarithmic(axes, "xy")
        sizes = sorted({n for _, n in table})
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.set_xlabel("training frames")
        axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
        legend(axes)
    alt = (
        f"{entry.symbol} in {entry.unit} against training frames for {', '.join(names)}; "
        "numbers in the comparison table."
    )
    return Panel(f"learning-{dataset}-{name}", figure, alt)


def _trials(axes: Axes, points: pd.DataFrame, look: Look, shift: float) -> None:
    """Every trial as a small point, with a ring around those that did not come to rest."""
    x, y = points["n_train"] * shift, points["value"]
    axes.plot(x, y, linestyle="", marker=look.marker, markersize=2.6, color=look.color, alpha=0.55)
    rings = ~points["at_rest"].map(facts.rested).astype(bool)
    (ring,) = axes.plot(x[rings], y[rings], linestyle="", marker="o", markersize=8)
    ring.set(markerfacecolor="none", markeredgecolor=look.color, markeredgewidth=0.9)
