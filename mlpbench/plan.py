"""From overrides to trials: which there are, what identifies each, and what is already done."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from mlpbench import datasets
from mlpbench.backends.environment import resolve
from mlpbench.backends.locks import Environment, built_lock
from mlpbench.backends.schema import BackendConfig
from mlpbench.config import TrialConfig, compose_raw, validate
from mlpbench.datasets import Dataset, Split
from mlpbench.datasets.dataset import why_not
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.datasets.stages import stages
from mlpbench.devices import hardware
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.protocol import Task
from mlpbench.seeds import derive, digest

Find = Callable[[BackendConfig], Environment | None]

# Overrides that identify a trial by a column of their own, or that do not belong to its settings at all.
_NO_SETTING = {
    "study", "dataset", "architecture", "size", "repetition", "experiment", "dataset.n_train", "dataset.name",
    "device", "threads", "timeout", "results_dir", "reports_dir", "evaluation",
}  # fmt: skip
_NO_SETTING_ROOTS = {"hydra", "backend", "evaluation", "dataset"}


# Options of a task that only its scores read: another value scores anew what lies there, and runs nothing again.
AFTERWARDS = {"md": ("limits", "reference_splits", "reference_interval_fs", "own_trajectory", "write_extxyz")}


@dataclass(frozen=True)
class Trial:
    """One resolved point of a sweep.

    Attributes:
        name: readable folder name, unique within the study.
        key: sha256 of all that determines the trained potential.
        config: the validated configuration.
        environment: where its backend runs; None if that is not known (see :func:`plan_trial`).
        swept: settings given beyond the identifiers, e.g. ``{"training.lr": 0.01}``.
        split: the split files it trains and is tested on.
        dataset: the data set behind them.
        split_seed: of the split.
        init_seed: of the weights and the batch order.
        labels: what it trains on: ``energy``, ``forces``, ``stress``.
        tasks: what is to be done, in order, each with the key of its result.
        ladder: digest of all but the number of optimiser steps; trainings that share it differ in their length alone.
        skip: why it cannot be run at all; None if it can.
    """

    name: str
    key: str
    config: TrialConfig
    environment: Environment | None
    swept: dict[str, Any]
    split: Split
    dataset: Dataset
    split_seed: int
    init_seed: int
    labels: list[str]
    tasks: list[Task]
    ladder: str
    skip: str | None = None

    @property
    def study_root(self) -> Path:
        """``results/<study>``, absolute."""
        return (self.config.results_dir / self.config.study).resolve()

    @property
    def directory(self) -> Path:
        """The trial's folder, absolute."""
        return self.study_root / self.name

    @property
    def identifiers(self) -> dict[str, Any]:
        """The columns that name a trial in every table."""
        config = self.config
        return {
            "dataset": self.dataset.name,
            "data": data_digest(self.dataset, self.labels),
            "architecture": config.architecture.name,
            "size": config.size,
            "backend": config.architecture.backend,
            "n_train": config.dataset.n_train,
            "n_valid": config.dataset.n_valid,
            "repetition": config.repetition,
        }


def plan_trial(overrides: Sequence[str], find: Find = resolve) -> Trial:
    """Compose, validate and identify one trial; writes its split files if they are not there yet.

    Args:
        overrides: Hydra overrides of this one trial.
        find: the environment of a backend; where it answers None, the pinned requirements stand for it.

    Raises:
        UserError: a mistake in the configuration or the data, or what ``find`` raises.
    """
    return identify(compose_raw(overrides), overrides, find)


