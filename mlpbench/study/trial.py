"""A trial: one resolved point of a sweep, what identifies it, and where its results lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from mlpbench import datasets
from mlpbench.acquisition import Manifest
from mlpbench.backends.environment import resolve
from mlpbench.backends.registry import BackendConfig, Environment, built_lock
from mlpbench.config import AcquisitionConfig, TrialConfig, compose_raw, environment_texts, validate
from mlpbench.config.schema import Convergence
from mlpbench.datasets import Dataset, Split
from mlpbench.datasets.dataset import data_digest, frames_digest, frames_without, why_not
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.datasets.splits import settle
from mlpbench.datasets.stages import stages
from mlpbench.devices import hardware
from mlpbench.errors import UserError, close_match
from mlpbench.files import derive, digest, slug
from mlpbench.protocol import WEIGHTS
from mlpbench.study.secrets import keep_secrets, masked, put_text
from mlpbench.study.series import first_round, require_rounds
from mlpbench.study.settings import SCRATCH, ZERO_SHOT
from mlpbench.study.start import Origin, beside_results, find_origin, started_identity

Find = Callable[[BackendConfig], Environment | None]


@dataclass(frozen=True)
class Trial:
    """One resolved point of a sweep.

    Attributes:
        config: the validated configuration.
        environment: where its backend runs; None if that is not known (see :func:`plan_trial`).
        split: the split files it trains and is tested on.
        dataset: the data set behind them.
        split_seed: of the split.
        init_seed: of the weights and the batch order.
        labels: what enters the loss: ``energy``, ``forces``, ``stress``; the weights of all others are 0.
        skip: why it cannot be run at all; None if it can.
        origin: where the training starts.
        environment_texts: dotted key -> the text that stands there, of values taken from environment variables.
        rounds: what follows it (see :mod:`mlpbench.rounds`), ``until`` filled in; None: it stands alone.
        manifest: what chose its training frames; None: they are the first of the random order.
        member: which member of a committee it is, beside the trial itself (0).
    """

    config: TrialConfig
    environment: Environment | None
    split: Split
    dataset: Dataset
    split_seed: int
    init_seed: int
    labels: list[str]
    skip: str | None = None
    origin: Origin = field(default_factory=Origin)
    environment_texts: dict[str, str] = field(default_factory=dict)
    rounds: AcquisitionConfig | None = None
    manifest: Manifest | None = None
    member: int = 0

    @property
    def study_root(self) -> Path:
        """``results/<study>``, absolute."""
        return (self.config.results_dir / self.config.study).resolve()

    @property
    def directory(self) -> Path:
        """The trial's folder, absolute."""
        return self.study_root / self.name

    @cached_property
    def key(self) -> str:
        """sha256 of all that determines the trained potential (:attr:`identity`)."""
        return digest(self.identity)

    @cached_property
    def ladder(self) -> str:
        """Digest of all but the number of optimiser steps: trainings that share it differ in their length alone."""
        return digest({**self.identity, "budget": {**self.identity["budget"], "steps": None}})

    @cached_property
    def name(self) -> str:
        """Readable folder name, unique within the study; nothing in it depends on how the trial was asked for."""
        config = self.config
        start = {SCRATCH: [], ZERO_SHOT: ["zero-shot"]}.get(config.start.kind, [f"from-{config.start.kind}"])
        chosen = [slug(self.chosen)] if self.chosen else []
        member = [f"m{self.member}"] if self.member else []
        parts = [
            slug(config.architecture.name), slug(self.size), *start, slug(self.dataset.name), *chosen,
            f"n{config.dataset.n_train}", f"r{config.repetition}", *member, self.key[:8],
        ]  # fmt: skip
        return "-".join(parts)

    @property
    def chosen(self) -> str:
        """What chose its frames: ``committee``, of another architecture ``committee by painn``; empty: nothing did."""
        other = self.config.acquisition.chosen_by
        return "" if self.manifest is None else self.manifest.kind + (f" by {other}" if other else "")

    @property
    def size(self) -> str:
        """The size's name, or the foundation model's, whose hyperparameters are its own."""
        return self.origin.size or self.config.size

    @property
    def architecture(self) -> dict[str, Any]:
        """The node ``architecture`` as the package gets it: in ``native`` its own options over the training's."""
        settings = self.config.architecture.model_dump()
        if self.origin.model is not None and self.origin.model.cutoff is not None:
            settings["cutoff"] = self.origin.model.cutoff
        native = OmegaConf.merge(self.config.training.native, settings["native"])
        return {**settings, "native": OmegaConf.to_container(native)}

    @property
    def iterates(self) -> bool:
        """Whether it is trained step by step; if not, budget, rates and resumption do not apply (``iterations``)."""
        return self.config.backend_config.iterations

    @property
    def converges(self) -> Convergence | None:
        """Whether and how trainings with twice the steps follow: ``budget.converge`` where there are steps."""
        return self.config.budget.converge if self.iterates else None

    @cached_property
    def training(self) -> dict[str, Any]:
        """The node ``training``, with the weights of the loss as they enter it.

        A label that is not trained on has the weight 0. With ``energy_per=frame`` the weight of a frame's squared
        energy error becomes that of the error per atom: times the mean of N² over the training frames. The rate has the
        factor of the start.
        """
        dropped = {weight: 0.0 for label, weight in WEIGHTS.items() if label not in self.labels}
        settings = {**self.config.training.model_dump(), **dropped}
        settings["lr"] *= self.config.start.lr_factor
        if settings["energy_per"] == "frame":
            n_atoms = self.dataset.pool.n_atoms[self.split.manifest["splits"]["train"]["indices"]]
            settings["energy_weight"] *= float(np.mean(n_atoms.astype(float) ** 2))
        return settings

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What determines the trained potential. Not paths, not hardware, unless the budget is a wall time.

        Where there are no iterations, neither the budget nor what says how to descend.
        """
        config, backend = self.config, self.config.backend_config
        environment = self.environment
        identity: dict[str, Any] = {
            "frames": self.split.manifest["train_digest"],  # train, valid and baseline; no test frames
            "architecture": config.architecture.model_dump(),
            "size": self.size,
            "training": self.training if self.iterates else {name: self.training[name] for name in WEIGHTS.values()},
            "budget": config.budget.model_dump(exclude={"converge"}) if self.iterates else {},
            "labels": self.labels,
            "init_seed": self.init_seed,
            "dtype": config.dtype,
            "adapter": [backend.adapter, backend.adapter_version],
            "environment": environment.lock if environment is not None else built_lock(backend),
        }
        identity |= started_identity(config, self.origin)
        if config.budget.seconds is not None and self.iterates:
            machine = hardware()
            identity["hardware"] = [config.device, config.threads, machine.get("cpu"), machine.get("gpus")]
        return masked(identity, self.environment_texts)

    @cached_property
    def identifiers(self) -> dict[str, Any]:
        """The columns that name a trial in every table."""
        config = self.config
        return {
            "dataset": self.dataset.name,
            "data": data_digest(self.dataset, self.labels),
            "frames": frames_digest(self.dataset),
            "architecture": config.architecture.name,
            "size": self.size,
            "backend": config.architecture.backend,
            "n_train": config.dataset.n_train,
            "n_valid": config.dataset.n_valid,
            "repetition": config.repetition,
            **({"start": self.origin.label} if config.start.kind != SCRATCH else {}),
            **({"acquisition": self.chosen, "round": self.manifest.round} if self.manifest else {}),
            **({"member": self.member} if self.member else {}),
        }

    @cached_property
    def resolved_config(self) -> dict[str, Any]:
        """The configuration as plain JSON, without the backends it does not use.

        Texts that came from environment variables stand there as they were written (``${oc.env:TOKEN}``), and what a
        training starts from by a path that holds elsewhere too, if it lies in ``results_dir``.
        """
        plain = self.config.model_dump(mode="json")
        backend = self.config.architecture.backend
        plain["backend"] = {backend: plain["backend"][backend]}
        plain["start"]["potential"] = beside_results(self.config)
        for key, text in self.environment_texts.items():
            put_text(plain, key.split("."), text)
        return plain

    def with_steps(self, steps: int) -> Trial:
        """The same trial with another number of optimiser steps."""
        budget = self.config.budget.model_copy(update={"steps": steps})
        return replace(self, config=self.config.model_copy(update={"budget": budget}))

    def for_accuracy(self) -> Trial:
        """The same trial, of which nothing but its accuracy is measured."""
        accuracy = self.config.evaluation.model_copy(update={"physics": None, "md": None, "speed": None})
        return replace(self, config=self.config.model_copy(update={"evaluation": accuracy}))


def plan_trial(overrides: Sequence[str], find: Find = resolve, *, write: bool = True) -> Trial:
    """Compose, validate and identify one trial.

    Args:
        overrides: Hydra overrides of this one trial.
        find: the environment of a backend; where it answers None, the pinned requirements stand for it.
        write: write its split files, if they are not there yet.

    Raises:
        UserError: a mistake in the configuration or the data, or what ``find`` raises.
    """
    return identify(compose_raw(overrides), find, write=write)


def identify(raw: DictConfig, find: Find = resolve, *, write: bool = True, overrides: Sequence[str] = ()) -> Trial:
    """As :func:`plan_trial`, for a configuration that Hydra has composed already."""
    config, texts = validate(raw), environment_texts(raw)
    keep_secrets(texts)
    config = _as_it_can(config)
    environment = find(config.backend_config)
    dataset = _load(config.dataset.model_dump_json(exclude={"n_train", "n_valid"}), config.dataset)
    config, rounds = first_round(config.model_copy(update={"dataset": settle(dataset, config.dataset)}))
    split_seed = config.split_seed
    if split_seed is None:
        split_seed = derive("split", dataset.name, config.repetition)
    init_seed = config.init_seed
    if init_seed is None:
        init_seed = derive("init", config.architecture.name, config.repetition)
    labels = loss_labels(config, dataset)
    _check_split_names(config, dataset)
    origin = find_origin(config, dataset, environment)
    if rounds is not None:
        require_rounds(rounds, config, dataset, split_seed, labels)
    return Trial(
        config=config, environment=environment, split=split_of(config, dataset, split_seed, write), dataset=dataset,
        split_seed=split_seed, init_seed=init_seed, labels=labels, rounds=rounds,
        skip=_why_not(config, dataset, labels) or origin.problem or None, origin=origin, environment_texts=texts,
    )  # fmt: skip


def _as_it_can(config: TrialConfig) -> TrialConfig:
    """The precision and device that the backend has, where it declares that it does not have those asked for."""
    backend = config.backend_config
    can: dict[str, Any] = {}
    if config.dtype not in backend.dtypes:
        can["dtype"] = backend.dtypes[0]
    kinds = ["cpu", "cuda"] if config.device == "auto" else [config.device.split(":")[0]]
    if not set(kinds) <= set(backend.devices):
        can["device"] = backend.devices[0]
    return config.model_copy(update=can) if can else config


def remembering(find: Find) -> Find:
    """``find`` that looks at each backend once, for the trials of one command."""
    known: dict[str, Environment | None] = {}

    def once(backend: BackendConfig) -> Environment | None:
        """The environment, looked for at the first call."""
        key = backend.model_dump_json()
        if key not in known:
            known[key] = find(backend)
        return known[key]

    return once


def loss_labels(config: TrialConfig, dataset: Dataset) -> list[str]:
    """The labels that enter the loss, decided once for every package: those asked for that have a weight.

    Stress is asked for by its weight alone. A label that no frame has at all is left to ``info["missing_labels"]``,
    which skips the trial.

    Raises:
        UserError: nothing would be left in the loss, or only some of the frames have the label.
    """
    weights = {label: getattr(config.training, weight) for label, weight in WEIGHTS.items()}
    asked = [*config.dataset.labels, *(["stress"] if "stress" not in config.dataset.labels else [])]
    entering = [label for label in asked if weights[label] > 0]
    if not entering:
        raise UserError(
            f"nothing enters the loss: dataset.labels={config.dataset.labels} and all their weights are 0",
            "Give training.energy_weight, training.force_weight or training.stress_weight a value above 0.",
        )
    missing = dataset.info.get("missing_labels") or []
    for label in entering:
        have, total = labelled(dataset, label)
        if have < total and not (label in missing and label in config.dataset.labels):
            raise UserError(
                f"{dataset.name}: {have} of {total} frames have {label}, and training.{WEIGHTS[label]}="
                f"{weights[label]:g} puts it into the loss",
                f"Set training.{WEIGHTS[label]}=0 to train without it, or leave the frames without it out of the file.",
            )
    return entering


def labelled(dataset: Dataset, label: str) -> tuple[int, int]:
    """How many frames of the pool (and of an own validation file) have ``label``, complete, and how many there are."""
    known: dict[str, tuple[int, int]] = dataset.cache.setdefault("labelled", {})
    if label not in known:
        parts = [dataset.pool, *([] if dataset.valid is None else [dataset.valid])]
        lacking = sum(len(frames_without(frames, label)) for frames in parts)
        total = sum(len(frames) for frames in parts)
        known[label] = (total - lacking, total)
    return known[label]


def _check_split_names(config: TrialConfig, dataset: Dataset) -> None:
    """Splits that evaluations name must be there before anything runs.

    Raises:
        UserError: one is not; has the close match.
    """
    named: dict[str, str | None] = {}
    if config.evaluation.md is not None:
        named["md.start_split"] = config.evaluation.md.start_split
        named |= {f"md.reference_splits ({name})": name for name in config.evaluation.md.reference_splits}
    if config.evaluation.speed is not None:
        named["speed.split"] = config.evaluation.speed.split
    for option, name in named.items():
        if name is not None and name != "valid" and name not in dataset.tests:
            raise UserError(
                f"evaluation.{option}: {dataset.name} has no split '{name}'",
                close_match(name, ["valid", *dataset.tests]),
            )


def split_of(
    config: TrialConfig, dataset: Dataset, seed: int, write: bool, train: Sequence[int] | None = None
) -> Split:
    """The split, drawn once in this process for all trials that share it; ``train``: of an acquisition."""
    root, data = (config.results_dir / config.study / "splits").resolve(), config.dataset
    place = ("split", str(root), seed, data.n_train, data.n_valid, data.on_leak, data.leak_tolerance, write, str(train))
    if place not in dataset.cache:
        with stages(dataset.name) as progress:
            dataset.cache[place] = datasets.prepare_split(dataset, data, seed, root, progress, write=write, train=train)
    split: Split = dataset.cache[place]
    return split


def _why_not(config: TrialConfig, dataset: Dataset, labels: list[str]) -> str | None:
    """Why a trial is skipped: labels that the data lack, or something that the backend declares it cannot do."""
    missing = dataset.info.get("missing_labels")
    if missing:
        return f"{dataset.name}: {why_not(missing, list(config.dataset.labels))}"
    name, backend = config.architecture.name, config.backend_config
    impossible = [label for label in labels if label not in backend.labels]
    if impossible:
        return (
            f"{name} cannot train on {', '.join(impossible)}, only on {', '.join(backend.labels)}: leave out of "
            "dataset.labels what it cannot, and set training.stress_weight=0 without stress"
        )
    held = np.unique(dataset.pool.frame_of_atom[dataset.pool.held])
    if "forces" in labels and len(held) and not backend.masks_forces:
        return (
            f"{name} cannot leave single atoms out of its force loss, and in {len(held)} of {len(dataset.pool)} frames "
            f"of {dataset.name} atoms are held by a constraint and have no true force: train on dataset.labels=[energy]"
        )
    if not backend.periodic and bool(dataset.pool.pbc.any()):
        return f"{name} knows no periodic boundaries, and frames of {dataset.name} are periodic"
    return None


_loaded: dict[str, Dataset] = {}


def _load(key: str, config: DatasetConfig) -> Dataset:
    """The data set, read once for all training sizes of a command; the last few are kept."""
    if key not in _loaded:
        while len(_loaded) >= 4:
            _loaded.pop(next(iter(_loaded)))
        with stages(config.name) as progress:
            _loaded[key] = datasets.load(config, progress)
    return _loaded[key]
