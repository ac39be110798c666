"""How errors fall with the number of training frames, and with the steps of each training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mlpbench.metrics import HEADLINE, metric
from mlpbench.numbers import number, plural
from mlpbench.report import facts
from mlpbench.report.drawing import Look, canvas, legend, logarithmic, looks, series
from mlpbench.report.estimates import cells
from mlpbench.report.fronts import finding, fit_table, unfitted
from mlpbench.report.section import Block, Cell, Column, Details, Figure, Panel, Section, Table
from mlpbench.study.study import VALID, Study, select, unique

CHAPTERS = {"learning": 30, "training": 55}


FLOOR_SEEN = 10.0  # the labels' noise is drawn where an error comes this near; else it would squeeze the curves


def learning_section(study: Study) -> Section | None:
    """One figure for each data set that has at least two training sizes."""
    blocks: list[Block] = []
    said = ""
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
        said = said or finding(study, dataset, split)
    return Section("learning", "Learning curves", said, blocks) if blocks else None


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


POINTS = 120  # per curve; the page has to stay small with hundreds of trials
REPETITIONS = 5  # curves drawn per candidate


def training_section(study: Study) -> Section | None:
    """For each data set, what is known of rest and convergence, and the curves at the largest number of frames."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        blocks += [*_states(study, dataset), *_ladders(study, dataset)]
        sizes = facts.train_sizes(study, dataset)
        table = select(study.table, dataset=dataset, n_train=sizes[-1])
        table = table[
            table["candidate"].isin(study.lines(dataset)) & (table["repetition"].rank(method="dense") <= REPETITIONS)
        ]
        curves = {t: c for t in table["trial"] if len(c := study.curve(t)) > 1}
        if curves:
            blocks.append(_figure(study, dataset, sizes[-1], table, curves))
    finding = facts.rest_words(study.table) + "."
    return Section("training", "Training curves", finding[0].upper() + finding[1:], blocks) if blocks else None


def _states(study: Study, dataset: str) -> list[Block]:
    """How many trainings of each candidate and size are at rest and converged, and why the others are not."""
    done = select(study.table, dataset=dataset, status="done")
    rows = []
    for (candidate, n_train), part in done.groupby(["candidate", "n_train"], sort=False):
        rest = int(part["at_rest"].map(facts.rested).sum())
        counts = part["converged"].map(facts.tested).value_counts()
        yes, untested = int(counts.get("yes", 0)), int(counts.get("not tested", 0))
        words = "not tested" if untested == len(part) else f"{yes} of {len(part)}"
        reasons = [*part["rest_reason"], *(part["convergence_reason"] if untested < len(part) else [])]
        steps = sorted({int(s) for s in part["steps"].dropna()})
        rows.append([
            Cell(str(candidate)), Cell(str(n_train), float(str(n_train))),
            _steps(steps),
            Cell(f"{rest} of {len(part)}", rest / len(part), mark="" if rest == len(part) else "warn"),
            Cell(words, yes / len(part), mark="warn" if yes + untested < len(part) else ""),
            Cell("; ".join(unique([str(r) for r in reasons if r])) or "–"),
        ])  # fmt: skip
    columns = [
        Column("Candidate", numeric=False), Column("n_train", "frames"), Column("Steps", "of the optimiser"),
        Column("At rest", "trials", "the end of the curve is flat and near its best, and the schedule has finished"),
        Column("Converged", "trials", "a training of half the steps reaches the same validation error"),
        Column("What is missing", numeric=False),
    ]  # fmt: skip
    caption = f"Finished trainings on {dataset}: which are at rest, and which have converged."
    return [Table(f"training-state-{dataset}", caption, columns, rows, headers=2)] if rows else []


def _steps(steps: list[int]) -> Cell:
    if not steps:
        return Cell("–")
    return Cell(f"{steps[0]} to {steps[-1]}" if len(steps) > 1 else str(steps[0]), steps[-1])


