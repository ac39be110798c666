"""How fast each potential is, in every way it can be run, with the reference method as a row; and what it cost."""

from __future__ import annotations

import re

from mlpbench.numbers import interval, listing, number, plural
from mlpbench.report import facts
from mlpbench.report.costs import cost_table, payback_table
from mlpbench.report.estimates import Estimate
from mlpbench.report.section import Block, Cell, Column, Details, Figure, Section, Table, Text
from mlpbench.report.speed import growth, pareto_panel, recorded, scaling_panel, speed_tables
from mlpbench.report.timings import Timed, Way, beside, scaling, speedup, timed, told_apart, unlike, ways
from mlpbench.study.study import Study, unique

ORDER = 70


def build(study: Study) -> Section | None:
    """Of each data set whose potentials were timed: one table a machine, pay-back, scaling, and error beside speed."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        found = ways(study, dataset)
        references = timed(study, dataset)
        ran = [way for way in found if not way.reason]
        if ran:
            finding = finding or _finding(study, ran, references)
            for machine in unique([way.machine for way in found]):
                here = [way for way in found if way.machine == machine]
                blocks += speed_tables(study, dataset, str(machine), here, references)
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
    found: list[Block] = []
    notices = [way.notice for way in ran] + [one.notice for one in references]
    disturbed = [notice for notice in notices if notice]
    if disturbed:
        worst = max(disturbed, key=_cores)
        text = f"The machine was not quiet during {len(disturbed)} of {plural(len(notices), 'timing')}, marked in the "
        found.append(Text(f"{text}table; the worst: {worst}.", "warning"))
    pairs = unique([unlike(way, one) for way in ran if (one := beside(way, references)) is not None])
    found += [Text(f"Speed-ups in this section compare times across hardware{pair}.", "warning") for pair in pairs]
    return found


def _cores(notice: str) -> float:
    """The cores that a notice speaks of; 0 where it speaks of the clock."""
    found = re.search(r"kept ([\d.]+) cores", notice)
    return float(found.group(1)) if found else 0.0


def _figures(study: Study, dataset: str, ran: list[Way], references: list[Timed]) -> list[Block]:
    found: list[Block] = []
    grown = [way for way in ran if len(scaling(study, way)[0]) > 1]
    panel = scaling_panel(study, dataset, grown, references)
    if panel is not None:
        ends = unique([f"{way.candidate}: {ended}" for way in grown if (ended := scaling(study, way)[1])])
        caption = (
            "Time of one call against the number of atoms: the potentials on copies of the data set's own system, the "
            "reference method on a series of growing molecules. A dashed line is the reference's fitted law beyond "
            "what was computed: extrapolated, not measured. "
            + (f"What ended the potentials' series: {'; '.join(ends)}." if ends else "")
        )
        found += [Figure(caption, [panel]), *_recorded(study, dataset)]
    panel = pareto_panel(study, dataset, ran, references)
    if panel is not None:
        caption = (
            f"Error on {facts.split_words(study, dataset, str(study.in_distribution(dataset)))} beside the time of one "
            "MD step; the same potential run in several ways has one error and several times. The vertical line is the "
            "reference method, whose error is 0 by definition. Lower left is better."
        )
        found.append(Figure(caption, [panel]))
    return found


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
