"""A common request as SchNetPack's configuration (the layout of ``spktrain``) and its ASE database."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.db import connect
from ase.stress import voigt_6_to_full_3x3_stress

from mlpbench.frames import Frames
from mlpbench.protocol import WEIGHTS, Request
from mlpbench.worker.adapters._schnetpack_train import MONITOR
from mlpbench.worker.common_training import ANNEALED, Steps
from mlpbench.worker.training import clip_norm, label_scale

DATA = "data.db"
SPLIT = "split.npz"
CONFIG = "config.yaml"
START = "start.pt"  # weights that the training starts from
UNITS = {"energy": "eV", "forces": "eV/Ang", "stress": "eV/Ang/Ang/Ang"}
CAST = {"float32": "schnetpack.transform.CastTo32", "float64": "schnetpack.transform.CastTo64"}
PRECISION = {"float32": "32-true", "float64": "64-true"}
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "adam": ("torch.optim.Adam", {}),
    "amsgrad": ("torch.optim.Adam", {"amsgrad": True}),
    "adamw": ("torch.optim.AdamW", {}),
}
BASIS = {"gaussian": "schnetpack.nn.radial.GaussianRBF", "bessel": "schnetpack.nn.radial.BesselRBF"}
VALID_BATCH = 4  # a validation batch may be larger: no second derivatives are kept


def build_config(request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
    """The whole configuration; paths are relative to the folder ``native``.

    Args:
        request: what is asked for.
        train: its training frames.
        valid: its validation frames.
    """
    training, labels = request.training, request.labels
    steps = Steps.of(request.budget, training["batch_size"], len(train))
    scale = label_scale(train, labels)
    return {
        "seed": request.seed,
        "threads": request.threads,
        "data": {
            "_target_": "train.InMemoryData",
            "datapath": DATA,
            "split_file": SPLIT,
            "seed": request.seed,
            "interval": steps.interval,
            "load_properties": list(labels),
            "batch_size": training["batch_size"],
            "val_batch_size": VALID_BATCH * training["batch_size"],
            "num_workers": 0,
            "transforms": [
                neighbour_list(request.architecture["cutoff"], train.pbc, valid.pbc),
                {"_target_": CAST[request.dtype]},
            ],
        },
        "model": _model(request.architecture, request.dtype, "stress" in labels, scale),
        "task": _task(training, labels),
        "callbacks": _callbacks(request, steps),
        "trainer": _trainer(request, steps, scale),
    }


def neighbour_list(cutoff: float, *pbc: Any) -> dict[str, Any]:
    """The fastest neighbour list of SchNetPack that is right for these (F, 3) periodicities.

    Vesin's knows all or no directions periodic, and for a mixture (a slab) there is ASE's; Matscipy's replaces
    the cell of a slab without a third vector.
    """
    periodic = np.concatenate([np.asarray(part).reshape(-1, 3) for part in pbc])
    mixed = bool((periodic.any(axis=1) & ~periodic.all(axis=1)).any())
    name = "ASENeighborList" if mixed else "VesinNeighborList"
    return {"_target_": f"schnetpack.transform.{name}", "cutoff": float(cutoff)}


def _model(architecture: dict[str, Any], dtype: str, stress: bool, scale: float) -> dict[str, Any]:
    cutoff, width = float(architecture["cutoff"]), architecture["n_features"]
    basis = BASIS[architecture["radial_basis"]]
    representation = {
        "n_atom_basis": width,
        "n_interactions": architecture["n_interactions"],
        "radial_basis": {"_target_": basis, "n_rbf": architecture["n_rbf"], "cutoff": cutoff},
        "cutoff_fn": {"_target_": "schnetpack.nn.cutoff.CosineCutoff", "cutoff": cutoff},
    }
    if architecture["name"] == "schnet":
        own = {"_target_": "schnetpack.representation.SchNet", "n_filters": architecture["n_filters"]}
    else:
        shared = architecture["shared_filters"]
        own = {"_target_": "schnetpack.representation.PaiNN", "shared_filters": shared}
    strain = [{"_target_": "schnetpack.atomistic.Strain"}] if stress else []
    as_dtype = {"_target_": "schnetpack.utils.as_dtype", "dtype_str": dtype}
    return {
        "_target_": "schnetpack.model.NeuralNetworkPotential",
        "input_dtype_str": dtype,
        "input_modules": [*strain, {"_target_": "schnetpack.atomistic.PairwiseDistances"}],
        "representation": {**own, **representation},
        "output_modules": [
            {
                "_target_": "schnetpack.atomistic.Atomwise",
                "output_key": "energy",
                "n_in": width,
                "n_layers": architecture["n_output_layers"],
                "aggregation_mode": "sum",
            },
            {
                "_target_": "schnetpack.transform.ScaleProperty",  # a fixed number: the size of the labels
                "input_key": "energy",
                "scale": {"_target_": "torch.tensor", "data": [scale], "dtype": as_dtype},
            },
            {"_target_": "schnetpack.atomistic.Forces", "calc_forces": True, "calc_stress": stress},
        ],
    }


def carried_over(model: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
    """The configuration ``model`` with the scale of the output in ``start``, the configuration of a trained one."""
    (scale,) = (part["scale"]["data"] for part in start["output_modules"] if "scale" in part)
    modules = [
        {**part, "scale": {**part["scale"], "data": scale}} if "scale" in part else part
        for part in model["output_modules"]
    ]
    return {**model, "output_modules": modules}


def outputs_config(labels: list[str], training: dict[str, Any]) -> list[dict[str, Any]]:
    """SchNetPack's outputs, whose losses add up to the common loss."""
    outputs = []
    for label in labels:
        output: dict[str, Any] = {
            "_target_": "train.Output",
            "name": label,
            "per_atom": label == "energy",
            "voigt": label == "stress",
            "loss_fn": {"_target_": "torch.nn.MSELoss"},
            "loss_weight": float(training[WEIGHTS[label]]),
            "metrics": {
                "mae": {"_target_": "torchmetrics.MeanAbsoluteError"},
                "mse": {"_target_": "torchmetrics.MeanSquaredError"},
            },
        }
        outputs.append(output)
    # No loss and no metric: it only makes the task hand the numbers of atoms to the output of the energy.
    counts = {"name": "energy", "target_property": "_n_atoms", "metrics": {}}
    return [*outputs, {"_target_": "schnetpack.task.ModelOutput", **counts}]


