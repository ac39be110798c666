"""What a training cost, and after how many MD steps labels and training are paid back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpbench.evaluators import Context, Row
from mlpbench.metrics import metric_row


def score(directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """Rows of the finished training; all that they need stands in ``context``."""
    return rows(context.training, context.curve, context.training["threads"])


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
        metric_row("", name, value) for name, value in values.items() if value is not None
    ]


@dataclass(frozen=True)
class Payback:
    """What was invested, and when it is back.

    Attributes:
        labels: cost of all labels.
        training: cost of the training.
        saved: by each MD step that the potential takes in place of the reference; not positive: it saves nothing.
    """

    labels: float
    training: float
    saved: float

    @property
    def invested(self) -> float:
        """Labels and training together."""
        return self.labels + self.training

    @property
    def steps(self) -> float | None:
        """MD steps until the investment is back; None if it never is."""
        return self.invested / self.saved if self.saved > 0 else None


def payback(
    n_labels: int,
    reference_seconds: float,
    training_seconds: float,
    step_seconds: float,
    *,
    reference_rate: float = 1.0,
    training_rate: float = 1.0,
    step_rate: float = 1.0,
) -> Payback:
    """Break-even (labels × reference + training) / (reference − MD step).

    Args:
        n_labels: training and validation frames.
        reference_seconds: of one label, and of one MD step with the reference, s.
        training_seconds: s.
        step_seconds: of one MD step with the potential, s.
        reference_rate: cost of one second of the reference: 1 for wall time, its cores for core-seconds, a price.
        training_rate: likewise of the training.
        step_rate: likewise of MD with the potential.
    """
    label = reference_seconds * reference_rate
    return Payback(n_labels * label, training_seconds * training_rate, label - step_seconds * step_rate)
