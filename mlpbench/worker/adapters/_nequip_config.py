"""NequIP's own configuration and input files, from one common request.

What is written is complete: ``nequip-train`` needs nothing but the folder it lies in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from matscipy.neighbours import neighbour_list

from mlpbench.frames import Frames
from mlpbench.protocol import WEIGHTS, Request
from mlpbench.worker import common_training
from mlpbench.worker.common_training import ANNEALED, Steps
from mlpbench.worker.training import clip_norm, label_scale

MONITOR = "val0_epoch/weighted_sum"
ENERGY_MAE, FORCE_MAE = "per_atom_energy_mae", "forces_mae"
BEST = "best"
LAST = "last"
START = "start.ckpt"  # what the training starts from, beside config.yaml
TRAIN_FILE = "train.xyz"
VALID_FILE = "valid.xyz"

# The six Voigt components of a stress lie in the upper triangle; the lower one is NaN and left out of the mean,
# so that a shear component counts once, as in the common loss, and not twice.
STRESS_KEY = "stress_upper"

_PER_ATOM_ENERGY = {"_target_": "nequip.data.PerAtomModifier", "field": "total_energy"}
_BESIDE = "common_training"  # the module's name beside the configuration, where the package runs alone


def loss_config(labels: Sequence[str], training: Mapping[str, Any]) -> dict[str, Any]:
    """NequIP's loss with the weights of the common loss (NequIP divides them by their sum, see :func:`loss_scale`).

    The means agree term by term: energy per atom over frames, forces over all components of the batch, stress over
    the six Voigt components (by the NaN of the lower triangle).
    """
    terms = []
    for label in labels:
        term = {
            "name": "per_atom_energy_mse" if label == "energy" else f"{label}_mse",
            "field": dict(_PER_ATOM_ENERGY) if label == "energy" else label,
            "coeff": float(training[WEIGHTS[label]]),
            "metric": {"_target_": "nequip.train.MeanSquaredError"},
        }
        terms.append({**term, "ignore_nan": True} if label == "stress" else term)
    return {"_target_": "nequip.train.MetricsManager", "metrics": terms}


def loss_scale(labels: Sequence[str], training: Mapping[str, Any]) -> float:
    """The factor by which the common loss is larger than NequIP's, whose coefficients are made to add up to 1.

    Raises:
        ValueError: all weights are zero.
    """
    scale = sum(float(training[WEIGHTS[label]]) for label in labels)
    if scale <= 0:
        raise ValueError(f"nothing to train on: the loss weights of {', '.join(labels) or 'no label'} are zero")
    return scale


def _errors_to_follow(labels: Sequence[str]) -> list[dict[str, Any]]:
    """Mean absolute errors that are followed beside the validation loss."""
    fields = {"energy": (ENERGY_MAE, dict(_PER_ATOM_ENERGY)), "forces": (FORCE_MAE, "forces")}
    return [
        {"name": name, "field": field, "metric": {"_target_": "nequip.train.MeanAbsoluteError"}}
        for label, (name, field) in fields.items()
        if label in labels
    ]


def build_config(request: Request, train: Frames, valid: Frames, model: Mapping[str, Any]) -> dict[str, Any]:
    """The whole configuration for ``nequip-train``, with paths relative to the folder it is written to.

    Args:
        request: settings, budget, labels.
        train: frames to train on.
        valid: frames to validate on.
        model: what is special about the architecture: its builder (``_target_``) and hyperparameters.

    Raises:
        ValueError: the budget has no limit, no two atoms are within the cutoff, or all loss weights are zero.
    """
    types = [chemical_symbols[z] for z in sorted({*train.numbers.tolist(), *valid.numbers.tolist()})]
    steps = Steps.of(request.budget, int(request.training["batch_size"]), len(train))
    scale = label_scale(train, request.labels)
    cutoff = float(request.architecture["cutoff"])
    common_model = {
        "seed": int(request.seed),
        "model_dtype": request.dtype,
        "compile_mode": "eager",
        "type_names": types,
        "r_max": cutoff,
        "avg_num_neighbors": average_neighbours(train, cutoff),
        # the baseline is gone from the targets already
        "per_type_energy_shifts": 0.0,
        "per_type_energy_scales": scale,  # NequIP does not train it
    }
    return {
        "run": ["train"],
        "hydra": {"run": {"dir": "."}, "output_subdir": None},
        "data": _data(request, steps, types),
        "trainer": _trainer(request, steps, scale),
        "training_module": _training_module(request, steps, {**model, **common_model}),
    }


def carried_over(config: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """``config`` for a ``model`` that was trained before: its elements, scale and average neighbour number are kept."""
    types = list(model["type_names"])
    transforms = [
        {
            **transform,
            "model_type_names": types,
            "chemical_species_to_atom_type_map": {symbol: symbol for symbol in types},
        }
        if "model_type_names" in transform
        else transform
        for transform in config["data"]["transforms"]
    ]
    parts = {"data": {"transforms": transforms}, "training_module": {"model": model}}
    return merged(config, parts)


def merged(config: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """``config`` with ``overrides`` laid over it, mapping by mapping; anything else is replaced."""
    result = dict(config)
    for key, value in overrides.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else copy.deepcopy(value)
    return result


def placed(config: dict[str, Any], native: Path, checkpoints: Path) -> dict[str, Any]:
    """The same configuration for this process, which does not stand in the native folder.

    Paths are made absolute, and :mod:`mlpbench.worker.common_training` is itself, not its copy beside the file.
    """
    config = _renamed(config)
    for key in ("train_file_path", "val_file_path"):
        config["data"][key] = str(native / config["data"][key])
    for callback in config["trainer"]["callbacks"]:
        if "dirpath" in callback:
            callback["dirpath"] = str(checkpoints)
    return config


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    if isinstance(value, str) and value.startswith(f"{_BESIDE}."):
        return common_training.__name__ + value.removeprefix(_BESIDE)
    return value


def _data(request: Request, steps: Steps, types: list[str]) -> dict[str, Any]:
    loader = {"_target_": "torch.utils.data.DataLoader", "num_workers": 0}
    return {
        "_target_": "nequip.data.datamodule.ASEDataModule",
        "seed": int(request.seed),
        "train_file_path": TRAIN_FILE,
        "val_file_path": VALID_FILE,
        "ase_args": {"format": "extxyz"},
        "key_mapping": {STRESS_KEY: "stress"} if "stress" in request.labels else {},
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
        "train_dataloader": {
            **loader,
            "batch_sampler": {
                "_target_": f"{_BESIDE}.IntervalSampler",
                "n_frames": steps.n_train,
                "batch_size": steps.batch_size,
                "interval": steps.interval,
                "seed": int(request.seed),
            },
        },
        # without second derivatives a frame takes well under half the memory it takes in training
        "val_dataloader": {**loader, "batch_size": 2 * int(request.training["batch_size"])},
    }


def _training_module(request: Request, steps: Steps, model: dict[str, Any]) -> dict[str, Any]:
    training, labels = request.training, request.labels
    decay = training["ema_decay"]
    loss = loss_config(labels, training)
    # the same loss as in training, not NequIP's usual sum of root mean squares: all backends are judged alike
    validation = {**copy.deepcopy(loss), "metrics": copy.deepcopy(loss["metrics"]) + _errors_to_follow(labels)}
    module = {
        "_target_": "nequip.train.NequIPLightningModule" if decay is None else "nequip.train.EMALightningModule",
        **({} if decay is None else {"ema_decay": float(decay)}),
        "loss": loss,
        "val_metrics": validation,
        "optimizer": {
            "_target_": "torch.optim.AdamW" if training["optimizer"] == "adamw" else "torch.optim.Adam",
            "lr": float(training["lr"]),
            "betas": [0.9, 0.999],
            "eps": 1e-8,
            "weight_decay": float(training["weight_decay"]),
            "amsgrad": training["optimizer"] == "amsgrad",
        },
        "model": model,
    }
    scheduler = _scheduler(training, steps)
    return module if scheduler is None else {**module, "lr_scheduler": scheduler}


def _scheduler(training: Mapping[str, Any], steps: Steps) -> dict[str, Any] | None:
    if training["schedule"] in ANNEALED:
        rate = {
            "_target_": f"{_BESIDE}.relative_rate",
            "_partial_": True,
            "schedule": training["schedule"],
            "lr": float(training["lr"]),
            "lr_min": float(training["lr_min"]),
            "warmup_steps": int(training["warmup_steps"]),
            "total": steps.total,
        }
        scheduler = {"_target_": "torch.optim.lr_scheduler.LambdaLR", "lr_lambda": rate}
        return {"scheduler": scheduler, "interval": "step", "frequency": 1}
    if training["schedule"] == "plateau":
        scheduler = {
            "_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau",
            "mode": "min",
            "factor": float(training["lr_factor"]),
            "patience": int(training["lr_patience"]),
            "min_lr": float(training["lr_min"]),
        }
        return {"scheduler": scheduler, "monitor": MONITOR, "interval": "epoch", "frequency": 1}
    if training["schedule"] == "exponential":
        scheduler = {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "gamma": float(training["lr_gamma"])}
        return {"scheduler": scheduler, "interval": "epoch", "frequency": 1}
    return None


def _trainer(request: Request, steps: Steps, scale: float) -> dict[str, Any]:
    budget, training = request.budget, request.training
    callbacks: list[dict[str, Any]] = []
    if steps.seconds is not None:
        callbacks.append(
            {
                "_target_": "lightning.pytorch.callbacks.Timer",
                "duration": {"_target_": "datetime.timedelta", "seconds": float(steps.seconds)},
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
        "max_epochs": -1 if steps.intervals is None else steps.intervals,
        "gradient_clip_val": clip_norm(training, scale, 1 / loss_scale(request.labels, training)),
        "gradient_clip_algorithm": "norm",
        "check_val_every_n_epoch": 1,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": callbacks,
    }


def average_neighbours(frames: Frames, cutoff: float) -> float:
    """Neighbours within ``cutoff`` (Å) of an atom, averaged over all atoms of ``frames``.

    Raises:
        ValueError: no atom has any.
    """
    pairs = sum(len(neighbour_list("i", atoms, cutoff)) for atoms in _boxed(frames))
    if pairs == 0:
        raise ValueError(f"no two atoms of the training set are closer than the cutoff of {cutoff} Å")
    return pairs / len(frames.numbers)


def _boxed(frames: Frames) -> Iterable[Atoms]:
    """Structures whose missing lattice vectors are completed, as NequIP's neighbour list does."""
    for atoms in frames.to_atoms():
        atoms.cell = atoms.cell.complete()
        yield atoms


