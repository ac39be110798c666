"""Learning curves: error against the number of training frames."""

from __future__ import annotations

from mlpbench.metrics import metric
from mlpbench.report import facts
from mlpbench.report.drawing import Look, canvas, legend, logarithmic, looks
from mlpbench.report.estimates import cells, chosen
from mlpbench.report.section import Block, Figure, Panel, Section
from mlpbench.report.study import Study, select

ORDER = 30


def build(study: Study) -> Section | None:
    """One figure for each data set that has at least two training sizes."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        split = study.in_distribution(dataset)
        if split is None or len(facts.train_sizes(study, dataset)) < 2:
            continue
        present = set(select(study.metrics, dataset=dataset, split=split)["metric"])
        panels = [_panel(study, dataset, name, split) for name in ("force_mae", "energy_mae") if name in present]
        caption = (
            f"Error on {facts.split_words(study, dataset, split)} against the number of training frames, {dataset}; both axes "
            "logarithmic, so that a power law is a straight line. Small points: single trials; large points and bars: mean "
            "over repetitions with its 95 % interval; an open ring: a trial that had not converged. Validation frames "
            f"({', '.join(str(n) for n in sorted(study.trials['n_valid'].unique()))}) are labels too and come on top."
        )
        blocks.append(Figure(caption, panels))
    if not blocks:
        return None
    return Section("learning", "Learning curves", "How much does more data buy?", blocks)


def _panel(study: Study, dataset: str, name: str, split: str) -> Panel:
    entry, style = metric(name), looks(study)
    table = cells(study, dataset, name, split)
    points = select(study.values, dataset=dataset, metric=name, split=split)
    names = [c for c in chosen(study, dataset) if c in set(table["candidate"])]
    sizes = sorted(table["n_train"].unique())
    with canvas() as (figure, axes):
        for index, candidate in enumerate(names):
            shift = 1.0 + 0.018 * (index - (len(names) - 1) / 2)  # side by side, so that bars do not hide each other
            _curve(axes, select(table, candidate=candidate), select(points, candidate=candidate), style[candidate], shift)
        logarithmic(axes, "xy")
        axes.set_xticks(sizes, [str(int(n)) for n in sizes])
        axes.set_xlabel("training frames")
        axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
        legend(axes, 4 if max(map(len, names), default=0) < 9 else 2)
    alt = f"{entry.symbol} in {entry.unit} against training frames for {', '.join(names)}; numbers in the comparison table."
    return Panel(f"learning-{dataset}-{name}", figure, alt)


def _curve(axes, table, points, look: Look, shift: float) -> None:  # type: ignore[no-untyped-def]
    table = table.sort_values("n_train")
    x = table["n_train"] * shift
    axes.plot(x, table["value"], color=look.color, linestyle=look.dash, marker=look.marker, label=table["candidate"].iloc[0],
              markerfacecolor=look.color if look.filled else "none")  # fmt: skip
    known = table.dropna(subset=["low", "high"])
    axes.vlines(known["n_train"] * shift, known["low"], known["high"], color=look.color, linewidth=1.3)
    axes.plot(points["n_train"] * shift, points["value"], linestyle="", marker=look.marker, markersize=2.6, color=look.color,
              alpha=0.55)  # fmt: skip
    open_ended = points[points["converged"].map(lambda value: value == False)]  # noqa: E712
    axes.plot(open_ended["n_train"] * shift, open_ended["value"], linestyle="", marker="o", markersize=8,
              markerfacecolor="none", markeredgecolor=look.color, markeredgewidth=0.9)  # fmt: skip
