"""What NequIP's ``nequip-train`` does, in this process, with one callback more."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import get_class, instantiate
from nequip.scripts._workflow_utils import set_workflow_state
from nequip.utils import get_current_code_versions
from nequip.utils.global_state import get_latest_global_state, set_global_state

from mlpbench.worker.adapters._nequip_config import ENERGY_MAE, FORCE_MAE, MONITOR
from mlpbench.worker.training import TrainingLog

_KEPT_BYTES = 2 * 1024**3  # of graphs that a data set keeps in memory


class KeptGraphs(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """NequIP's data set, which searches the neighbours of a frame anew each time, with its graphs kept in memory.

    Args:
        dataset: NequIP's.
        limit: bytes of graphs to keep; those beyond are made anew each time.
    """

    def __init__(self, dataset: Any, limit: int = _KEPT_BYTES) -> None:
        self.dataset = dataset
        self.left = limit
        self._kept: dict[int, dict[str, torch.Tensor]] = {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        graph = self._kept.get(index)
        if graph is None:
            graph = self.dataset[index]
            size = sum(tensor.nbytes for tensor in graph.values())
            if size <= self.left:
                self.left -= size
                self._kept[index] = graph
        return graph.copy()

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """The graphs of a batch."""
        return [self[index] for index in indices]


class Progress(lightning.Callback):
    """Reports each interval to the training's account, and keeps that account through a resume.

    Args:
        account: limits, best validation, progress; goes through a resume with it.
        scale: what NequIP's loss is multiplied by to give the common loss.
    """

    def __init__(self, account: TrainingLog, scale: float) -> None:
        self.account = account
        self.scale = scale
        self._valid_loss: float | None = None  # of the last interval, in NequIP's units
        self._rate = 0.0  # of the last step

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Keep the graphs of both data sets in memory."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by fit
        data.train_dataset = [KeptGraphs(dataset) for dataset in data.train_dataset]
        data.val_dataset = [KeptGraphs(dataset) for dataset in data.val_dataset]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock; after a resume, catch up on what Lightning leaves undone."""
        self.account.start_clock()
        if not self.account.resumed:
            return
        # A checkpoint is written before the plateau scheduler has seen its epoch's loss, and Lightning does not
        # show it to the scheduler again on resuming.
        for scheduler in trainer.lr_scheduler_configs:
            if scheduler.reduce_on_plateau:
                scheduler.scheduler.step(self._valid_loss)
        if self.account.stopped_by() is not None:
            trainer.should_stop = True

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note the rate; with a budget in seconds, set it: NequIP's scheduler counts the steps alone."""
        group = optimizer.param_groups[0]
        if self.account.anneals and self.account.steps.seconds is not None:
            group["lr"] = self.account.lr(trainer.global_step)
        self._rate = float(group["lr"])

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note and report the interval; end the training at a limit.

        Raises:
            FloatingPointError: the validation loss is not a finite number.
        """
        metrics = {name.removeprefix("val0_epoch/"): float(value) for name, value in trainer.callback_metrics.items()}
        self._valid_loss = metrics[MONITOR.removeprefix("val0_epoch/")]
        loss: Any = pl_module.loss  # over the interval; the module resets it after this hook
        self.account.validated(
            trainer.current_epoch + 1,
            trainer.global_step,
            train_loss=self.scale * float(loss.compute()["weighted_sum"]),
            valid_loss=self.scale * self._valid_loss,
            valid_energy_mae=metrics.get(ENERGY_MAE),
            valid_force_mae=metrics.get(FORCE_MAE),
            lr=self._rate,
        )
        if self.account.stopped_by() is not None:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs to know."""
        return {**self.account.state(), "nequip_valid_loss": self._valid_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` noted."""
        self.account.restore(state_dict)
        self._valid_loss = state_dict["nequip_valid_loss"]


def fit(config: dict[str, Any], progress: Progress, last: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Train as ``config`` says, from ``weights`` if given, going on from the checkpoint ``last`` if there is one.

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
    if weights is not None:
        _begin_with(module, weights)
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


def _begin_with(module: Any, weights: dict[str, torch.Tensor]) -> None:
    """Put ``weights`` into the one model of a training module, and into its moving average."""
    (model,) = module.model.values()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
        average = module.ema.ema_weights if hasattr(module, "ema") else []
        for kept, parameter in zip(average, module.model.parameters() if average else [], strict=True):
            kept.copy_(parameter)


def _check_same_training(checkpoint: Path, settings: dict[str, Any]) -> None:
    found = torch.load(checkpoint, map_location="cpu", weights_only=False)
    if found["hyper_parameters"]["info_dict"]["training_module"] != settings:
        raise ValueError(f"{checkpoint} is of a training with other settings: remove its folder to train anew")


def quiet() -> None:
    """Keep Lightning's tips and device summaries out of the log."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
