"""NequIP's own configuration and input files, from one common request.

What is built here is complete: ``nequip-train`` needs nothing but the folder it is written to.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from mlpbench.frames import Frames
from mlpbench.protocol import Request
from mlpbench.worker.adapters._nequip_data import STRESS_KEY, average_neighbours, energy_scale

MONITOR = "val0_epoch/weighted_sum"
BEST = "best"
LAST = "last"
TRAIN_FILE = "train.xyz"
VALID_FILE = "valid.xyz"


def used_labels(request_labels: Iterable[str], training: dict[str, Any], frames: Frames) -> tuple[str, ...]:
    """Which of energy, forces and stress the loss is made of."""
    labels = ["energy"]
    if "forces" in request_labels and frames.has_forces:
        labels.append("forces")
    if "stress" in request_labels and training.get("stress_weight") and frames.has_stress:
        labels.append("stress")
    return tuple(labels)


def loss_config(labels: tuple[str, ...], training: dict[str, Any]) -> dict[str, Any]:
    """NequIP's loss with the weights of the common loss (NequIP divides them by their sum, see :func:`loss_scale`).

    The means agree term by term: energy per atom over frames, forces over all components of the batch, stress over
    the six Voigt components (by the NaN of the lower triangle).
    """
    if labels == ("energy",):
        return {"_target_": "nequip.train.EnergyOnlyLoss", "per_atom_energy": True}
    coefficients = {"total_energy": float(training["energy_weight"]), "forces": float(training["force_weight"])}
    if "stress" not in labels:
        return {"_target_": "nequip.train.EnergyForceLoss", "per_atom_energy": True, "coeffs": coefficients}
    return {
        "_target_": "nequip.train.EnergyForceStressLoss",
        "per_atom_energy": True,
        "coeffs": {**coefficients, "stress": float(training["stress_weight"])},
        "ignore_nan": {"stress": True},
    }


def loss_scale(labels: tuple[str, ...], training: dict[str, Any]) -> float:
    """The factor by which the common loss is larger than NequIP's, whose coefficients are made to add up to 1."""
    scale = float(training["energy_weight"])
    if "forces" in labels:
        scale += float(training["force_weight"])
    if "stress" in labels:
        scale += float(training["stress_weight"])
    return scale


