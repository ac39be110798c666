"""The comparison of all candidates, and which of them to take under which limits."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pandas as pd

from mlpbench.decision import Constraint, Decision
from mlpbench.decision import select as decide
from mlpbench.decision.model import percent
from mlpbench.errors import UserError
from mlpbench.metrics import metric
from mlpbench.numbers import number, seconds
from mlpbench.report import facts
from mlpbench.report.equal import equal_cost
from mlpbench.report.estimates import Verdict, against_best, cells, geometric
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
from mlpbench.report.section import (
    Block,
    Cell,
    Column,
    Details,
    Figure,
    Mark,
    Section,
    Slider,
    Table,
    Text,
    mean_cell,
    trivial_cell,
)
from mlpbench.study.rows import family
from mlpbench.study.study import Study, rows_of, select

CHAPTERS = {"summary": 15, "decide": 20}


Row = dict[str, Any]
COLUMNS = [
    "candidate", "architecture", "size", "n_train", "status", "reason", "at_rest", "train_seconds", "train_peak_memory",
    "n_parameters", *facts.MACHINE,
]  # fmt: skip
ACCURACY = ("energy_mae", "energy_mae_total", "force_mae", "stress_mae")
MOST_TRIED = 60  # settings listed
MANY = 5  # architectures; above it their families are named
LONG = 20  # rows; above it only the largest training size is shown at first
MARKS: dict[Verdict, Mark] = {
    "best": "best",
    "tie": "tie",
    "undecided": "undecided",
    "unknown": "undecided",
    "worse": "",
}
LEGEND = (
    "★ lowest mean of its training size; ≈ a tie with it (95 % interval of the paired ratio inside ±{margin}); "
    "? these repetitions cannot tell it from the best; no mark: worse, Holm-corrected. "
    "Small print: 95 % interval over repetitions; where there are fewer than five, with the variance of the log error "
    "pooled over the column."
)
APART = (
    " Two intervals may lie apart although the candidates are undecided: each is about one mean alone, while the mark "
    "compares repetition by repetition, corrected (Holm) for all comparisons, and takes three common repetitions at "
    "least."
)


def summary_section(study: Study) -> Section | None:
    """One table for each data set; candidates whose trials all failed are rows too."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        blocks += [*_folded(_table(study, dataset), study.largest(dataset)), *equal_cost(study, dataset)]
        blocks += _tried(study, dataset)
    return Section("summary", "Comparison", "", blocks)


def _folded(table: Table, largest: int) -> list[Block]:
    """The table; a long one first with the largest training size alone, the whole folded away."""
    at = next(i for i, column in enumerate(table.columns) if column.label == "n_train")
    if len(table.rows) <= LONG:
        return [table]
    rows = [row for row in table.rows if row[at].value in (largest, None)]
    whole = Details(f"All {len(table.rows)} rows, every training size", [replace(table, searchable=True)], paper=False)
    if len(rows) == len(table.rows):
        return [replace(table, searchable=True)]
    return [replace(table, name=f"{table.name}-largest", rows=rows), whole]


