"""Records as two pandas tables: one row a trial, and one row a trial, split and metric."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
from filelock import FileLock
from pyarrow import csv

from mlpbench.errors import UserError, close_match
from mlpbench.evaluators import speed as speed_table
from mlpbench.records import iterate

IDENTIFIERS = ["dataset", "architecture", "size", "backend", "n_train", "repetition"]
MANY = 20_000  # rows
VALUES = ["split", "metric", "value", "unit", "lower", "upper", "n"]
TRIALS = "trials"
METRICS = "metrics"
SPEED = "speed"
MACHINE = ["device", "device_name", "cpu", "threads"]


def build(
    records: Iterable[dict[str, Any]], settings: Sequence[str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials table and the long metrics table.

    A setting that only some trials swept is filled in for the others from their configuration, so that every swept
    setting is a column with a value in every row.

    Args:
        records: as :func:`mlpbench.records.load_all` reads them.
        settings: names of the swept settings; None: those of the records.
    """
    builder = _Builder()
    for record in records:
        builder.add(record)
    return builder.tables(settings)


class _Builder:
    """Collects what the tables need from one record after the other, by columns: records need not stay in memory."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, Any], dict[str, Any]]] = []  # before and after the settings
        self.sources: list[dict[str, Any]] = []
        self.counts: list[int] = []
        self.columns: dict[str, list[Any]] = {name: [] for name in VALUES}

    def add(self, record: dict[str, Any]) -> None:
        """Take what the tables need from ``record``."""
        self.rows.append(_trial_row(record))
        self.sources.append({"swept": record["swept"], "config": record["config"]})
        self.counts.append(len(record["metrics"]))
        for name, column in self.columns.items():
            column += [row[name] for row in record["metrics"]]

    def tables(self, settings: Sequence[str] | None) -> tuple[pd.DataFrame, pd.DataFrame]:
        """See :func:`build`."""
        if settings is None:
            settings = sorted({name for source in self.sources for name in source["swept"]})
        swept = [{name: _setting(source, name) for name in settings} for source in self.sources]
        trials = pd.DataFrame([{**head, **own, **rest} for (head, rest), own in zip(self.rows, swept, strict=True)])
        values = pd.DataFrame(self.columns)
        for column in ("value", "lower", "upper"):
            values[column] = values[column].astype(float)
        if trials.empty:
            return trials, values.reindex(columns=["trial", *IDENTIFIERS, *VALUES, *settings])
        place = np.repeat(np.arange(len(trials)), self.counts)
        names = (["trial", *IDENTIFIERS], list(settings))
        head, tail = (trials[part].take(place).reset_index(drop=True) for part in names)
        return trials, pd.concat([head, values, tail], axis=1)


def build_speed(records: list[dict[str, Any]]) -> pd.DataFrame:
    """The speed table, long: one row for each trial, path (deployment, dtype, TF32) and metric; empty if none.

    A path that could not run is one row with its ``status`` and ``reason``. Trials' swept settings stand in ``trials``.

    Args:
        records: as :func:`mlpbench.records.load_all` reads them.
    """
    rows = [row for record in records for row in _speed_rows(record)]
    return _speed_frame(rows)


def _speed_rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    head = {"trial": record["trial"], **{k: record["identifiers"][k] for k in IDENTIFIERS}}
    return [{**head, **row, **_machine(record)} for row in speed_table.rows(record)]


def _speed_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["trial", *IDENTIFIERS, *speed_table.COLUMNS, *MACHINE])


def _machine(record: dict[str, Any]) -> dict[str, Any]:
    hardware = record["provenance"]["hardware"]
    return {name: hardware.get(name) for name in MACHINE}


def write(study_root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build both tables from the records of a study and write each as parquet and CSV, atomically.

    Where potentials were timed, the speed table is written beside them (see :func:`build_speed`).
    """
    return write_all(study_root)[:2]


