"""MACE's own configuration and input files, from one common request.

What is written is complete: ``mace_run_train --config config.yaml`` needs nothing but the folder it stands in.
"""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import yaml
from ase.data import chemical_symbols

from mlpbench.frames import Frames
from mlpbench.protocol import Request
from mlpbench.worker.adapters import _mace_corrections as corrections

NAME = "mace"
TRAIN_FILE = "train.xyz"
VALID_FILE = "valid.xyz"
SCRIPT = "train.py"
UNLIMITED = 10**7  # epochs; MACE wants a number where the budget has none
# Options that would change what is compared: other losses, other data in a step, other processes.
REFUSED = ("swa", "stage_two", "start_swa", "start_stage_two", "lbfgs", "distributed", "heads", "dry_run")
HEADER = """\
# MACE's configuration of this training. Energies in the .xyz files are without the baseline (so E0s are zero).
# Repeat it with the package alone, from this folder:
#   {command}
# mlpbench also ends the training at these limits: {limits}. MACE 0.3.16 has no limit of seconds, and with its patience
# exhausted it prints "Stopping optimization" and goes on.
"""


def used_labels(request: Request, frames: Frames) -> tuple[str, ...]:
    """Which of energy, forces and stress the training uses.

    Raises:
        ValueError: a label that the loss weighs is missing in a frame, or stress is asked for where a frame has no
            volume.
    """
    training = request.training
    weights = {
        "energy": training["energy_weight"],
        "forces": training["force_weight"],
        "stress": training.get("stress_weight") or 0.0,
    }
    used = tuple(label for label in weights if label in request.labels and weights[label])
    if "forces" in used and not frames.has_forces:
        raise ValueError("training uses forces, but some frames have none: set training.force_weight=0")
    if "stress" in used and not frames.has_stress:
        raise ValueError("training uses stress, but some frames have none: set training.stress_weight=0")
    if "stress" in used and not frames.pbc.all():
        raise ValueError("training uses stress, but some frames are not periodic along all lattice vectors")
    return used


def build_config(request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
    """The options of ``mace_run_train`` for this request, the user's ``native`` ones merged over them.

    Raises:
        ValueError: see :func:`used_labels`, or a native option that would change what is compared.
    """
    labels = set(used_labels(request, train)) & set(used_labels(request, valid))
    native = dict(request.architecture.get("native") or {})
    refused = sorted(set(native) & set(REFUSED))
    if refused:
        raise ValueError(f"architecture.native.{refused[0]} cannot be set: it would change what is compared")
    elements = sorted(set(train.numbers.tolist()) | set(valid.numbers.tolist()))
    config = {
        **_files(request),
        "atomic_numbers": str(elements),
        "E0s": str(dict.fromkeys(elements, 0.0)),
        **_architecture(request.architecture),
        **_loss(request.training, labels),
        **_optimiser(request.training),
        **_batches(request, train, valid),
    }
    return {**config, **native}


def write_native(folder: Path, config: dict[str, Any], request: Request, train: Frames, valid: Frames) -> str:
    """Write ``config.yaml`` and what it refers to; returns the command that repeats the training from there."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = used_labels(request, train)
    write_frames(folder / config["train_file"], train, labels)
    write_frames(folder / config["valid_file"], valid, labels)
    command = "mace_run_train --config config.yaml"
    if needs_corrections(config, train, valid):
        shutil.copyfile(corrections.__file__, folder / SCRIPT)
        command = f"python {SCRIPT} --config config.yaml --lr_min {request.training['lr_min']:g}"
    command = f"OMP_NUM_THREADS={request.threads} {command}"
    if request.device.startswith("cuda:"):
        command = f"CUDA_VISIBLE_DEVICES={request.device.removeprefix('cuda:')} {command}"
    budget = request.budget
    limits = f"seconds {budget.get('seconds')}, patience {budget.get('patience')}"
    # MACE reads lists and dictionaries as Python text.
    plain = {key: str(value) if isinstance(value, list | dict) else value for key, value in config.items()}
    text = HEADER.format(command=command, limits=limits) + yaml.safe_dump(plain, sort_keys=False)
    part = folder / ".config.part"
    part.write_text(text, encoding="utf-8")
    os.replace(part, folder / "config.yaml")
    return command


def needs_corrections(config: dict[str, Any], train: Frames, valid: Frames) -> bool:
    """True if ``mace_run_train`` alone would train on other data or on another loss than mlpbench does."""
    return (
        config["loss"] == "stress"
        or len(train) % config["batch_size"] != 0
        or len(valid) % config["valid_batch_size"] != 0
        or len(set(valid.n_atoms.tolist())) > 1
    )


def write_frames(path: Path, frames: Frames, labels: tuple[str, ...]) -> None:
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


def _comment(frames: Frames, i: int, labels: tuple[str, ...]) -> str:
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
        "scaling": "rms_forces_scaling",
    }


def _loss(training: dict[str, Any], labels: set[str]) -> dict[str, Any]:
    """MACE's weights mean the same as the common loss's: energy per atom, mean over components."""
    loss: dict[str, Any] = {
        "loss": "stress" if "stress" in labels else "weighted",
        "energy_weight": float(training["energy_weight"]) if "energy" in labels else 0.0,
        "forces_weight": float(training["force_weight"]) if "forces" in labels else 0.0,
    }
    if "stress" in labels:
        loss["stress_weight"] = float(training["stress_weight"])
    return loss


def _optimiser(training: dict[str, Any]) -> dict[str, Any]:
    clip = training["gradient_clip"]
    options: dict[str, Any] = {
        "optimizer": "adam",
        "amsgrad": True,
        "lr": float(training["lr"]),
        "weight_decay": float(training["weight_decay"]),
        "clip_grad": "None" if clip is None else float(clip),
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
    if training["schedule"] in ("exponential", "constant"):
        gamma = float(training["lr_gamma"]) if training["schedule"] == "exponential" else 1.0
        return options | {"scheduler": "ExponentialLR", "lr_scheduler_gamma": gamma}
    raise ValueError(f"training.schedule={training['schedule']} is not known: plateau, exponential or constant")


def _batches(request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
    budget = request.budget
    batch = min(int(request.training["batch_size"]), len(train))
    limits = [int(budget["epochs"])] if budget.get("epochs") is not None else []
    if budget.get("steps") is not None:
        limits.append(math.ceil(budget["steps"] / math.ceil(len(train) / batch)))
    epochs = min(limits, default=UNLIMITED)
    return {
        "batch_size": batch,
        "valid_batch_size": _even(len(valid), batch),
        "max_num_epochs": epochs,
        "eval_interval": 1,
        "patience": int(budget["patience"]) if budget.get("patience") is not None else UNLIMITED,
    }


def _even(n_frames: int, batch: int) -> int:
    """Frames a validation batch: all batches of one size where that costs little (see ``needs_corrections``)."""
    sizes = [size for size in range(max(1, batch // 2), 2 * batch + 1) if n_frames % size == 0]
    return max(sizes, default=min(batch, n_frames))
