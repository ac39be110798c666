"""Trains a SchNetPack potential from ``config.yaml``, with SchNetPack alone: ``python train.py``.

The data lie in ``data.db`` (ASE database; eV, Å), the split in ``split.npz``. Checkpoints go to ``checkpoints/``;
a training that was interrupted goes on from ``last.ckpt`` there. ``best_model`` is what SchNetPack's calculator
takes (its energies are without the reference energies that were removed from the data). An epoch is an interval of
optimiser steps that ends with a validation.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from hydra.utils import instantiate
from schnetpack import properties
from schnetpack.data import AtomsDataModule, AtomsLoader
from schnetpack.task import AtomisticTask, ModelOutput
from schnetpack.train import ExponentialMovingAverage
from schnetpack.utils import str2class

if __package__:
    from mlpbench.worker.common_training import IntervalSampler, Steps, learning_rate
else:  # in a trial's folder ``native``, with a copy of it at hand
    from common_training import IntervalSampler, Steps, learning_rate  # type: ignore[import-not-found,no-redef]

MONITOR = "valid_loss"
VOIGT = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))  # xx yy zz yz xz xy
HERE = "train."  # how config.yaml names the classes of this file


class Output(ModelOutput):
    """SchNetPack's output with its loss and metrics, per atom or of Voigt components.

    Metrics are left out in training steps, for their time, and accumulate in float64.

    Args:
        per_atom: divide prediction and target by the number of atoms of each frame; the task must have an
            output whose target is ``_n_atoms``.
        voigt: compare the six components of a symmetric (F, 3, 3) tensor instead of all nine.
        arguments: those of :class:`schnetpack.task.ModelOutput`.
    """

    def __init__(self, per_atom: bool = False, voigt: bool = False, **arguments: Any) -> None:
        metrics = {name: metric.set_dtype(torch.float64) for name, metric in arguments.pop("metrics").items()}
        super().__init__(metrics=metrics, **arguments)
        self.per_atom = per_atom
        self.voigt = voigt
        self.train_metrics = torch.nn.ModuleDict()
        self.metrics["train"] = self.train_metrics

    def calculate_loss(self, pred: dict[str, Any], target: dict[str, Any]) -> Any:
        """Weight times loss."""
        return super().calculate_loss(*self._compared(pred, target))

    def update_metrics(self, pred: dict[str, Any], target: dict[str, Any], subset: str) -> None:
        """Let each metric see the batch."""
        super().update_metrics(*self._compared(pred, target), subset)

    def _compared(self, pred: dict[str, Any], target: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        ours, theirs = pred[self.name], target[self.target_property]
        if self.per_atom:
            n_atoms = target[properties.n_atoms]
            ours, theirs = ours / n_atoms, theirs / n_atoms
        if self.voigt:
            ours, theirs = ours[:, VOIGT[0], VOIGT[1]], theirs[:, VOIGT[0], VOIGT[1]]
        if (
            theirs.ndim == 2 and ours.shape == theirs.shape and not self.voigt
        ):  # NaN: held by a constraint, true force not known
            known = ~torch.isnan(theirs)
            if not known.all():
                ours, theirs = ours[known], theirs[known]
        return {self.name: ours}, {self.target_property: theirs}


class InMemoryData(AtomsDataModule):
    """SchNetPack's data module, which reads and transforms each sample once and then keeps it.

    Positions do not change, so neither do neighbour lists; SchNetPack's own cache is one file per sample.

    Args:
        split_file: path of ``train_idx``, ``val_idx`` and ``test_idx``.
        seed: of the order of the training frames.
        interval: batches in an epoch.
        arguments: those of :class:`schnetpack.data.AtomsDataModule`.
    """

    def __init__(self, split_file: str, seed: int, interval: int, **arguments: Any) -> None:
        super().__init__(split_file=split_file, **arguments)
        self.seed = seed
        self.interval = interval
        # Read here, since SchNetPack leaves a lock file in the working directory.
        with np.load(split_file) as split:
            self.train_idx, self.val_idx, self.test_idx = (
                split[f"{part}_idx"].tolist() for part in ("train", "val", "test")
            )

    def setup(self, stage: str | None = None) -> None:
        """Open the database."""
        first = self.dataset is None
        super().setup(stage)
        if first:
            self._train_dataset, self._val_dataset = Kept(self._train_dataset), Kept(self._val_dataset)

    def train_dataloader(self) -> AtomsLoader:
        """One interval of an endless sequence of batches an epoch; no frame is dropped."""
        if self._train_dataloader is None:
            n_frames = len(self.train_dataset)
            self._train_dataloader = AtomsLoader(
                self.train_dataset,
                batch_sampler=IntervalSampler(n_frames, self.batch_size, self.interval, self.seed),
                num_workers=self.num_workers,
                pin_memory=self._pin_memory,
            )
        return self._train_dataloader


class Kept(torch.utils.data.Dataset):
    """A data set that remembers its samples."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.samples: list[dict[str, torch.Tensor] | None] = [None] * len(dataset)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        sample = self.samples[index]
        if sample is None:
            sample = self.samples[index] = self.dataset[index]
        return sample