def _task(training: dict[str, Any], labels: list[str]) -> dict[str, Any]:
    optimizer, options = OPTIMIZERS[training["optimizer"]]
    task: dict[str, Any] = {
        "_target_": "schnetpack.task.AtomisticTask",
        "outputs": outputs_config(labels, training),
        "optimizer_cls": optimizer,
        # fused: one call for all weights; on a CPU a third of the time of a step goes otherwise
        "optimizer_args": {"lr": training["lr"], "weight_decay": training["weight_decay"], "fused": True, **options},
        "scheduler_cls": None,
    }
    if training["schedule"] == "plateau":
        task |= {
            "scheduler_cls": "schnetpack.train.ReduceLROnPlateau",
            "scheduler_monitor": MONITOR,
            "scheduler_args": {
                "mode": "min",
                "factor": training["lr_factor"],
                "patience": training["lr_patience"],
                "min_lr": training["lr_min"],
            },
        }
    if training["schedule"] == "exponential":
        task |= {
            "scheduler_cls": "torch.optim.lr_scheduler.ExponentialLR",
            "scheduler_args": {"gamma": training["lr_gamma"]},
        }
    return task


def _callbacks(request: Request, steps: Steps) -> dict[str, Any]:
    training, budget = request.training, request.budget
    callbacks: dict[str, Any] = {"valid_loss": {"_target_": "train.ValidLoss"}}
    if training["schedule"] in ANNEALED:
        schedule = {name: training[name] for name in ("schedule", "lr", "lr_min", "warmup_steps")}
        callbacks["annealing"] = {"_target_": "train.Annealing", "training": schedule, "steps": asdict(steps)}
    if training["ema_decay"] is not None:
        callbacks["ema"] = {"_target_": "train.Averaging", "decay": training["ema_decay"]}
    if budget.get("patience") is not None:
        callbacks["early_stopping"] = {
            "_target_": "pytorch_lightning.callbacks.EarlyStopping",
            "monitor": MONITOR,
            "patience": budget["patience"],
            "check_on_train_epoch_end": True,
        }
    if budget.get("seconds") is not None:
        callbacks["timer"] = {
            "_target_": "pytorch_lightning.callbacks.Timer",
            "duration": {"_target_": "datetime.timedelta", "seconds": budget["seconds"]},
            "interval": "epoch",
            "verbose": False,
        }
    saving = {"dirpath": "checkpoints", "save_on_train_epoch_end": True, "enable_version_counter": False}
    callbacks["best"] = {
        "_target_": "schnetpack.train.ModelCheckpoint",
        **saving,
        "filename": "best",
        "model_path": "checkpoints/best_model",
        "monitor": MONITOR,
        "mode": "min",
    }
    # Another one, because save_last of the first writes in epochs that improve only (Lightning 2.6).
    callbacks["last"] = {"_target_": "pytorch_lightning.callbacks.ModelCheckpoint", **saving, "filename": "last"}
    return callbacks


