"""Records as two pandas tables: one row a trial, and one row a trial, split and metric."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from mlpbench.errors import UserError, close_match
from mlpbench.evaluators import speed_table
from mlpbench.records import load_all

IDENTIFIERS = ["dataset", "architecture", "size", "backend", "n_train", "repetition"]
TRIALS = "trials"
METRICS = "metrics"
SPEED = "speed"
MACHINE = ["device", "device_name", "cpu", "threads"]


def build(
    records: list[dict[str, Any]], settings: Sequence[str] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The trials table and the long metrics table.

    A setting that only some trials swept is filled in for the others from their configuration, so that every swept
    setting is a column with a value in every row.

    Args:
        records: as :func:`mlpbench.records.load_all` reads them.
        settings: names of the swept settings; None: those of the records.
    """
    if settings is None:
        settings = sorted({name for record in records for name in record["swept"]})
    trials = pd.DataFrame([_trial_row(record, settings) for record in records])
    rows = [
        {"trial": record["trial"], **{k: record["identifiers"][k] for k in IDENTIFIERS}, **row,
         **{name: _setting(record, name) for name in settings}}
        for record in records
        for row in record["metrics"]
    ]  # fmt: skip
    columns = ["trial", *IDENTIFIERS, "split", "metric", "value", "unit", "lower", "upper", "n", *settings]
    metrics = pd.DataFrame(rows, columns=columns)
    for column in ("value", "lower", "upper"):
        metrics[column] = metrics[column].astype(float)
    return trials, metrics


def build_speed(records: list[dict[str, Any]]) -> pd.DataFrame:
    """The speed table, long: one row for each trial, path (deployment, dtype, TF32) and metric; empty if none.

    A path that could not run is one row with its ``status`` and ``reason``. Trials' swept settings stand in ``trials``.

    Args:
        records: as :func:`mlpbench.records.load_all` reads them.
    """
    rows = [
        {"trial": record["trial"], **{k: record["identifiers"][k] for k in IDENTIFIERS}, **row, **_machine(record)}
        for record in records
        for row in speed_table.rows(record)
    ]
    return pd.DataFrame(rows, columns=["trial", *IDENTIFIERS, *speed_table.COLUMNS, *MACHINE])


def _machine(record: dict[str, Any]) -> dict[str, Any]:
    hardware = record["provenance"]["hardware"]
    return {name: hardware.get(name) for name in MACHINE}


def write(study_root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Build both tables from the records of a study and write each as parquet and CSV, atomically.

    Where potentials were timed, the speed table is written beside them (see :func:`build_speed`).
    """
    with FileLock(study_root / ".tables.lock"):
        records = load_all(study_root)
        trials, metrics = build(records)
        tables = {TRIALS: trials, METRICS: metrics}
        speed = build_speed(records)
        if len(speed):
            tables[SPEED] = speed
        for name, table in tables.items():
            _replace(study_root / f"{name}.csv", lambda path, table=table: table.to_csv(path, index=False))
            _replace(study_root / f"{name}.parquet", lambda path, table=table: table.to_parquet(path, index=False))
    return trials, metrics


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


def _trial_row(record: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    training, provenance, tasks = record["training"], record["provenance"], record["tasks"]
    hardware, backend = provenance["hardware"], provenance["backend"]
    return {
        "trial": record["trial"],
        "study": record["study"],
        **record["identifiers"],
        **{name: _setting(record, name) for name in settings},
        "status": record["status"],
        "reason": record["reason"],
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