def _ladders(study: Study, dataset: str) -> list[Block]:
    """Of trainings that were repeated with more steps, the validation error at each number of steps."""
    name, rows = study.headline(dataset), []
    trials = select(study.trials, dataset=dataset, status="done").dropna(subset=["steps"])
    ladders = trials["trial"].map(lambda trial: (study.record[trial].get("training") or {}).get("ladder"))
    for _, part in trials.groupby(ladders, sort=False):
        rungs = part.sort_values("steps")
        if not rungs["superseded"].any():
            continue
        errors = [study.scores[str(trial)].get((name, VALID)) for trial in rungs["trial"]]
        words = [f"{int(s)} steps: {number(e)}" for s, e in zip(rungs["steps"], errors, strict=True)]
        last = rungs.iloc[-1]
        rows.append([
            Cell(str(last["name"])), Cell(str(last["n_train"]), float(last["n_train"])), Cell(str(last["repetition"])),
            Cell(", ".join(words)), Cell(facts.tested(last["converged"])), Cell(str(last["convergence_reason"] or "–")),
        ])  # fmt: skip
    columns = [
        Column("Candidate", numeric=False), Column("n_train", "frames"), Column("Repetition"),
        Column(f"{metric(name).symbol}, validation", metric(name).unit, numeric=False),
        Column("Converged", numeric=False), Column("Why not", numeric=False),
    ]  # fmt: skip
    caption = f"Trainings of {dataset} repeated with more steps. Only the longest counts; the others are evidence."
    return [Details(f"Evidence of convergence: {plural(len(rows), 'training')}",
                    [Table(f"rungs-{dataset}", caption, columns, rows, headers=3)])] if rows else []  # fmt: skip


def _figure(
    study: Study, dataset: str, n_train: int, table: pd.DataFrame, curves: dict[str, list[dict[str, Any]]]
) -> Figure:
    key, factor, unit = "valid_force_mae", 1e3, "meV/Å"
    if not any(point.get(key) is not None for curve in curves.values() for point in curve):
        key, factor, unit = "valid_energy_mae", 1e3, "meV/atom"
    panel = _training_panel(study, dataset, table, curves, key, factor, unit)
    caption = (
        f"Validation error during training, {dataset}, {n_train} training frames, one line for each repetition (not "
        "smoothed; long curves are thinned out). A cross marks the end of a trial that had not come to rest or did not "
        "finish. Against seconds: see the error against training seconds."
    )
    return Figure(caption, [panel])


def _training_panel(
    study: Study, dataset: str, table: pd.DataFrame, curves: dict[str, list[dict[str, Any]]],
    key: str, factor: float, unit: str,
) -> Panel:  # fmt: skip
    style, named = looks(study), set()
    with canvas() as (figure, axes):
        for row in table.sort_values("repetition").to_dict("records"):
            known = [p for p in curves.get(row["trial"], []) if p.get(key) is not None]
            points = [(p.get("step") or p["epoch"], p[key]) for p in known]
            if not points:
                continue
            x, y = _thin(np.array(points, dtype=float).T)
            look = style[row["candidate"]]
            label = None if row["candidate"] in named else row["candidate"]
            named.add(row["candidate"])
            axes.plot(x, factor * y, color=look.color, linestyle=look.dash, linewidth=1.0, label=label)
            if row["status"] != "done" or not facts.rested(row["at_rest"]):
                axes.plot(x[-1:], factor * y[-1:], linestyle="", marker="x", color=look.color, markersize=6)
        logarithmic(axes, "xy")
        axes.set_xlabel("optimiser step")
        quantity = "force" if "force" in key else "energy"
        axes.set_ylabel(f"validation {quantity} MAE ({unit})")
        legend(axes)
    alt = f"Validation {quantity} error against optimiser steps for {', '.join(sorted(named))}."
    return Panel(f"training-{dataset}-steps", figure, alt)


def _thin(points: Any) -> Any:
    """At most about ``POINTS`` of the (2, n) points, evenly spread on a logarithmic axis, ends included."""
    n = points.shape[1]
    if n <= POINTS:
        return points
    keep = np.unique(np.concatenate([np.geomspace(1, n, POINTS).astype(int) - 1, [0, n - 1]]))
    return points[:, keep]