def _trainer(request: Request, steps: Steps, scale: float) -> dict[str, Any]:
    device = request.device
    on_gpu = device.startswith("cuda")
    return {
        "_target_": "pytorch_lightning.Trainer",
        "accelerator": "gpu" if on_gpu else "cpu",
        "devices": [int(device.partition(":")[2] or 0)] if on_gpu else 1,
        "precision": PRECISION[request.dtype],
        "max_epochs": -1 if steps.intervals is None else steps.intervals,
        "gradient_clip_val": clip_norm(request.training, scale),
        "inference_mode": False,  # forces are derivatives, in validation too
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the entries of ``over`` put over it, dictionary by dictionary."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


def placed(config: dict[str, Any], native: Path, checkpoints: Path) -> dict[str, Any]:
    """The configuration with absolute paths, to be used from any working directory."""
    saving = {"dirpath": str(checkpoints)}
    callbacks = {"best": {**saving, "model_path": str(checkpoints / "best_model")}, "last": saving}
    data = {"datapath": str(native / DATA), "split_file": str(native / SPLIT)}
    start = {"start": str(native / START)} if "start" in config else {}
    return merged(config, {"data": data, "callbacks": callbacks, **start})


def structures(frames: Frames) -> list[Atoms]:
    """ASE structures without labels; left-handed cells mirrored, as SchNetPack's stress has the volume's sign."""
    atoms = frames.to_atoms()
    for each in atoms:
        each.calc = None
        if np.linalg.det(each.cell.array) < 0:
            each.set_cell(-each.cell.array)  # the same lattice
    return atoms


def targets(frames: Frames, labels: list[str]) -> list[dict[str, Any]]:
    """Per frame ``energy`` (1,) eV without baseline, ``forces`` (n, 3) eV/Å and ``stress`` (1, 3, 3) eV/Å³."""
    offsets, out = frames.offsets, []
    for i in range(len(frames)):
        values: dict[str, Any] = {}
        if "energy" in labels:
            values["energy"] = frames.target_energy[i : i + 1].copy()
        if "forces" in labels:
            values["forces"] = frames.forces[offsets[i] : offsets[i + 1]].copy()
        if "stress" in labels:
            values["stress"] = voigt_6_to_full_3x3_stress(frames.stress[i])[None]
        out.append(values)
    return out


def write_data(folder: Path, train: Frames, valid: Frames, labels: list[str]) -> None:
    """Write ``data.db`` and ``split.npz`` as SchNetPack reads them, unless they hold these frames already."""
    path, frames = folder / DATA, Frames.concatenate([train, valid])
    digest = hashlib.sha256(repr(labels).encode())
    for field in fields(frames):
        digest.update(np.ascontiguousarray(getattr(frames, field.name)).tobytes())
    if path.exists() and connect(path, use_lock_file=False).metadata.get("digest") == digest.hexdigest():
        return
    part = folder / f".part.{DATA}"
    part.unlink(missing_ok=True)
    # One transaction; SchNetPack's writer takes one per frame.
    with connect(part, use_lock_file=False) as database:
        database.metadata = {
            "_property_unit_dict": {label: UNITS[label] for label in labels},
            "_distance_unit": "Ang",
            "atomrefs": {},
            "digest": digest.hexdigest(),
        }
        for atoms, values in zip(structures(frames), targets(frames, labels), strict=True):
            database.write(atoms, data=values)
    index = np.arange(len(frames))
    np.savez(folder / SPLIT, train_idx=index[: len(train)], val_idx=index[len(train) :], test_idx=index[:0])
    os.replace(part, path)
