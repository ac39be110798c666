"""Tables, figures and sentences of the section on speed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mlpbench.metrics import metric
from mlpbench.numbers import listing, number, plural, seconds
from mlpbench.protocol import ProtocolError, read_json
from mlpbench.references.walltimes import FOLDER
from mlpbench.report import facts
from mlpbench.report.drawing import FAINT, INK, canvas, legend, logarithmic, looks, point, word_beside
from mlpbench.report.estimates import Estimate, cells
from mlpbench.report.section import Block, Bullets, Cell, Column, Details, Panel, Table, mean_cell
from mlpbench.report.timings import FAR, Timed, Way, beside, scaling, speedup, unlike
from mlpbench.statistics.extrapolation import fit_power_law
from mlpbench.study.study import Study, unique


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
    blocks: list[Block] = [_times(study, dataset, machine, ran, references, slug)] if ran else []
    if ran:
        blocks.append(
            Details("Conditions: noise, memory, neighbour list, batches, compilation", [_conditions(ran, slug)])
        )
    missing = [
        [Cell(way.candidate), Cell(way.run_as), Cell(way.precision), Cell(way.reason)] for way in here if way.reason
    ]
    columns = [Column(label, numeric=False) for label in ("Potential", "run as", "precision", "why not")]
    if missing:
        caption = f"Asked for, and not possible on {machine}."
        blocks.append(
            Details(f"What could not run here ({len(missing)})", [Table(f"skipped-{slug}", caption, columns, missing)])
        )
    return blocks


def _times(study: Study, dataset: str, machine: str, ran: list[Way], references: list[Timed], slug: str) -> Table:
    errors = cells(study, dataset, study.headline(dataset), study.in_distribution(dataset) or "")
    error = metric(study.headline(dataset))
    timestep = _timestep(study, ran)
    trivial = facts.trivial(study, dataset, error.name, study.in_distribution(dataset) or "")
    rows = [_way_row(study, way, references, errors, trivial) for way in ran]
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
    estimate = way.values.get(name)
    if name == "prepare_seconds" and way.deployment == "eager":
        estimate = None  # nothing was compiled
    return Cell("–") if estimate is None else Cell(number(estimate.value), estimate.value)


def _as(way: Way) -> str:
    """How it ran; the usual precision goes without saying."""
    return way.run_as if way.precision == "float32" else f"{way.run_as}, {way.precision}"


def _column(name: str) -> Column:
    return Column(metric(name).symbol, metric(name).unit, metric(name).description)


def _way_row(
    study: Study, way: Way, references: list[Timed], errors: dict[tuple[str, int], Estimate], trivial: float | None
) -> list[Cell]:
    """``trivial``: error of a predictor without geometry; what does not beat it is fast for nothing."""
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
        mean_cell(errors.get((way.candidate, n_train)), trivial=trivial),
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


RECORDED = "recorded.json"
EXTRAPOLATED = (0, (6, 4))  # the one dash in these figures that means: not computed


def scaling_panel(study: Study, dataset: str, grown: list[Way], references: list[Timed]) -> Panel | None:
    """Seconds of a call against atoms; None where there is nothing but single sizes."""
    series = [one for one in references if one.points]
    if not grown and not series:
        return None
    style = looks(study)
    sizes = [n for way in grown for n, _ in scaling(study, way)[0]] + [n for one in series for n, _ in one.points]
    with canvas(6.2, 3.9) as (figure, axes):
        for way in grown:
            x, y = np.array(scaling(study, way)[0]).T
            look = style[way.candidate]
            axes.plot(x, y, color=look.color, marker=look.marker, linestyle="-", label=way.candidate)
        for index, one in enumerate(series):
            _reference(axes, one, max(sizes), index)
        _crosses(axes, recorded(study))
        logarithmic(axes, "xy")
        axes.set_xlabel("atoms")
        axes.set_ylabel("time of one call (s)")
        legend(axes)
    alt = f"Seconds of one energy-and-forces call against atoms for {listing([w.candidate for w in grown])}"
    alt += f" and {listing(unique([one.name for one in series]))}." if series else "."
    alt += " Crosses: times recorded elsewhere." if recorded(study) else ""
    return Panel(f"scaling-{dataset}", figure, alt, "Time against atoms")


def _reference(axes: Axes, one: Timed, largest: float, index: int) -> None:
    x, y = np.array(one.points).T
    short = f"{one.code}, {one.machine.split(' of ')[0]}"
    axes.plot(x, y, color=INK, marker="P" if index == 0 else "X", linestyle="", label=f"{short}: {one.series}")
    if one.law is None:
        return
    inside = np.geomspace(one.law.smallest, one.law.largest, 20)
    axes.plot(inside, [one.law.at(n) for n in inside], color=INK, linewidth=1.2)
    if largest > one.law.largest:
        beyond = np.geomspace(one.law.largest, min(largest, FAR * one.law.largest), 20)
        label = "extrapolated" if index == 0 else "_nolegend_"
        axes.plot(
            beyond, [one.law.at(n) for n in beyond], color=INK, linewidth=1.2, linestyle=EXTRAPOLATED, label=label
        )


def recorded(study: Study) -> list[dict[str, Any]]:
    """Times that others recorded, taken into this study by ``mlpbench dft time STUDY --recorded``."""
    try:
        rows: list[dict[str, Any]] = read_json(study.root / FOLDER / RECORDED)["rows"]
    except (FileNotFoundError, ProtocolError):
        return []  # none were
    return rows


def _crosses(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Recorded times, on hardware of their own."""
    if not rows:
        return
    axes.plot(
        [row["n_atoms"] for row in rows], [row["seconds_per_step"] for row in rows], color=FAINT, marker="x",
        linestyle="", label="recorded elsewhere, other hardware",
    )  # fmt: skip
    for row in rows:
        cores = f"{row['cores']} cores" if row["cores"] else "cores unknown"
        word = f"{row['code']} {row['system']}, {cores}"
        word_beside(axes, word, row["n_atoms"], row["seconds_per_step"], size=6.5, color=FAINT)


