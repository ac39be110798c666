"""What mlpbench adds to SchNetPack's training: one event an epoch, the budget's limits, and the resume."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch
from schnetpack import properties
from schnetpack.task import AtomisticTask

from mlpbench.worker.adapters._schnetpack_train import MONITOR, Annealing
from mlpbench.worker.training import TrainingLog


class Progress(pl.Callback):
    """Keeps a :class:`TrainingLog` of a training in Lightning, whose epoch is one interval of the budget.

    Args:
        account: of this training.
        settings: what a checkpoint must agree in to be gone on from (model, task, seed).
    """

    def __init__(self, account: TrainingLog, settings: dict[str, Any]) -> None:
        self.account = account  # Lightning overwrites a callback's attribute "log"
        self.settings = settings
        self._train_loss: Any = 0.0
        self._train_frames = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: AtomisticTask) -> None:
        """Start the clock; after a resume, catch up on what Lightning leaves undone."""
        self.account.start_clock()
        for callback in trainer.callbacks:
            if isinstance(callback, Annealing):
                callback.start = time.monotonic() - self.account.elapsed  # seconds before a resume count too
        if not self.account.resumed:
            return
        # The checkpoint is written before the plateau scheduler has seen its epoch's loss, and Lightning does
        # not show it to the scheduler again on resuming.
        for scheduler in trainer.lr_scheduler_configs:
            if scheduler.reduce_on_plateau:
                scheduler.scheduler.step(self.account.last_loss)
        if self.account.stopped_by() is not None:
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
        """Note and report the epoch; end the training at a limit."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.account.validated(
            trainer.current_epoch + 1,
            trainer.global_step,
            train_loss=float(self._train_loss) / self._train_frames,
            valid_loss=metrics[MONITOR],
            valid_energy_mae=metrics.get("val_energy_mae"),
            valid_force_mae=metrics.get("val_forces_mae"),
            lr=trainer.optimizers[0].param_groups[0]["lr"],
        )
        if self.account.stopped_by() is not None:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to know."""
        return {"settings": self.settings, **self.account.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` noted.

        Raises:
            ValueError: the checkpoint is of another training.
        """
        if state_dict["settings"] != self.settings:
            raise ValueError("the checkpoint is of other settings: remove the trial's folder to train anew")
        self.account.restore(state_dict)
