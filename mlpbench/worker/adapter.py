"""The contract every backend's adapter fulfils; ``mlpbench.testing`` tests it.

What the core knows of a backend without importing its adapter (architectures, citations, licence, capabilities) stands
in ``conf/backend/<name>.yaml``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from mlpbench.frames import Float, Frames
from mlpbench.protocol import CHECKPOINT, NATIVE, EventLog, Request, replacing
from mlpbench.worker.training import TrainingLog

ADOPTED = "adopted"  # in the folder of the checkpoints: the weights are a foundation model's, whole
BEGUN = "start"  # in a trial's folder: a foundation model's weights as a training of the adapter would have left them


class Unavailable(Exception):
    """A deployment that cannot run here; its text is the reason that tables and reports show."""


class Unusable(Exception):
    """Weights that a training cannot start from; its text says why."""


def first_line(error: Exception) -> str:
    """What an error of a package says in its first sentence, without advice that may follow."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0].split('. ')[0]}"


@dataclass(frozen=True)
class Prediction:
    """What a potential says of F frames with A atoms, in float64.

    Attributes:
        energy: (F,) eV, without the baseline (what :attr:`Frames.target_energy` is the reference of).
        forces: (A, 3) eV/Å.
        stress: (F, 6) eV/Å³, Voigt xx yy zz yz xz xy, ASE's sign; None where it was not asked for.
    """

    energy: Float
    forces: Float
    stress: Float | None = None


@dataclass(frozen=True)
class TrainOutcome:
    """How a training ended.

    Attributes:
        epochs: intervals finished, each with a validation; those before a resume included.
        steps: optimiser steps taken, likewise; None where a model is solved at once (``iterations: false``).
        passes: passes over the training set.
        best_epoch: interval (from 1) whose checkpoint was kept, by the lowest validation loss.
        best_step: optimiser steps taken by then.
        best_valid_loss: its validation loss.
        stopped_by: ``epochs``, ``steps``, ``seconds`` or ``patience``; ``solved`` where there are no steps.
        resumed: True if it began from the checkpoint of an interrupted training.
        native_command: what repeats this training with the package alone, from the trial's ``native`` folder.
    """

    epochs: int
    steps: int | None
    passes: float
    best_epoch: int
    best_step: int | None
    best_valid_loss: float
    stopped_by: str
    resumed: bool = False
    native_command: str = ""

    @classmethod
    def of(cls, log: TrainingLog, native_command: str) -> TrainOutcome:
        """The outcome that a finished training's account tells."""
        return cls(
            epochs=log.epoch,
            steps=log.step,
            passes=log.steps.passes(log.step),
            best_epoch=log.best_epoch,
            best_step=log.best_epoch * log.steps.interval,
            best_valid_loss=log.best,
            stopped_by=log.stopped_by() or "seconds",  # a package's timer may be some µs ahead of ours
            resumed=log.resumed,
            native_command=native_command,
        )


@dataclass(frozen=True)
class PairStyle:
    """A potential as LAMMPS loads it.

    Attributes:
        name: of the pair style.
        lines: commands after ``read_data``; ``{elements}`` stands for the symbols in the order of LAMMPS's types.
        newton: ``on`` or ``off``, as the style needs it.
        arguments: of the program, such as those that switch on its GPU package.
        variables: environment variables that the program needs (``LD_LIBRARY_PATH`` ...).
    """

    name: str
    lines: tuple[str, ...]
    newton: str = "on"
    arguments: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


