"""Speeds as the report shows them: every way in which each candidate was run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mlpbench.evaluators.speed import differ
from mlpbench.numbers import listing
from mlpbench.report import facts
from mlpbench.report.estimates import Estimate
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
    found = []
    for key, part in table.groupby(WAY, sort=False):
        named: dict[str, Any] = dict(zip(WAY, key, strict=True))
        done = part[part["status"] == "done"]
        reasons = unique(part["reason"].tolist())
        values = {str(m): _estimate(p) for m, p in done.groupby("metric")}
        found.append(
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
    return sorted(found, key=lambda way: way.values["us_per_atom"].value if way.values else math.inf)


def _rows(study: Study, dataset: str) -> pd.DataFrame:
    names = study.table[["trial", "candidate"]]
    speed = select(study.speed.merge(names, on="trial"), dataset=dataset)
    speed = speed[speed["candidate"].isin(study.lines(dataset))]
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
    found = next((p for p in values.get("paths", []) if all(p[k] == v for k, v in wanted.items())), values)
    return found["latency"], found["latency_again"]


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
