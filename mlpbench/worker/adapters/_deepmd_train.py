"""Trains a model of DeePMD-kit on its loss, with mlpbench's loop in place of ``dp train``: ``python train.py``.

What DeePMD-kit's own trainer cannot do and every package here must: passes over all frames in a random order (it draws
systems with replacement), a rate that is annealed with the budget, averaged weights, the best checkpoint by the
training's own loss, stress in the loss, and an exact resumption. Model, statistics of its input, energy and force loss
and the checkpoint's format are DeePMD-kit's.

A copy of this file lies beside ``config.json`` (its key ``model`` is the section ``model`` of DeePMD-kit's input),
``data.npz``, ``model.py`` and ``common_training.py``. ``best.pt`` is a checkpoint for ``DP(...)`` and for
``dp --pt freeze``; its energies are without the reference energies that were removed from the data.
"""

from __future__ import annotations

import copy
import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deepmd.pt.loss import EnergyStdLoss
from deepmd.pt.model.model import get_model
from deepmd.pt.train.wrapper import ModelWrapper
from deepmd.pt.utils.learning_rate import LearningRateExp
from torch.optim.swa_utils import AveragedModel

if __package__:
    from mlpbench.worker.adapters._deepmd_model import Batch, batches, evaluate, join, systems, use_device
    from mlpbench.worker.common_training import ANNEALED, Batches, Steps, learning_rate
else:  # beside copies
    from common_training import ANNEALED, Batches, Steps, learning_rate  # type: ignore[import-not-found,no-redef]
    from model import Batch, batches, evaluate, join, systems, use_device  # type: ignore[import-not-found,no-redef]

BEST, LAST = "best.pt", "last.pt"
CONFIG, DATA = "config.json", "data.npz"


