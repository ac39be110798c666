"""Every way in which each candidate was run, and the reference method beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlpbench.evaluators.speed import REFERENCE, differ, median_interval
from mlpbench.numbers import listing
from mlpbench.protocol import ProtocolError, read_json
from mlpbench.references.walltimes import FOLDER, load_kept
from mlpbench.report import facts
from mlpbench.report.estimates import Estimate
from mlpbench.statistics.extrapolation import PowerLaw, fit_power_law
from mlpbench.statistics.intervals import intervals
from mlpbench.study.study import Study, remembered, rows_of, select, unique

WAY = ["candidate", "machine", "deployment", "means", "dtype", "tf32"]


@dataclass(frozen=True)
class Way:
    """One candidate, run in one way on one machine.

    Attributes:
        candidate: its label.
        machine: hardware in words.
        on_gpu: whether it ran on a GPU.
        threads: CPU threads.
        deployment: ``eager``, ``compiled`` or ``accelerated``.
        means: the package's means to it.
        dtype: of weights and forward pass.
        tf32: whether products were rounded to TF32.
        reason: why it could not run; empty if it did.
        notice: what disturbed the timing.
        values: metric -> median with its interval; over repetitions where there are several, else over blocks.
        trials: their names.
    """

    candidate: str
    machine: str
    on_gpu: bool
    threads: int
    deployment: str
    means: str
    dtype: str
    tf32: bool
    reason: str
    notice: str
    values: dict[str, Estimate]
    trials: tuple[str, ...]

    @property
    def run_as(self) -> str:
        """Deployment and means in words."""
        return f"{self.deployment}, {self.means}" if self.means else self.deployment

    @property
    def precision(self) -> str:
        """Dtype, and TF32 where it is on."""
        return f"{self.dtype}, TF32" if self.tf32 else self.dtype

    @property
    def label(self) -> str:
        """Candidate and way."""
        return f"{self.candidate}, {self.run_as}, {self.precision}"


@remembered
def ways(study: Study, dataset: str) -> list[Way]:
    """Every way of the chosen candidates at their largest training set, fastest first; what could not run last."""
    table = _rows(study, dataset)
    if table.empty:
        return []
    every_way = []
    for key, part in table.groupby(WAY, sort=False):
        named: dict[str, Any] = dict(zip(WAY, key, strict=True))
        done = part[part["status"] == "done"]
        reasons = unique(part["reason"].tolist())
        values = {str(m): _estimate(p) for m, p in done.groupby("metric")}
        every_way.append(
            Way(
                **named,
                on_gpu=str(part["device"].iloc[0]).startswith("cuda"),
                threads=int(part["threads"].iloc[0]),
                reason="" if len(done) else listing([str(reason) for reason in reasons]),
                notice="; ".join(str(n) for n in unique(done["notice"].tolist())[:1]),
                values=values,
                trials=tuple(str(t) for t in part["trial"].unique()),
            )
        )
    return sorted(every_way, key=lambda way: way.values["us_per_atom"].value if way.values else math.inf)


def _rows(study: Study, dataset: str) -> pd.DataFrame:
    names = study.table[["trial", "candidate"]]
    speed = select(study.speed.merge(names, on="trial"), dataset=dataset)
    speed = speed[speed["candidate"].isin(study.lines(dataset)) & (speed["engine"] == "")]
    speed = speed[speed["n_train"] == speed.groupby("candidate")["n_train"].transform("max")]
    return speed.assign(machine=[facts.hardware(row) for row in rows_of(speed)])


def _estimate(part: pd.DataFrame) -> Estimate:
    if len(part) == 1:
        row = part.iloc[0]
        known = row["lower"] is not None and row["lower"] == row["lower"]
        low, high = (float(row["lower"]), float(row["upper"])) if known else (math.nan, math.nan)
        return Estimate(float(row["value"]), low, high, 1, "frames" if known else "none")
    values = part["value"].to_numpy(dtype=float)
    mean = intervals([values], scale="log" if (values > 0).all() else "linear")[0]
    return Estimate(mean.value, mean.lower, mean.upper, mean.n, "repetitions")


def told_apart(study: Study, first: Way, second: Way) -> bool:
    """Whether their times of a call differ by more than the noise floors of their runs."""
    return differ(_twins(study, first), _twins(study, second))


def _twins(study: Study, way: Way) -> tuple[list[float], list[float]]:
    """Block times of a call and of its A/A twin, s, in the first of its trials."""
    record = study.record[way.trials[0]]
    values = record["tasks"]["speed"]["values"]
    wanted = {"deployment": way.deployment, "means": way.means, "dtype": way.dtype, "tf32": way.tf32}
    path = next((p for p in values.get("paths", []) if all(p[k] == v for k, v in wanted.items())), values)
    return path["latency"], path["latency_again"]


def scaling(study: Study, way: Way) -> tuple[list[tuple[float, float]], str]:
    """(atoms, seconds of a call) of a candidate's growing systems, and what ended the series."""
    if way.deployment != "eager":
        return [], ""
    values = study.record[way.trials[0]]["tasks"]["speed"]["values"]
    if way.dtype != study.record[way.trials[0]]["config"]["dtype"]:
        return [], ""
    done = [s for s in values["scaling"] if "stopped" not in s]
    ended = next((f"{s['stopped']} ({s['n_atoms']} atoms)" for s in values["scaling"] if "stopped" in s), "")
    return [(float(s["n_atoms"]), float(np.median(s["seconds"]))) for s in done], ended


