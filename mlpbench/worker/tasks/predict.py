"""Predict energies and forces (and stress) on every split that is asked for."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from mlpbench.frames import Float, Frames
from mlpbench.protocol import PREDICTIONS, EventLog
from mlpbench.worker.adapter import Adapter


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: ``splits`` (names), ``batch_size`` (frames), ``stress`` (splits to predict it on), ``output`` (file).

    Writes ``predictions.npz`` with arrays ``<split>.energy`` (F,) eV without baseline, ``<split>.forces`` (A, 3) eV/Å,
    and ``<split>.stress`` (F, 6) eV/Å³.
    """
    potential = adapter.load()
    arrays: dict[str, Float] = {}
    for split in options["splits"]:
        frames = Frames.load(adapter.request.frames[split])
        prediction = potential.predict(frames, options["batch_size"], stress=split in options.get("stress", []))
        arrays[f"{split}.energy"] = prediction.energy
        arrays[f"{split}.forces"] = prediction.forces
        if prediction.stress is not None:
            arrays[f"{split}.stress"] = prediction.stress
        events.write("predicted", split=split, frames=len(frames))
    output = options.get("output", PREDICTIONS)
    part = adapter.directory / f".{output}.part"
    with open(part, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stub takes **kwds for allow_pickle
    os.replace(part, adapter.directory / output)
    return {"splits": list(options["splits"])}
