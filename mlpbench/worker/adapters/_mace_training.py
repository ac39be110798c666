"""MACE's ``run_train.run`` in this process: its own set-up and training loop, watched from the places it calls out to."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import torch
from mace import tools
from mace.cli import run_train

from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Deadline, Patience
from mlpbench.worker.adapters._mace_corrections import corrected, replaced

BEST = "best.pt"  # weights (EMA) of the best epoch
LAST = "last.pt"  # all that the next epoch needs
POTENTIAL = "potential.model"  # the best epoch's, whole, as MACE saves its models; exists when training has ended


class StopTraining(Exception):
    """Ends MACE's training loop, and what MACE would do after it (compiled models, error tables)."""


class Progress:
    """Stands in for ``mace.tools.train``: calls it, and is its logger, its checkpoint handler and its train loader.

    MACE has no callbacks. Its loop asks the train loader for a new pass at the beginning of each epoch, when the one
    before is finished, validated and seen by the scheduler: there an epoch is noted, saved and reported.

    Args:
        events: where the epochs are reported.
        budget: limits of the training.
        folder: where the checkpoints lie.
    """

    def __init__(self, events: EventLog, budget: dict[str, Any], folder: Path) -> None:
        self.events = events
        self.budget = budget
        self.folder = folder
        self.patience = Patience(budget.get("patience"))
        self.deadline = Deadline(budget)
        self.epoch = 0
        self.step = 0
        self.resumed = False
        self.stopped_by: str | None = None
        self._parts: dict[str, Any] = {}  # MACE's model, optimizer, ema, loaders ...
        self._valid: dict[str, Any] | None = None  # MACE's metrics of the running epoch
        self._train_loss = self._frames = self._batch_frames = self._lr = 0.0

    def train(self, **parts: Any) -> None:
        """What ``run_train.run`` calls in place of ``mace.tools.train``, with the same arguments.

        Raises:
            StopTraining: when the training has ended, always.
        """
        self._parts = parts
        seconds = self._restore()
        self.deadline = Deadline(self.budget, seconds)
        if self.stopped_by is None:
            watched = {"train_loader": self, "logger": self, "checkpoint_handler": self, "start_epoch": self.epoch}
            self._parts["plain_train"](**{k: v for k, v in parts.items() if k != "plain_train"} | watched)
            self._end_epoch()
        raise StopTraining

    def __iter__(self) -> Iterator[Any]:
        """The train loader: one epoch's batches."""
        self._end_epoch()
        self._train_loss = self._frames = 0.0
        self._lr = self._parts["optimizer"].param_groups[0]["lr"]
        for batch in self._parts["train_loader"]:
            self._batch_frames = batch.num_graphs
            yield batch

    def log(self, metrics: dict[str, Any]) -> None:
        """MACE's logger: one call a step, one a validation.

        Raises:
            FloatingPointError: the validation loss is not a finite number.
        """
        if metrics["mode"] == "opt":
            self.step += 1
            self._train_loss += float(metrics["loss"]) * self._batch_frames
            self._frames += self._batch_frames
        elif metrics["epoch"] is not None:  # None: before the first step
            self._valid = metrics
            if not math.isfinite(metrics["loss"]):
                raise FloatingPointError(
                    f"the validation loss is {metrics['loss']} after epoch {self.epoch + 1}: try a lower training.lr"
                )

    def save(self, state: Any, epochs: int, keep_last: bool = False) -> None:
        """MACE's checkpoint handler: called with averaged weights when MACE thinks the validation loss is the best."""
        assert self._valid is not None
        if self._valid["loss"] < self.patience.best:  # after a resume MACE has forgotten the best so far
            _write({"model": state.model.state_dict(), "epoch": epochs + 1}, self.folder / BEST)

    def _end_epoch(self) -> None:
        if self._valid is None:
            return
        metrics, self._valid = self._valid, None
        self.epoch += 1
        stalled = self.patience.update(self.epoch, metrics["loss"])
        self.stopped_by = self.deadline.reached(self.epoch, self.step) or ("patience" if stalled else None)
        if self.stopped_by is None and self.epoch >= self._parts["max_num_epochs"]:
            self.stopped_by = "epochs"  # fewer than the budget's, by a native option
        self._save_last()
        self.events.epoch(
            self.epoch,
            self.step,
            self.deadline.elapsed,
            train_loss=self._train_loss / self._frames,
            valid_loss=metrics["loss"],
            valid_energy_mae=_number(metrics, "mae_e_per_atom"),
            valid_force_mae=_number(metrics, "mae_f"),
            lr=self._lr,
        )
        if self.stopped_by is not None:
            raise StopTraining

    def _save_last(self) -> None:
        parts, ema = self._parts, self._parts["ema"]
        random = {"batches": parts["train_loader"].generator.get_state(), "cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            random["cuda"] = torch.cuda.get_rng_state()
        _write(
            {
                "model": parts["model"].state_dict(),
                "optimizer": parts["optimizer"].state_dict(),
                "lr_scheduler": parts["lr_scheduler"].state_dict(),
                "ema": None if ema is None else ema.state_dict(),
                "random": random,
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.deadline.elapsed,
                "best": float(self.patience.best),
                "best_epoch": self.patience.best_epoch,
                "stopped_by": self.stopped_by,
            },
            self.folder / LAST,
        )

    def _restore(self) -> float:
        """Take up an interrupted training; returns the seconds it had run."""
        if not (self.folder / LAST).exists():
            return 0.0
        parts = self._parts
        state = torch.load(self.folder / LAST, map_location="cpu", weights_only=False)
        for name in ("model", "optimizer", "lr_scheduler"):
            parts[name].load_state_dict(state[name])
        if parts["ema"] is not None:
            parts["ema"].load_state_dict(state["ema"])
        parts["train_loader"].generator.set_state(state["random"]["batches"])
        torch.set_rng_state(state["random"]["cpu"])
        if "cuda" in state["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["random"]["cuda"])
        self.epoch, self.step, self.stopped_by = state["epoch"], state["step"], state["stopped_by"]
        self.patience.best, self.patience.best_epoch = state["best"], state["best_epoch"]
        self.resumed = True
        return float(state["seconds"])

    def keep_best(self) -> None:
        """Save MACE's model, whole, with the weights of the best epoch."""
        model = self._parts["model"]
        model.load_state_dict(torch.load(self.folder / BEST, map_location="cpu", weights_only=False)["model"])
        _write(model.cpu(), self.folder / POTENTIAL)


def fit(native: Path, progress: Progress, lr_min: float) -> None:
    """Train as ``mace_run_train --config config.yaml`` does in ``native``, with the corrections and ``progress``."""
    plain_train = tools.train

    def train(**parts: Any) -> None:
        progress.train(**parts, plain_train=plain_train)

    with chdir(native), _undisturbed(), corrected(lr_min), replaced(tools, "train", train):
        args = tools.build_default_arg_parser().parse_args(["--config", "config.yaml"])
        try:
            run_train.run(args)
        except StopTraining:
            progress.keep_best()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put back what MACE sets for the whole process: the root logger's handlers and the default dtype."""
    logger, dtype = logging.getLogger(), torch.get_default_dtype()
    handlers, filters, level = list(logger.handlers), list(logger.filters), logger.level
    try:
        yield
    finally:
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers[:], logger.filters[:] = handlers, filters
        logger.setLevel(level)
        torch.set_default_dtype(dtype)


def _number(metrics: dict[str, Any], name: str) -> float | None:
    """MACE's metrics hold a placeholder where a label is missing."""
    return float(metrics[name]) if name in metrics else None


def _write(content: Any, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.save(content, part)
    os.replace(part, path)