class CommonLoss:
    """w_E·⟨(ΔE/N)²⟩ + w_F·⟨ΔF²⟩ by DeePMD-kit's ``EnergyStdLoss``, and w_S·⟨Δσ²⟩ over the six Voigt components.

    DeePMD-kit's own term for the virial is another one: (ΔW/N)² over nine components.

    Args:
        training: ``energy_weight``, ``force_weight``, ``stress_weight``.

    Raises:
        ValueError: no weight is above zero.
    """

    def __init__(self, training: dict[str, Any]) -> None:
        energy, force = float(training["energy_weight"]), float(training["force_weight"])
        self.stress = float(training.get("stress_weight") or 0.0)
        if energy <= 0 and force <= 0 and self.stress <= 0:
            raise ValueError("nothing to train on: the loss weights of energy, forces and stress are all zero")
        self.labels = [
            name for name, weight in (("energy", energy), ("forces", force), ("stress", self.stress)) if weight
        ]
        self.package = EnergyStdLoss(
            starter_learning_rate=1.0, start_pref_e=energy, limit_pref_e=energy, start_pref_f=force, limit_pref_f=force,
            intensive_ener_virial=True,
        )  # fmt: skip

    def __call__(self, found: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        """The loss of one batch, a scalar."""
        loss, _ = _call(self.package, found, batch)
        if "stress" in self.labels:
            loss = loss + self.stress * (found["stress"] - batch.labels["stress"]).square().mean()
        return loss


def errors(found: dict[str, torch.Tensor], batch: Batch) -> dict[str, float]:
    """DeePMD-kit's mean absolute errors: of the energy per atom (eV), of the frame (eV), of the forces (eV/Å)."""
    package = EnergyStdLoss(1.0, 1.0, 1.0, 1.0, 1.0, intensive_ener_virial=True)
    _, more = _call(package, found, batch, mae=True)
    names = {"mae_e": "energy_mae", "mae_e_all": "energy_mae_total", "mae_f": "force_mae"}
    return {ours: float(more[theirs]) for theirs, ours in names.items() if theirs in more}


def _call(
    package: EnergyStdLoss, found: dict[str, torch.Tensor], batch: Batch, rate: float = 1.0, mae: bool = False
) -> tuple[Any, Any]:
    """Loss and further numbers that DeePMD-kit's loss gives for the labels of the batch."""
    prediction = {"energy": found["energy"][:, None], "force": _padded(found["forces"], batch)}
    label: dict[str, Any] = {}
    if "energy" in batch.labels:
        label |= {"energy": batch.labels["energy"][:, None], "find_energy": 1.0}
    if "forces" in batch.labels:
        label |= {"force": _padded(batch.labels["forces"], batch), "find_force": 1.0}
    atype = _padded(batch.types[:, None] + 1, batch)[:, :, 0] - 1  # -1: no atom
    _, loss, more = package({"atype": atype}, lambda **_: prediction, label, atype.shape[1], rate, mae=mae)
    return loss, more


def _padded(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(A, k) values of atoms as (F, largest number of atoms, k), filled up with zeros."""
    counts = batch.n_atoms()
    first = torch.cumsum(counts, 0) - counts
    place = torch.arange(len(values), device=values.device) - first[batch.frame]
    padded = values.new_zeros(len(batch), int(counts.max()), values.shape[1])
    return padded.index_put((batch.frame, place), values)


class Trainer:
    """A model with its optimiser, averaged weights and scheduler.

    Args:
        config: ``model`` (DeePMD-kit's), ``training``, ``scale`` (by which the output is multiplied), ``clip`` (largest
            norm of the gradient, or None), ``seed``, and ``own``, which may have DeePMD-kit's sections ``loss`` and
            ``learning_rate`` in place of what is common to all packages.
        train: one batch for each frame, with labels.
        valid: likewise.
        systems: what the model's statistics are taken of (see :func:`systems`).
        device: where it trains.
    """

    def __init__(
        self, config: dict[str, Any], train: Sequence[Batch], valid: Sequence[Batch], systems: list[Any], device: str
    ) -> None:
        self.training, self.scale, self.clip = config["training"], float(config["scale"]), config["clip"]
        self.own: dict[str, Any] = config["own"]
        self.parameters = copy.deepcopy(config["model"])
        self.train_frames, self.device = [frame.to(device) for frame in train], device
        self.valid_frames = [frame.to(device) for frame in valid]
        use_device("cpu")  # where the initial weights are the same for all devices
        self.model = get_model(copy.deepcopy(self.parameters))
        self.model.atomic_model.compute_or_load_stat(lambda: systems, compute_or_load_out_stat=False)
        use_device(device)
        self.model.to(device)
        self.batches = Batches(len(train), int(self.training["batch_size"]), int(config["seed"]))
        self.loss = CommonLoss(self.training)
        self.package_loss = None
        if "loss" in self.own:  # its weights follow the rate
            self.package_loss = EnergyStdLoss(starter_learning_rate=float(self.training["lr"]), **self.own["loss"])
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad and weight.numel()]
        self.optimizer = _optimizer(self.weights, self.training)
        self.scheduler = _scheduler(self.optimizer, self.training)
        self.average: AveragedModel | None = None
        if self.training["ema_decay"] is not None:
            self.average = AveragedModel(self.model, multi_avg_fn=_average(float(self.training["ema_decay"])))
            self.average.n_averaged.fill_(1)  # the initial weights are in it, so that the first step is averaged too

    def step(self, number: int, rate: float | None) -> tuple[float, int]:
        """One optimiser step, counted from 0, at ``rate`` (None: the scheduler's); loss and size of its batch."""
        if rate is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
        batch = join([self.train_frames[i] for i in self.batches.at(number)])
        self.model.train()
        found = self._scaled(self.model, batch)
        loss = self.loss(found, batch)
        self.optimizer.zero_grad(set_to_none=True)
        if self.package_loss is None:
            loss.backward()
        else:
            _call(self.package_loss, found, batch, self.optimizer.param_groups[0]["lr"])[0].backward()
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.weights, float(self.clip))
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return float(loss.detach()), len(batch)

    def validate(self) -> tuple[float, float | None, float | None]:
        """Loss, MAE of the energy per atom and of the forces over all validation frames, with the averaged weights."""
        model = (self.model if self.average is None else self.average.module).eval()
        size = max(int(self.training["batch_size"]), 16)
        parts: list[dict[str, torch.Tensor]] = []
        for start in range(0, len(self.valid_frames), size):
            found = self._scaled(model, join(self.valid_frames[start : start + size]))
            parts.append({name: value.detach() for name, value in found.items()})
        found, batch = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, join(self.valid_frames)
        maes: list[float | None] = [None, None]
        if "energy" in batch.labels:
            maes[0] = float(((found["energy"] - batch.labels["energy"]) / batch.n_atoms()).abs().mean())
        if "forces" in batch.labels:
            maes[1] = float((found["forces"] - batch.labels["forces"]).abs().mean())
        return float(self.loss(found, batch)), maes[0], maes[1]

    def rates(self, account: Any) -> Any:
        """The rate of each step, counted from 0; None: the scheduler's.

        Raises:
            ValueError: a schedule of DeePMD-kit's for a training whose steps are not known.
        """
        if "learning_rate" not in self.own:
            return account.lr if account.anneals else lambda number: None
        if account.steps.total is None:
            raise ValueError("native.learning_rate ends with the steps of the budget: set budget.steps, not seconds")
        settings = {key: value for key, value in self.own["learning_rate"].items() if key != "type"}
        schedule = LearningRateExp(start_lr=float(self.training["lr"]), num_steps=account.steps.total, **settings)
        return lambda number: float(schedule.value(number))

    def _scaled(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        return {name: self.scale * value for name, value in evaluate(model, batch).items()}

    def checkpoint(self) -> dict[str, Any]:
        """DeePMD-kit's checkpoint of the averaged weights, with the output's scale in the last layer."""
        model = copy.deepcopy(self.model if self.average is None else self.average.module)
        with torch.no_grad():
            for network in model.atomic_model.fitting_net.filter_layers.networks:
                last = network.layers[-1]
                last.matrix.mul_(self.scale)
                last.bias.mul_(self.scale)
        return {"model": ModelWrapper(model, model_params=self.parameters).state_dict()}

    def state(self) -> dict[str, Any]:
        """All that the next step needs."""
        parts = {"model": self.model, "optimizer": self.optimizer, "average": self.average, "scheduler": self.scheduler}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state` gave."""
        for name, part in state.items():
            getattr(self, name).load_state_dict(part)


def _optimizer(weights: Sequence[torch.nn.Parameter], training: dict[str, Any]) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if training["optimizer"] == "adamw" else torch.optim.Adam
    return kind(
        weights, lr=float(training["lr"]), amsgrad=training["optimizer"] == "amsgrad",
        weight_decay=float(training["weight_decay"]),
    )  # fmt: skip


def _scheduler(optimizer: torch.optim.Optimizer, training: dict[str, Any]) -> Any:
    """What acts at validations; None where the rate is constant or set step by step."""
    if training["schedule"] == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=float(training["lr_factor"]), patience=int(training["lr_patience"]),
            min_lr=float(training["lr_min"]),
        )  # fmt: skip
    if training["schedule"] == "exponential":
        low = min(1.0, float(training["lr_min"]) / float(training["lr"]))
        gamma = float(training["lr_gamma"])
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda validation: max(low, gamma**validation))
    return None


def _average(decay: float) -> Any:
    """The moving average with min(decay, (1 + n)/(10 + n)) at step n."""

    @torch.no_grad()
    def update(averaged: list[torch.Tensor], current: Iterable[torch.Tensor], n: Any) -> None:
        share = min(decay, (1 + int(n)) / (10 + int(n)))
        for old, new in zip(averaged, current, strict=True):
            if old.numel():
                old.lerp_(new.to(old.dtype), 1 - share)

    return update


def fit(trainer: Trainer, account: Any, folder: Path) -> None:
    """Train until ``account`` (a ``TrainingLog``, or :class:`Account`) says so; goes on from ``last.pt``."""
    if (folder / LAST).exists():
        state = torch.load(folder / LAST, map_location=trainer.device, weights_only=True)
        trainer.restore(state["trainer"])
        account.restore(state["log"])
    rate = trainer.rates(account)
    account.start_clock()
    while account.stopped_by() is None:
        start, total, frames = account.step, 0.0, 0
        stop = start + account.steps.interval
        for number in range(start, stop):
            loss, size = trainer.step(number, rate(number))
            total, frames = total + loss * size, frames + size
        loss, energy_mae, force_mae = trainer.validate()
        better = account.validated(
            account.epoch + 1, stop, train_loss=total / frames, valid_loss=loss, valid_energy_mae=energy_mae,
            valid_force_mae=force_mae, lr=trainer.optimizer.param_groups[0]["lr"],
        )  # fmt: skip
        if trainer.scheduler is not None:
            plateau = trainer.training["schedule"] == "plateau"
            trainer.scheduler.step(*([loss] if plateau else []))
        if better:
            _write(trainer.checkpoint(), folder / BEST)
        _write({"trainer": trainer.state(), "log": account.state()}, folder / LAST)


def _write(content: Any, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(content, part)
    os.replace(part, path)


class Account:
    """What ``TrainingLog`` does in mlpbench, for a training by DeePMD-kit and this folder alone."""

    def __init__(self, training: dict[str, Any], budget: dict[str, Any], n_train: int) -> None:
        self.training, self.patience = training, budget.get("patience")
        self.steps = Steps.of(budget, int(training["batch_size"]), n_train)
        self.anneals = training["schedule"] in ANNEALED
        self.epoch = self.step = self.best_epoch = 0
        self.best, self._start = math.inf, time.monotonic()

    def start_clock(self) -> None:
        """Seconds are counted from here."""
        self._start = time.monotonic()

    def lr(self, step: int) -> float:
        """The rate of a step."""
        return learning_rate(self.training, self.steps, step, time.monotonic() - self._start)

    def stopped_by(self) -> str | None:
        """The limit that is reached."""
        if self.steps.total is not None and self.step >= self.steps.total:
            return self.steps.limit
        if self.steps.seconds is not None and self.epoch and time.monotonic() - self._start >= self.steps.seconds:
            return "seconds"
        return "patience" if self.patience is not None and self.epoch - self.best_epoch >= self.patience else None

    def validated(self, epoch: int, step: int, **found: Any) -> bool:
        """Note and print a validation; True if it is the best so far."""
        self.epoch, self.step = epoch, step
        print(epoch, step, " ".join(f"{name}={value:.6g}" for name, value in found.items() if value is not None))
        better = found["valid_loss"] < self.best
        if better:
            self.best, self.best_epoch = found["valid_loss"], epoch
        return bool(better)

    def state(self) -> dict[str, Any]:
        """For a resumption."""
        return {name: getattr(self, name) for name in ("epoch", "step", "best", "best_epoch")}

    def restore(self, state: dict[str, Any]) -> None:
        """Take it up."""
        for name, value in state.items():
            setattr(self, name, value)


def main() -> None:
    """Train from the configuration in this folder."""
    folder = Path(__file__).parent
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    torch.set_num_threads(config["threads"])
    with np.load(folder / DATA) as arrays:
        data = dict(arrays)
    parts = [
        {name.removeprefix(f"{split}."): value for name, value in data.items() if name.startswith(f"{split}.")}
        for split in ("train", "valid")
    ]
    train, valid = (batches(part, config["cutoff"], config["labels"]) for part in parts)
    trainer = Trainer(config, train, valid, systems(parts[0], config["cutoff"]), config["device"])
    fit(trainer, Account(config["training"], config["budget"], len(train)), folder)


if __name__ == "__main__":
    main()
