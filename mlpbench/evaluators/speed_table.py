"""The speed table: each way in which a trial's potential was run (deployment, dtype, TF32), and what came of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlpbench.evaluators.speed import SECONDS_PER_DAY, best_batch, median_interval, noise_floor
from mlpbench.metrics import metric

Row = dict[str, Any]

COLUMNS = [
    "deployment", "means", "dtype", "tf32", "status", "reason", "metric", "value", "unit", "lower", "upper", "n",
    "notice",
]  # fmt: skip


def rows(record: dict[str, Any]) -> list[Row]:
    """One row for each path and metric of a trial, in :data:`COLUMNS`; of a path that did not run one, with its reason.

    The path that every trial has, eager in its own dtype, comes first.

    Args:
        record: of a trial, as :func:`mlpbench.records.load_record` reads it.
    """
    task = record["tasks"].get("speed")
    if task is None or task["status"] != "done":
        return []
    values = task["values"]
    first = {
        "deployment": "eager", "means": "", "dtype": record["config"]["dtype"], "tf32": False, "status": "done",
        "reason": "", "peak_memory_mb": task.get("peak_device_memory_mb") or task.get("peak_memory_mb"), **values,
    }  # fmt: skip
    paths = [first, *values.get("paths", [])]
    return [row for path in paths for row in _path_rows(path, values["n_atoms"], values["timestep_fs"])]


def _path_rows(path: dict[str, Any], n_atoms: float, timestep_fs: float) -> list[Row]:
    head = {key: path[key] for key in ("deployment", "means", "dtype", "tf32", "status", "reason")}
    notice = (path.get("conditions") or {}).get("notice", "")
    if path["status"] != "done":
        return [{**head, "metric": None, "value": None, "unit": "", "lower": None, "upper": None, "n": 0, "notice": ""}]
    latency = np.array(path["latency"] + path["latency_again"])
    step = np.array(path["md"])
    found: dict[str, Any] = {
        "us_per_atom": latency * 1e6 / n_atoms,
        "ms_per_call": latency * 1e3,
        "ms_per_md_step": step * 1e3,
        "ns_per_day": SECONDS_PER_DAY / step * timestep_fs * 1e-6,
        "ms_neighbours": np.array(path["neighbours"]) * 1e3 if path.get("neighbours") else None,
        "throughput": 1 / np.array(best_batch(path["batched"])) if path.get("batched") else None,
        "timing_noise": noise_floor(path["latency"], path["latency_again"]),
        "peak_memory": path.get("peak_memory_mb"),
        "prepare_seconds": path.get("prepare_seconds"),
        "path_energy_difference": _scaled(path.get("energy_difference"), 1e3),
        "path_force_difference": _scaled(path.get("force_difference"), 1e3),
    }
    return [
        {**head, "metric": name, "unit": metric(name).unit, **_value(value), "notice": notice}
        for name, value in found.items()
        if value is not None
    ]


def _value(value: Any) -> dict[str, Any]:
    if np.ndim(value) == 0:
        return {"value": float(value), "lower": None, "upper": None, "n": 1}
    middle, lower, upper = median_interval(value)
    return {"value": middle, "lower": lower, "upper": upper, "n": len(value)}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