class Annealing(pl.Callback):
    """Sets the learning rate of every step, so that it ends with the budget.

    Args:
        training: schedule, lr, lr_min and warmup_steps.
        steps: the fields of :class:`Steps`.
    """

    def __init__(self, training: dict[str, Any], steps: dict[str, Any]) -> None:
        self.training = training
        self.steps = Steps(**steps)
        self.start = time.monotonic()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: AtomisticTask) -> None:
        """Start the clock, which only a budget of seconds needs."""
        self.start = time.monotonic()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: AtomisticTask, batch: Any, batch_idx: int) -> None:
        """Before the step."""
        rate = learning_rate(self.training, self.steps, trainer.global_step, time.monotonic() - self.start)
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate


class Averaging(ExponentialMovingAverage):
    """SchNetPack's moving average of the weights, which resumes with the raw weights.

    The checkpoint's model holds the averaged weights, and SchNetPack 2.2.0 takes them for the raw ones.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set up the average, or take up the one of the checkpoint."""
        saved = self._to_load
        super().on_fit_start(trainer, pl_module)
        if saved is not None:
            self.ema.load_state_dict(saved)


class ValidLoss(pl.Callback):
    """Logs the loss over the whole validation set, whatever the batches: by which the best epoch is chosen."""

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: AtomisticTask) -> None:
        """Add up the mean squared errors."""
        outputs = [output for output in pl_module.outputs if "mse" in output.val_metrics]
        pl_module.log(MONITOR, sum(each.loss_weight * each.val_metrics["mse"].compute() for each in outputs))


def build(config: dict[str, Any]) -> tuple[pl.Trainer, AtomisticTask, AtomsDataModule]:
    """Trainer, task and data of a configuration in the layout of ``spktrain``."""
    torch.set_num_threads(config["threads"])
    pl.seed_everything(config["seed"], verbose=False)
    config = located(config)
    data = instantiate(config["data"], _convert_="all")
    settings = dict(config["task"])
    for name in ("optimizer_cls", "scheduler_cls"):
        settings[name] = str2class(settings[name]) if settings.get(name) else None
    model = instantiate(config["model"], _convert_="all")
    if config.get("start"):
        model.load_state_dict(torch.load(config["start"], map_location="cpu", weights_only=True))
    task = instantiate(settings, model=model, _convert_="all")
    task.hparams.clear()  # whole modules: pickled into every checkpoint they would cost more than the weights
    callbacks = [instantiate(each, _convert_="all") for each in config["callbacks"].values()]
    trainer = instantiate(config["trainer"], callbacks=callbacks, _convert_="all")
    return trainer, task, data


def located(part: Any) -> Any:
    """The configuration with the classes of this file under the name it was imported by."""
    if isinstance(part, dict):
        return {key: located(value) for key, value in part.items()}
    if isinstance(part, list):
        return [located(value) for value in part]
    if isinstance(part, str) and part.startswith(HERE):
        return f"{__name__}.{part.removeprefix(HERE)}"
    return part


def quiet() -> None:
    """Keep Lightning's tips out of the log."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "The '.*_dataloader' does not have many workers",
        "Attribute '.*' is an instance of `nn.Module`",
        "Checkpoint directory .* exists",
        "The number of training batches .* is smaller than the logging interval",
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
    ):
        warnings.filterwarnings("ignore", message=message)


def main() -> None:
    """Train from the configuration in this folder."""
    os.chdir(Path(__file__).parent)
    config = yaml.safe_load(Path("config.yaml").read_text(encoding="utf-8"))
    quiet()
    trainer, task, data = build(config)
    last = Path("checkpoints/last.ckpt")
    trainer.fit(task, datamodule=data, ckpt_path=str(last) if last.exists() else None, weights_only=False)
    found = trainer.checkpoint_callback
    print(f"best {MONITOR} {float(found.best_model_score):.6g}: {found.best_model_path}")


if __name__ == "__main__":
    import train  # by its name: checkpoints hold objects of these classes

    train.main()
