"""Trials that did not finish, and trainings that ended before they had come to rest."""

from __future__ import annotations

import pandas as pd

from mlpbench import protocol
from mlpbench.numbers import plural
from mlpbench.report import facts
from mlpbench.report.section import Block, Cell, Column, Details, Section, Table, Text
from mlpbench.study.study import Study

ORDER = 80
LISTED = 12  # trials not at rest; more are folded away


def build(study: Study) -> Section | None:
    """Both tables; a sentence when there is nothing to list."""
    wrong = study.trials[(study.trials["status"] != "done") | (study.trials["unfinished"] != "")]
    open_ended = facts.unrested(study.table)
    blocks: list[Block] = []
    if len(wrong):
        blocks.append(_failed(study, wrong))
        blocks.append(
            Text(
                "Run the same command again: finished trials cost nothing, these are tried anew or resumed.",
                role="note",
            )
        )
    if len(open_ended):
        table = _unrested(open_ended)
        folded = Details(f"The {len(open_ended)} trials that are not at rest, and why", [table], paper=False)
        blocks.append(table if len(open_ended) <= LISTED else folded)
    finding = f"{facts.statuses(study)}; {plural(len(open_ended), 'finished training')} not at rest."
    return Section("failures", "Failed trials, and trainings not at rest", finding[0].upper() + finding[1:], blocks)


def _failed(study: Study, rows: pd.DataFrame) -> Table:
    columns = [
        Column("Trial", numeric=False),
        Column("Status", numeric=False),
        Column("Reason", numeric=False),
        Column("Log", "", "relative to the results folder", numeric=False),
    ]
    cells = [
        [
            Cell(r["trial"]),
            Cell("evaluation missing" if r["unfinished"] else r["status"].replace("_", " "), mark="bad"),
            Cell(str(r["unfinished"] or r["reason"] or "not recorded")),
            Cell(f"{study.name}/{r['trial']}/{protocol.LOG}" if r["status"] != "skipped" else "–"),
        ]
        for r in rows.to_dict("records")
    ]
    return Table("failed", f"{plural(len(rows), 'trial')} without all that was asked for, and why.", columns, cells)


def _unrested(rows: pd.DataFrame) -> Table:
    columns = [Column("Trial", numeric=False), Column("Why it is not at rest", numeric=False),
               Column("Epochs"), Column("Best epoch"), Column("Stopped by", numeric=False)]  # fmt: skip
    cells = [
        [
            Cell(r["trial"]),
            Cell(str(r["rest_reason"] or "not recorded")),
            _count(r["epochs"]),
            _count(r["best_epoch"]),
            Cell(str(r["stopped_by"] or "–")),
        ]
        for r in rows.to_dict("records")
    ]
    caption = f"{plural(len(rows), 'trial')} whose training had not come to rest when the budget ended."
    return Table("unrested", caption, columns, cells)


def _count(value: object) -> Cell:
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return Cell("–")
    return Cell(str(int(value)), int(value))  # type: ignore[call-overload]