class Potential(ABC):
    """A trained architecture, loaded for use. Energies are without the baseline everywhere."""

    n_parameters: int

    @abstractmethod
    def predict(self, frames: Frames, batch_size: int, stress: bool = False) -> Prediction:
        """Energies and forces (and stress if asked for) of all ``frames``, ``batch_size`` frames at a time."""

    @abstractmethod
    def calculator(self) -> Calculator:
        """The package's own ASE calculator (eV, eV/Å, eV/Å³) for this potential."""

    @abstractmethod
    def package_loss(self, frames: Frames, training: dict[str, Any]) -> float:
        """The package's own training loss on ``frames`` as one batch, with the weights of ``training`` translated.

        It must equal :func:`common_loss` up to a constant factor.
        """

    @abstractmethod
    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """The package's own test metrics in float64.

        ``energy_mae`` (eV/atom), ``energy_mae_total`` (eV), ``force_mae`` (eV/Å): only those that the
        package computes; a check on mlpbench's numbers, never their source.
        """

    def atomic_energies(self) -> Mapping[int, float]:
        """Atomic number -> the constant (eV) that the potential adds for each such atom; empty where it has none."""
        return {}

    def torchsim_model(self) -> Any:
        """A torch-sim ``ModelInterface`` for batched MD.

        Raises:
            NotImplementedError: the backend has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no torch-sim model")

    def neighbours(self, calculator: Calculator) -> Callable[[Atoms], Any] | None:
        """What :meth:`calculator` does in a call before its forward pass: the neighbour list, and tensors from it.

        None where the package does not have it apart.
        """
        return None


class Adapter(ABC):
    """Turns one common request into a package's own configuration, trainer and predictor.

    Attributes:
        packages: distributions whose versions are recorded with every result.
        preload: modules that the package itself imports only when it trains or predicts; a resident worker imports
            them once for all trials. None of them may use the device or start threads when it is imported.
        deployments: names of the package's faster implementations, by deployment: ``compiled``, ``accelerated``.
        pair_styles: of LAMMPS, that :meth:`pair_style` writes the potential for; those of the package, best first.
        plain: the backend's own class, where :mod:`mlpbench.worker.start` stands before it.
    """

    packages: ClassVar[tuple[str, ...]]
    preload: ClassVar[tuple[str, ...]] = ()
    deployments: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    pair_styles: ClassVar[tuple[str, ...]] = ()
    plain: ClassVar[type[Adapter] | None] = None

    def __init__(self, request: Request) -> None:
        self.request = request
        self.directory = Path(request.directory)
        self.checkpoints = self.directory / CHECKPOINT
        self.native = self.directory / NATIVE

    @property
    def start(self) -> Self | None:
        """The finished training of the same architecture that this one starts from, as an adapter; a foundation model's
        weights are made one, by :meth:`adopt`.

        :meth:`train` then builds the start's model, for its elements and with its scale and average neighbour numbers,
        and begins with the weights of its best checkpoint. None: from scratch.

        Raises:
            Unusable: the weights are none of this architecture's, or were altered.
        """
        begun = self.request.start
        if not begun:
            return None
        kind: Any = self.plain or type(self)
        directory = begun.get("directory") or str(self.directory / BEGUN)
        start: Self = kind(replace(self.request, directory=directory, start={}))
        if "file" in begun and not (start.checkpoints / ADOPTED).exists():
            file = Path(begun["file"])
            if hashlib.sha256(file.read_bytes()).hexdigest() != begun["sha256"]:
                raise Unusable(f"{file} was altered since the trial was planned")
            start.checkpoints.mkdir(parents=True, exist_ok=True)
            start.adopt(file, dict(begun.get("options") or {}), trust=bool(begun.get("trust")))
            with replacing(start.checkpoints / ADOPTED) as part:
                part.touch()
        return start

    def adopt(self, file: Path, options: Mapping[str, Any], *, trust: bool) -> None:
        """Write the weights of a foundation model to :attr:`checkpoints`, as a training of this adapter leaves them.

        Args:
            file: the weights, in the package's own format.
            options: of the package, e.g. which of several levels of theory is meant.
            trust: the file may be loaded although loading it can run code.

        Raises:
            Unusable: they are of another architecture, cannot be read, or would have to be trusted.
        """
        raise Unusable(f"{type(self).__name__} cannot start from the weights of a foundation model")

    def check_options(self, train: Frames, valid: Frames) -> None:
        """Refuse options in ``architecture.native`` that the package would not read, or that would spoil a comparison.

        Called by ``mlpbench plan`` and ``run`` before anything is trained. Without it they are refused by the training.

        Args:
            train: some frames of the data, for a configuration that depends on them.
            valid: likewise.

        Raises:
            RefusedOption: see :func:`~mlpbench.worker.training.require_options`.
        """
        return None

    @abstractmethod
    def train(self, train: Frames, valid: Frames, events: EventLog) -> TrainOutcome:
        """Train with the package's own trainer on ``target_energy`` and forces, and keep the best checkpoint.

        Writes the package's configuration to :attr:`native`, checkpoints to :attr:`checkpoints`, one event an epoch.
        If :attr:`checkpoints` holds an unfinished training of this request, goes on from it.
        """

    @abstractmethod
    def load(self, dtype: str | None = None) -> Potential:
        """The best checkpoint, in ``dtype`` (default: the request's).

        Raises:
            Unavailable: the package does not compute in ``dtype``.
            FileNotFoundError: there is no finished training.
        """

    def deploy(self, potential: Potential, means: str) -> Calculator:
        """The package's ASE calculator around ``potential``, run by one of the implementations in :attr:`deployments`.

        Raises:
            Unavailable: it cannot run here.
        """
        raise Unavailable(f"{type(self).__name__} does not know it")

    def export(self, folder: Path) -> str:
        """Write the best potential to ``folder`` in the package's own form, for use without mlpbench.

        Returns:
            Source of a function ``package_calculator(folder, device)`` (``folder`` a :class:`pathlib.Path`) that gives
            the package's ASE calculator for it; energies without the baseline.

        Raises:
            Unavailable: the package has no form that can be used without mlpbench.
        """
        raise Unavailable(f"{self.request.architecture['name']} has no form here that can be used without mlpbench")

    def export_torchsim(self) -> str:
        """Source of a function ``package_torchsim(folder, device)`` that gives the package's torch-sim model for what
        :meth:`export` wrote, energies without the baseline; empty where the package has none without mlpbench.
        """
        return ""

    def pair_style(self, folder: Path, known: Collection[str]) -> PairStyle:
        """Write the best potential to ``folder`` for the first of :attr:`pair_styles` that a LAMMPS knows.

        Args:
            folder: for the files, which the commands name without a path.
            known: pair styles of that LAMMPS; plugins of the package count as known.

        Raises:
            Unavailable: it knows none of them, or the package cannot write the file here.
        """
        raise Unavailable(f"{type(self).__name__} writes no file for a pair style of LAMMPS")

    def allow_tf32(self) -> None:
        """Let float32 products be rounded to TF32 from now on, in this process; called on NVIDIA GPUs only."""
        import torch  # not at the top: an adapter may have none

        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True


def common_loss(prediction: Prediction, frames: Frames, training: dict[str, Any]) -> float:
    """w_E·⟨(ΔE/N)²⟩ + w_F·⟨ΔF²⟩ + w_S·⟨Δσ²⟩, the loss all backends train on.

    ⟨⟩ over frames for the energy per atom (eV²), over all components of all atoms that are not held for forces
    ((eV/Å)²), and over the six Voigt components for stress ((eV/Å³)²). Weights: ``energy_weight, force_weight,
    stress_weight``.
    """
    total = 0.0  # a label without a weight may be missing
    if training["energy_weight"]:
        energy = np.mean(((prediction.energy - frames.target_energy) / frames.n_atoms) ** 2)
        total += float(training["energy_weight"] * energy)
    if training["force_weight"]:
        error = (prediction.forces - frames.forces)[~frames.held]  # held atoms have no known force
        total += training["force_weight"] * float(np.mean(error**2))
    if training.get("stress_weight") and prediction.stress is not None:
        total += training["stress_weight"] * float(np.mean((prediction.stress - frames.stress) ** 2))
    return total
