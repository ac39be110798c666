"""What can be taken, what each costs, and which lie on a Pareto front."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlpbench.report import facts
from mlpbench.report.estimates import Estimate, cells
from mlpbench.statistics.pareto import front_probability
from mlpbench.study.study import Study, remembered, select

SPEED = ("ms_per_md_step", "us_per_atom")  # the first that the study has


@dataclass(frozen=True)
class Option:
    """One thing that can be taken: a candidate at one number of training frames.

    Attributes:
        candidate: its label.
        n_train: training frames.
        mean: error, in the main metric's unit.
        errors: (R,) error of each repetition.
        costs: ``train`` s, ``labels`` frames, ``speed`` in the unit of its metric: (R,) each, empty if unknown.
        rested: all its trainings came to rest.
    """

    candidate: str
    n_train: int
    mean: Estimate
    errors: tuple[float, ...]
    costs: dict[str, tuple[float, ...]]
    rested: bool

    @property
    def label(self) -> str:
        """Candidate and training frames."""
        return f"{self.candidate}, {self.n_train} frames"

    def cost(self, kind: str) -> float:
        """Geometric mean of a cost; NaN where it is not known."""
        return math.exp(float(np.log(self.costs[kind]).mean())) if self.costs[kind] else math.nan


@remembered
def options(study: Study, dataset: str) -> list[Option]:
    """Every chosen candidate at every n_train that has an error on the split in distribution."""
    split, speed = study.in_distribution(dataset), speed_metric(study)
    if split is None:
        return []
    done = select(study.table, dataset=dataset, status="done")
    one_machine = len(facts.machines(done)) == 1
    errors = dict(study.part(dataset, study.headline(dataset), split).set_index("trial")["value"])
    found = []
    for (candidate, n_train), mean in cells(study, dataset, study.headline(dataset), split).items():
        if candidate not in study.lines(dataset):
            continue
        part = select(done, candidate=candidate, n_train=n_train)
        times = part["train_seconds"].astype(float).dropna() if one_machine else pd.Series(dtype=float)
        costs = {
            "train": tuple(float(t) for t in times if t > 0),
            "labels": (float(n_train + part["n_valid"].iloc[0]),) * len(part),
            "speed": _speed(study, part["trial"].tolist(), speed) if one_machine else (),
        }
        known = tuple(float(errors[t]) for t in part["trial"] if errors.get(t, 0) > 0)
        found.append(Option(candidate, n_train, mean, known, costs, len(facts.unrested(part)) == 0))
    return found


def speed_metric(study: Study) -> str | None:
    """The metric by which the study knows how fast a potential is; None where it was not timed."""
    present = set(study.metric_names)
    return next((name for name in SPEED if name in present), None)


def _speed(study: Study, trials: list[str], name: str | None) -> tuple[float, ...]:
    """One value for each trial; of several system sizes the mean over them."""
    if name is None:
        return ()
    rows = study.metrics[study.metrics["trial"].isin(trials) & (study.metrics["metric"] == name)]
    return tuple(float(v) for v in rows.groupby("trial")["value"].mean() if v > 0)


def front(found: list[Option], kind: str) -> dict[str, float]:
    """Label -> chance to be on the front of error against a cost, for the options whose means are on it.

    In the order of the cost; both smaller is better.
    """
    known = [o for o in found if o.costs[kind] and o.errors]
    if not known:
        return {}
    columns = [[o.errors for o in known], [o.costs[kind] for o in known]]
    result = front_probability(columns, groups=[o.candidate for o in known])
    on = [
        (o.cost(kind), o.label, float(p))
        for o, p, keep in zip(known, result.probability, result.on_front, strict=True)
        if keep
    ]
    return {label: probability for _, label, probability in sorted(on)}
