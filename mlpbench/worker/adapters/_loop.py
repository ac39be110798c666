"""mlpbench's own training loop, for packages that have a model and no trainer that could keep to the common rules.

Batches, steps, learning rate, clipping, average of the weights, validation, checkpoints and resumption are here, the
same for all such packages; what their models are, they say in a :class:`mlpbench.worker.adapters._net.Net`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlpbench.frames import Frames
from mlpbench.protocol import Request
from mlpbench.worker.adapter import common_loss
from mlpbench.worker.common_training import Batches
from mlpbench.worker.training import TrainingLog, clip_norm, label_scale

BEST, LAST = "best.pt", "last.pt"  # in the folder of the checkpoints


class Loop:
    """One training.

    Args:
        net: a :class:`~mlpbench.worker.adapters._net.Net` with fresh weights.
        request: its settings, budget and seed.
        log: the account of the training.
        folder: where the checkpoints lie.
    """

    def __init__(self, net: Any, request: Request, log: TrainingLog, folder: Path) -> None:
        self.net, self.request, self.log, self.folder = net, request, log, folder
        parameters = [p for p in net.model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(parameters, request.training)
        self.scheduler = make_scheduler(self.optimizer, request.training)
        self.average = Average(parameters, request.training["ema_decay"])

    def run(self, train: Frames, valid: Frames) -> None:
        """Train until a limit of the budget is reached, from the last checkpoint if there is one."""
        net, log, training = self.net, self.log, self.request.training
        self._hang_on_steps(clip_norm(training, label_scale(train, self.request.labels)))
        inputs = net.prepare(train, self.request.labels)
        valid_inputs = net.prepare(valid)
        batches = Batches(len(train), log.steps.batch_size, self.request.seed)
        log.start_clock()
        self._restore()
        while log.stopped_by() is None:
            train_loss = net.interval(self.optimizer, self._feed(inputs, batches), training)
            rate = float(self.optimizer.param_groups[0]["lr"])
            with self.average.applied():
                better = self._validate(valid, valid_inputs, train_loss, rate)
                if better:
                    named = net.model.named_parameters()
                    weights = {n: p.detach().clone() for n, p in named if p.requires_grad or n in net.kept}
                    save({"model": weights, "epoch": log.epoch}, self.folder / BEST)
            self._schedule()
            self._save()

    def _feed(self, inputs: list[Any], batches: Batches) -> Iterator[tuple[Any, int]]:
        """The batches of the next interval, each step's learning rate set before it."""
        start = self.log.step
        for step in range(start, start + self.log.steps.interval):
            if self.log.anneals:
                for group in self.optimizer.param_groups:
                    group["lr"] = self.log.lr(step)
            chosen = batches.at(step)
            yield self.net.training_batch([inputs[i] for i in chosen], (self.request.seed, step)), len(chosen)

    def _hang_on_steps(self, limit: float | None) -> None:
        def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], limit or 0.0)

        if limit is not None:
            self.optimizer.register_step_pre_hook(clip)
        self.optimizer.register_step_post_hook(lambda *_: self.average.update())

    def _validate(self, valid: Frames, inputs: list[Any], train_loss: float, rate: float) -> bool:
        """Note the errors on all validation frames; True if the loss is the lowest so far."""
        log, request = self.log, self.request
        stress = "stress" in request.labels
        prediction = self.net.predict(valid, 2 * log.steps.batch_size, stress, inputs)
        energy = np.abs(prediction.energy - valid.target_energy) / valid.n_atoms
        return log.validated(
            log.epoch + 1,
            log.step + log.steps.interval,
            train_loss=train_loss,
            valid_loss=common_loss(prediction, valid, request.training),
            valid_energy_mae=float(energy.mean()) if np.isfinite(energy).all() else None,
            valid_force_mae=float(np.nanmean(np.abs(prediction.forces - valid.forces))) if valid.has_forces else None,
            lr=rate,
        )

    def _schedule(self) -> None:
        """The package-independent schedules that move at validations."""
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self.scheduler.step(self.log.last_loss)
        elif self.scheduler is not None:
            self.scheduler.step()
            low = float(self.request.training["lr_min"])
            for group in self.optimizer.param_groups:
                group["lr"] = max(group["lr"], min(low, float(self.request.training["lr"])))

    def _save(self) -> None:
        scheduler = None if self.scheduler is None else self.scheduler.state_dict()
        save(
            {
                "model": self.net.model.state_dict(), "optimizer": self.optimizer.state_dict(), "scheduler": scheduler,
                "average": self.average.shadows, "updates": self.average.updates, "log": self.log.state(),
            },
            self.folder / LAST,
        )  # fmt: skip

    def _restore(self) -> None:
        if not (self.folder / LAST).exists():
            return
        state = torch.load(self.folder / LAST, map_location="cpu", weights_only=False)  # written here alone
        self.net.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        for shadow, value in zip(self.average.shadows, state["average"], strict=True):
            shadow.copy_(value)
        self.average.updates = state["updates"]
        self.log.restore(state["log"])


class Average:
    """Exponential moving average of weights: decay min(``decay``, (1 + n)/(10 + n)) at step n; None: the weights."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float | None) -> None:
        self.parameters, self.decay, self.updates = list(parameters), decay, 0
        self.shadows = [p.detach().clone() for p in parameters] if decay is not None else []

    @torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
    def update(self) -> None:
        """After each optimiser step."""
        if self.decay is None:
            return
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for shadow, parameter in zip(self.shadows, self.parameters, strict=True):
            shadow.lerp_(parameter, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averages stand in the model inside the block."""
        kept = [p.detach().clone() for p in self.parameters] if self.shadows else []
        self._write(self.shadows)
        try:
            yield
        finally:
            self._write(kept)

    @torch.no_grad()  # type: ignore[untyped-decorator,unused-ignore]
    def _write(self, values: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(self.parameters if values else [], values, strict=True):
            parameter.copy_(value)


def make_optimizer(parameters: Sequence[torch.nn.Parameter], training: Mapping[str, Any]) -> torch.optim.Optimizer:
    """``training.optimizer`` with β = 0.9, 0.999 and ε = 1e-8."""
    options = {"lr": float(training["lr"]), "weight_decay": float(training["weight_decay"])}
    if training["optimizer"] == "adamw":
        return torch.optim.AdamW(parameters, **options)
    return torch.optim.Adam(parameters, amsgrad=training["optimizer"] == "amsgrad", **options)


def make_scheduler(optimizer: torch.optim.Optimizer, training: Mapping[str, Any]) -> Any:
    """torch's scheduler of a schedule that moves at validations; None for one that mlpbench sets at each step."""
    if training["schedule"] == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=float(training["lr_factor"]), patience=int(training["lr_patience"]),
            min_lr=float(training["lr_min"]),
        )  # fmt: skip
    if training["schedule"] == "exponential":
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, float(training["lr_gamma"]))
    return None


def save(content: Any, path: Path) -> None:
    """torch's file, by atomic rename."""
    part = path.with_suffix(".part")
    torch.save(content, part)
    os.replace(part, path)
