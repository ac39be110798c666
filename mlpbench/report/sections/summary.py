"""The table everybody looks for: errors and costs of each candidate at each number of training frames."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from mlpbench.metrics import metric
from mlpbench.report import facts
from mlpbench.report.cell import mean_cell
from mlpbench.report.estimates import Verdict, against_best, cells
from mlpbench.report.numbers import number
from mlpbench.report.section import Block, Cell, Column, Mark, Section, Table
from mlpbench.report.study import SPEED_COLUMNS, Study, rows_of, select

ORDER = 15

Row = dict[str, Any]
COLUMNS = [
    "candidate", "size", "n_train", "status", "reason", "converged", "train_seconds", "train_peak_memory",
    "n_parameters", *SPEED_COLUMNS,
]  # fmt: skip
ACCURACY = ("energy_mae", "energy_mae_total", "force_mae", "stress_mae")
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


def build(study: Study) -> Section | None:
    """One table for each data set; candidates whose trials all failed are rows too."""
    blocks: list[Block] = [_table(study, dataset) for dataset in study.datasets]
    return Section("summary", "Comparison", "", blocks)


def _table(study: Study, dataset: str) -> Table:
    split = study.in_distribution(dataset)
    present = study.metrics_of(dataset, split)
    names = [name for name in ACCURACY if name in present]
    estimates = {name: cells(study, dataset, name, str(split)) for name in names}
    marks = {name: _marks(study, dataset, name, str(split)) for name in names}
    table = select(study.table, dataset=dataset)
    several = table["size"].nunique() > 1
    apart = several and not all(f" {row['size']}" in str(row["candidate"]) for row in rows_of(table))
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for row in rows_of(table[COLUMNS]):
        groups.setdefault((str(row["candidate"]), str(row["size"]), int(row["n_train"])), []).append(row)
    rows = []
    main = "force_mae" if "force_mae" in names else (names[0] if names else None)
    order = {key: entry.value for key, entry in estimates[main].items()} if main else {}
    for (candidate, size, n_train), trials in groups.items():
        place = (candidate, n_train)
        errors = [mean_cell(estimates[name].get(place), marks[name].get(place, "")) for name in names]
        rows.append((place[1], order.get(place, math.inf), _row(place, size if apart else None, trials, errors)))
    rows.sort(key=lambda row: (-row[0], row[1], row[2][0].text))
    columns = [
        Column("Candidate", numeric=False),
        *([Column("Size", numeric=False)] if apart else []),
        Column("n_train", "frames", "training frames"),
        *(Column(metric(name).symbol, metric(name).unit, metric(name).description) for name in names),
        Column("Training", "s", "Wall time of the training, mean over repetitions on the same hardware"),
        Column("Memory", "MB", "Largest resident memory of the worker up to the end of training"),
        Column("Parameters", "", "Trainable parameters"),
        Column("Done", "", "trials done of planned; what went wrong", numeric=False),
    ]
    caption = (
        f"{dataset}, {facts.level_of_theory(study, dataset)}; errors on "
        f"{facts.split_words(study, dataset, str(split))}; "
        f"mean over repetitions; {'' if several else 'size ' + str(table['size'].iloc[0]) + '; '}budget: "
        f"{', '.join(facts.budgets(study, dataset))}."
    )
    marked = LEGEND.format(margin=study.margin_words)
    return Table(f"summary-{dataset}", caption, columns, [row[2] for row in rows], legend=marked)


def _row(place: tuple[str, int], size: str | None, trials: list[Row], errors: list[Cell]) -> list[Cell]:
    done = [row for row in trials if row["status"] == "done"]
    return [
        Cell(place[0]),
        *([Cell(size)] if size is not None else []),
        Cell(number(place[1]), place[1]),
        *errors,
        _time(done),
        _mean(done, "train_peak_memory"),
        _mean(done, "n_parameters"),
        _state(trials),
    ]


def _marks(study: Study, dataset: str, name: str, split: str) -> dict[tuple[str, int], Mark]:
    found: dict[tuple[str, int], Mark] = {}
    for n_train in facts.train_sizes(study, dataset):
        compared = against_best(study, dataset, name, split, n_train)
        if len(compared) > 1:  # the best of one is no distinction
            found |= {(c.candidate, n_train): MARKS[c.verdict] for c in compared}
    return found


def _time(done: list[Row]) -> Cell:
    if len({facts.hardware(row) for row in done}) > 1:
        return Cell("–", note="repetitions ran on different hardware; see the trials table", detail="mixed hardware")
    return _mean(done, "train_seconds")


def _mean(done: list[Row], column: str) -> Cell:
    values = [float(row[column]) for row in done if pd.notna(row[column])]
    return Cell(number(float(np.mean(values))), float(np.mean(values))) if values else Cell("–")


def _state(trials: list[Row]) -> Cell:
    lost = [row for row in trials if row["status"] != "done"]
    open_ended = sum(row["status"] == "done" and not facts.rested(row["converged"]) for row in trials)
    parts = [f"{len(trials) - len(lost)}/{len(trials)}"]
    if open_ended:
        parts.append(f"{open_ended} unconverged")
    parts += [f"{n} {str(status).replace('_', ' ')}" for status, n in Counter(r["status"] for r in lost).most_common()]
    wrong = [f"{row['status'].replace('_', ' ')}: {row['reason']}" for row in lost]
    reason = "; ".join(dict.fromkeys(wrong)) if len(lost) == len(trials) else ""
    mark: Mark = "bad" if wrong else "warn" if open_ended else ""
    return Cell(", ".join(parts), float(len(trials) - len(lost)), reason, mark, "; ".join(wrong))
