"""MACE's own configuration and input files, from one common request.

What is written is complete: ``python train.py --config config.yaml`` needs nothing but MACE and its own folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from ase.data import chemical_symbols

from mlpbench.frames import Frames
from mlpbench.protocol import Request, replacing, write_json
from mlpbench.worker import common_training
from mlpbench.worker.adapters import _mace_corrections as corrections
from mlpbench.worker.common_training import Steps
from mlpbench.worker.training import RefusedOption, clip_norm, label_scale

NAME = "mace"
TRAIN_FILE = "train.xyz"
VALID_FILE = "valid.xyz"
SCRIPT = "train.py"
UNLIMITED = 10**7  # epochs; MACE wants a number where the budget has none
# Options that would change what is compared: other losses, other data in a step, other processes.
REFUSED = ("swa", "stage_two", "start_swa", "start_stage_two", "lbfgs", "distributed", "heads", "dry_run")
# Options that mlpbench's own settings decide, here with their names.
DECIDED = {
    "batch_size": "training.batch_size", "max_num_epochs": "budget.steps", "eval_interval": "budget.interval",
    "patience": "budget.patience", "optimizer": "training.optimizer", "amsgrad": "training.optimizer",
    "loss": "training.energy_weight, force_weight and stress_weight", "scheduler": "training.schedule",
    "seed": "init_seed",
}  # fmt: skip
HEADER = """\
# MACE's configuration of this training. Energies in the .xyz files are without the baseline (so E0s are zero).
# Repeat it with the package alone, from this folder:
#   {command}
# An epoch is an interval of {interval} optimiser steps and a validation; train.py says what else is not as in
# mace_run_train. mlpbench also ends the training at these limits, train.py does not: {limits}.
"""


def build_config(request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
    """The options of ``mace_run_train`` for this request, the user's ``native`` ones merged over them.

    Raises:
        RefusedOption: a native option that would change what is compared, or that another setting decides.
    """
    native = dict(request.architecture.get("native") or {})
    for option in sorted(set(native) & set(REFUSED)):
        raise RefusedOption(f"architecture.native.{option} cannot be set: it would change what is compared")
    for option in sorted(set(native) & set(DECIDED)):
        raise RefusedOption(f"architecture.native.{option} cannot be set: set {DECIDED[option]}")
    elements = sorted(set(train.numbers.tolist()) | set(valid.numbers.tolist()))
    scale = label_scale(train, request.labels)
    config = {
        **_files(request),
        "atomic_numbers": str(elements),
        "E0s": str(dict.fromkeys(elements, 0.0)),
        **_architecture(request.architecture),
        "std": scale,  # the network's output is multiplied by it ...
        "mean": 0.0,  # ... and nothing is added: the baseline holds the mean
        **_loss(request),
        **_optimiser(request.training, scale),
        **_batches(request, len(train)),
    }
    return {**config, **native}


def carried_over(config: dict[str, Any], model: torch.nn.Module, folder: Path) -> dict[str, Any]:
    """``config`` with what a trained ``model`` brings along: elements, scale, average neighbour number.

    Its weights are written to ``folder``, from where they are read when MACE has built the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().cpu() for name, weight in model.named_parameters()}
    torch.save(weights, folder / corrections.START)
    elements = [int(z) for z in model.atomic_numbers]
    return {
        **config,
        "atomic_numbers": str(elements),
        "E0s": str(dict.fromkeys(elements, 0.0)),
        "std": float(model.scale_shift.scale),
        "mean": float(model.scale_shift.shift),
        "compute_avg_num_neighbors": False,
        "avg_num_neighbors": float(model.interactions[0].avg_num_neighbors),
    }


def write_native(folder: Path, config: dict[str, Any], request: Request, train: Frames, valid: Frames) -> str:
    """Write ``config.yaml`` and what it refers to; returns the command that repeats the training from there."""
    folder.mkdir(parents=True, exist_ok=True)
    write_frames(folder / config["train_file"], train, request.labels)
    write_frames(folder / config["valid_file"], valid, request.labels)
    shutil.copyfile(corrections.__file__, folder / SCRIPT)
    shutil.copyfile(common_training.__file__, folder / Path(common_training.__file__).name)
    write_json(folder / corrections.SETTINGS, common_settings(request))
    command = f"OMP_NUM_THREADS={request.threads} python {SCRIPT} --config config.yaml"
    if request.device.startswith("cuda:"):
        command = f"CUDA_VISIBLE_DEVICES={request.device.removeprefix('cuda:')} {command}"
    budget = request.budget
    limits = f"seconds {budget.get('seconds')}, patience {budget.get('patience')}"
    interval = Steps.of(budget, int(request.training["batch_size"]), len(train)).interval
    # MACE reads lists and dictionaries as Python text.
    plain = {key: str(value) if isinstance(value, list | dict) else value for key, value in config.items()}
    text = HEADER.format(command=command, limits=limits, interval=interval) + yaml.safe_dump(plain, sort_keys=False)
    with replacing(folder / "config.yaml") as part:
        part.write_text(text, encoding="utf-8")
    return command


