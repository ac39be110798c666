"""What a package must say of its model to be trained by mlpbench's loop: :class:`Net`, and the adapter around it."""

from __future__ import annotations

import importlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase.stress import full_3x3_to_voigt_6_stress

from mlpbench.frames import Frames
from mlpbench.protocol import CHECKPOINT, WEIGHTS, EventLog, Request, read_json, write_json
from mlpbench.worker.adapter import Adapter, Potential, Prediction, TrainOutcome, Unusable
from mlpbench.worker.adapters._loop import BEST, Loop
from mlpbench.worker.training import TrainingLog

FACTS = "facts.json"  # in the folder of the checkpoints
VOIGT = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))  # components of a 3x3 tensor in ASE's order
START = "start"  # folder in ``native``: copies of what the training starts from
COMMAND = "python train.py"
SCRIPT = '''\
"""Repeats this training; the loop and what drives the package are copied into the folder mlpbench beside this file.

Checkpoints and the curve go to the folder "again".
"""

import json
import os
from pathlib import Path

from {module} import {name}
from mlpbench.frames import Frames
from mlpbench.protocol import EventLog, Request

here = Path(__file__).resolve().parent
os.chdir(here)
settings = json.loads((here / "training.json").read_text(encoding="utf-8"))
adapter = {name}(Request(**settings, directory=str(here / "again"), frames={{}}, tasks=[]))
adapter.checkpoints.mkdir(parents=True, exist_ok=True)
train, valid = (Frames.load(here / f"{{split}}.npz") for split in ("train", "valid"))
print(adapter.train(train, valid, EventLog(here / "again" / "events.jsonl")))
'''
COPIED = (
    "mlpbench", "mlpbench.frames", "mlpbench.protocol", "mlpbench.worker", "mlpbench.worker.adapter",
    "mlpbench.worker.common_training", "mlpbench.worker.training", "mlpbench.worker.adapters",
    "mlpbench.worker.adapters._loop", __name__,
)  # fmt: skip


