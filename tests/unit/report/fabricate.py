"""A made-up study with the shape of a real one.

Predictions are the embedded ethanol frames plus noise, whose width follows a power law in the number of
training frames, so that what the report has to say about them is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase.io import read

from mlpbench.datasets.baseline import trivial_errors
from mlpbench.files import digest
from mlpbench.frames import Frames
from mlpbench.protocol import write_json
from mlpbench.records import FORMAT, RECORD, write_curve
from mlpbench.study.study import Study

CONF = Path(__file__).parents[3] / "conf"
STATED = {k: v for k, v in yaml.safe_load((CONF / "dataset" / "ethanol.yaml").read_text()).items() if k != "defaults"}
ETHANOL = Path(__file__).parents[3] / "mlpbench" / "datasets" / "embedded" / "ethanol-pbe"
SPLITS = {"test_500K": 60, "test_300K": 40, "test_1000K": 40}
HEAT = {"valid": 1.0, "test_500K": 1.0, "test_300K": 0.7, "test_1000K": 2.2}
BACKEND = {"schnet": "schnetpack", "painn": "schnetpack", "nequip": "nequip", "mace": "mace"}
# force error (meV/Å) at 100 frames, exponent, training seconds per frame, parameters
LAW = {
    "schnet": (160.0, 0.45, 0.4, 61_000),
    "painn": (80.0, 0.55, 0.9, 120_000),
    "nequip": (42.0, 0.70, 3.1, 95_000),
    "mace": (41.0, 0.70, 2.4, 140_000),
}
VERSIONS = {
    "schnetpack": {"torch": "2.13.0", "schnetpack": "2.2.0", "ase": "3.29.0"},
    "nequip": {"torch": "2.13.0", "nequip": "0.19.1", "e3nn": "0.6.0", "ase": "3.29.0"},
    "mace": {"torch": "2.13.0", "mace-torch": "0.3.16", "e3nn": "0.4.4", "ase": "3.29.0"},
}


@dataclass
class Plan:
    """What the made-up study consists of."""

    architectures: Sequence[str] = ("schnet", "painn", "nequip", "mace")
    sizes: Sequence[str] = ("small",)
    n_train: Sequence[int] = (50, 200, 400)
    repetitions: int = 3
    settings: Sequence[dict[str, Any]] = ({},)  # full keys of the configuration -> values
    epochs: int = 100  # validations in the curve of a training
    steps: int | None = 2000  # of the optimiser, at every size; None: as many as the epochs take
    noise: float = 0.06  # standard deviation of the log error over repetitions
    seed: int = 11
    predictions: bool = True
    troubles: dict[tuple[str, int, int], tuple[str, str]] = field(
        default_factory=lambda: {
            ("schnet", 50, 2): ("failed", "train: killed by signal 9; see worker.log"),
            ("nequip", 400, 1): ("out_of_memory", "the worker ran out of memory; try training.batch_size=5"),
            ("mace", 400, 2): ("interrupted", "stopped by the user; run the same command again to resume"),
        }
    )
    restless: frozenset[tuple[str, int, int]] = frozenset({("painn", 400, 0)})
    frames: bool = True  # errors of noise on real frames; else drawn from the law, ten times as fast
    fates: dict[str, str] = field(default_factory=dict)  # trial -> its status; "missing": it was never run

    def steps_at(self, n_train: int) -> int:
        """Optimiser steps of a training, batches of 10."""
        return self.steps or self.epochs * n_train // 10


@dataclass(frozen=True)
class Point:
    """One trial of the made-up study."""

    architecture: str
    size: str
    settings: dict[str, Any]
    n_train: int
    repetition: int

    @property
    def backend(self) -> str:
        return BACKEND[self.architecture]

    @property
    def trial(self) -> str:
        chosen = "".join(f"-{key.split('.')[-1]}{value}" for key, value in self.settings.items())
        return f"ethanol-{self.architecture}-{self.size}-n{self.n_train}{chosen}-r{self.repetition}"


def fabricate(root: Path, plan: Plan | None = None) -> Study:
    """Write a study below ``root``, records apart, and return it as the report takes it."""
    return Study(root.name, root, make_records(root, plan))


def write_study(root: Path, plan: Plan | None = None) -> Study:
    """Write a study below ``root`` with its records, as a run leaves it, and load it."""
    for record in make_records(root, plan):
        write_json(root / str(record["trial"]) / RECORD, record)
    return Study.load(root.name, root.parent)


def make_records(root: Path, plan: Plan | None = None) -> list[dict[str, Any]]:
    """The records of a study; splits, predictions and curves are written below ``root``."""
    plan = plan or Plan()
    random = np.random.default_rng(plan.seed)
    frames = _write_splits(root) if plan.frames else {}
    grid = product(plan.architectures, plan.sizes, plan.settings, plan.n_train, range(plan.repetitions))
    points = [point for point in (Point(*place) for place in grid) if plan.fates.get(point.trial) != "missing"]
    return [_trial(root, plan, random, frames, point) for point in points]


def _write_splits(root: Path) -> dict[str, Frames]:
    folder = root / "splits" / "r0"
    folder.mkdir(parents=True, exist_ok=True)
    sources = {"valid": ("pool_500K", slice(500, 550)), **{s: (s, slice(0, n)) for s, n in SPLITS.items()}}
    frames = {}
    for split, (file, part) in sources.items():
        atoms = read(ETHANOL / f"{file}.xyz", index=part)
        found = Frames.from_atoms(atoms, [a.get_potential_energy() for a in atoms], [a.get_forces() for a in atoms])
        frames[split] = found.with_baseline(np.full(len(found), -4209.0))
        frames[split].save(folder / f"{split}.npz")
    return frames


def _trial(
    root: Path, plan: Plan, random: np.random.Generator, frames: dict[str, Frames], point: Point
) -> dict[str, Any]:
    error, exponent, seconds_per_frame, parameters = LAW[point.architecture]
    larger = {"tiny": 1.3, "small": 1.0, "medium": 0.8}[point.size]
    slip = 1.0 + 0.25 * (point.settings.get("training.lr", 0.01) < 0.01)
    level = error * larger * slip * (point.n_train / 100) ** -exponent * np.exp(random.normal(0, plan.noise))
    place = (point.architecture, point.n_train, point.repetition)
    status, reason = plan.troubles.get(place, ("done", ""))
    if point.trial in plan.fates:
        status, reason = plan.fates[point.trial], "as it was drawn"
    done, at_rest = status == "done", place not in plan.restless
    wall = seconds_per_frame * point.n_train * random.uniform(0.95, 1.05) / larger
    if plan.frames:
        steps = plan.steps_at(point.n_train)
        curve = _curve(random, plan.epochs, level, wall, at_rest, steps) if status != "failed" else []
        (root / point.trial).mkdir(parents=True, exist_ok=True)
        write_curve(root / point.trial, curve)
        rows = _predict(root / point.trial, random, frames, level, plan.predictions) if done else []
    else:
        rows = _by_law(random, level) if done else []
    training = _training(plan, point, level, wall, at_rest, parameters) if done else {}
    return {
        "format": FORMAT,
        "trial": point.trial,
        "key": digest(point.trial),
        "study": root.name,
        "status": status,
        "reason": reason,
        "started": "2026-11-21T08:00:00+00:00",
        "finished": "2026-11-21T08:10:00+00:00",
        "identifiers": {
            "dataset": "ethanol",
            "architecture": point.architecture,
            "size": point.size,
            "backend": point.backend,
            "n_train": point.n_train,
            "n_valid": 50,
            "repetition": point.repetition,
        },
        "config": _config(plan, point),
        "split": {
            "directory": "splits/r0",
            "digest": "ab" * 32,
            "split_seed": point.settings.get("split_seed", point.repetition),
            "counts": {"train": point.n_train, "valid": 50, **SPLITS},
            "in_distribution": "test_500K",
            "trivial_errors": {s: trivial_errors(frames["valid"], f) for s, f in frames.items()},
            "baseline": {"C": -1035.0},
            "leak": {"policy": "refuse", "tolerance_A": 0.02, "pool_frames": [], "dropped": 0, "splits": {}},
        },
        "training": training,
        "tasks": {"train": {"status": status, "reason": reason, "wall_seconds": wall}},
        "metrics": rows + _cost_rows(training),
        "provenance": _provenance(point),
    }


def _training(plan: Plan, point: Point, level: float, wall: float, at_rest: bool, parameters: int) -> dict[str, Any]:
    return {
        "epochs": plan.epochs,
        "steps": plan.steps_at(point.n_train),
        "best_epoch": 80 if at_rest else 97,
        "best_valid_loss": (level / 1e3) ** 2,
        "stopped_by": "epochs",
        "resumed": False,
        "n_parameters": parameters,
        "wall_seconds": wall,
        "peak_memory_mb": 900.0,
        "at_rest": at_rest,
        "rest_reason": "" if at_rest else "the error still fell by 4.0 % over the last 10 % of the training",
        "converged": None,
        "convergence_reason": "not tested: no training with another number of steps (budget=converge does that)",
        "native_command": [f"{point.backend}-train", "native/config.yaml"],
    }


def _cost_rows(training: dict[str, Any]) -> list[dict[str, Any]]:
    if not training:
        return []
    values = {"train_seconds": ("s", "wall_seconds"), "n_parameters": ("", "n_parameters")}
    return [
        {"split": "", "metric": n, "value": training[k], "unit": u, "lower": None, "upper": None, "n": 1}
        for n, (u, k) in values.items()
    ]


def _provenance(point: Point) -> dict[str, Any]:
    return {
        "mlpbench": "0.1.0",
        "commit": "0123456789abcdef",
        "dirty": False,
        "python": "3.12.8",
        "init_seed": point.settings.get("init_seed", digest(f"{point.architecture} {point.repetition}")),
        "command": "mlpbench run -m study=made-up architecture=schnet,painn,nequip,mace dataset.n_train=50,200",
        "backend": {
            "lock": "cd" * 32,
            "adopted": False,
            "python": "3.12.8",
            "versions": VERSIONS[point.backend],
        },
        "hardware": {"device": "cpu", "cpu": "Example CPU 3000", "threads": 1, "device_name": None},
    }


def _config(plan: Plan, point: Point) -> dict[str, Any]:
    """The resolved configuration: the point's settings are values in it, as an override or a changed file leaves it."""
    config: dict[str, Any] = {
        "study": "made-up",
        "size": point.size,
        "repetition": point.repetition,
        "split_seed": None,
        "init_seed": None,
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
        "dataset": {
            **STATED,
            "n_train": point.n_train,
            "n_valid": 50,
            "level_of_theory": "PBE/def2-SVP, a code",
            "label_seconds": 6.8,
        },
        "architecture": {"name": point.architecture, "backend": point.backend, "cutoff": 5.0},
        "training": {"batch_size": 10, "lr": 0.01},
        "budget": {
            "epochs": None if plan.steps else plan.epochs,
            "steps": plan.steps,
            "seconds": None,
            "patience": None,
        },
    }
    for key, value in point.settings.items():
        node = config
        *parents, last = key.split(".")
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    return config