def common_settings(request: Request) -> dict[str, Any]:
    """What :class:`~mlpbench.worker.adapters._mace_corrections.Intervals` is told of a request."""
    return {"training": request.training, "budget": request.budget, "seed": request.seed}


def write_frames(path: Path, frames: Frames, labels: list[str]) -> None:
    """Extended XYZ with the keys MACE reads by default and all digits (ASE writes eight decimals).

    Energies are :attr:`Frames.target_energy`, eV; forces eV/Å; stress eV/Å³, six Voigt components, ASE's sign.
    """
    with open(path, "w", encoding="utf-8") as stream:
        offsets = frames.offsets
        for i in range(len(frames)):
            atoms = slice(offsets[i], offsets[i + 1])
            stream.write(f"{frames.n_atoms[i]}\n{_comment(frames, i, labels)}\n")
            columns = [frames.positions[atoms]] + ([frames.forces[atoms]] if "forces" in labels else [])
            for number, *rows in zip(frames.numbers[atoms].tolist(), *(c.tolist() for c in columns), strict=True):
                values = " ".join(repr(value) for row in rows for value in row)
                stream.write(f"{chemical_symbols[number]} {values}\n")


def _comment(frames: Frames, i: int, labels: list[str]) -> str:
    fields = []
    if frames.cell[i].any():
        fields.append(f'Lattice="{" ".join(repr(x) for x in frames.cell[i].ravel().tolist())}"')
    fields.append(f'pbc="{" ".join("T" if x else "F" for x in frames.pbc[i])}"')
    forces = ":REF_forces:R:3" if "forces" in labels else ""
    fields.append(f"Properties=species:S:1:pos:R:3{forces}")
    if "energy" in labels:
        fields.append(f"REF_energy={float(frames.target_energy[i])!r}")
    if "stress" in labels:
        fields.append(f'REF_stress="{" ".join(repr(x) for x in frames.stress[i].tolist())}"')
    return " ".join(fields)


def _files(request: Request) -> dict[str, Any]:
    cuda = request.device.startswith("cuda")
    return {
        "name": NAME,
        "seed": request.seed,
        "work_dir": ".",
        "train_file": TRAIN_FILE,
        "valid_file": VALID_FILE,
        "device": "cuda" if cuda else "cpu",
        "default_dtype": request.dtype,
        "num_workers": 0,  # the frames are in memory; other processes would only be slower to ask
        "pin_memory": cuda,
        "plot": False,
        "error_table": "PerAtomMAE",
    }


def _architecture(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": "ScaleShiftMACE",
        "r_max": float(settings["cutoff"]),
        "num_channels": settings["num_channels"],
        "max_L": settings["max_L"],
        "max_ell": settings["max_ell"],
        "num_interactions": settings["num_interactions"],
        "correlation": settings["correlation"],
        "num_radial_basis": settings["num_radial_basis"],
        "num_cutoff_basis": settings["num_cutoff_basis"],
        "radial_MLP": str(list(settings["radial_MLP"])),
        "MLP_irreps": f"{settings['readout_channels']}x0e",
    }


def _loss(request: Request) -> dict[str, Any]:
    """MACE's weights mean the same as the common loss's: energy per atom, mean over components."""
    weights = {
        label: float(request.training[f"{name}_weight"]) if label in request.labels else 0.0
        for label, name in (("energy", "energy"), ("forces", "force"), ("stress", "stress"))
    }
    loss = {"loss": "weighted", "energy_weight": weights["energy"], "forces_weight": weights["forces"]}
    if weights["stress"]:
        return {**loss, "loss": "stress", "stress_weight": weights["stress"]}
    return loss


def _optimiser(training: dict[str, Any], scale: float) -> dict[str, Any]:
    clip = clip_norm(training, scale)
    options: dict[str, Any] = {
        "optimizer": "adamw" if training["optimizer"] == "adamw" else "adam",
        "lr": float(training["lr"]),
        "weight_decay": float(training["weight_decay"]),
        "clip_grad": "None" if clip is None else clip,
        "ema": training["ema_decay"] is not None,
    }
    if training["ema_decay"] is not None:
        options["ema_decay"] = float(training["ema_decay"])
    if training["schedule"] == "plateau":
        return options | {
            "scheduler": "ReduceLROnPlateau",
            "lr_factor": float(training["lr_factor"]),
            "scheduler_patience": int(training["lr_patience"]),
        }
    # Where the rate is annealed or constant, MACE's scheduler leaves it alone.
    gamma = float(training["lr_gamma"]) if training["schedule"] == "exponential" else 1.0
    return options | {"scheduler": "ExponentialLR", "lr_scheduler_gamma": gamma}


def _batches(request: Request, n_train: int) -> dict[str, Any]:
    budget = request.budget
    steps = Steps.of(budget, int(request.training["batch_size"]), n_train)
    return {
        "batch_size": steps.batch_size,
        "valid_batch_size": 2 * steps.batch_size,
        "max_num_epochs": UNLIMITED if steps.intervals is None else steps.intervals,
        "eval_interval": 1,
        "patience": int(budget["patience"]) if budget.get("patience") is not None else UNLIMITED,
    }
