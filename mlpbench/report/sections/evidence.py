"""What the numbers rest on: trials and their ends, failures, data and splits."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from mlpbench import protocol
from mlpbench.metrics import metric
from mlpbench.numbers import number, plural
from mlpbench.report import facts
from mlpbench.report.facts import detected, level_of_theory, shared_frames, split_warnings, train_sizes
from mlpbench.report.section import Block, Bullets, Cell, Column, Details, Mark, Section, Table, Text
from mlpbench.study.rows import natural
from mlpbench.study.study import Study, rows_of, select, unique

CHAPTERS = {"failures": 80, "trials": 83, "data": 86}


LISTED = 12  # trials not at rest; more are folded away


def failures_section(study: Study) -> Section | None:
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


SHOWN = 1000  # rows in the page; the embedded CSV has all


def trials_section(study: Study) -> Section | None:
    """The table, folded away."""
    errors = _errors(study)
    names = sorted({study.headline(dataset) for dataset in study.datasets})
    several = study.trials[["device", "device_name", "cpu", "threads"]].astype(str).drop_duplicates().shape[0] > 1
    columns = [
        Column("Trial", numeric=False),
        Column("Status", numeric=False),
        Column("At rest", numeric=False),
        Column("Converged", numeric=False),
        *(Column(f"{metric(n).symbol}", metric(n).unit, "on the split in distribution") for n in names),
        Column("Epochs"),
        Column("Best epoch"),
        Column("Training", "s"),
        Column("Total", "s"),
        Column("Memory", "MB"),
        Column("Parameters"),
        *([Column("Hardware", numeric=False)] if several else []),
        Column("Key", numeric=False),
    ]
    rows = [_row(row, errors, names, several) for row in rows_of(study.trials.head(SHOWN))]
    table = Table("trials-listed", f"The {len(rows)} trials of {study.name}.", columns, rows, searchable=True)
    blocks: list[Any] = [Details(f"All {len(study.trials)} trials", [table], paper=len(rows) <= 60)]
    if len(study.trials) > SHOWN:
        blocks.append(
            Text(
                f"The page lists the first {SHOWN} of {len(study.trials)} trials; trials.csv below has all.",
                role="note",
            )
        )
    return Section("trials", "Trials", "", blocks)


def _errors(study: Study) -> dict[tuple[str, str], float]:
    """(trial, metric) -> value on its data set's split in distribution."""
    errors: dict[tuple[str, str], float] = {}
    for dataset in study.datasets:
        name, split = study.headline(dataset), study.in_distribution(dataset)
        rows = select(study.metrics, dataset=dataset, metric=name, split=split)
        errors |= dict(zip(zip(rows["trial"], rows["metric"], strict=True), rows["value"], strict=True))
    return errors


def _row(row: dict[str, Any], errors: dict[tuple[str, str], float], names: list[str], several: bool) -> list[Cell]:
    done = row["status"] == "done"
    rested = "–" if not done else "yes" if row["at_rest"] == True else "no"  # noqa: E712
    converged = "–" if not done else facts.tested(row["converged"])
    mark: Mark = "" if done else "bad"
    return [
        Cell(row["trial"]),
        Cell(row["status"].replace("_", " "), mark=mark, note=str(row["reason"] or "")),
        Cell(rested, mark="warn" if rested == "no" else "", note=str(row["rest_reason"] or "")),
        Cell(converged, mark="warn" if converged == "no" else "", note=str(row["convergence_reason"] or "")),
        *(_value(errors.get((row["trial"], name))) for name in names),
        _value(row["epochs"]),
        _value(row["best_epoch"]),
        _value(row["train_seconds"]),
        _value(row["wall_seconds"]),
        _value(row["train_peak_memory"]),
        _value(row["n_parameters"]),
        *([Cell(facts.hardware(row))] if several else []),
        Cell(str(row["key"])[:8], str(row["key"])),
    ]