class Net(ABC):
    """A package's model, as the loop trains it and as predictions run it. Energies are without the baseline.

    Attributes:
        model: its parameters that require gradients are trained.
        device: where it runs.
        dtype: of its weights.
        kept: names of parameters that are not trained and belong to a checkpoint all the same: of a foundation model,
            or frozen.
        readout: how the names of those parameters begin that turn an atom's features into its energy; all others are
            the representation.
    """

    model: torch.nn.Module
    device: str
    dtype: torch.dtype
    kept: frozenset[str] = frozenset()
    readout: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def facts(cls, request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
        """All that :meth:`build` needs, as JSON: the package's configuration, elements, what is measured on ``train``.

        Raises:
            RefusedOption: an option that the package does not have, or a value that it does not accept.
        """

    @classmethod
    @abstractmethod
    def build(cls, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> Net:
        """The model with fresh weights; torch's default dtype is ``dtype`` and its generator seeded."""

    @abstractmethod
    def prepare(self, frames: Frames, labels: Sequence[str] = ()) -> list[Any]:
        """The package's input for each frame, on the CPU: neighbours, and the ``labels`` (the target energy)."""

    @abstractmethod
    def collate(self, inputs: Sequence[Any]) -> Any:
        """One batch, on the device."""

    @abstractmethod
    def outputs(self, batch: Any, stress: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Of F frames with A atoms: (F,) energies in eV, (A, 3) forces in eV/Å, (F, 3, 3) stress in eV/Å³ (ASE's sign).

        The results need not be differentiable.
        """

    @abstractmethod
    def loss(self, batch: Any, training: Mapping[str, Any]) -> torch.Tensor:
        """The loss that is trained on, a differentiable scalar in units of the common loss."""

    def freeze(self) -> None:
        """From now on the representation is not trained.

        Raises:
            Unusable: this package's parameters are not told apart here.
        """
        names = [n for n, p in self.model.named_parameters() if p.requires_grad]
        frozen = {n for n in names if not n.startswith(self.readout)}
        if not self.readout or len(frozen) == len(names):
            raise Unusable(f"{type(self).__name__}: start.freeze=representation is not known here")
        for name, parameter in self.model.named_parameters():
            if name in frozen:
                parameter.requires_grad_(False)
        self.kept |= frozen

    def training_batch(self, inputs: Sequence[Any], seed: Sequence[int]) -> Any:
        """One batch of the training, on the device; what is random about it follows from ``seed``, the step's own."""
        return self.collate(inputs)

    def interval(
        self, optimizer: torch.optim.Optimizer, batches: Iterator[tuple[Any, int]], training: Mapping[str, Any]
    ) -> float:
        """One optimiser step for each of ``batches`` (with their numbers of frames); the mean loss.

        Clipping and the average of the weights hang on ``optimizer.step``.
        """
        self.model.train()
        total, count = 0.0, 0
        for batch, frames in batches:
            optimizer.zero_grad()
            loss = self.loss(batch, training)
            loss.backward()
            optimizer.step()
            total, count = total + float(loss.detach()) * frames, count + frames
        return total / count

    def predict(self, frames: Frames, batch_size: int, stress: bool, inputs: list[Any] | None = None) -> Prediction:
        """See :meth:`Potential.predict`; ``inputs`` of all frames, if :meth:`prepare` has made them already.

        The stress of a frame that is not periodic along all vectors is NaN.
        """
        energy: list[Any] = [np.zeros(0)]
        forces: list[Any] = [np.zeros((0, 3))]
        stresses: list[Any] = [np.zeros((0, 3, 3))]
        self.model.eval()
        with default_dtype(self.dtype):
            for start in range(0, len(frames), batch_size):
                part = slice(start, start + batch_size)
                batch = self.collate(self.prepare(frames.select(part)) if inputs is None else inputs[part])
                found = self.outputs(batch, stress)
                for kept, value in zip((energy, forces, stresses), found, strict=True):
                    if value is not None:
                        kept.append(value.detach().to("cpu", torch.float64).numpy())
        voigt = full_3x3_to_voigt_6_stress(np.concatenate(stresses)).reshape(-1, 6)
        if stress:
            voigt[~frames.pbc.all(axis=1)] = np.nan
        return Prediction(np.concatenate(energy), np.concatenate(forces), voigt if stress else None)


class NetPotential(Potential):
    """A trained :class:`Net`."""

    def __init__(self, net: Any) -> None:
        self.net = net
        self.n_parameters = sum(p.numel() for p in net.model.parameters() if p.requires_grad)

    def predict(self, frames: Frames, batch_size: int, stress: bool = False) -> Prediction:
        """See :meth:`Potential.predict`."""
        prediction: Prediction = self.net.predict(frames, batch_size, stress)
        return prediction

    def package_loss(self, frames: Frames, training: dict[str, Any]) -> float:
        """See :meth:`Potential.package_loss`: the loss that was trained on."""
        labels = [label for label, weight in WEIGHTS.items() if training.get(weight)]
        if "stress" in labels and not frames.has_stress:
            labels.remove("stress")
            training = {**training, "stress_weight": 0.0}
        with default_dtype(self.net.dtype):
            batch = self.net.collate(self.net.prepare(frames, labels))
            return float(self.net.loss(batch, training).detach())


class NetAdapter(Adapter):
    """Trains a :class:`Net` with mlpbench's loop; resumes exactly."""

    net: ClassVar[type[Net]]
    preload: ClassVar[tuple[str, ...]] = ("torch._dynamo",)  # imported by the first optimiser, which takes seconds
    potential: ClassVar[type[NetPotential]]
    modules: ClassVar[tuple[str, ...]] = ()  # further ones of the adapter's, copied for train.py

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        torch.set_num_threads(request.threads)

    def check_options(self, train: Frames, valid: Frames) -> None:
        """See :meth:`Adapter.check_options`."""
        self.net.facts(self.request, train, valid)

    def train(self, train: Frames, valid: Frames, events: EventLog) -> TrainOutcome:
        """See :meth:`Adapter.train`."""
        request, dtype = self.request, getattr(torch, self.request.dtype)
        facts = self.net.facts(request, train, valid)
        if self.start is not None:
            facts = self.start._facts()
        self._write_native(facts, train, valid)
        write_json(self.checkpoints / FACTS, facts)
        log = TrainingLog(events, request, len(train))
        with default_dtype(dtype):
            torch.manual_seed(request.seed)
            net = self.net.build(facts, request.device, dtype)
            if self.start is not None:
                self.start.fill(net)
                if request.start.get("freeze", "none") == "representation":
                    net.freeze()
            Loop(net, request, log, self.checkpoints).run(train, valid)
        return TrainOutcome.of(log, COMMAND)

    def load(self, dtype: str | None = None) -> Potential:
        """See :meth:`Adapter.load`. The model is built anew in ``dtype``, so that its constants are not rounded."""
        wanted = getattr(torch, dtype or self.request.dtype)
        with default_dtype(wanted):
            net = self.net.build(self._facts(), self.request.device, wanted)
        self.fill(net)
        return self.potential(net)

    def _facts(self) -> dict[str, Any]:
        if not (self.checkpoints / BEST).exists():
            path = self.checkpoints / BEST
            raise FileNotFoundError(f"no trained {type(self).__name__} potential: {path} does not exist")
        return read_json(self.checkpoints / FACTS)

    def fill(self, net: Net) -> None:
        """Put the weights of the best checkpoint into a net that was built of the same facts."""
        weights = torch.load(self.checkpoints / BEST, map_location="cpu", weights_only=True)["model"]
        parameters = dict(net.model.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                parameters[name].copy_(value)

    def _write_native(self, facts: Mapping[str, Any], train: Frames, valid: Frames) -> None:
        """The package's configuration, the data, and copies of what trains with it, for ``train.py``."""
        self.native.mkdir(parents=True, exist_ok=True)
        write_json(self.native / "package.json", dict(facts))
        request = vars(self.request)
        settings = {name: request[name] for name in request if name not in ("directory", "frames", "tasks", "version")}
        if self.start is not None:
            settings["start"] = {"directory": START, "freeze": self.request.start.get("freeze", "none")}
            (self.native / START / CHECKPOINT).mkdir(parents=True, exist_ok=True)
            for name in (FACTS, BEST):
                shutil.copyfile(self.start.checkpoints / name, self.native / START / CHECKPOINT / name)
        write_json(self.native / "training.json", settings)
        train.save(self.native / "train.npz")
        valid.save(self.native / "valid.npz")
        own = type(self)
        for module in dict.fromkeys((*COPIED, *self.modules, self.net.__module__, own.__module__)):
            source = Path(str(importlib.import_module(module).__file__))
            parts = module.split(".")
            target = self.native.joinpath(*parts)
            target = target / "__init__.py" if source.name == "__init__.py" else target.with_suffix(".py")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        text = SCRIPT.format(module=own.__module__, name=own.__name__)
        (self.native / "train.py").write_text(text, encoding="utf-8")


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """torch's default dtype inside a block, put back even after an error."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def squared_errors(
    outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    labels: Mapping[str, torch.Tensor],
    counts: torch.Tensor,
    training: Mapping[str, Any],
) -> torch.Tensor:
    """The common loss of a batch, differentiable: see :func:`mlpbench.worker.adapter.common_loss`.

    Args:
        outputs: (F,) energies, (A, 3) forces, (F, 3, 3) stress; what has no weight is not looked at.
        labels: ``energy``, ``forces``, ``stress`` of these shapes.
        counts: (F,) atoms of each frame.
        training: with the weights.
    """
    energy, forces, stress = outputs
    terms = []
    if training["energy_weight"]:
        terms.append(float(training["energy_weight"]) * ((energy - labels["energy"]) / counts).square().mean())
    if training["force_weight"]:
        known = labels["forces"].isfinite()  # NaN: held by a constraint, true force not known
        terms.append(float(training["force_weight"]) * (forces - labels["forces"])[known].square().mean())
    if training.get("stress_weight"):
        off = (stress - labels["stress"])[:, VOIGT[0], VOIGT[1]]
        terms.append(float(training["stress_weight"]) * off.square().mean())
    return torch.stack(terms).sum()


def elements_of(*frames: Frames) -> list[int]:
    """Atomic numbers, in ascending order."""
    return sorted(set(np.concatenate([part.numbers for part in frames]).tolist()))


def require_elements(frames: Frames, known: Sequence[int], name: str) -> None:
    """Refuse frames with an element that a model has not learnt.

    Raises:
        ValueError: names the elements.
    """
    unknown = sorted(set(frames.numbers.tolist()) - set(known))
    if unknown:
        raise ValueError(
            f"{name} was not trained on the elements with the atomic numbers {unknown}, only on {list(known)}"
        )
