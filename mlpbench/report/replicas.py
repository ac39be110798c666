"""What became of the replicas of a study's simulations, as the trials' folders still tell it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpbench.evaluators.md import SCORES
from mlpbench.evaluators.md.runs import CAUSES, FOLDER
from mlpbench.evaluators.md.structure import CURVES, Curves, load_curves
from mlpbench.protocol import ProtocolError, read_json
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
        found = (re.match(r"([A-Z][a-z]?)\d+–([A-Z][a-z]?)\d+ ", detail) for detail in broken)
        return Counter("–".join(sorted(match.groups(), key=lambda e: (e == "H", e))) for match in found if match)


@remembered
def collect(study: Study, dataset: str) -> list[Replicas]:
    """Every condition of every chosen candidate, by condition, training-set size and candidate."""
    found: dict[tuple[str, int, str], Replicas] = {}
    for candidate in study.lines(dataset):
        part = select(study.values, dataset=dataset, candidate=candidate)
        for trial, n_train in sorted(set(zip(part["trial"], part["n_train"], strict=True))):
            for condition, run in _runs(study, str(trial)).items():
                key = (condition, int(n_train), candidate)
                one = found.setdefault(
                    key, Replicas(candidate, int(n_train), condition, [], [], [], float(run["length_ps"]))
                )
                for replica in run["replicas"]:
                    one.times.append(float(replica["time_ps"]))
                    one.causes.append(str(replica["cause"]))
                    one.details.append(str(replica["detail"]))
    order = {name: index for index, name in enumerate(study.lines(dataset))}
    return sorted(found.values(), key=lambda r: (_kelvin(r.condition), r.condition, r.n_train, order[r.candidate]))


def scores_of(study: Study, trial: str) -> dict[str, Any]:
    """What the evaluator left beside the trial's arrays; empty where results were moved without them."""
    try:
        return read_json(study.root / trial / FOLDER / SCORES)
    except (FileNotFoundError, ProtocolError):
        return {}


def trials_with_md(study: Study, dataset: str) -> list[tuple[str, int, str]]:
    """(candidate, n_train, trial) of the chosen candidates' trials whose MD scores still lie there."""
    part = select(study.values, dataset=dataset).sort_values(["n_train", "repetition"])
    found = []
    for candidate in study.lines(dataset):
        here = select(part, candidate=candidate)
        for trial, n_train in dict.fromkeys(zip(here["trial"], here["n_train"], strict=True)):
            if scores_of(study, str(trial)):
                found.append((candidate, int(n_train), str(trial)))
    return found


def curves_of(study: Study, trial: str) -> Curves:
    """The distributions behind a trial's MD scores."""
    return load_curves(Path(study.root) / trial / FOLDER / CURVES)


def _runs(study: Study, trial: str) -> dict[str, dict[str, Any]]:
    """Condition -> run."""
    kept = scores_of(study, trial)
    found = {}
    for name, run in (kept.get("runs") or {}).items():
        kelvin = run.get("temperature_K", kept["temperature_K"])
        found[f"{kelvin:g} K" + (", NPT" if name == "npt" else "")] = run
    return found


def _kelvin(condition: str) -> float:
    return float(condition.split(" ")[0])
