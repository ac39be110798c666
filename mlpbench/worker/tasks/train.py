"""Train the architecture with its package's own trainer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mlpbench.frames import Frames
from mlpbench.protocol import CHECKPOINT, EventLog
from mlpbench.worker.adapter import Adapter


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """No options. Returns the fields of :class:`~mlpbench.worker.adapter.TrainOutcome` and ``n_parameters``."""
    frames = adapter.request.frames
    train, valid = Frames.load(frames["train"]), Frames.load(frames["valid"])
    (adapter.directory / CHECKPOINT).mkdir(exist_ok=True)
    outcome = adapter.train(train, valid, events)
    return {**asdict(outcome), "n_parameters": adapter.load().n_parameters}
