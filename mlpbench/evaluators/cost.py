"""What a training cost, as rows."""

from __future__ import annotations

from typing import Any

from mlpbench.evaluators import Row
from mlpbench.metrics import metric


def rows(training: dict[str, Any], curve: list[dict[str, Any]], threads: int) -> list[Row]:
    """Rows of the cost metrics; those that are not known are left out.

    Args:
        training: of the record: ``wall_seconds``, ``on_device``, ``peak_memory_mb``, ``n_parameters``, ``best_epoch``,
            and ``energy_wh`` where a device counted it.
        curve: the epochs, each with ``epoch`` and ``step``.
        threads: of the CPU; a training on a device holds one device.
    """
    held = 1 if training["on_device"] else threads
    values = {
        "train_seconds": training["wall_seconds"],
        "train_device_seconds": training["wall_seconds"] * held,
        "train_peak_memory": training["peak_memory_mb"],
        "train_energy": training.get("energy_wh"),
        "n_parameters": training["n_parameters"],
        "best_epoch": training["best_epoch"],
        "best_step": next((e["step"] for e in curve if e["epoch"] == training["best_epoch"]), None),
    }
    return [
        {"split": "", "metric": name, "value": value, "unit": metric(name).unit, "lower": None, "upper": None, "n": 1}
        for name, value in values.items()
        if value is not None
    ]