def _value(value: Any) -> Cell:
    if value is None or pd.isna(value) or not math.isfinite(float(value)):
        return Cell("–")
    exact = float(value)
    return Cell(number(int(exact) if exact.is_integer() else exact), exact)


def data_section(study: Study) -> Section | None:
    """A card, and the splits, for each data set."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        records = [r for r in study.records if r["identifiers"].get("dataset") == dataset]
        blocks += [_card(study, dataset, records), _splits(study, dataset, records)]
        blocks += _told_apart(records)
        traps = unique([trap for r in records[:1] for trap in (r["config"].get("dataset") or {}).get("traps") or []])
        if traps:
            blocks.append(Bullets(traps, role="note"))
    return Section("data", "Data", "", blocks)


def _told_apart(records: list[dict[str, Any]]) -> list[Block]:
    """Copies between pool and test splits, warnings, and what was detected in the files."""
    warnings, notes = split_warnings(records), detected(records)
    return [
        *(Text(sentence) for sentence in shared_frames(records)),
        *([Bullets(warnings, role="warning")] if warnings else []),
        *([Details("What was detected when the files were read", [Bullets(notes)])] if notes else []),
    ]


def _card(study: Study, dataset: str, records: list[dict[str, Any]]) -> Table:
    config = next((r["config"].get("dataset") or {} for r in records), {})
    info = next((r["split"].get("info") or {} for r in records), {})
    price = study.label_seconds(dataset)
    facts = {
        "Description": config.get("description"),
        "Level of theory": level_of_theory(study, dataset),
        "Labels used in training": ", ".join(config.get("labels") or []),
        "Training frames": ", ".join(str(n) for n in train_sizes(study, dataset)),
        "Validation frames": ", ".join(
            str(n) for n in sorted(unique([r["identifiers"].get("n_valid") for r in records]))
        ),
        "Cost of one label": f"{number(price)} s" if price else None,
        "Licence": config.get("licence"),
        "Source": config.get("citation"),
        **{
            key.replace("_", " ").capitalize(): str(value)
            for key, value in info.items()
            if isinstance(value, str | int | float) and key not in ("label_seconds", "level_of_theory", "licence")
        },
    }
    rows = [[Cell(key), Cell(str(value))] for key, value in facts.items() if value not in (None, "")]
    columns = [Column("Property", numeric=False), Column("Value", numeric=False)]
    return Table(f"data-{dataset}", f"The data set {dataset}.", columns, rows)


def _splits(study: Study, dataset: str, records: list[dict[str, Any]]) -> Table:
    """One row for each split that was written; trials that shared it had the very same frames."""
    seen: dict[str, dict[str, Any]] = {}
    for record in records:
        seen.setdefault(str(record["split"].get("directory")), record)
    parts = sorted({part for r in seen.values() for part in r["split"].get("counts") or {}}, key=natural)
    columns = [
        Column("Split", "", "folder below the study's", numeric=False),
        Column("n_train", "frames"),
        Column("Repetition"),
        *(Column(part, "frames") for part in parts),
        Column("Seed"),
        Column("Digest", "", "of all its frames", numeric=False),
    ]
    rows = [
        [
            Cell(name),
            _data_count(r["identifiers"].get("n_train")),
            _data_count(r["identifiers"].get("repetition")),
            *(_data_count((r["split"].get("counts") or {}).get(part)) for part in parts),
            _data_count(r["split"].get("split_seed")),
            Cell(str(r["split"].get("digest") or "–")[:12], str(r["split"].get("digest"))),
        ]
        for name, r in sorted(seen.items(), key=lambda item: natural(item[0]))
    ]
    return Table(
        f"splits-{dataset}",
        f"Splits of {dataset}: each was written once and shared by all architectures.",
        columns,
        rows,
    )


def _data_count(value: Any) -> Cell:
    return Cell("–") if value is None else Cell(str(value), value)
