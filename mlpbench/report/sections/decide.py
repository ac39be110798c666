"""Which one to take: the Pareto fronts of error against cost, and what a run of a given length costs in
all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlpbench.metrics import metric
from mlpbench.report import facts
from mlpbench.report.drawing import INK, canvas, legend, logarithmic, looks, point
from mlpbench.report.estimates import Estimate, cells, chosen, main_metric
from mlpbench.report.numbers import listing, number, seconds
from mlpbench.report.section import Block, Cell, Column, Figure, Panel, Section, Slider, Table
from mlpbench.report.study import Study, select

ORDER = 20
SPEED = ("ms_per_md_step", "us_per_atom")  # the first that the study has
COSTS = {"train": ("training time", "s"), "labels": ("labels", "frames")}


@dataclass(frozen=True)
class Option:
    """One thing that can be taken: a candidate at one number of training frames.

    Attributes:
        candidate: its label.
        n_train: training frames.
        mean: error, in the main metric's unit.
        costs: ``train`` s, ``labels`` frames, and ``speed`` in the unit of the speed metric; NaN where
        unknown. rested: all its trials had converged.
    """

    candidate: str
    n_train: int
    mean: Estimate
    costs: dict[str, float]
    rested: bool

    @property
    def label(self) -> str:
        """Candidate and training frames."""
        return f"{self.candidate}, {self.n_train} frames"


def build(study: Study) -> Section | None:
    """For each data set: the fronts, a table of what lies on them, and the slider where MD steps were
    timed.
    """
    blocks: list[Block] = []
    for dataset in study.datasets:
        found = options(study, dataset)
        if len(found) < 2:
            continue
        kinds = [k for k in ("speed", "train", "labels") if sum(math.isfinite(o.costs[k]) for o in found) > 1]
        kinds = [k for k in kinds if len({o.costs[k] for o in found}) > 1]
        if kinds:
            panels = [_panel(study, dataset, found, kind) for kind in kinds]
            blocks += [Figure(_caption(study, dataset), panels), _table(study, dataset, found, kinds)]
        blocks += _slider(study, dataset, found)
    return Section("decide", "Which should I take?", "", blocks) if blocks else None


def options(study: Study, dataset: str) -> list[Option]:
    """Every chosen candidate at every n_train that has an error on the split in distribution."""
    split, speed = study.in_distribution(dataset), _speed_metric(study)
    if split is None:
        return []
    done = select(study.table, dataset=dataset, status="done")
    one_machine = len(facts.machines(done)) == 1
    found = []
    for (candidate, n_train), mean in cells(study, dataset, main_metric(study, dataset), split).items():
        if candidate not in chosen(study, dataset):
            continue
        part = select(done, candidate=candidate, n_train=n_train)
        time = float(part["train_seconds"].astype(float).mean()) if one_machine else math.nan
        costs = {
            "train": time,
            "labels": float(n_train + part["n_valid"].iloc[0]),
            "speed": _speed(study, part["trial"].tolist(), speed),
        }
        found.append(Option(candidate, n_train, mean, costs, len(facts.unconverged(part)) == 0))
    return found


def front(points: list[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other is at most equal to in both numbers (lower is better), by the
    first number.
    """
    order = sorted(range(len(points)), key=lambda i: points[i])
    kept: list[int] = []
    for index in order:
        if not kept or points[index][1] < points[kept[-1]][1]:
            kept.append(index)
    return kept


def _speed_metric(study: Study) -> str | None:
    present = set(study.metrics["metric"])
    return next((name for name in SPEED if name in present), None)


def _speed(study: Study, trials: list[str], name: str | None) -> float:
    if name is None:
        return math.nan
    rows = study.metrics[study.metrics["trial"].isin(trials) & (study.metrics["metric"] == name)]
    return float(np.exp(np.log(rows.groupby("trial")["value"].first()).mean())) if len(rows) else math.nan


def _axis(study: Study, kind: str) -> tuple[str, str]:
    if kind == "speed":
        entry = metric(str(_speed_metric(study)))
        return entry.symbol, entry.unit
    return COSTS[kind]