def metric_entries(labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Mean absolute errors that are followed beside the validation loss."""
    mae = {"_target_": "nequip.train.MeanAbsoluteError"}
    per_atom = {"_target_": "nequip.data.PerAtomModifier", "field": "total_energy"}
    entries = [{"name": "per_atom_energy_mae", "field": per_atom, "metric": mae}]
    if "forces" in labels:
        entries.append({"name": "forces_mae", "field": "forces", "metric": mae})
    return copy.deepcopy(entries)


def build_config(request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
    """The whole configuration for ``nequip-train``, with paths relative to the folder it is written to.

    Raises:
        ValueError: the budget has no limit, or no two atoms are within the cutoff.
    """
    labels = used_labels(request.labels, request.training, train)
    types = [chemical_symbols[z] for z in sorted({*train.numbers.tolist(), *valid.numbers.tolist()})]
    return {
        "run": ["train"],
        "hydra": {"run": {"dir": "."}, "output_subdir": None},
        "data": _data(request, labels, types),
        "trainer": _trainer(request, len(train)),
        "training_module": _training_module(request, labels, types, train),
    }


def merged(config: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """``config`` with ``overrides`` laid over it, mapping by mapping; anything else is replaced."""
    result = dict(config)
    for key, value in overrides.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def placed(config: dict[str, Any], native: Path, checkpoints: Path) -> dict[str, Any]:
    """The same configuration for a process that does not stand in the native folder: paths made absolute."""
    config = copy.deepcopy(config)
    for key in ("train_file_path", "val_file_path"):
        config["data"][key] = str(native / config["data"][key])
    for callback in config["trainer"]["callbacks"]:
        if "dirpath" in callback:
            callback["dirpath"] = str(checkpoints)
    return config


def _data(request: Request, labels: tuple[str, ...], types: list[str]) -> dict[str, Any]:
    batch = int(request.training["batch_size"])
    loader = {"_target_": "torch.utils.data.DataLoader", "num_workers": 0}
    return {
        "_target_": "nequip.data.datamodule.ASEDataModule",
        "seed": int(request.seed),
        "train_file_path": TRAIN_FILE,
        "val_file_path": VALID_FILE,
        "ase_args": {"format": "extxyz"},
        "key_mapping": {STRESS_KEY: "stress"} if "stress" in labels else {},
        "transforms": [
            {
                "_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
                "model_type_names": types,
                "chemical_species_to_atom_type_map": {symbol: symbol for symbol in types},
            },
            {
                "_target_": "nequip.data.transforms.NeighborListTransform",
                "r_max": float(request.architecture["cutoff"]),
            },
        ],
        "train_dataloader": {**loader, "batch_size": batch, "shuffle": True},
        # without second derivatives a frame takes well under half the memory it takes in training
        "val_dataloader": {**loader, "batch_size": 2 * batch},
    }


def _training_module(request: Request, labels: tuple[str, ...], types: list[str], train: Frames) -> dict[str, Any]:
    training = request.training
    decay = training["ema_decay"]
    loss = loss_config(labels, training)
    module = {
        "_target_": "nequip.train.NequIPLightningModule" if decay is None else "nequip.train.EMALightningModule",
        **({} if decay is None else {"ema_decay": float(decay)}),
        "loss": loss,
        # the same loss as in training, not NequIP's usual sum of root mean squares: all backends are judged alike
        "val_metrics": {**copy.deepcopy(loss), "extra_metrics": metric_entries(labels)},
        "optimizer": {
            "_target_": "torch.optim.Adam",
            "lr": float(training["lr"]),
            "weight_decay": float(training["weight_decay"]),
        },
        "model": _model(request, types, train),
    }
    if training["schedule"] == "plateau":
        module["lr_scheduler"] = {
            "scheduler": {
                "_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau",
                "mode": "min",
                "factor": float(training["lr_factor"]),
                "patience": int(training["lr_patience"]),
                "min_lr": float(training["lr_min"]),
            },
            "monitor": MONITOR,
            "interval": "epoch",
            "frequency": 1,
        }
    if training["schedule"] == "exponential":
        module["lr_scheduler"] = {
            "scheduler": {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "gamma": float(training["lr_gamma"])},
            "interval": "epoch",
            "frequency": 1,
        }
    return module


def _model(request: Request, types: list[str], train: Frames) -> dict[str, Any]:
    settings = request.architecture
    return {
        "_target_": "nequip.model.NequIPGNNModel",
        "seed": int(request.seed),
        "model_dtype": request.dtype,
        "compile_mode": "eager",
        "type_names": types,
        "r_max": float(settings["cutoff"]),
        "num_layers": settings["n_layers"],
        "l_max": settings["l_max"],
        "parity": settings["parity"],
        "num_features": settings["n_features"],
        "radial_mlp_depth": settings["radial_layers"],
        "radial_mlp_width": settings["radial_width"],
        "num_bessels": settings["n_radial_basis"],
        "bessel_trainable": settings["radial_basis_trainable"],
        "polynomial_cutoff_p": settings["cutoff_power"],
        "avg_num_neighbors": average_neighbours(train, float(settings["cutoff"])),
        # the baseline is gone from the targets already
        "per_type_energy_shifts": 0.0,
        "per_type_energy_scales": energy_scale(train),
    }


def _trainer(request: Request, n_train: int) -> dict[str, Any]:
    budget, training = request.budget, request.training
    callbacks: list[dict[str, Any]] = []
    if budget.get("seconds") is not None:
        callbacks.append(
            {
                "_target_": "lightning.pytorch.callbacks.Timer",
                "duration": {"_target_": "datetime.timedelta", "seconds": float(budget["seconds"])},
                "interval": "epoch",
                "verbose": False,
            }
        )
    if budget.get("patience") is not None:
        callbacks.append(
            {
                "_target_": "lightning.pytorch.callbacks.EarlyStopping",
                "monitor": MONITOR,
                "patience": int(budget["patience"]),
                "min_delta": 0.0,
            }
        )
    checkpoint = {
        "_target_": "lightning.pytorch.callbacks.ModelCheckpoint",
        "dirpath": "checkpoint",
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    # two, because save_last of a monitoring one writes only when it improves (Lightning 2.6)
    callbacks.append({**checkpoint, "filename": BEST, "monitor": MONITOR, "mode": "min", "save_top_k": 1})
    callbacks.append({**checkpoint, "filename": LAST})
    kind, _, index = request.device.partition(":")
    return {
        "_target_": "lightning.Trainer",
        "accelerator": "cpu" if kind == "cpu" else "gpu",
        "devices": [int(index)] if index else 1,
        "max_epochs": max_epochs(budget, math.ceil(n_train / int(training["batch_size"]))),
        "gradient_clip_val": training["gradient_clip"],
        "gradient_clip_algorithm": "norm",
        "check_val_every_n_epoch": 1,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": callbacks,
    }


def max_epochs(budget: dict[str, Any], steps_per_epoch: int) -> int:
    """The limit in epochs that the budget's ``epochs`` and ``steps`` amount to; -1 where neither is set.

    Lightning's own ``max_steps`` ends in mid-epoch, unvalidated; this ends with the epoch in which they are reached.

    Raises:
        ValueError: the budget has no limit at all.
    """
    limits = []
    if budget.get("epochs") is not None:
        limits.append(int(budget["epochs"]))
    if budget.get("steps") is not None:
        limits.append(math.ceil(int(budget["steps"]) / steps_per_epoch))
    if not limits and budget.get("seconds") is None and budget.get("patience") is None:
        raise ValueError("the budget has no limit: set one of epochs, steps, seconds, patience")
    return min(limits, default=-1)
