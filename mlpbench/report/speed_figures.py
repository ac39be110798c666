"""Figures of the section on speed: time against atoms, and error beside time."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mlpbench.metrics import metric
from mlpbench.numbers import listing
from mlpbench.protocol import ProtocolError, read_json
from mlpbench.references.walltimes import FOLDER
from mlpbench.report.drawing import FAINT, INK, canvas, legend, logarithmic, looks, point
from mlpbench.report.estimates import cells
from mlpbench.report.section import Panel
from mlpbench.report.timed import FAR, Timed
from mlpbench.report.ways import Way, scaling
from mlpbench.study.study import Study, unique

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
        axes.annotate(
            f"{row['code']} {row['system']}, {cores}", (row["n_atoms"], row["seconds_per_step"]), xytext=(5, -3),
            textcoords="offset points", fontsize=6.5, color=FAINT,
        )  # fmt: skip


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
