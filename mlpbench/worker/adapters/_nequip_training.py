"""What NequIP's ``nequip-train`` does, in this process, with one callback more."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import get_class, instantiate
from nequip.scripts._workflow_utils import set_workflow_state
from nequip.utils import get_current_code_versions
from nequip.utils.global_state import get_latest_global_state, set_global_state

from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Deadline, Patience
from mlpbench.worker.adapters._nequip_config import MONITOR


class Progress(lightning.Callback):
    """Reports each epoch, and keeps the clock, the best epoch and the reason to stop through a resume.

    Args:
        events: where the epochs are reported.
        budget: limits of the training.
        scale: what NequIP's loss is multiplied by to give the common loss.
    """

    def __init__(self, events: EventLog, budget: dict[str, Any], scale: float) -> None:
        self.events = events
        self.budget = budget
        self.scale = scale
        self.patience = Patience(budget.get("patience"))
        self.deadline = Deadline(budget)
        self.epoch = 0
        self.step = 0
        self.resumed = False
        self._valid_loss: float | None = None  # of the last epoch, in NequIP's units
        self._seconds_before = 0.0

    def stopped_by(self) -> str | None:
        """The limit that is reached after the epochs so far."""
        limit = self.deadline.reached(self.epoch, self.step)
        patience = self.patience.patience
        stalled = patience is not None and self.epoch - self.patience.best_epoch >= patience
        return limit or ("patience" if stalled else None)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """After a resume, put the order of the batches where it was."""
        if self.resumed:
            # Lightning sets NequIP's data module up before it hands it the saved states of its random generators,
            # and the module looks at them in setup only (nequip 0.19.1): it would begin with the first epoch's order.
            data = trainer.datamodule
            data.train_generator.set_state(data.train_generator_state)
            data.generator.set_state(data.generator_state)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock; after a resume, catch up on what Lightning leaves undone."""
        self.deadline = Deadline(self.budget, self._seconds_before)
        if not self.resumed:
            return
        # A checkpoint is written before the plateau scheduler has seen its epoch's loss, and Lightning does not
        # show it to the scheduler again on resuming.
        for scheduler in trainer.lr_scheduler_configs:
            if scheduler.reduce_on_plateau:
                scheduler.scheduler.step(self._valid_loss)
        if self.stopped_by() is not None:
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
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
        self.patience.update(self.epoch, self.scale * self._valid_loss)
        train_loss = pl_module.loss.compute()["weighted_sum"]  # over the epoch; the module resets it after this hook
        force_mae = metrics.get("val0_epoch/forces_mae")
        self.events.epoch(
            self.epoch,
            self.step,
            self.deadline.elapsed,
            train_loss=self.scale * float(train_loss),
            valid_loss=self.scale * self._valid_loss,
            valid_energy_mae=float(metrics["val0_epoch/per_atom_energy_mae"]),
            valid_force_mae=None if force_mae is None else float(force_mae),
            lr=trainer.optimizers[0].param_groups[0]["lr"],
        )
        if self.stopped_by() is not None:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to know."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.deadline.elapsed,
            "best": self.patience.best,
            "best_epoch": self.patience.best_epoch,
            "valid_loss": self._valid_loss,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` noted."""
        self.epoch, self.step = state_dict["epoch"], state_dict["step"]
        self.patience.best, self.patience.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self._valid_loss = state_dict["valid_loss"]
        self._seconds_before = state_dict["seconds"]
        self.deadline = Deadline(self.budget, self._seconds_before)
        self.resumed = True


def fit(config: dict[str, Any], progress: Progress, last: Path) -> None:
    """Train as ``config`` says, going on from the checkpoint ``last`` if there is one.

    The steps are those of NequIP's train script. Afterwards ``progress`` holds what came of it.

    Raises:
        ValueError: the checkpoint belongs to a training with other settings.
        KeyboardInterrupt: the user interrupted the training.
    """
    set_workflow_state("train")
    set_global_state()
    datamodule = instantiate(config["data"], _recursive_=False)
    trainer = instantiate(config["trainer"], inference_mode=False)
    trainer.callbacks.insert(0, progress)
    module = _training_module(config, datamodule)
    module.world_size = trainer.world_size
    resume_from = None
    if last.exists():
        _check_same_training(last, config["training_module"])
        resume_from = str(last)
    with warnings.catch_warnings():
        # loaders in this process are meant: batches of small structures are made faster than workers could send them
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            trainer.fit(model=module, datamodule=datamodule, ckpt_path=resume_from, weights_only=False)
        except SystemExit as error:  # Lightning turns an interrupt into an exit, which would leave no result behind
            raise KeyboardInterrupt from error
        finally:
            set_workflow_state(None)


def _training_module(config: dict[str, Any], datamodule: Any) -> Any:
    """The Lightning module with the information that NequIP keeps in its checkpoints."""
    settings = config["training_module"]
    info = {
        "versions": get_current_code_versions(verbose=False),
        "data": config["data"],
        "trainer": config["trainer"],
        "global_options": get_latest_global_state(),
        "runs": config["run"],
        "training_module": settings,
    }
    get_class(settings["_target_"])  # a misspelt override fails here, with its name
    return instantiate(
        settings, _recursive_=False, _convert_="all", num_datasets=datamodule.num_datasets, info_dict=info
    )


def _check_same_training(checkpoint: Path, settings: dict[str, Any]) -> None:
    found = torch.load(checkpoint, map_location="cpu", weights_only=False)
    if found["hyper_parameters"]["info_dict"]["training_module"] != settings:
        raise ValueError(f"{checkpoint} is of a training with other settings: remove its folder to train anew")


def quiet() -> None:
    """Keep Lightning's tips and device summaries out of the log."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
