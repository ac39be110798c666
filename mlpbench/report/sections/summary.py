"""The table everybody looks for: errors and costs of each candidate at each number of training frames."""

from __future__ import annotations

import pandas as pd

from mlpbench.metrics import metric
from mlpbench.report import facts
from mlpbench.report.estimates import Verdict, against_best, cells
from mlpbench.report.numbers import interval, number, plural
from mlpbench.report.section import Block, Cell, Column, Mark, Section, Table
from mlpbench.report.study import Study, select

ORDER = 15

ACCURACY = ("energy_mae", "energy_mae_total", "force_mae", "force_rmse", "stress_mae")
MARKS: dict[Verdict, Mark] = {"best": "best", "tie": "tie", "undecided": "undecided", "unknown": "undecided", "worse": ""}
LEGEND = (
    "★ lowest mean of its training size; ≈ a tie with it (95 % interval of the paired ratio inside ±5 %); "
    "? these repetitions cannot tell it from the best; no mark: worse, Holm-corrected. "
    "Small print: 95 % interval over repetitions, variance of the log error pooled over the column."
)


def build(study: Study) -> Section | None:
    """One table for each data set; candidates whose trials all failed are rows too."""
    blocks: list[Block] = [_table(study, dataset) for dataset in study.datasets]
    return Section("summary", "Comparison", "", blocks)


def _table(study: Study, dataset: str) -> Table:
    split = study.in_distribution(dataset)
    present = set(select(study.metrics, dataset=dataset, split=split)["metric"])
    names = [name for name in ACCURACY if name in present]
    estimates = {name: cells(study, dataset, name, str(split)).set_index(["candidate", "n_train"]) for name in names}
    marks = {name: _marks(study, dataset, name, str(split)) for name in names}
    table = select(study.table, dataset=dataset)
    rows = []
    keys = table[["n_train", "candidate", "architecture", "size"]].drop_duplicates()
    main = "force_mae" if "force_mae" in names else (names[0] if names else None)
    order = {key: row["value"] for key, row in estimates[main].iterrows()} if main else {}
    for _, key in keys.iterrows():
        place = (key["candidate"], key["n_train"])
        trials = select(table, candidate=key["candidate"], n_train=key["n_train"])
        errors = [_cell(estimates[name], place, marks[name].get(place, "")) for name in names]
        rows.append((key["n_train"], order.get(place, float("inf")), _row(key, trials, errors)))
    rows.sort(key=lambda row: (-row[0], row[1]))
    columns = [
        Column("Candidate", numeric=False), Column("Size", numeric=False), Column("n_train", "frames", "training frames"),
        *(Column(metric(name).symbol, metric(name).unit, metric(name).description) for name in names),
        Column("Training", "s", "Wall time of the training, mean over repetitions on the same hardware"),
        Column("Memory", "MB", "Largest resident memory of the worker up to the end of training"),
        Column("Parameters", "", "Trainable parameters"),
        Column("Trials", "", "done of planned; what went wrong", numeric=False),
    ]  # fmt: skip
    caption = (
        f"{dataset}, {facts.level_of_theory(study, dataset)}; errors on {facts.split_words(study, dataset, str(split))}; "
        f"mean over repetitions; budget: {', '.join(facts.budgets(study, dataset))}."
    )
    return Table(f"summary-{dataset}", caption, columns, [row[2] for row in rows], legend=LEGEND)


def _row(key: pd.Series, trials: pd.DataFrame, errors: list[Cell]) -> list[Cell]:
    done = trials[trials["status"] == "done"]
    return [
        Cell(key["candidate"]), Cell(str(key["size"])), Cell(number(int(key["n_train"])), int(key["n_train"])),
        *errors, _time(done), _mean(done, "train_peak_memory"), _mean(done, "n_parameters"), _state(trials),
    ]  # fmt: skip


def _cell(table: pd.DataFrame, place: tuple[str, int], mark: Mark) -> Cell:
    if place not in table.index:
        return Cell("–")
    row = table.loc[place]
    basis = row["estimate"].basis
    note = {"frames": "one repetition; the interval covers the choice of test frames only",
            "none": "one repetition; no interval", "repetitions": plural(int(row["n"]), "repetition")}[basis]  # fmt: skip
    text = number(row["value"], row["low"], row["high"])
    return Cell(text, float(row["value"]), interval(row["low"], row["high"]), mark, note)


def _marks(study: Study, dataset: str, name: str, split: str) -> dict[tuple[str, int], Mark]:
    found: dict[tuple[str, int], Mark] = {}
    for n_train in facts.train_sizes(study, dataset):
        compared = against_best(study, dataset, name, split, n_train)
        if len(compared) > 1:  # the best of one is no distinction
            found |= {(c.candidate, n_train): MARKS[c.verdict] for c in compared}
    return found


def _time(done: pd.DataFrame) -> Cell:
    if len(facts.machines(done)) > 1:
        return Cell("–", note="repetitions ran on different hardware; see the trials table", detail="mixed hardware")
    return _mean(done, "train_seconds")


def _mean(done: pd.DataFrame, column: str) -> Cell:
    values = pd.to_numeric(done[column], errors="coerce").dropna()
    return Cell(number(float(values.mean())), float(values.mean())) if len(values) else Cell("–")


def _state(trials: pd.DataFrame) -> Cell:
    done = int((trials["status"] == "done").sum())
    wrong = [f"{s.replace('_', ' ')}: {r}" for s, r in zip(trials["status"], trials["reason"], strict=True) if s != "done"]
    open_ended = len(facts.unconverged(trials))
    parts = [f"{done} of {len(trials)}"]
    if open_ended:
        parts.append(f"{open_ended} unconverged")
    if wrong:
        kinds = trials.loc[trials["status"] != "done", "status"].value_counts()
        parts += [f"{count} {status.replace('_', ' ')}" for status, count in kinds.items()]
    reason = "; ".join(dict.fromkeys(wrong)) if not done else ""
    return Cell(", ".join(parts), float(done), reason, "bad" if wrong else "warn" if open_ended else "", "; ".join(wrong))
