"""Train with the package's own trainer, predict with the result, and compare our numbers with the package's."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from mlpbench.frames import Float, Frames
from mlpbench.protocol import CHECKPOINT, PREDICTIONS, EventLog, Request, replacing
from mlpbench.worker.adapter import Adapter, Unusable, common_loss
from mlpbench.worker.clock import EnergyMeter
from mlpbench.worker.start import summary
from mlpbench.worker.training import RefusedOption, check_labels


def check_options(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """No options. Returns ``refused``: why an option in ``architecture.native`` cannot be used; None if all can."""
    frames = adapter.request.frames
    try:
        adapter.check_options(Frames.load(frames["train"]), Frames.load(frames["valid"]))
    except RefusedOption as refused:
        return {"refused": str(refused)}
    return {"refused": None}


def check_start(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """No options. Returns ``refused``: why the weights that are to be started from cannot be; None if they can.

    They are loaded, and asked for the frames of the split ``train``, which has every element of the data.
    """
    try:
        start = adapter.start
        if start is not None:
            prediction = start.load().predict(Frames.load(adapter.request.frames["train"]), 8)
            if not np.isfinite(prediction.forces).all():
                raise ValueError("its forces are not finite")
    except (Unusable, ValueError, KeyError) as error:
        return {"refused": str(error)}
    return {"refused": None}


def train(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """No options. Returns the fields of :class:`~mlpbench.worker.adapter.TrainOutcome`, ``n_parameters`` and
    ``energy_wh``: what the device used in the whole training, None where that is not known. Of a training that does not
    start from scratch also ``start``, see :func:`mlpbench.worker.start.summary`.
    """
    frames = adapter.request.frames
    train, valid = Frames.load(frames["train"]), Frames.load(frames["valid"])
    _check_capabilities(adapter.request, train)
    check_labels(adapter.request.labels, train=train, valid=valid)
    (adapter.directory / CHECKPOINT).mkdir(exist_ok=True)
    meter = EnergyMeter(adapter.request.device)
    outcome = adapter.train(train, valid, events)
    energy = None if outcome.resumed else meter.watt_hours()  # what earlier sessions used was not counted
    values = {**asdict(outcome), "n_parameters": adapter.load().n_parameters, "energy_wh": energy}
    return values | ({"start": summary(adapter.request, adapter.checkpoints)} if adapter.request.start else {})


def _check_capabilities(request: Request, train: Frames) -> None:
    """What the backend's declaration says that it cannot do is not tried.

    Raises:
        ValueError: labels that it cannot train on, or periodic frames where it has no periodic boundaries.
    """
    name, labels = request.architecture["name"], request.capabilities.get("labels", request.labels)
    impossible = [label for label in request.labels if label not in labels]
    if impossible:
        raise ValueError(
            f"{name} cannot train on {', '.join(impossible)}, only on "
            f"{', '.join(labels)}: set dataset.labels, and training.stress_weight=0 without stress"
        )
    if train.pbc.any() and not request.capabilities.get("periodic", True):
        raise ValueError(f"{name} knows no periodic boundaries, and the training frames are periodic")


def predict(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
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
    with replacing(adapter.directory / output) as part, open(part, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stub takes **kwds for allow_pickle
    return {"splits": list(options["splits"])}


def verify(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
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