FAR = 10  # a law is not carried farther than so many times the largest size it was fitted to


@dataclass(frozen=True)
class Timed:
    """A reference method that was timed, or whose time is recorded elsewhere.

    Attributes:
        code: its name and version.
        level: of theory, in words.
        machine: hardware in words.
        on_gpu: whether it ran on a GPU.
        threads: CPU threads.
        n_atoms: of the frames.
        seconds: of one frame.
        cold: of the first frame in a new process, s; NaN if not known.
        start: of the code until then, s; NaN likewise.
        points: (atoms, seconds) of a series.
        series: its name.
        law: fitted to the points.
        notice: what disturbed the timing.
    """

    code: str
    level: str
    machine: str
    on_gpu: bool
    threads: int
    n_atoms: float
    seconds: Estimate
    cold: float
    start: float
    points: tuple[tuple[float, float], ...]
    series: str
    law: PowerLaw | None
    notice: str

    @property
    def name(self) -> str:
        """Code and level of theory."""
        return f"{self.code}, {self.level}"


@remembered
def timed(study: Study, dataset: str) -> list[Timed]:
    """What the reference method took: from ``mlpbench dft time``, else from beside the trials; one thread first."""
    timings = [_from_command(kept) for kept in load_kept(study.root / FOLDER) if _of(study, dataset, kept)]
    if not timings:
        names = [str(t) for way in ways(study, dataset) for t in way.trials]
        timings = _from_trials(study, dataset, list(dict.fromkeys(names)))
    return sorted(timings, key=lambda one: (one.on_gpu, one.threads, one.name))


def _of(study: Study, dataset: str, kept: dict[str, Any]) -> bool:
    """Whether a measurement is on frames of this data set: a study may have several."""
    if len(study.datasets) == 1:
        return True
    atoms = {_n_atoms(study, trial) for way in ways(study, dataset) for trial in way.trials}
    return kept["n_atoms"] in atoms


def _from_command(kept: dict[str, Any]) -> Timed:
    series = kept["series"] or {"name": "", "points": []}
    points = tuple((float(p["n_atoms"]), float(p["seconds"])) for p in series["points"])
    on_gpu = kept["method"].get("device") == "gpu"
    return Timed(
        code=kept["version"],
        level=kept["level"],
        machine=_machine(on_gpu, kept["threads"], kept["hardware"]),
        on_gpu=on_gpu,
        threads=kept["threads"],
        n_atoms=kept["n_atoms"],
        seconds=_blocks(kept["seconds"]),
        cold=kept["cold_seconds"],
        start=kept["start_seconds"],
        points=points,
        series=series["name"],
        law=fit_power_law([p[0] for p in points], [p[1] for p in points]) if points else None,
        notice=kept["conditions"]["notice"],
    )


def _from_trials(study: Study, dataset: str, trials: list[str]) -> list[Timed]:
    """The first measurement that lies beside one of the trials."""
    for trial in trials:
        try:
            kept = read_json(study.root / trial / REFERENCE)
        except (FileNotFoundError, ProtocolError):
            continue  # not timed beside this one, or results that were moved without their files
        if kept.get("status") == "done":
            return [
                Timed(
                    code=kept.get("version") or kept["method"]["code"], level=facts.level_of_theory(study, dataset),
                    machine=_machine(False, kept["threads"], kept), on_gpu=False, threads=kept["threads"],
                    n_atoms=_n_atoms(study, trial), seconds=_blocks(kept["seconds"]), cold=kept["cold_seconds"],
                    start=math.nan, points=(), series="", law=None,
                    notice="others were computing meanwhile" if kept.get("busy") else "",
                )
            ]  # fmt: skip
    return []


def _machine(on_gpu: bool, threads: int, hardware: dict[str, Any]) -> str:
    """In the words that potentials' hardware has, so that the same machine is known as the same."""
    gpus = hardware.get("gpus") or [{}]
    device = {"device": "cuda" if on_gpu else "cpu", "device_name": gpus[0].get("name")}
    return facts.hardware({**device, "cpu": hardware.get("cpu"), "threads": threads})


def _blocks(seconds: list[float]) -> Estimate:
    middle, low, high = median_interval(seconds)
    return Estimate(middle, low, high, len(seconds), "frames")


def _n_atoms(study: Study, trial: str) -> float:
    values: dict[str, Any] = study.record[trial]["tasks"]["speed"]["values"]
    return float(values["n_atoms"])


def beside(way: Way, references: list[Timed]) -> Timed | None:
    """The reference that a way is compared with: on the same hardware where there is one, else the first."""
    return next((one for one in references if one.machine == way.machine), references[0] if references else None)


def speedup(way: Way, reference: Timed) -> Estimate:
    """Seconds of a frame with the reference over seconds of a call; from the far ends of both intervals."""
    call = way.values["ms_per_call"]
    value = reference.seconds.value / call.value * 1e3
    low, high = reference.seconds.low / call.high * 1e3, reference.seconds.high / call.low * 1e3
    return Estimate(value, low, high, reference.seconds.n, "frames")


def unlike(way: Way, reference: Timed) -> str:
    """In words that the two ran on unlike hardware; empty if they did not."""
    if way.machine == reference.machine:
        return ""
    return f" (unlike hardware: {way.machine} against {reference.machine})"
