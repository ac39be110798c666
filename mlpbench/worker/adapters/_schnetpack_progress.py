"""What mlpbench adds to SchNetPack's training: one event an epoch, the budget's limits, and the way back in."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from schnetpack import properties
from schnetpack.task import AtomisticTask

from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Deadline, Patience
from mlpbench.worker.adapters._schnetpack_train import MONITOR


class Progress(pl.Callback):
    """Reports each epoch, and keeps the clock, the best epoch and the reason to stop through a resume.

    Args:
        events: where the epochs are reported.
        budget: limits of the training.
        settings: what a checkpoint must agree in to be gone on from (model, task, seed).
    """

    def __init__(self, events: EventLog, budget: dict[str, Any], settings: dict[str, Any]) -> None:
        self.events = events
        self.budget = budget
        self.settings = settings
        self.patience = Patience(budget.get("patience"))
        self.deadline = Deadline(budget)
        self.epoch = 0
        self.step = 0
        self.resumed = False
        self._seconds_before = 0.0
        self._valid_loss: float | None = None
        self._train_loss: Any = 0.0
        self._train_frames = 0

    def stopped_by(self) -> str | None:
        """The limit that is reached after the epochs so far."""
        limit = self.deadline.reached(self.epoch, self.step)
        patience = self.patience.patience
        stalled = patience is not None and self.epoch - self.patience.best_epoch >= patience
        return limit or ("patience" if stalled else None)

    def on_train_start(self, trainer: pl.Trainer, pl_module: AtomisticTask) -> None:
        """Start the clock; after a resume, catch up on what Lightning leaves undone."""
        self.deadline = Deadline(self.budget, self._seconds_before)
        if not self.resumed:
            return
        # The checkpoint is written before the plateau scheduler has seen its epoch's loss, and Lightning does
        # not show it to the scheduler again on resuming.
        for scheduler in trainer.lr_scheduler_configs:
            if scheduler.reduce_on_plateau:
                scheduler.scheduler.step(self._valid_loss)
        if self.stopped_by() is not None:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: AtomisticTask) -> None:
        """Begin the mean of the training loss."""
        self._train_loss, self._train_frames = torch.zeros((), device=pl_module.device), 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: AtomisticTask, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a batch to it, without waiting for the device."""
        n_frames = len(batch[properties.n_atoms])
        self._train_loss = self._train_loss + n_frames * outputs["loss"].detach()
        self._train_frames += n_frames

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: AtomisticTask) -> None:
        """Note and report the epoch; end the training at a limit.

        Raises:
            FloatingPointError: the validation loss is not a finite number.
        """
        metrics = trainer.callback_metrics
        self.epoch, self.step = trainer.current_epoch + 1, trainer.global_step
        self._valid_loss = float(metrics[MONITOR])
        if not math.isfinite(self._valid_loss):
            raise FloatingPointError(
                f"the validation loss is {self._valid_loss} after epoch {self.epoch}: try a lower training.lr"
            )
        self.patience.update(self.epoch, self._valid_loss)
        force_mae = metrics.get("val_forces_mae")
        self.events.epoch(
            self.epoch,
            self.step,
            self.deadline.elapsed,
            train_loss=float(self._train_loss) / self._train_frames,
            valid_loss=self._valid_loss,
            valid_energy_mae=float(metrics["val_energy_mae"]),
            valid_force_mae=None if force_mae is None else float(force_mae),
            lr=trainer.optimizers[0].param_groups[0]["lr"],
        )
        if self.stopped_by() is not None:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to know."""
        return {
            "settings": self.settings,
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.deadline.elapsed,
            "best": self.patience.best,
            "best_epoch": self.patience.best_epoch,
            "valid_loss": self._valid_loss,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` noted.

        Raises:
            ValueError: the checkpoint is of another training.
        """
        if state_dict["settings"] != self.settings:
            raise ValueError("the checkpoint is of other settings: remove the trial's folder to train anew")
        self.epoch, self.step = state_dict["epoch"], state_dict["step"]
        self.patience.best, self.patience.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self._seconds_before, self._valid_loss = state_dict["seconds"], state_dict["valid_loss"]
        self.deadline = Deadline(self.budget, self._seconds_before)
        self.resumed = True
