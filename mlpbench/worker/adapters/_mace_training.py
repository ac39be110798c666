"""MACE's ``run_train.run`` in this process: its own set-up and training loop, watched where it calls out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from mace import modules, tools
from mace.cli import run_train

from mlpbench.protocol import Request, replacing
from mlpbench.worker.adapters._mace_config import common_settings
from mlpbench.worker.adapters._mace_corrections import Intervals, begun, corrected, replaced
from mlpbench.worker.training import TrainingLog

BEST = "best.pt"  # weights (EMA) of the best epoch
LAST = "last.pt"  # all that the next epoch needs
POTENTIAL = "potential.model"  # the best epoch's, whole, as MACE saves its models; exists when training has ended
_train, _ScaleShiftMACE = tools.train, modules.ScaleShiftMACE


class StopTraining(Exception):
    """Ends MACE's training loop, and what MACE would do after it (compiled models, error tables)."""


class Progress:
    """Stands in for ``mace.tools.train``: calls it, and is its logger, its checkpoint handler and its train loader.

    MACE has no callbacks. Its loop asks the train loader for a new pass at the beginning of each epoch, when the one
    before is finished, validated and seen by the scheduler: there an interval is noted, saved and reported.

    Args:
        log: the account of the training.
        request: its settings, budget and seed.
        folder: where the checkpoints lie.
    """

    def __init__(self, log: TrainingLog, request: Request, folder: Path) -> None:
        self.account = log
        self.settings = common_settings(request)
        self.folder = folder
        self.built_with: dict[str, Any] | None = None
        self._parts: dict[str, Any] = {}  # MACE's model, optimizer, ema, loaders ...
        self._intervals: Intervals
        self._valid: dict[str, Any] | None = None  # MACE's metrics of the running interval
        self._train_loss = self._frames = self._batch_frames = self._lr = 0.0

    def train(self, **parts: Any) -> None:
        """What ``run_train.run`` calls in place of ``mace.tools.train``, with the same arguments.

        Raises:
            StopTraining: when the training has ended, always.
        """
        log, self._parts = self.account, parts
        self._intervals = Intervals(parts["train_loader"], parts["optimizer"], self.settings, lambda: log.elapsed)
        log.start_clock()
        self._restore()
        if log.stopped_by() is None:
            watched = {"train_loader": self, "logger": self, "checkpoint_handler": self, "start_epoch": log.epoch}
            _train(**parts | watched)
            assert self._valid is not None
            parts["lr_scheduler"].step(metrics=self._valid["loss"])  # as MACE does before a next epoch
            self._end_interval()
        raise StopTraining

    def __iter__(self) -> Iterator[Any]:
        """The train loader: one interval's batches."""
        self._end_interval()
        self._train_loss = self._frames = 0.0
        for batch in self._intervals:
            self._batch_frames = batch.num_graphs
            yield batch

    def log(self, metrics: dict[str, Any]) -> None:
        """MACE's logger: one call a step, one a validation."""
        if metrics["mode"] == "opt":
            self._lr = self._parts["optimizer"].param_groups[0]["lr"]
            self._train_loss += float(metrics["loss"]) * self._batch_frames
            self._frames += self._batch_frames
        elif metrics["epoch"] is not None:  # None: before the first step
            self._valid = metrics

    def save(self, state: Any, epochs: int, keep_last: bool = False) -> None:
        """MACE's checkpoint handler: called with averaged weights when MACE thinks the validation loss is the best."""
        assert self._valid is not None
        if self._valid["loss"] < self.account.best:  # after a resume MACE has forgotten the best so far
            _write({"model": state.model.state_dict(), "epoch": epochs + 1}, self.folder / BEST)

    def _end_interval(self) -> None:
        """Note, save and report the interval whose validation was the last thing that MACE did.

        Raises:
            StopTraining: a limit of the budget is reached.
        """
        if self._valid is None:
            return
        metrics, self._valid = self._valid, None
        log = self.account
        epoch = log.epoch + 1
        log.validated(
            epoch,
            epoch * log.steps.interval,
            train_loss=self._train_loss / self._frames,
            valid_loss=float(metrics["loss"]),
            valid_energy_mae=_number(metrics, "mae_e_per_atom"),
            valid_force_mae=_number(metrics, "mae_f"),
            lr=self._lr,
        )
        self._save_last()
        if log.stopped_by() is not None:
            raise StopTraining

    def _save_last(self) -> None:
        parts, ema = self._parts, self._parts["ema"]
        state = {name: parts[name].state_dict() for name in ("model", "optimizer", "lr_scheduler")}
        _write(
            {**state, "ema": None if ema is None else ema.state_dict(), "log": self.account.state()},
            self.folder / LAST,
        )

    def _restore(self) -> None:
        """Take up an interrupted training; its next batch and rate follow from the number of its steps."""
        if not (self.folder / LAST).exists():
            return
        parts = self._parts
        state = torch.load(self.folder / LAST, map_location="cpu", weights_only=False)
        for name in ("model", "optimizer", "lr_scheduler"):
            parts[name].load_state_dict(state[name])
        if parts["ema"] is not None:
            parts["ema"].load_state_dict(state["ema"])
        self.account.restore(state["log"])
        self._intervals.sampler.set_epoch(self.account.epoch)

    def keep_best(self) -> None:
        """Save MACE's model, whole, with the weights of the best epoch."""
        model = self._parts["model"]
        model.load_state_dict(torch.load(self.folder / BEST, map_location="cpu", weights_only=False)["model"])
        model.built_with = self.built_with
        _write(model.cpu(), self.folder / POTENTIAL)

    def build(self, **options: Any) -> torch.nn.Module:
        """What ``run_train.run`` calls in place of ``ScaleShiftMACE``: the options are needed to build it in float64.

        MACE's own ``extract_config_mace_model`` reads them off the model, but fails for a Gaussian radial basis.
        """
        self.built_with = options
        return begun(_ScaleShiftMACE(**options), Path.cwd())  # fit stands in the native folder


def fit(native: Path, progress: Progress) -> None:
    """Train as ``mace_run_train --config config.yaml`` does in ``native``, with the corrections and ``progress``."""
    with ExitStack() as stack:
        stack.enter_context(chdir(native))
        stack.enter_context(_undisturbed())
        stack.enter_context(corrected(progress.settings["training"], progress.train))
        stack.enter_context(replaced(modules, "ScaleShiftMACE", progress.build))
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
    value = metrics.get(name)
    return float(value) if isinstance(value, Real) else None


def _write(content: Any, path: Path) -> None:
    with replacing(path) as part:
        torch.save(content, part)
