"""The reference method beside the potentials: what it took, on which hardware, and the speed-up over it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mlpbench.evaluators.speed import REFERENCE, median_interval
from mlpbench.protocol import ProtocolError, read_json
from mlpbench.references.walltimes import FOLDER, load_kept
from mlpbench.report import facts
from mlpbench.report.estimates import Estimate
from mlpbench.report.ways import Way, ways
from mlpbench.statistics.extrapolation import PowerLaw, fit_power_law
from mlpbench.study.study import Study, remembered

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
    found = [_from_command(kept) for kept in load_kept(study.root / FOLDER) if _of(study, dataset, kept)]
    if not found:
        names = [str(t) for way in ways(study, dataset) for t in way.trials]
        found = _from_trials(study, dataset, list(dict.fromkeys(names)))
    return sorted(found, key=lambda one: (one.on_gpu, one.threads, one.name))


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