def identify(raw: DictConfig, overrides: Sequence[str], find: Find = resolve) -> Trial:
    """As :func:`plan_trial`, for a configuration that Hydra has composed already."""
    config = validate(raw)
    environment = find(config.backend_config)
    dataset = _load(config.dataset.model_dump_json())
    split_seed = (
        config.split_seed if config.split_seed is not None else derive("split", dataset.name, config.repetition)
    )
    init_seed = config.init_seed
    if init_seed is None:
        init_seed = derive("init", config.architecture.name, config.repetition)
    root = (config.results_dir / config.study / "splits").resolve()
    with stages(dataset.name) as progress:
        split = datasets.prepare_split(dataset, config.dataset, split_seed, root, progress)
    labels = _labels(config, split)
    swept = swept_settings(raw, overrides)
    identity = _identity(config, split, init_seed, labels, environment)
    key = digest(identity)
    start = "-".join(
        [config.architecture.name, config.size, dataset.name, f"n{config.dataset.n_train}", f"r{config.repetition}"]
    )
    rest = [f"-{setting.rpartition('.')[2]}{_short(value)}" for setting, value in swept.items()]
    name = _folder(root.parent, _safe(start), _safe("".join(rest)), key[:8])
    return Trial(
        name=name, key=key, config=config, environment=environment,
        swept=swept, split=split, dataset=dataset, split_seed=split_seed, init_seed=init_seed, labels=labels,
        tasks=_tasks(config, key, split, dataset), ladder=_ladder(identity), skip=_why_not(config, dataset),
    )  # fmt: skip


def _folder(study_root: Path, start: str, rest: str, mark: str) -> str:
    """Name of the trial's folder: as before where the same trial was asked for in other words (another order of the
    overrides, a default said or left out), else from the words of now.
    """
    name = f"{(start + rest)[:120]}-{mark}"
    if not (study_root / name).is_dir():
        known = sorted(study_root.glob(f"{escape(start)}*-{mark}"))
        return known[0].name if known else name
    return name


