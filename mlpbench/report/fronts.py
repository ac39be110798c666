"""What can be taken, what each costs, and the Pareto fronts of error against a cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlpbench.metrics import metric
from mlpbench.numbers import listing
from mlpbench.report import facts
from mlpbench.report.drawing import INK, canvas, legend, logarithmic, looks, point
from mlpbench.report.estimates import Estimate, cells
from mlpbench.report.section import Panel
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


COSTS = {"train": ("training time", "s"), "labels": ("labels", "frames")}


def cost_kinds(study: Study, dataset: str) -> list[str]:
    """The costs in which the study's options differ, inference first."""
    found = options(study, dataset)
    return [k for k in ("speed", "train", "labels") if len({o.cost(k) for o in found if o.costs[k]}) > 1]


def first_front(study: Study) -> tuple[str, str] | None:
    """(data set, cost) of the front on the first screen: inference where it was timed, else training; None: none."""
    dataset = study.datasets[0]
    kinds = [kind for kind in cost_kinds(study, dataset) if kind != "labels"]
    return (dataset, kinds[0]) if kinds else None


def cost_axis(study: Study, kind: str) -> tuple[str, str]:
    """A cost in words, and its unit."""
    if kind == "speed":
        entry = metric(str(speed_metric(study)))
        return entry.symbol, entry.unit
    return COSTS[kind]


def front_panel(
    study: Study, dataset: str, kind: str, *, name: str = "", size: tuple[float, float] = (4.5, 3.3)
) -> Panel:
    """Error against one cost, the Pareto front as a grey line; the number beside a point is its training frames.

    Args:
        study: the study.
        dataset: of it.
        kind: ``speed``, ``train`` or ``labels``.
        name: of the figure's file; by default of the front.
        size: inches.
    """
    found = options(study, dataset)
    entry, style = metric(study.headline(dataset)), looks(study)
    shown = [o for o in found if o.costs[kind]]
    several = len({o.n_train for o in shown}) > 1 and kind != "labels"
    on = front(found, kind)
    best = [next(o for o in shown if o.label == label) for label in on]
    words, unit = cost_axis(study, kind)
    with canvas(*size) as (figure, axes):
        steps = [(o.cost(kind), o.mean.value) for o in best]
        axes.step([s[0] for s in steps], [s[1] for s in steps], where="post", color=INK, alpha=0.35, linewidth=3)
        for candidate in [c for c in study.lines(dataset) if any(o.candidate == c for o in shown)]:
            mine = [o for o in shown if o.candidate == candidate]
            for o in mine:
                label = candidate if o is mine[0] else ""
                text = str(o.n_train) if several else ""
                point(axes, o.cost(kind), o.mean, style[candidate], text, filled=o.rested, label=label)
        logarithmic(axes, "xy")
        axes.set_xlabel(f"{words} ({unit})")
        axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
        legend(axes)
    alt = f"{entry.symbol} against {words}. On the Pareto front: {listing([o.label for o in best])}."
    return Panel(name or f"pareto-{dataset}-{kind}", figure, alt, f"Error against {words}")
