"""Accuracy against training seconds: at the end of each training, and on the way there."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from mlpbench.metrics import error_word, metric
from mlpbench.numbers import interval, number
from mlpbench.report import facts
from mlpbench.report.costs import Pace, paces
from mlpbench.report.drawing import INK, canvas, legend, logarithmic, looks, point
from mlpbench.report.estimates import cells
from mlpbench.report.fronts import cost_kinds
from mlpbench.report.section import Block, Cell, Column, Figure, Panel, Section, Table
from mlpbench.statistics.intervals import intervals
from mlpbench.study.study import Study, rows_of, select

ORDER = 35


def build(study: Study) -> Section | None:
    """What stopping earlier would have given; and the final errors, where no Pareto front has them."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        rows = select(study.table, dataset=dataset, status="done").dropna(subset=["train_seconds"])
        split = study.in_distribution(dataset)
        if rows.empty or split is None:
            continue
        rows = rows.assign(machine=[facts.hardware(row) for row in rows_of(rows)])
        one_machine = rows["machine"].nunique() == 1  # seconds of different machines say nothing about each other
        blocks += _on_the_way(study, dataset) if one_machine else []
        if "train" not in cost_kinds(study, dataset):  # else it is among the Pareto fronts
            blocks.append(_final(study, dataset, split, rows))
    return Section("cost", "Error against training seconds", "", blocks) if blocks else None


def _final(study: Study, dataset: str, split: str, rows: pd.DataFrame) -> Figure:
    """Errors at the end of the trainings, one picture for each kind of hardware."""
    panels = [
        _panel(study, dataset, split, str(machine), part, index)
        for index, (machine, part) in enumerate(rows.groupby("machine"))
    ]
    caption = (
        f"{metric(study.headline(dataset)).symbol} on {facts.split_words(study, dataset, split)} against the wall time "
        "of one training (validation included). Each point is a candidate at one number of training frames, written "
        "beside it; lines join the training sizes. Lower left is better. An open symbol: at least one of its trainings "
        "is not at rest, so that its error would fall with a larger budget."
    )
    return Figure(caption, panels)


def _on_the_way(study: Study, dataset: str) -> list[Block]:
    """The errors of the best checkpoint so far, and when each candidate reached a target."""
    name = study.headline(dataset)
    found = paces(study, dataset, name)
    largest = [one for one in found if one.n_train == study.largest(dataset) and one.mean().size]
    if len(largest) < 2:
        return []
    target = _round_up(1e3 * max(float(curve[1, -1]) for one in largest for curve in one.curves))
    words = error_word(name)
    unit = metric(name).unit
    caption = (
        "What each training would have given if it had been stopped earlier, "
        f"{largest[0].n_train} training frames: {words} error on the validation frames of the best checkpoint so far, "
        "against the seconds that the package's own training loop had run (validation included). Lines: geometric mean "
        f"over repetitions; bands: all of them; a cross: not all came to rest. Grey: {target:g} {unit}, which every "
        "trial of them reaches."
    )
    panel = _pace_panel(study, dataset, largest, words, target)
    return [Figure(caption, [panel]), _pace_table(dataset, found, target, unit)]


def _round_up(value: float) -> float:
    """The next larger number of two digits."""
    unit = 10 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit) * unit:.2g}")


def _pace_panel(study: Study, dataset: str, largest: list[Pace], words: str, target: float) -> Panel:
    unit = metric(study.headline(dataset)).unit
    style = looks(study)
    with canvas(5.6, 3.5) as (figure, axes):
        for one in largest:
            look = style[one.candidate]
            at, mean, low, high = one.mean()
            axes.plot(at, 1e3 * mean, color=look.color, linestyle=look.dash, label=one.candidate)
            axes.fill_between(at, 1e3 * low, 1e3 * high, color=look.color, alpha=0.15, linewidth=0)
            end = "x" if one.rested < len(one.curves) else look.marker
            axes.plot(at[-1:], 1e3 * mean[-1:], linestyle="", marker=end, color=look.color, markersize=6)
        axes.axhline(target, color=INK, alpha=0.35, linewidth=1)
        logarithmic(axes, "xy")
        axes.set_xlabel("training time (s)")
        axes.set_ylabel(f"validation {words} MAE ({unit})")
        legend(axes)
    alt = f"Validation {words} error against training seconds for {', '.join(one.candidate for one in largest)}."
    return Panel(f"pace-{dataset}", figure, alt, "Validation error during training")


def _pace_table(dataset: str, found: list[Pace], target: float, unit: str) -> Table:
    times = [one.seconds_to(target / 1e3) for one in found]
    whole = [[t for t in each if t is not None] for each in times if None not in each]
    means = iter(intervals([np.array(each) for each in whole], scale="log") if whole else [])
    rows = []
    for one, each in zip(found, times, strict=True):
        reached = sum(t is not None for t in each)
        cell = Cell("not by all" if reached else "not reached", math.inf, "", "warn")
        if reached == len(each):
            mean = next(means)
            cell = Cell(number(mean.value, mean.lower, mean.upper), mean.value, interval(mean.lower, mean.upper))
        rested = f"{one.rested} of {len(one.curves)}"
        rows.append([
            Cell(one.candidate), Cell(number(one.n_train), one.n_train), cell,
            Cell(f"{reached} of {len(each)}", reached / len(each)), Cell(number(1e3 * one.last), 1e3 * one.last),
            Cell(rested, float(one.rested), mark="" if one.rested == len(one.curves) else "warn"),
        ])  # fmt: skip
    columns = [
        Column("Candidate", numeric=False),
        Column("n_train", "frames"),
        Column(f"Time to {target:g} {unit}", "s", "geometric mean over repetitions, 95 % interval"),
        Column("Reached it", "trials"),
        Column("Validation error at the end", unit, "of the best checkpoint, geometric mean"),
        Column("At rest", "trials"),
    ]
    caption = f"Seconds of training until the validation error was {target:g} {unit}, {dataset}."
    return Table(f"pace-{dataset}", caption, columns, rows)


def _panel(study: Study, dataset: str, split: str, machine: str, rows: pd.DataFrame, index: int) -> Panel:
    name = study.headline(dataset)
    entry, style = metric(name), looks(study)
    errors = cells(study, dataset, name, split)
    names = [c for c in study.lines(dataset) if c in set(rows["candidate"])]
    with canvas(5.6, 3.5) as (figure, axes):
        for candidate in names:
            look, places = style[candidate], []
            for n_train, part in select(rows, candidate=candidate).groupby("n_train"):
                mean = errors.get((candidate, int(str(n_train))))
                if mean is not None:
                    time = float(np.exp(np.log(part["train_seconds"].astype(float)).mean()))
                    rested = len(facts.unrested(part)) == 0
                    point(axes, time, mean, look, str(n_train), filled=rested)
                    places.append((time, mean.value))
            x, y = np.array(places).reshape(-1, 2).T
            axes.plot(x, y, color=look.color, linestyle=look.dash, linewidth=1.1)
            axes.plot([], [], color=look.color, linestyle=look.dash, marker=look.marker, label=candidate)
        logarithmic(axes, "xy")
        axes.set_xlabel("training time (s)")
        axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
        legend(axes)
    alt = f"{entry.symbol} against training seconds on {machine} for {', '.join(names)}."
    return Panel(f"cost-{dataset}-{index}", figure, alt, machine)