def _curve(
    random: np.random.Generator, epochs: int, level: float, wall: float, at_rest: bool, steps: int
) -> list[dict[str, Any]]:
    epoch = np.arange(1, epochs + 1)
    decay = np.exp(-epoch / (epochs / (8 if at_rest else 2)))
    force = level * (1 + 12 * decay) * np.exp(random.normal(0, 0.03, epochs)) / 1e3
    return [
        {
            "epoch": int(e),
            "step": int(e * steps // epochs),
            "seconds": wall * e / epochs,
            "train_loss": 0.8 * f**2,
            "valid_loss": f**2,
            "valid_energy_mae": f / 12,
            "valid_force_mae": f,
            "lr": 0.01,
        }
        for e, f in zip(epoch, force, strict=True)
    ]


def _predict(
    folder: Path, random: np.random.Generator, frames: dict[str, Frames], level: float, write: bool
) -> list[dict[str, Any]]:
    """Predictions whose force MAE is about ``level`` meV/Å; a normal error of width σ has a mean size of 0.8 σ."""
    arrays: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    for split, part in frames.items():
        width = level / 0.8 / 1e3 * HEAT[split]
        hard = np.exp(random.normal(0, 0.3, len(part)))[part.frame_of_atom, None]
        element = np.where(part.numbers == 1, 0.8, 1.4)[:, None]
        forces = part.forces + random.normal(0, width, part.forces.shape) * hard * element
        energy = part.target_energy + random.normal(0, width * 0.5, len(part))
        arrays |= {f"{split}.energy": energy, f"{split}.forces": forces}
        rows += _score(split, part, energy, forces)
    folder.mkdir(parents=True, exist_ok=True)
    if write:
        np.savez(folder / "predictions.npz", **arrays)
    return rows


def _by_law(random: np.random.Generator, level: float) -> list[dict[str, Any]]:
    """Errors of the width that frames would give, without any."""
    rows = []
    for split, heat in HEAT.items():
        for name, unit, value in (("force_mae", "meV/Å", level), ("energy_mae", "meV/atom", level / 18)):
            drawn = float(value * heat * np.exp(random.normal(0, 0.03)))
            ends = {"lower": 0.95 * drawn, "upper": 1.05 * drawn}
            rows.append({"split": split, "metric": name, "value": drawn, "unit": unit, **ends, "n": 50})
    return rows


def _score(split: str, part: Frames, energy: np.ndarray, forces: np.ndarray) -> list[dict[str, Any]]:
    error_e, error_f = energy - part.target_energy, forces - part.forces
    values = {
        ("energy_mae", "meV/atom"): 1e3 * np.abs(error_e / part.n_atoms).mean(),
        ("energy_rmse", "meV/atom"): 1e3 * np.sqrt(((error_e / part.n_atoms) ** 2).mean()),
        ("energy_mae_total", "meV"): 1e3 * np.abs(error_e).mean(),
        ("force_mae", "meV/Å"): 1e3 * np.abs(error_f).mean(),
        ("force_rmse", "meV/Å"): 1e3 * np.sqrt((error_f**2).mean()),
        ("force_r2", ""): 1 - (error_f**2).sum() / (part.forces**2).sum(),
        ("force_max", "meV/Å"): 1e3 * np.abs(error_f).max(),
        **{
            (f"force_mae_{symbol}", "meV/Å"): 1e3 * np.abs(error_f[part.numbers == z]).mean()
            for symbol, z in (("H", 1), ("C", 6), ("O", 8))
        },
    }
    return [
        {
            "split": split,
            "metric": name,
            "value": float(value),
            "unit": unit,
            "lower": float(value * 0.95),
            "upper": float(value * 1.05),
            "n": len(part),
        }
        for (name, unit), value in values.items()
    ]
