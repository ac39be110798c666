"""Train the architecture with its package's own trainer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mlpbench.frames import Frames
from mlpbench.protocol import CHECKPOINT, EventLog
from mlpbench.worker.adapter import Adapter
from mlpbench.worker.timing.energy import EnergyMeter


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """No options. Returns the fields of :class:`~mlpbench.worker.adapter.TrainOutcome`, ``n_parameters`` and
    ``energy_wh``: what the device used in the whole training, None where that is not known.
    """
    frames = adapter.request.frames
    train, valid = Frames.load(frames["train"]), Frames.load(frames["valid"])
    (adapter.directory / CHECKPOINT).mkdir(exist_ok=True)
    meter = EnergyMeter(adapter.request.device)
    outcome = adapter.train(train, valid, events)
    energy = None if outcome.resumed else meter.watt_hours()  # what earlier sessions used was not counted
    return {**asdict(outcome), "n_parameters": adapter.load().n_parameters, "energy_wh": energy}
