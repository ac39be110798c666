"""Which one to take: the Pareto fronts of error against cost, and what a run of a given length costs in
all.
"""

from __future__ import annotations

import math

from mlpbench.decision import Constraint, Decision
from mlpbench.decision import select as decide
from mlpbench.decision.model import percent
from mlpbench.errors import UserError
from mlpbench.metrics import metric
from mlpbench.numbers import number, seconds
from mlpbench.report import facts
from mlpbench.report.fronts import (
    Option,
    cost_axis,
    cost_kinds,
    first_front,
    front,
    front_panel,
    options,
    speed_metric,
)
from mlpbench.report.section import Block, Cell, Column, Details, Figure, Section, Slider, Table, Text, mean_cell
from mlpbench.study.study import Study

ORDER = 20
GOALS = {"accurate": "most accurate", "cheapest": "cheapest", "fewest_labels": "fewest labels"}


def build(study: Study) -> Section | None:
    """For each data set: the fronts, a table of what lies on them, and the slider where MD steps were
    timed.
    """
    blocks: list[Block] = []
    for dataset in study.datasets:
        found = options(study, dataset)
        if len(found) < 2:
            continue
        kinds = cost_kinds(study, dataset)
        shown = [kind for kind in kinds if (dataset, kind) != first_front(study)]  # that one is on the first screen
        if shown:
            panels = [front_panel(study, dataset, kind) for kind in shown]
            blocks.append(Figure(_caption(study, dataset), panels))
        if kinds:
            blocks.append(_table(study, dataset, found, kinds))
        try:
            summary = "Examples of mlpbench select, with limits near this study's own errors that nobody has set"
            blocks.append(Details(summary, [decisions(study, dataset)], paper=False))
        except UserError as error:  # e.g. this machine's conf has no such data set: no command could be written
            blocks.append(Text(f"What mlpbench select says of {dataset} is left out: {error.message}.", role="note"))
        blocks += _slider(study, dataset, found)
    return Section("decide", "Which should I take?", "", blocks) if blocks else None


def decisions(study: Study, dataset: str) -> Table:
    """The answers of ``mlpbench select`` to a few questions whose limits are made from the study itself."""
    name = study.headline(dataset)
    strict = min(o.mean.value for o in options(study, dataset)) * 1.25
    limits = [_round_up(strict), _round_up(3 * strict)]
    questions: list[tuple[list[Constraint], str]] = [([], "accurate")]
    questions += [
        ([Constraint(name, limit, "max")], goal) for limit in limits for goal in ("cheapest", "fewest_labels")
    ]
    rows = []
    for constraints, goal in questions:
        answer = decide(study, constraints, goal, dataset=dataset)
        asked = ", ".join(str(c) for c in constraints) or "no constraint"
        rows.append([Cell(f"{asked}; {GOALS[goal]}"), *_answer(answer)])
    columns = [
        Column("Constraints and aim", numeric=False),
        Column("Take", numeric=False),
        Column("Chance to pass", "", "that its true mean keeps the constraints"),
        Column("Doubts", numeric=False),
        Column("What would settle it", numeric=False),
    ]
    caption = (
        f"Constraints first, then the best that passes, {dataset}; errors in {metric(name).unit} on "
        f"{study.in_distribution(dataset)}. Ask your own: mlpbench select {study.name} --max {name}={limits[0]:g} ..."
    )
    return Table(f"decisions-{dataset}", caption, columns, rows)


def _round_up(value: float) -> float:
    """The next larger number of one digit, as a person would set a limit."""
    unit = 10 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / unit) * unit:.1g}")


def _answer(answer: Decision) -> list[Cell]:
    one = answer.chosen
    chance = one.probability if one is not None and answer.constraints else math.nan
    advice = answer.advice[0].command if answer.advice else "–"
    return [
        Cell("none passes" if one is None else one.label, mark="warn" if answer.thin or one is None else ""),
        Cell(percent(chance), chance) if math.isfinite(chance) else Cell("–"),
        Cell("; ".join(answer.doubts) or "–"),
        Cell(advice),
    ]


def _caption(study: Study, dataset: str) -> str:
    split = str(study.in_distribution(dataset))
    return (
        f"Pareto fronts on {facts.split_words(study, dataset, split)}: what lies on the grey line is beaten by no "
        "other in both error and cost. Labels are training and validation frames together. The number beside a point "
        "is its training frames; bars are 95 % intervals over repetitions; an open symbol: not all trainings came to "
        "rest."
    )


def _table(study: Study, dataset: str, found: list[Option], kinds: list[str]) -> Table:
    entry = metric(study.headline(dataset))
    fronts = {kind: front(found, kind) for kind in kinds}
    rows = []
    for o in sorted(found, key=lambda o: o.mean.value):
        chances = [fronts[k].get(o.label) for k in kinds]
        if any(chance is not None for chance in chances):
            shares = [Cell("–") if p is None else Cell(percent(p), p) for p in chances]
            costs = [Cell(number(o.cost(k)), o.cost(k)) for k in kinds]
            pairs = [cell for both in zip(costs, shares, strict=True) for cell in both]
            rows.append([Cell(o.candidate), Cell(str(o.n_train), o.n_train), mean_cell(o.mean), *pairs])
    columns = [
        Column("Candidate", numeric=False),
        Column("n_train", "frames"),
        Column(entry.symbol, entry.unit),
        *(column for k in kinds for column in _columns(*cost_axis(study, k))),
    ]
    return Table(
        f"pareto-{dataset}",
        f"What lies on a Pareto front, {dataset}; everything else is beaten by one of these.",
        columns,
        rows,
    )


def _columns(words: str, unit: str) -> list[Column]:
    note = "chance that it is on this front, over what the true means may be; a dash: its mean is not on it"
    first = words[:1].upper() + words[1:]  # MD stays MD
    return [Column(first, unit), Column("On this front", "chance", note)]


def _slider(study: Study, dataset: str, found: list[Option]) -> list[Block]:
    """The total of labels, training and k MD steps; only where a step was timed on the same hardware as the
    training.
    """
    if speed_metric(study) != "ms_per_md_step":
        return []
    label = study.label_seconds(dataset)
    entry = metric(study.headline(dataset))
    rows = [
        {
            "label": o.label,
            "fixed": o.cost("train") + (label or 0) * o.cost("labels"),
            "step": o.cost("speed") / 1e3,
            "error": f"{entry.symbol} {number(o.mean.value, o.mean.low, o.mean.high)} {entry.unit}",
        }
        for o in found
        if o.costs["train"] and o.costs["speed"]
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