def write_frames(path: Path, frames: Frames, labels: Sequence[str]) -> None:
    """Write extended XYZ with every float64 exact (ASE's own writer keeps eight decimals of positions and forces).

    The energy is the target: without the baseline.
    """
    offsets, energy = frames.offsets, frames.target_energy
    columns = "species:S:1:pos:R:3" + (":forces:R:3" if "forces" in labels else "")
    with open(path, "w", encoding="utf-8") as stream:
        for i in range(len(frames)):
            part = slice(offsets[i], offsets[i + 1])
            comment = [
                f'Lattice="{_numbers(frames.cell[i])}"',
                f"Properties={columns}",
                'pbc="' + " ".join("T" if p else "F" for p in frames.pbc[i]) + '"',
            ]
            if "energy" in labels:
                comment.append(f"energy={float(energy[i])!r}")
            if "stress" in labels:
                comment.append(f'{STRESS_KEY}="{_numbers(upper_triangle(frames.stress[i]))}"')
            stream.write(f"{frames.n_atoms[i]}\n{' '.join(comment)}\n")
            values = frames.positions[part]
            if "forces" in labels:
                values = np.concatenate([values, frames.forces[part]], axis=1)
            for number, row in zip(frames.numbers[part], values, strict=True):
                stream.write(f"{chemical_symbols[number]} {_numbers(row)}\n")


def _numbers(values: Any) -> str:
    return " ".join(repr(float(value)) for value in np.ravel(values))


def upper_triangle(voigt: Any) -> Any:
    """(3, 3) from six Voigt components (xx yy zz yz xz xy), NaN below the diagonal."""
    xx, yy, zz, yz, xz, xy = voigt
    return np.array([[xx, xy, xz], [np.nan, yy, yz], [np.nan, np.nan, zz]])


def target_atoms(frames: Frames) -> list[Atoms]:
    """ASE structures whose labelled energy is the target (without the baseline)."""
    return replace(frames, energy=frames.target_energy, baseline=np.zeros(len(frames))).to_atoms()
