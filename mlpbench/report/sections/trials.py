"""Every trial in one table to sort and filter, so that each number can be traced to where it comes from."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from mlpbench.metrics import metric
from mlpbench.numbers import number
from mlpbench.report import facts
from mlpbench.report.section import Cell, Column, Details, Mark, Section, Table, Text
from mlpbench.study.study import Study, rows_of, select

ORDER = 83
SHOWN = 1000  # rows in the page; the embedded CSV has all


def build(study: Study) -> Section | None:
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
    found: dict[tuple[str, str], float] = {}
    for dataset in study.datasets:
        name, split = study.headline(dataset), study.in_distribution(dataset)
        rows = select(study.metrics, dataset=dataset, metric=name, split=split)
        found |= dict(zip(zip(rows["trial"], rows["metric"], strict=True), rows["value"], strict=True))
    return found


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
