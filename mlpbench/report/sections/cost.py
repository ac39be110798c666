"""What accuracy costs: training and labels, and the time of a call in MD."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd

from mlpbench.metrics import error_word, metric
from mlpbench.numbers import interval, listing, number, plural
from mlpbench.report import facts
from mlpbench.report.costs import Pace, cost_table, paces, payback_table
from mlpbench.report.drawing import INK, canvas, legend, logarithmic, looks, point
from mlpbench.report.estimates import Estimate, cells
from mlpbench.report.fronts import cost_kinds
from mlpbench.report.production import engine_tables, production_blocks
from mlpbench.report.section import Block, Cell, Column, Details, Figure, Panel, Section, Table, Text
from mlpbench.report.speed import growth, pareto_panel, recorded, scaling_panel, speed_tables
from mlpbench.report.timings import Timed, Way, beside, scaling, speedup, timed, told_apart, unlike, ways
from mlpbench.statistics.intervals import intervals
from mlpbench.study.study import Study, rows_of, select, unique

CHAPTERS = {"cost": 35, "speed": 70}


def cost_section(study: Study) -> Section | None:
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
    known = paces(study, dataset, name)
    largest = [one for one in known if one.n_train == study.largest(dataset) and one.mean().size]
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
    return [Figure(caption, [panel]), _pace_table(dataset, known, target, unit)]


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


def _pace_table(dataset: str, known: list[Pace], target: float, unit: str) -> Table:
    times = [one.seconds_to(target / 1e3) for one in known]
    whole = [[t for t in each if t is not None] for each in times if None not in each]
    means = iter(intervals([np.array(each) for each in whole], scale="log") if whole else [])
    rows = []
    for one, each in zip(known, times, strict=True):
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


def speed_section(study: Study) -> Section | None:
    """Of each data set whose potentials were timed: one table a machine, pay-back, scaling, and error beside speed."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        every_way = ways(study, dataset)
        references = timed(study, dataset)
        ran = [way for way in every_way if not way.reason]
        if ran:
            finding = finding or _finding(study, ran, references)
            for machine in unique([way.machine for way in every_way]):
                here = [way for way in every_way if way.machine == machine]
                blocks += speed_tables(study, dataset, str(machine), here, references)
            blocks += engine_tables(study, dataset)
            blocks += production_blocks(study, dataset, ran)
            blocks += _remarks(ran, references)
            blocks += _figures(study, dataset, ran, references)
            blocks += growth(study, dataset, ran, references)
            blocks += [table for table in (payback_table(study, dataset, ran, references),) if table is not None]
        costs = cost_table(study, dataset, references)
        blocks += [costs] if costs is not None else []
    return Section("speed", "Speed and cost", finding, blocks) if finding else None


def _finding(study: Study, ran: list[Way], references: list[Timed]) -> str:
    fastest = ran[0]
    time = fastest.values["us_per_atom"]
    text = (
        f"Fastest is {fastest.label}: {number(time.value, time.low, time.high)} µs per atom and call "
        f"on {fastest.machine}"
    )
    rivals = [way.label for way in ran[1:] if way.machine == fastest.machine and not told_apart(study, fastest, way)]
    if rivals:
        text += f" (within the noise of this run as fast: {listing(rivals)})"
    reference = beside(fastest, references)
    if reference is None:
        return text + "; no reference method was timed beside it."
    factor = speedup(fastest, reference)
    return (
        f"{text}, {_factor(factor)} times as fast as {reference.name} on the same frames"
        f"{unlike(fastest, reference) or f' and the same hardware, {reference.machine}'}."
    )


def _factor(factor: Estimate) -> str:
    ends = interval(factor.low, factor.high)
    return f"{number(factor.value, factor.low, factor.high)}" + (f" ({ends})" if ends else "")


def _remarks(ran: list[Way], references: list[Timed]) -> list[Block]:
    """What a reader must know before a number is quoted: disturbed timings, unlike hardware."""
    remarks: list[Block] = []
    notices = [way.notice for way in ran] + [one.notice for one in references]
    disturbed = [notice for notice in notices if notice]
    if disturbed:
        worst = max(disturbed, key=_cores)
        text = f"The machine was not quiet during {len(disturbed)} of {plural(len(notices), 'timing')}, marked in the "
        remarks.append(Text(f"{text}table; the worst: {worst}.", "warning"))
    pairs = unique([unlike(way, one) for way in ran if (one := beside(way, references)) is not None])
    remarks += [Text(f"Speed-ups in this section compare times across hardware{pair}.", "warning") for pair in pairs]
    return remarks


def _cores(notice: str) -> float:
    """The cores that a notice speaks of; 0 where it speaks of the clock."""
    match = re.search(r"kept ([\d.]+) cores", notice)
    return float(match.group(1)) if match else 0.0


def _grown(references: list[Timed]) -> str:
    """What the reference method's series are of."""
    names = unique([one.series for one in references if one.points])
    return "a series of growing molecules" if not names else f"growing {' and '.join(names)}"


def _figures(study: Study, dataset: str, ran: list[Way], references: list[Timed]) -> list[Block]:
    figures: list[Block] = []
    grown = [way for way in ran if len(scaling(study, way)[0]) > 1]
    panel = scaling_panel(study, dataset, grown, references)
    if panel is not None:
        ends = unique([f"{way.candidate}: {ended}" for way in grown if (ended := scaling(study, way)[1])])
        caption = (
            "Time of one call against the number of atoms: the potentials on copies of the data set's own system, the "
            f"reference method on {_grown(references)}. A dashed line is the reference's fitted law beyond "
            "what was computed: extrapolated, not measured. "
            + (f"What ended the potentials' series: {'; '.join(ends)}." if ends else "")
        )
        figures += [Figure(caption, [panel]), *_recorded(study, dataset)]
    panel = pareto_panel(study, dataset, ran, references)
    if panel is not None:
        caption = (
            f"Error on {facts.split_words(study, dataset, str(study.in_distribution(dataset)))} beside the time of one "
            "MD step; the same potential run in several ways has one error and several times. The vertical line is the "
            "reference method, whose error is 0 by definition. Lower left is better."
        )
        figures.append(Figure(caption, [panel]))
    return figures


def _recorded(study: Study, dataset: str) -> list[Block]:
    rows = [
        [
            Cell(row["system"]), Cell(str(row["n_atoms"]), row["n_atoms"]), Cell(row["code"]),
            Cell(str(row["cores"] or "not recorded")), Cell(number(row["seconds_per_step"]), row["seconds_per_step"]),
            Cell(row["source"]),
        ]
        for row in recorded(study)
    ]  # fmt: skip
    columns = [
        Column("system", numeric=False), Column("atoms"), Column("code", numeric=False), Column("cores"),
        Column("one step", "s", "wall time of one self-consistent energy with forces"), Column("source", numeric=False),
    ]  # fmt: skip
    caption = "Recorded elsewhere, on unlike hardware and other systems: for the order of magnitude, not for a ratio."
    table = Table(f"recorded-{dataset}", caption, columns, rows)
    return [Details("Recorded DFT times and their sources", [table])] if rows else []