def _table(study: Study, dataset: str) -> Table:
    split = study.in_distribution(dataset)
    present = study.metrics_of(dataset, split)
    main = study.headline(dataset)
    names = sorted((name for name in ACCURACY if name in present), key=lambda name: name != main)  # seen on a phone
    estimates = {name: cells(study, dataset, name, str(split)) for name in names}
    marks = {name: _marks(study, dataset, name, str(split)) for name in names}
    trivial = facts.trivial_errors(study, dataset, str(split))
    table = select(study.table, dataset=dataset)
    several = table["size"].nunique() > 1
    families = table["architecture"].nunique() > MANY
    apart = several and not all(f" {row['size']}" in str(row["candidate"]) for row in rows_of(table))
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows_of(table[COLUMNS]):
        groups.setdefault((str(row["candidate"]), str(row["size"]), int(row["n_train"])), []).append(row)
    rows = []
    order = {key: entry.value for key, entry in estimates.get(study.headline(dataset), {}).items()}
    labels = {(c.name, c.n_train): c.setting.label for c in study.candidates_of(dataset)}
    named = any(labels.values())
    for (candidate, size, n_train), trials in groups.items():
        place = (candidate, n_train)
        errors = [mean_cell(estimates[n].get(place), marks[n].get(place, ""), _at(trivial, n)) for n in names]
        kind = [family(str(trials[0]["architecture"]), study.records) or "–"] if families else []
        marks_of = [*kind, *([size] if apart else []), *([labels[place] or "–"] if named else [])]
        rows.append((place[1], order.get(place, math.inf), _row(place, marks_of, trials, errors)))
    rows.sort(key=lambda row: (-row[0], row[1], row[2][0].text))
    shown = [row[2] for row in rows]
    if any(name in trivial for name in names):
        before = [Cell("–")] * (1 + families + apart + named)
        shown.append([Cell(facts.TRIVIAL), *before, *(trivial_cell(trivial.get(n)) for n in names), *[Cell("–")] * 4])
    columns = [
        Column("Candidate", numeric=False),
        *([Column("Family", numeric=False)] if families else []),
        *([Column("Size", numeric=False)] if apart else []),
        *([Column("Setting", "", "chosen on validation error", numeric=False)] if named else []),
        Column("n_train", "frames", "training frames"),
        *(Column(metric(name).symbol, metric(name).unit, metric(name).description) for name in names),
        Column("Training", "s", "Wall time of the training, geometric mean over repetitions on the same hardware"),
        Column("Memory", "MB", "Largest resident memory of the worker up to the end of training"),
        Column("Parameters", "", "Trainable parameters"),
        Column("Done", "", "trials done of planned; what went wrong", numeric=False),
    ]
    level = facts.level_of_theory(study, dataset)
    caption = (
        f"{dataset}{'' if level == facts.UNSTATED else f', {level}'}; errors on "
        f"{facts.split_words(study, dataset, str(split))}; "
        f"{facts.mean_words(study, dataset)}; {'' if several else 'size ' + str(table['size'].iloc[0]) + '; '}budget: "
        f"{', '.join(facts.budgets(study, dataset))}."
    )
    marked = LEGEND.format(margin=study.margin_words) + (f" {facts.TRIVIAL_WORDS}" if len(shown) > len(rows) else "")
    if any(mark == "undecided" for column in marks.values() for mark in column.values()):
        marked = marked.replace(" Small print:", f"{APART} Small print:")
    return Table(f"summary-{dataset}", caption, columns, shown, legend=marked)


def _at(trivial: dict[str, tuple[float, float, float]], name: str) -> float | None:
    return trivial[name][0] if name in trivial else None


def _tried(study: Study, dataset: str) -> list[Block]:
    """Every setting that was tried, with the validation error that decided, folded away."""
    entry = metric(study.headline(dataset))
    tuned = [candidate for candidate in study.candidates_of(dataset) if candidate.tried > 1]
    rows = []
    for candidate in tuned:
        for one in sorted(candidate.settings, key=lambda one: (one.valid_error != one.valid_error, one.valid_error)):
            chosen = one.label == candidate.setting.label
            rows.append([
                Cell(candidate.name), Cell(number(candidate.n_train), candidate.n_train), Cell(one.label),
                Cell(number(one.valid_error), one.valid_error if math.isfinite(one.valid_error) else math.inf),
                Cell(f"{one.done}/{one.trials}", float(one.done)), Cell("chosen" if chosen else ""),
            ])  # fmt: skip
    if not rows:
        return []
    columns = [
        Column("Candidate", numeric=False), Column("n_train", "frames"), Column("Setting", numeric=False),
        Column(f"{entry.symbol}, validation", entry.unit,
               "geometric mean over the repetitions that the settings have in common"),
        Column("Done", "trials"), Column("", numeric=False),
    ]  # fmt: skip
    shown = rows[:MOST_TRIED]
    caption = f"Settings tried on {dataset}; the lowest error on validation frames is chosen, test frames have no say."
    if len(shown) < len(rows):
        caption += f" The first {len(shown)} of {len(rows)}."
    table = Table(f"settings-{dataset}", caption, columns, shown, headers=3, searchable=len(shown) > 20)
    return [Details(f"The {len(rows)} settings that were tried", [table], paper=len(rows) <= 20)]


