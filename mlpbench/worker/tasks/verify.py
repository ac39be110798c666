"""Hold mlpbench's numbers against the package's own, in float64, on the same checkpoint and frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlpbench.frames import Frames
from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Adapter, common_loss


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: ``split``, ``n_frames``, ``batch_size``.

    Returns ``ours`` and ``package`` (energy_mae eV/atom, force_mae eV/Å ...), and for several weightings the
    ``loss`` pairs (ours, package's), whose quotient must not vary.
    """
    potential = adapter.load(dtype="float64")
    frames = Frames.load(adapter.request.frames[options["split"]]).select(slice(options.get("n_frames", 50)))
    prediction = potential.predict(frames, options["batch_size"])
    error = prediction.energy - frames.target_energy
    ours = {
        "energy_mae": float(np.mean(np.abs(error) / frames.n_atoms)),
        "energy_mae_total": float(np.mean(np.abs(error))),
        "force_mae": float(np.mean(np.abs(prediction.forces - frames.forces))),
    }
    one_batch = frames.select(slice(options["batch_size"]))
    # The package's loss has a stress term under these conditions, so ours needs the stress too.
    request = adapter.request
    stress = "stress" in request.labels and bool(request.training.get("stress_weight")) and one_batch.has_stress
    losses = []
    for energy_weight, force_weight in ((1.0, 1.0), (10.0, 1.0), (1.0, 100.0)):
        training = {**adapter.request.training, "energy_weight": energy_weight, "force_weight": force_weight}
        ours_loss = common_loss(potential.predict(one_batch, len(one_batch), stress), one_batch, training)
        losses.append([ours_loss, potential.package_loss(one_batch, training)])
    return {"ours": ours, "package": potential.package_metrics(frames, options["batch_size"]), "losses": losses}