def _caption(study: Study, dataset: str) -> str:
    split = str(study.in_distribution(dataset))
    return (
        f"Pareto fronts on {facts.split_words(study, dataset, split)}: what lies on the grey line is beaten "
        f"by no other in both "
        "error and cost. Labels are training and validation frames together. The number beside a point is "
        "its training frames; bars are 95 % intervals over "
        "repetitions; an open "
        "symbol had unconverged trials."
    )


def _panel(study: Study, dataset: str, found: list[Option], kind: str) -> Panel:
    entry, style = metric(main_metric(study, dataset)), looks(study)
    shown = [o for o in found if math.isfinite(o.costs[kind])]
    best = [shown[i] for i in front([(o.costs[kind], o.mean.value) for o in shown])]
    words, unit = _axis(study, kind)
    with canvas() as (figure, axes):
        steps = [(o.costs[kind], o.mean.value) for o in best]
        axes.step([s[0] for s in steps], [s[1] for s in steps], where="post", color=INK, alpha=0.35, linewidth=3)
        for candidate in [c for c in chosen(study, dataset) if any(o.candidate == c for o in shown)]:
            mine = [o for o in shown if o.candidate == candidate]
            for o in mine:
                label = candidate if o is mine[0] else ""
                text = str(o.n_train) if kind != "labels" else ""
                point(axes, o.costs[kind], o.mean, style[candidate], text, filled=o.rested, label=label)
        logarithmic(axes, "xy")
        axes.set_xlabel(f"{words} ({unit})")
        axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
        legend(axes)
    alt = f"{entry.symbol} against {words}. On the Pareto front: {listing([o.label for o in best])}."
    return Panel(f"pareto-{dataset}-{kind}", figure, alt, f"Error against {words}")


def _table(study: Study, dataset: str, found: list[Option], kinds: list[str]) -> Table:
    entry = metric(main_metric(study, dataset))
    fronts = {}
    for kind in kinds:
        shown = [o for o in found if math.isfinite(o.costs[kind])]
        fronts[kind] = {shown[i].label for i in front([(o.costs[kind], o.mean.value) for o in shown])}
    rows = []
    for o in sorted(found, key=lambda o: o.mean.value):
        on = [k for k in kinds if o.label in fronts[k]]
        if on:
            costs = [Cell(number(o.costs[k]), o.costs[k]) for k in kinds]
            rows.append(
                [
                    Cell(o.candidate),
                    Cell(str(o.n_train), o.n_train),
                    Cell(number(o.mean.value, o.mean.low, o.mean.high), o.mean.value),
                    *costs,
                    Cell(listing([_axis(study, k)[0] for k in on])),
                ]
            )
    columns = [
        Column("Candidate", numeric=False),
        Column("n_train", "frames"),
        Column(entry.symbol, entry.unit),
        *(Column(_axis(study, k)[0].capitalize(), _axis(study, k)[1]) for k in kinds),
        Column("On the front against", numeric=False),
    ]
    return Table(
        f"pareto-{dataset}",
        f"What lies on a Pareto front, {dataset}; everything else is beaten by one of these.",
        columns,
        rows,
    )


def _slider(study: Study, dataset: str, found: list[Option]) -> list[Block]:
    """The total of labels, training and k MD steps; only where a step was timed on the same hardware as the
    training.
    """
    if _speed_metric(study) != "ms_per_md_step":
        return []
    label = next((c["dataset"].get("label_seconds") for c in study.config(dataset) if c.get("dataset")), None)
    entry = metric(main_metric(study, dataset))
    rows = [
        {
            "label": o.label,
            "fixed": o.costs["train"] + (label or 0) * o.costs["labels"],
            "step": o.costs["speed"] / 1e3,
            "error": f"{entry.symbol} {number(o.mean.value, o.mean.low, o.mean.high)} {entry.unit}",
        }
        for o in found
        if math.isfinite(o.costs["train"]) and math.isfinite(o.costs["speed"])
    ]
    price = (
        f"{seconds(float(label))} for each label, as the data set states it"
        if label
        else "labels not counted: no price is known"
    )
    note = (
        f"Total = labels + one training + steps, by one machine; {price}. Cheapest first; it says nothing about "
        "stability."
    )
    return [Slider("My run needs this many MD steps:", rows, note)] if len(rows) > 1 else []
