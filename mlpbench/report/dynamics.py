"""What became of the replicas of a study's simulations, and figures of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mlpbench.evaluators.md import SCORES
from mlpbench.evaluators.md.motion import NAME as SPECTRUM
from mlpbench.evaluators.md.runs import CAUSES, FOLDER
from mlpbench.evaluators.md.structure import CURVES, Curves, Distribution, load_curves
from mlpbench.frames import Float
from mlpbench.numbers import plural
from mlpbench.protocol import ProtocolError, read_json
from mlpbench.report.drawing import FAINT, GRID, INK, PAIRS, Look, canvas, legend, looks
from mlpbench.report.section import Figure, Panel
from mlpbench.statistics.survival import kaplan_meier
from mlpbench.study.study import Study, remembered, select

# As a reader says it; the order is that of figures and tables, the sound ones first.
WORDS = {
    "survived": "survived", "wall_limit": "stopped by the clock", "bond": "bond broken", "fragment": "atom left",
    "overlap": "atoms too close", "structure": "structure lost", "too_hot": "overheated", "too_cold": "froze",
    "exploded": "exploded", "non_finite": "not finite",
}  # fmt: skip


@dataclass(frozen=True)
class Replicas:
    """All replicas of one candidate at one training-set size under one condition, over its repetitions.

    Attributes:
        candidate: as in every table.
        n_train: training frames.
        condition: ``500 K`` or ``500 K, NPT``.
        times: ps until death or until the observation ended.
        causes: of every replica, keys of :data:`WORDS`.
        details: of the dead, e.g. which bond broke.
        planned: ps.
    """

    candidate: str
    n_train: int
    condition: str
    times: list[float]
    causes: list[str]
    details: list[str]
    planned: float

    @property
    def died(self) -> list[bool]:
        """Whether each died; a replica that the clock stopped did not."""
        return [cause in CAUSES for cause in self.causes]

    @property
    def bonds(self) -> Counter[str]:
        """Kinds of bonds that broke first, e.g. ``O–H``, and how often; hydrogen stands last."""
        broken = [d for d, cause in zip(self.details, self.causes, strict=True) if cause == "bond"]
        pairs = (re.match(r"([A-Z][a-z]?)\d+–([A-Z][a-z]?)\d+ ", detail) for detail in broken)
        return Counter("–".join(sorted(match.groups(), key=lambda e: (e == "H", e))) for match in pairs if match)


@remembered
def collect(study: Study, dataset: str) -> list[Replicas]:
    """Every condition of every chosen candidate, by condition, training-set size and candidate."""
    groups: dict[tuple[str, int, str], Replicas] = {}
    for candidate in study.lines(dataset):
        part = select(study.values, dataset=dataset, candidate=candidate)
        for trial, n_train in sorted(set(zip(part["trial"], part["n_train"], strict=True))):
            for condition, run in _runs(study, str(trial)).items():
                key = (condition, int(n_train), candidate)
                one = groups.setdefault(
                    key, Replicas(candidate, int(n_train), condition, [], [], [], float(run["length_ps"]))
                )
                for replica in run["replicas"]:
                    one.times.append(float(replica["time_ps"]))
                    one.causes.append(str(replica["cause"]))
                    one.details.append(str(replica["detail"]))
    order = {name: index for index, name in enumerate(study.lines(dataset))}
    return sorted(groups.values(), key=lambda r: (_kelvin(r.condition), r.condition, r.n_train, order[r.candidate]))


def scores_of(study: Study, trial: str) -> dict[str, Any]:
    """What the evaluator left beside the trial's arrays; empty where results were moved without them."""
    try:
        return read_json(study.root / trial / FOLDER / SCORES)
    except (FileNotFoundError, ProtocolError):
        return {}


def trials_with_md(study: Study, dataset: str) -> list[tuple[str, int, str]]:
    """(candidate, n_train, trial) of the chosen candidates' trials whose MD scores still lie there."""
    part = select(study.values, dataset=dataset).sort_values(["n_train", "repetition"])
    trials = []
    for candidate in study.lines(dataset):
        here = select(part, candidate=candidate)
        for trial, n_train in dict.fromkeys(zip(here["trial"], here["n_train"], strict=True)):
            if scores_of(study, str(trial)):
                trials.append((candidate, int(n_train), str(trial)))
    return trials


def curves_of(study: Study, trial: str) -> Curves:
    """The distributions behind a trial's MD scores."""
    return load_curves(Path(study.root) / trial / FOLDER / CURVES)


def _runs(study: Study, trial: str) -> dict[str, dict[str, Any]]:
    """Condition -> run."""
    kept = scores_of(study, trial)
    runs = {}
    for name, run in (kept.get("runs") or {}).items():
        kelvin = run.get("temperature_K", kept["temperature_K"])
        runs[f"{kelvin:g} K" + (", NPT" if name == "npt" else "")] = run
    return runs


