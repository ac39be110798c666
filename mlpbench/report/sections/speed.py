"""How fast each potential is, in every way it can be run, with the reference method as a row; and what it cost."""

from __future__ import annotations

import math
import re

from mlpbench.metrics import metric
from mlpbench.report import facts
from mlpbench.report.cell import mean_cell
from mlpbench.report.estimates import Estimate, cells, main_metric
from mlpbench.report.growth import growth
from mlpbench.report.numbers import interval, listing, number, plural, seconds
from mlpbench.report.paying import cost_table, payback_table
from mlpbench.report.section import Block, Cell, Column, Details, Figure, Section, Table, Text
from mlpbench.report.speed_figures import pareto_panel, recorded, scaling_panel
from mlpbench.report.study import Study, unique
from mlpbench.report.timed import Timed, beside, speedup, timed, unlike
from mlpbench.report.ways import Way, scaling, told_apart, ways

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
                blocks.append(_table(study, dataset, str(machine), here, references))
            blocks += _remarks(ran, references)
            blocks += _figures(study, dataset, ran, references)
            blocks += growth(study, ran, references)
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


def _table(study: Study, dataset: str, machine: str, here: list[Way], references: list[Timed]) -> Table:
    errors = cells(study, dataset, main_metric(study, dataset), study.in_distribution(dataset) or "")
    error = metric(main_metric(study, dataset))
    timestep = _timestep(study, here)
    rows = [_way_row(study, dataset, way, references, errors) for way in here if not way.reason]
    rows += [_reference_row(one, timestep) for one in references]
    rows += [_way_row(study, dataset, way, references, errors) for way in here if way.reason]
    columns = [
        Column("Potential", numeric=False),
        Column("run as", numeric=False, note="eager: the package as it is; compiled and accelerated: its own means"),
        Column("precision", numeric=False),
        _column("us_per_atom"),
        Column("speed-up", "×", "seconds of a frame with the reference method over seconds of a call"),
        *(_column(name) for name in ("ms_per_md_step", "ns_per_day")),
        Column("one nanosecond", "days", "wall time of 1 ns of MD of one replica"),
        Column(error.symbol, error.unit, "of the same potential; of the reference method 0 by definition"),
        Column("memory", "MB", "largest of the process that was timed; with the compiler's where it compiled"),
        Column("noise", "%", metric("timing_noise").description),
        Column("remark", numeric=False),
    ]
    caption = (
        f"One energy-and-forces call and one MD step ({number(timestep)} fs) of each potential on {machine}, "
        f"{dataset}, {plural(round(_atoms(study, here)), 'atom')}; medians with intervals. The reference method is a "
        "row of its own: one MD step with it is one frame from scratch (MD codes that start from the last step's "
        "density need fewer cycles, which is not counted). A dash: it could not run here, and the remark says why."
    )
    return Table(f"speed-{dataset}-{_slug(machine)}", caption, columns, rows, headers=2, searchable=len(rows) > 12)


def _column(name: str) -> Column:
    return Column(metric(name).symbol, metric(name).unit, metric(name).description)


def _way_row(
    study: Study, dataset: str, way: Way, references: list[Timed], errors: dict[tuple[str, int], Estimate]
) -> list[Cell]:
    head = [Cell(way.candidate), Cell(way.run_as), Cell(way.precision)]
    if way.reason:
        return [*head, *[Cell("–")] * 8, Cell(f"not run: {way.reason}", mark="warn")]
    step = way.values["ms_per_md_step"]
    reference = beside(way, references)
    n_train = int(study.record[way.trials[0]]["identifiers"]["n_train"])
    ns = way.values["ns_per_day"]
    factor = None if reference is None else speedup(way, reference)
    noise, memory = way.values["timing_noise"].value, way.values.get("peak_memory")
    return [
        *head,
        mean_cell(way.values["us_per_atom"]), mean_cell(factor), mean_cell(step), mean_cell(ns),
        Cell(number(1 / ns.value), 1 / ns.value),
        mean_cell(errors.get((way.candidate, n_train))),
        Cell("–") if memory is None else Cell(number(memory.value), memory.value),
        Cell(number(noise), noise),
        Cell(_remark(way, reference), mark="warn" if way.notice else "", note=way.notice),
    ]  # fmt: skip


def _remark(way: Way, reference: Timed | None) -> str:
    parts = ["busy machine"] if way.notice else []
    if "ms_neighbours" in way.values:
        parts.append(f"of a call {number(way.values['ms_neighbours'].value)} ms are its neighbour list and input")
    if "throughput" in way.values:
        parts.append(f"in batches {number(way.values['throughput'].value)} frames/s")
    if "prepare_seconds" in way.values and way.deployment != "eager":
        parts.append(f"compiled in {seconds(way.values['prepare_seconds'].value)}")
    if "path_force_difference" in way.values:
        difference = way.values["path_force_difference"].value
        parts.append(f"ΔF to eager {number(difference)} meV/Å")
    if reference is not None and unlike(way, reference):
        parts.append("speed-up across unlike hardware")
    return "; ".join(parts)


def _reference_row(one: Timed, timestep: float) -> list[Cell]:
    frame = one.seconds
    per_atom, step = _scaled(frame, 1e6 / one.n_atoms), _scaled(frame, 1e3)
    per_day = [86400 / v * timestep * 1e-6 for v in (frame.value, frame.high, frame.low)]
    remark = [one.level, *(["busy machine"] if one.notice else []), f"cold {seconds(one.cold)}"]
    if math.isfinite(one.start):
        remark.append(f"start of the code {seconds(one.start)}")
    return [
        Cell(f"reference: {one.code}"), Cell(one.machine), Cell("float64"), mean_cell(per_atom), Cell("1", 1.0),
        mean_cell(step), mean_cell(Estimate(per_day[0], per_day[1], per_day[2], frame.n, "frames")),
        Cell(number(1 / per_day[0]), 1 / per_day[0]), Cell("0", 0.0), Cell("–"), Cell("–"),
        Cell("; ".join(remark), mark="warn" if one.notice else "", note=one.notice),
    ]  # fmt: skip


def _scaled(mean: Estimate, factor: float) -> Estimate:
    return Estimate(mean.value * factor, mean.low * factor, mean.high * factor, mean.n, mean.basis)


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


def _timestep(study: Study, here: list[Way]) -> float:
    return float(study.record[here[0].trials[0]]["tasks"]["speed"]["values"]["timestep_fs"])


def _atoms(study: Study, here: list[Way]) -> float:
    return float(study.record[here[0].trials[0]]["tasks"]["speed"]["values"]["n_atoms"])


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")[:40]