def write_all(study_root: Path) -> tuple[pd.DataFrame, pd.DataFrame, list[dict[str, Any]]]:
    """As :func:`write`, with the records: without their curves, and without the metrics that are in the table."""
    with FileLock(study_root / ".tables.lock"):
        builder, records, timed = _Builder(), [], []
        for record in iterate(study_root):
            builder.add(record)
            timed += _speed_rows(record)
            del record["metrics"]
            records.append(record)
        trials, metrics = builder.tables(None)
        tables = {TRIALS: trials, METRICS: metrics}
        if timed:
            tables[SPEED] = _speed_frame(timed)
        for name, table in tables.items():
            _replace(study_root / f"{name}.csv", lambda path, table=table: write_csv(table, path))
            _replace(study_root / f"{name}.parquet", lambda path, table=table: table.to_parquet(path, index=False))
    return trials, metrics, records


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """As pandas writes it, but each column of a long table at once as text: pandas takes ten times as long."""
    if len(table) < MANY or any(table[name].dtype == object for name in table):
        table.to_csv(path, index=False)
        return
    options = csv.WriteOptions(include_header=False, quoting_style="needed")
    with path.open("wb") as file:
        file.write((",".join(table.columns) + "\n").encode())
        csv.write_csv(pyarrow.Table.from_pandas(table, preserve_index=False), file, options)


def load(study_root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables of a study, made from its records as they are now.

    Raises:
        UserError: there is no such study; the message has the close match.
    """
    return write(find_study(study_root.name, study_root.parent))


def find_study(name: str, results: Path) -> Path:
    """The folder of a study.

    Raises:
        UserError: there is none of that name with a record in it.
    """
    root = results / name
    if root.is_dir() and any(root.glob("*/record.json")):
        return root
    known = [path.parent.parent.name for path in results.glob("*/*/record.json")] if results.is_dir() else []
    raise UserError(f"there is no study '{name}' in {results}", close_match(name, known))


def _replace(path: Path, write_to: Any) -> None:
    part = path.with_name(f".{path.name}.part")
    write_to(part)
    os.replace(part, path)


def _setting(record: dict[str, Any], name: str) -> Any:
    """A swept setting's value in this record: as swept, or as its configuration has it."""
    if name in record["swept"]:
        value = record["swept"][name]
    else:
        value = record["config"]
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    return str(value) if isinstance(value, dict | list) else value


def _trial_row(record: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Columns that name the trial, and all others that are no settings."""
    training, provenance, tasks = record["training"], record["provenance"], record["tasks"]
    hardware, backend = provenance["hardware"], provenance["backend"]
    return {"trial": record["trial"], "study": record["study"], **record["identifiers"]}, {
        "status": record["status"],
        "reason": record["reason"],
        "at_rest": training.get("at_rest"),
        "rest_reason": training.get("rest_reason"),
        "converged": training.get("converged"),
        "convergence_reason": training.get("convergence_reason"),
        "epochs": training.get("epochs"),
        "steps": training.get("steps"),
        "best_epoch": training.get("best_epoch"),
        "stopped_by": training.get("stopped_by"),
        "resumed": training.get("resumed"),
        "train_seconds": training.get("wall_seconds"),
        "wall_seconds": sum(task["wall_seconds"] for task in tasks.values()) or None,
        "train_peak_memory": training.get("peak_memory_mb"),
        "train_peak_device_memory": training.get("peak_device_memory_mb"),
        "n_parameters": training.get("n_parameters"),
        "dtype": record["config"]["dtype"],
        "device": hardware.get("device"),
        "device_name": hardware.get("device_name"),
        "cpu": hardware.get("cpu"),
        "threads": hardware.get("threads"),
        "python": backend.get("python"),
        **{f"version_{name}": version for name, version in sorted(backend["versions"].items())},
        "environment": backend["lock"][:12],
        "mlpbench": provenance["mlpbench"],
        "commit": provenance["commit"],
        "split_seed": record["split"]["split_seed"],
        "init_seed": provenance["init_seed"],
        "split": record["split"]["directory"],
        "started": record["started"],
        "finished": record["finished"],
        "key": record["key"],
    }