def _kelvin(condition: str) -> float:
    return float(condition.split(" ")[0])


# What a replica died of has colours of its own, none of an architecture's.
SHADES = {
    "survived": GRID, "wall_limit": FAINT, "bond": PAIRS[6][0], "fragment": PAIRS[5][0], "overlap": PAIRS[4][0],
    "structure": PAIRS[3][0], "too_hot": PAIRS[0][0], "too_cold": PAIRS[1][0], "exploded": PAIRS[2][0],
    "non_finite": INK,
}  # fmt: skip


def survival_figure(study: Study, dataset: str, groups: Sequence[Replicas]) -> Figure:
    """A panel for each temperature and training-set size, a curve for each candidate."""
    style = looks(study)
    places = list(dict.fromkeys((r.condition, r.n_train) for r in groups))
    panels = []
    for condition, n_train in places:
        here = [r for r in groups if (r.condition, r.n_train) == (condition, n_train)]
        with canvas(3.1, 2.5) if len(places) > 1 else canvas(5.6, 3.0) as (figure, axes):
            for replicas in here:
                _survival(axes, replicas, style[replicas.candidate])
            axes.set_ylim(-0.03, 1.06)
            axes.set_xlim(left=0.0)
            axes.set_xlabel("time (ps)")
            axes.set_ylabel("share of sound replicas")
            legend(axes, 2 if len(places) > 1 else None)
        said = "; ".join(f"{r.candidate} {sum(r.died)} of {len(r.died)} dead" for r in here)
        name = f"survival-{dataset}-{condition}-{n_train}".replace(" ", "").replace(",", "-")
        panels.append(Panel(name, figure, f"Survival: {said}.", f"{condition}, {n_train} training frames"))
    counts = sorted({len(r.times) for r in groups})
    lengths = sorted({r.planned for r in groups})
    caption = (
        f"Survival of {dataset}: Kaplan–Meier over {'–'.join(map(str, counts))} replicas a curve, repetitions "
        f"together, planned for {'–'.join(f'{x:g}' for x in lengths)} ps. A cross marks replicas that the clock "
        "stopped (censored, not dead). Curves that lie on each other hide each other: the next figure has the counts."
    )
    return Figure(caption, panels, small=len(panels) > 1)


def _survival(axes: Axes, replicas: Replicas, look: Look) -> None:
    curve = kaplan_meier(replicas.times, replicas.died)
    x = np.concatenate([[0.0], curve.times, [max([curve.horizon, *curve.times])]])
    y = np.concatenate([[1.0], curve.survival, [curve.at(np.inf)]])
    axes.step(x, y, where="post", color=look.color, linestyle=look.dash, label=replicas.candidate)
    stopped = [t for t, cause in zip(replicas.times, replicas.causes, strict=True) if cause == "wall_limit"]
    if stopped:
        axes.plot(stopped, [curve.at(t) for t in stopped], "x", color=look.color, markersize=4)


def causes_figure(dataset: str, groups: Sequence[Replicas]) -> Figure:
    """Stacked bars, one for each candidate, size and temperature: how many replicas came to which end."""
    conditions = list(dict.fromkeys(r.condition for r in groups))
    panels = []
    for condition in conditions:
        here = [r for r in groups if r.condition == condition][::-1]
        with canvas(4.6, 0.9 + 0.24 * len(here)) as (figure, axes):
            for cause in (c for c in WORDS if any(c in r.causes for r in here)):
                _bars(axes, here, cause)
            axes.set_yticks(range(len(here)), [f"{r.candidate}, {r.n_train}" for r in here])
            axes.set_xlabel("replicas")
            axes.grid(visible=False, axis="y")
            axes.set_xlim(0, max(len(r.causes) for r in here))
            legend(axes, 3)
        counted = "; ".join(f"{r.candidate} at {r.n_train}: " + _counts(r) for r in here[::-1])
        panels.append(Panel(f"causes-{dataset}-{condition}".replace(" ", ""), figure, f"{counted}.", condition))
    caption = (
        f"What became of the replicas of {dataset}, by candidate and training frames. The first test that fails names "
        "the cause; thresholds: evaluation.md.limits in the configuration."
    )
    return Figure(caption, panels)


def _bars(axes: Axes, here: Sequence[Replicas], cause: str) -> None:
    order = list(WORDS)
    counts = [r.causes.count(cause) for r in here]
    left = [sum(r.causes.count(c) for c in order[: order.index(cause)]) for r in here]
    axes.barh(range(len(here)), counts, left=left, height=0.72, color=SHADES[cause], label=WORDS[cause])
    ink = INK if cause == "survived" else "white"
    for y, (count, start) in enumerate(zip(counts, left, strict=True)):
        if count:
            axes.text(start + count / 2, y, str(count), ha="center", va="center", fontsize=7, color=ink)


