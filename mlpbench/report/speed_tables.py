"""Tables of the section on speed: the times, their conditions, and what could not run."""

from __future__ import annotations

import math
from dataclasses import replace

from mlpbench.metrics import metric
from mlpbench.numbers import number, plural, seconds
from mlpbench.report.cell import mean_cell
from mlpbench.report.estimates import Estimate, cells
from mlpbench.report.section import Block, Cell, Column, Details, Table
from mlpbench.report.timed import Timed, beside, speedup, unlike
from mlpbench.report.ways import Way
from mlpbench.study.study import Study


def speed_tables(study: Study, dataset: str, machine: str, here: list[Way], references: list[Timed]) -> list[Block]:
    """What one quotes in a table of its own; conditions, and what could not run, on demand.

    Args:
        study: the study.
        dataset: whose potentials were timed.
        machine: hardware in words.
        here: the ways timed on it.
        references: timings of the reference method, a row each.
    """
    ran, slug = [way for way in here if not way.reason], f"{dataset}-{_slug(machine)}"
    found: list[Block] = [_times(study, dataset, machine, ran, references, slug)] if ran else []
    if ran:
        found.append(
            Details("Conditions: noise, memory, neighbour list, batches, compilation", [_conditions(ran, slug)])
        )
    missing = [
        [Cell(way.candidate), Cell(way.run_as), Cell(way.precision), Cell(way.reason)] for way in here if way.reason
    ]
    columns = [Column(label, numeric=False) for label in ("Potential", "run as", "precision", "why not")]
    if missing:
        caption = f"Asked for, and not possible on {machine}."
        found.append(
            Details(f"What could not run here ({len(missing)})", [Table(f"skipped-{slug}", caption, columns, missing)])
        )
    return found


def _times(study: Study, dataset: str, machine: str, ran: list[Way], references: list[Timed], slug: str) -> Table:
    errors = cells(study, dataset, study.headline(dataset), study.in_distribution(dataset) or "")
    error = metric(study.headline(dataset))
    timestep = _timestep(study, ran)
    rows = [_way_row(study, way, references, errors) for way in ran]
    rows += [_reference_row(one, timestep) for one in references]
    columns = [
        Column("Potential", numeric=False),
        Column("run as", numeric=False, note="eager: the package as it is; compiled and accelerated: its own means"),
        _column("us_per_atom"),
        Column("speed-up", "×", "seconds of a frame with the reference method over seconds of a call"),
        *(_column(name) for name in ("ms_per_md_step", "ns_per_day")),
        Column("one nanosecond", "days", "wall time of 1 ns of MD of one replica"),
        Column(error.symbol, error.unit, "of the same potential; of the reference method 0 by definition"),
    ]
    caption = (
        f"One energy-and-forces call and one MD step ({number(timestep)} fs) of each potential on {machine}, "
        f"{dataset}, {plural(round(_atoms(study, ran)), 'atom')}; medians with intervals. The reference method is a "
        "row of its own: one MD step with it is one frame from scratch (MD codes that start from the last step's "
        "density need fewer cycles, which is not counted)."
    )
    return Table(f"speed-{slug}", caption, columns, rows, headers=2, searchable=len(rows) > 20)


def _conditions(ran: list[Way], slug: str) -> Table:
    columns = [
        Column("Potential", numeric=False), Column("run as", numeric=False),
        Column("noise", "%", metric("timing_noise").description),
        Column("memory", "MB", "largest of the process that was timed; with the compiler's where it compiled"),
        Column("neighbours", "ms", "of a call: its neighbour list and input"),
        Column("throughput", "frames/s", "in batches"),
        Column("compiled in", "s", "until the first call's answer"),
        Column("ΔF", "meV/Å", "largest difference of a force component from the eager path"),
        Column("remark", numeric=False),
    ]  # fmt: skip
    names = ("timing_noise", "peak_memory", "ms_neighbours", "throughput", "prepare_seconds", "path_force_difference")
    rows = [
        [
            Cell(way.candidate), Cell(_as(way)),
            *(_value(way, name) for name in names),
            Cell(f"busy machine: {way.notice}" if way.notice else "", mark="warn" if way.notice else ""),
        ]
        for way in ran
    ]  # fmt: skip
    caption = "Under what conditions the times above were taken, and how far each path is from the eager one."
    return Table(f"speed-conditions-{slug}", caption, columns, rows, headers=2)


def _value(way: Way, name: str) -> Cell:
    found = way.values.get(name)
    if name == "prepare_seconds" and way.deployment == "eager":
        found = None  # nothing was compiled
    return Cell("–") if found is None else Cell(number(found.value), found.value)


def _as(way: Way) -> str:
    """How it ran; the usual precision goes without saying."""
    return way.run_as if way.precision == "float32" else f"{way.run_as}, {way.precision}"


def _column(name: str) -> Column:
    return Column(metric(name).symbol, metric(name).unit, metric(name).description)


def _way_row(study: Study, way: Way, references: list[Timed], errors: dict[tuple[str, int], Estimate]) -> list[Cell]:
    reference = beside(way, references)
    n_train = int(study.record[way.trials[0]]["identifiers"]["n_train"])
    ns = way.values["ns_per_day"]
    factor = None if reference is None else speedup(way, reference)
    apart = reference is not None and bool(unlike(way, reference))
    return [
        Cell(way.candidate), Cell(_as(way), mark="warn" if way.notice else "", note=way.notice),
        mean_cell(way.values["us_per_atom"]),
        replace(mean_cell(factor), note="across unlike hardware", mark="warn") if apart else mean_cell(factor),
        mean_cell(way.values["ms_per_md_step"]), mean_cell(ns), Cell(number(1 / ns.value), 1 / ns.value),
        mean_cell(errors.get((way.candidate, n_train))),
    ]  # fmt: skip


def _reference_row(one: Timed, timestep: float) -> list[Cell]:
    frame = one.seconds
    per_atom, step = _scaled(frame, 1e6 / one.n_atoms), _scaled(frame, 1e3)
    per_day = [86400 / v * timestep * 1e-6 for v in (frame.value, frame.high, frame.low)]
    remark = [one.level, f"cold {seconds(one.cold)}", *([one.notice] if one.notice else [])]
    if math.isfinite(one.start):
        remark.append(f"start of the code {seconds(one.start)}")
    return [
        Cell(f"reference: {one.code}", note="; ".join(remark)),
        Cell(one.machine, mark="warn" if one.notice else ""), mean_cell(per_atom), Cell("1", 1.0),
        mean_cell(step), mean_cell(Estimate(per_day[0], per_day[1], per_day[2], frame.n, "frames")),
        Cell(number(1 / per_day[0]), 1 / per_day[0]), Cell("0", 0.0),
    ]  # fmt: skip


def _scaled(mean: Estimate, factor: float) -> Estimate:
    return Estimate(mean.value * factor, mean.low * factor, mean.high * factor, mean.n, mean.basis)


def _timestep(study: Study, here: list[Way]) -> float:
    return float(study.record[here[0].trials[0]]["tasks"]["speed"]["values"]["timestep_fs"])


def _atoms(study: Study, here: list[Way]) -> float:
    return float(study.record[here[0].trials[0]]["tasks"]["speed"]["values"]["n_atoms"])


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")[:40]