def swept_settings(raw: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Settings among ``overrides`` that are no identifiers, with their resolved values."""
    found: dict[str, Any] = {}
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("+~")
        root = re.split(r"[./]", key)[0]  # hydra.verbose and hydra/launcher alike
        if key in _NO_SETTING or (root in _NO_SETTING_ROOTS and key != "dataset.n_valid"):
            continue
        value = OmegaConf.select(raw, key)
        if OmegaConf.is_config(value):  # a whole group, e.g. budget=converge: name the choice, not its content
            value = override.split("=", 1)[1]
        found[key] = value
    return found


def _identity(
    config: TrialConfig, split: Split, init_seed: int, labels: list[str], environment: Environment | None
) -> dict[str, Any]:
    """What determines the trained potential. Not paths, not hardware, unless the budget is a wall time."""
    backend = config.backend_config
    identity: dict[str, Any] = {
        "split": split.manifest["train_digest"],  # train, valid and baseline: another test file retrains nothing
        "architecture": config.architecture.model_dump(),
        "size": config.size,
        "training": config.training.model_dump(),
        "budget": config.budget.model_dump(exclude={"converge"}),
        "labels": labels,
        "init_seed": init_seed,
        "dtype": config.dtype,
        "adapter": [backend.adapter, backend.adapter_version],
        "environment": environment.lock if environment is not None else built_lock(backend),
    }
    if config.budget.seconds is not None:
        machine = hardware()
        identity["hardware"] = [config.device, config.threads, machine.get("cpu"), machine.get("gpus")]
    return identity


def _ladder(identity: dict[str, Any]) -> str:
    return digest({**identity, "budget": {**identity["budget"], "steps": None}})


def _tasks(config: TrialConfig, key: str, split: Split, dataset: Dataset) -> list[Task]:
    """Training and all evaluations, each keyed by the trial and by its own options."""
    splits = [name for name in split.files if name != "train"]
    stress = [name for name, path in split.files.items() if name != "train" and _has_stress(str(path))]
    predict = {"splits": splits, "stress": stress}
    tasks = [
        Task("train", key=key),
        # The batch size is left out of the key: batched and single predictions are the same.
        Task(
            "predict",
            key=digest([key, split.digest, "predict", predict]),
            options={**predict, "batch_size": config.evaluation.batch_size},
        ),
    ]
    references = {name: str(path) for name, path in dataset.references.items()}
    for name in ("physics", "md", "speed"):
        options = getattr(config.evaluation, name)
        if options is not None:
            filled = _filled_in(name, options, config, splits, dataset)
            options = {**filled, "references": references}
            tasks.append(Task(name, key=digest([key, split.digest, name, bought(name, filled)]), options=options))
    return tasks


def bought(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that determine what a task computes.

    Not those that only its scores read; and of ``md``, whose results are dear, none that is null: a version that adds
    an option with that default does not run simulations again.
    """
    kept = {key: value for key, value in options.items() if key not in AFTERWARDS.get(name, ())}
    return _without_nulls(kept) if name == "md" else kept


def _without_nulls(node: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_nulls(v) if isinstance(v, dict) else v for k, v in node.items() if v is not None}


def _filled_in(
    name: str, options: dict[str, Any], config: TrialConfig, splits: list[str], dataset: Dataset
) -> dict[str, Any]:
    """What an evaluation leaves to the data set: the split it starts from, and the reference method."""
    tests = [split for split in splits if split != "valid"]
    own = config.dataset.in_distribution or (tests[0] if tests else "valid")
    filled = dict(options)
    if name == "speed":
        filled["split"] = options.get("split") or own
        filled["reference"] = _with_method(options.get("reference"), "method", dataset)
    if name == "md":
        filled["start_split"] = options.get("start_split") or own
        filled["own_trajectory"] = _with_method(options.get("own_trajectory"), "reference", dataset)
    return filled


def _with_method(node: dict[str, Any] | None, field: str, dataset: Dataset) -> dict[str, Any] | None:
    """``node`` with the data set's reference method where it names none; None where neither has one."""
    if not node:
        return None
    method = node.get(field) or dataset.info.get("reference_method")
    return {**node, field: method} if method else None


def data_digest(dataset: Dataset, labels: Sequence[str]) -> str:
    """12 hex digits of what the numbers of a trial rest on: every frame of the pool and of the tests in eV and Å, and
    the labels trained on. Files of one name with other content, or read in another unit, never look the same.
    """
    known = dataset.cache.get("data")
    if known is None:
        content = hashlib.sha256()
        for name, frames in [("", dataset.pool), *sorted(dataset.tests.items())]:
            content.update(f"{name}\0{len(frames)}\0".encode())
            for values in (
                frames.n_atoms, frames.numbers, frames.positions, frames.cell, frames.pbc,
                frames.energy, frames.forces, frames.stress,
            ):  # fmt: skip
                content.update(np.ascontiguousarray(values).data)
        known = dataset.cache["data"] = content.hexdigest()
    return digest([known, sorted(labels)])[:12]


def _labels(config: TrialConfig, split: Split) -> list[str]:
    """Labels to train on: those asked for, stress only where it has a weight."""
    asked = list(config.dataset.labels)
    train = _frames(str(split.files["train"]))
    if config.training.stress_weight > 0 and train.has_stress and "stress" not in asked:
        asked.append("stress")
    if config.training.stress_weight > 0 and not train.has_stress:
        raise UserError(
            f"training.stress_weight={config.training.stress_weight}, but {config.dataset.name} has no stress labels",
            "Set training.stress_weight=0.",
        )
    return [label for label in asked if label != "stress" or config.training.stress_weight > 0]


def _why_not(config: TrialConfig, dataset: Dataset) -> str | None:
    missing = dataset.info.get("missing_labels")
    if missing:
        return f"{dataset.name}: {why_not(missing, list(config.dataset.labels))}"
    return None


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _safe(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.+" else "_" for c in text)


@lru_cache(maxsize=4)
def _load(config: str) -> Dataset:
    found = DatasetConfig.model_validate_json(config)
    with stages(found.name) as progress:
        return datasets.load(found, progress)


@lru_cache(maxsize=64)
def _has_stress(path: str) -> bool:
    return _frames(path).has_stress


def _frames(path: str) -> Frames:
    return Frames.load(path)


def estimate_seconds(records: Sequence[dict[str, Any]], trial: Trial) -> float | None:
    """Seconds a trial will take, from finished ones of the same architecture and size: time per training step.

    Returns None where there is none to learn from.
    """
    rates = [
        record["training"]["wall_seconds"] / record["training"]["steps"]
        for record in records
        if record["status"] == "done"
        and record["identifiers"]["architecture"] == trial.config.architecture.name
        and record["identifiers"]["size"] == trial.config.size
        and record["training"].get("steps")
    ]
    budget, training = trial.config.budget, trial.config.training
    steps = budget.steps
    if steps is None and budget.epochs is not None:
        steps = budget.epochs * -(-trial.config.dataset.n_train // training.batch_size)
    if not rates or steps is None:
        return budget.seconds
    return float(np.median(rates) * steps)