def _counts(replicas: Replicas) -> str:
    return ", ".join(f"{replicas.causes.count(c)} {w}" for c, w in WORDS.items() if c in replicas.causes)


def distribution_figure(study: Study, dataset: str, n_train: int, curves: dict[str, Curves]) -> Figure | None:
    """A panel for each g(r), h(r) and angle distribution that has a reference, a curve for each candidate."""
    names = sorted({n for c in curves.values() for n, (_, ref) in c.items() if ref is not None and n != SPECTRUM})
    panels = []
    style = looks(study)
    for name in names:
        with canvas(4.2, 2.9) as (figure, axes):
            drawn = False
            for candidate, stored in curves.items():
                ours, theirs = stored.get(name, (None, None))
                if ours is None or theirs is None:
                    continue
                if not drawn:
                    axes.plot(theirs.centres, theirs.density, color="0.45", linewidth=2.6, label="reference MD")
                    drawn = True
                look = style[candidate]
                axes.plot(ours.centres, ours.density, color=look.color, linestyle=look.dash, linewidth=1.1,
                          label=candidate)  # fmt: skip
            shown = np.flatnonzero(np.sum([c[name][0].density for c in curves.values() if name in c], axis=0) > 0)
            edges = next(c[name][0].edges for c in curves.values() if name in c)
            axes.set_xlim(max(0.0, edges[shown[0]] - 0.3), edges[shown[-1] + 1])
            axes.set_xlabel("angle (°)" if "angle" in name else "r (Å)")
            axes.set_ylabel("density (1/°)" if "angle" in name else "g(r)" if name.startswith("g(r)") else "h(r) (1/Å)")
            legend(axes)
        panels.append(Panel(f"{name}-{dataset}".replace(" ", "-"), figure, f"{name} against reference MD.", name))
    if not panels:
        return None
    caption = (
        f"Distributions in MD of {dataset}, {n_train} training frames, first repetition, against reference MD. "
        "Frames before collapse, the first fifth of each replica left out."
    )
    return Figure(caption, panels, small=len(panels) > 2)


def spectrum_figure(
    study: Study, dataset: str, n_train: int, curves: dict[str, Curves], harmonic: Float | None
) -> Figure | None:
    """The vibrational spectrum of each candidate, one above the other, with the reference's harmonic frequencies."""
    spectra = {c: part[SPECTRUM] for c, part in curves.items() if SPECTRUM in part}
    if not spectra:
        return None
    reference = next((theirs for _, theirs in spectra.values() if theirs is not None), None)
    lines = [(c, ours, looks(study)[c].color) for c, (ours, _) in spectra.items()]
    if reference is not None:
        lines.insert(0, ("reference MD", reference, FAINT))
    end = max(_end_of_power(curve) for _, curve, _ in lines)
    if harmonic is not None:
        end = max(end, float(harmonic.max()) + 100)
    with canvas(6.4, 0.9 + 0.62 * len(lines)) as (figure, axes):
        if harmonic is not None:
            for wavenumber in harmonic:
                axes.axvline(wavenumber, color=GRID, linewidth=1.4, zorder=0)
        for level, (label, curve, color) in enumerate(lines[::-1]):
            height = curve.density / curve.density.max()
            axes.fill_between(curve.centres, level, level + 0.92 * height, color=color, alpha=0.25, linewidth=0)
            axes.plot(curve.centres, level + 0.92 * height, color=color, linewidth=1.0)
            axes.text(0.995 * end, level + 0.4, label, fontsize=8, color=color, ha="right")
        axes.set_xlim(0, end)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.set_xlabel("wavenumber (cm⁻¹)")
    marks = "Grey lines: harmonic frequencies of the reference. " if harmonic is not None else ""
    caption = (
        f"Vibrational spectra of {dataset} from the velocities at constant energy, {n_train} training frames, first "
        f"repetition. {marks}Each curve is scaled to its highest peak; anharmonic bands lie below harmonic frequencies."
    )
    return Figure(caption, [Panel(f"spectrum-{dataset}", figure, f"Spectra of {plural(len(lines), 'candidate')}.")])


def _end_of_power(curve: Distribution) -> float:
    """cm⁻¹ that holds 99.5 % of the power, and a little more."""
    power = np.cumsum(curve.density * np.diff(curve.edges))
    return float(curve.edges[int(np.searchsorted(power, 0.995 * power[-1])) + 1]) * 1.08