def _row(place: tuple[str, int], named: list[str], trials: list[Row], errors: list[Cell]) -> list[Cell]:
    done = [row for row in trials if row["status"] == "done"]
    return [
        Cell(place[0]),
        *(Cell(text) for text in named),
        Cell(number(place[1]), place[1]),
        *errors,
        _time(done),
        _mean(done, "train_peak_memory"),
        _mean(done, "n_parameters"),
        _state(trials),
    ]


def _marks(study: Study, dataset: str, name: str, split: str) -> dict[tuple[str, int], Mark]:
    marks: dict[tuple[str, int], Mark] = {}
    for n_train in facts.train_sizes(study, dataset):
        compared = against_best(study, dataset, name, split, n_train)
        if len(compared) > 1:  # the best of one is no distinction
            marks |= {(c.candidate, n_train): MARKS[c.verdict] for c in compared}
    return marks


def _time(done: list[Row]) -> Cell:
    if len({facts.hardware(row) for row in done}) > 1:
        return Cell("–", note="repetitions ran on different hardware; see the trials table", detail="mixed hardware")
    return _mean(done, "train_seconds")


def _mean(done: list[Row], column: str) -> Cell:
    values = [float(row[column]) for row in done if pd.notna(row[column])]
    return Cell(number(geometric(values)), geometric(values)) if values else Cell("–")


def _state(trials: list[Row]) -> Cell:
    lost = [row for row in trials if row["status"] != "done"]
    open_ended = sum(row["status"] == "done" and not facts.rested(row["at_rest"]) for row in trials)
    parts = [f"{len(trials) - len(lost)}/{len(trials)}"]
    if open_ended:
        parts.append(f"{open_ended} not at rest")
    parts += [f"{n} {str(status).replace('_', ' ')}" for status, n in Counter(r["status"] for r in lost).most_common()]
    wrong = [f"{row['status'].replace('_', ' ')}: {row['reason']}" for row in lost]
    reason = "; ".join(dict.fromkeys(wrong)) if len(lost) == len(trials) else ""
    mark: Mark = "bad" if wrong else "warn" if open_ended else ""
    return Cell(", ".join(parts), float(len(trials) - len(lost)), reason, mark, "; ".join(wrong))


GOALS = {"accurate": "most accurate", "cheapest": "cheapest", "fewest_labels": "fewest labels"}


def decide_section(study: Study) -> Section | None:
    """For each data set: the fronts, a table of what lies on them, and the slider where MD steps were
    timed.
    """
    blocks: list[Block] = []
    for dataset in study.datasets:
        choices = options(study, dataset)
        if len(choices) < 2:
            continue
        kinds = cost_kinds(study, dataset)
        shown = [kind for kind in kinds if (dataset, kind) != first_front(study)]  # that one is on the first screen
        if shown:
            panels = [front_panel(study, dataset, kind) for kind in shown]
            blocks.append(Figure(_caption(study, dataset), panels))
        if kinds:
            blocks.append(_decide_table(study, dataset, choices, kinds))
        try:
            summary = "Examples of mlpbench select, with limits near this study's own errors that nobody has set"
            blocks.append(Details(summary, [decisions(study, dataset)], paper=False))
        except UserError as error:  # e.g. this machine's conf has no such data set: no command could be written
            blocks.append(Text(f"What mlpbench select says of {dataset} is left out: {error.message}.", role="note"))
        blocks += _slider(study, dataset, choices)
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


def _decide_table(study: Study, dataset: str, choices: list[Option], kinds: list[str]) -> Table:
    entry = metric(study.headline(dataset))
    fronts = {kind: front(choices, kind) for kind in kinds}
    rows = []
    for o in sorted(choices, key=lambda o: o.mean.value):
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


def _slider(study: Study, dataset: str, choices: list[Option]) -> list[Block]:
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
        for o in choices
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