def pareto_panel(study: Study, dataset: str, ran: list[Way], references: list[Timed]) -> Panel | None:
    """Error against ms of an MD step, every way a point; None without an error to show."""
    name, split = study.headline(dataset), study.in_distribution(dataset)
    errors = cells(study, dataset, name, split) if split is not None else {}
    entry, style = metric(name), looks(study)
    with canvas(6.2, 3.7) as (figure, axes):
        drawn: list[str] = []
        for way in ran:
            n_train = int(study.record[way.trials[0]]["identifiers"]["n_train"])
            mean = errors.get((way.candidate, n_train))
            if mean is None:
                continue
            text = "" if way.deployment == "eager" else way.means
            label = way.candidate if way.candidate not in drawn else ""
            drawn.append(way.candidate)
            point(
                axes, way.values["ms_per_md_step"].value, mean, style[way.candidate], text,
                filled=way.deployment == "eager", label=label,
            )  # fmt: skip
        if not drawn:
            return None
        for index, one in enumerate(references):
            short = f"{one.code}, {one.machine.split(' of ')[0]}"
            axes.axvline(one.seconds.value * 1e3, color=INK, linewidth=1.4, alpha=0.8 if index == 0 else 0.4)
            axes.annotate(
                f"{short}: error 0 by definition", (one.seconds.value * 1e3, 0.03), rotation=90, ha="right",
                xycoords=("data", "axes fraction"), fontsize=7, xytext=(-3, 0), textcoords="offset points",
            )  # fmt: skip
        logarithmic(axes, "xy")
        axes.set_xlabel("MD step (ms)")
        axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
        legend(axes)
    alt = f"{entry.symbol} against ms per MD step for {listing(unique(drawn))}; filled: eager, open: compiled."
    return Panel(f"speed-pareto-{dataset}", figure, alt, "Error beside speed")


def growth(study: Study, dataset: str, ran: list[Way], references: list[Timed]) -> list[Block]:
    """How the reference's cost grows, and, folded away, how each potential's does and where the two would meet."""
    items, rows = [], []
    for one in references:
        if one.law is None:
            continue
        law = one.law
        known = math.isfinite(law.lower)
        ends = f" (95 % {law.lower:.2f} to {law.upper:.2f})" if known else " (two points: no interval)"
        items.append(
            f"{one.name} on {one.machine}: time grows as N^{law.exponent:.2f}{ends} over {one.series} of "
            f"{law.smallest:.0f} to {law.largest:.0f} atoms."
        )
        rows += [row for way in ran if (row := _meeting(study, way, one))]
    if not items:
        return []
    columns = [
        Column("Potential", numeric=False), Column("Beside", numeric=False),
        Column("Exponent", "", "time of a call = a·N^exponent, N atoms"), Column("Sizes", "atoms"),
        Column("Cheaper where measured", numeric=False),
        Column("The fits meet at", "atoms", "extrapolated; a dash: at no number of atoms near those measured"),
        Column("Times as fast", "", "at the largest size of the potential, or ten times the reference's largest"),
        Column("at", "atoms"), Column("Remarks", numeric=False),
    ]  # fmt: skip
    caption = f"Growth of the time of a call with the atoms, {dataset}, from power laws fitted to the measured sizes."
    table = Table(f"growth-{dataset}", caption, columns, rows)
    return [Bullets(items), *([Details("Where potentials and reference would meet", [table])] if rows else [])]


def _meeting(study: Study, way: Way, one: Timed) -> list[Cell]:
    """One row of the table of :func:`growth`; empty where the two cannot be compared."""
    points, _ = scaling(study, way)
    if len(points) < 2 or one.law is None or beside(way, [one]) is None:
        return []
    law = fit_power_law([p[0] for p in points], [p[1] for p in points])
    assert law is not None
    last = points[-1][0]
    largest = min(last, FAR * one.law.largest)
    cheaper = all(law.at(n) < one.law.at(n) for n in (one.law.smallest, one.law.largest))
    meeting = law.reaches(one.law)
    near = meeting is not None and meeting <= FAR * max(last, one.law.largest)
    ahead = one.law.at(largest) / law.at(largest)
    far = "reference extrapolated" if largest > one.law.largest else ""
    return [
        Cell(way.candidate), Cell(one.name), Cell(f"{law.exponent:.2f}", law.exponent),
        Cell(f"{points[0][0]:.0f} to {last:.0f}", last),
        Cell("the potential, everywhere" if cheaper else "the reference, at some sizes"),
        Cell(f"about {number(float(f'{meeting:.1g}'))}", meeting) if near and meeting is not None else Cell("–"),
        Cell(number(ahead), ahead), Cell(f"{largest:.0f}", largest),
        Cell("; ".join(filter(None, [far, unlike(way, one).strip(" ()")])) or "–"),
    ]  # fmt: skip
