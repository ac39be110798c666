"""What an adapter keeps account of while its package trains: limits, the best validation, progress, a resume."""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mlpbench.frames import Frames
from mlpbench.protocol import EventLog, Request
from mlpbench.worker.common_training import ANNEALED, Steps, learning_rate


class TrainingLog:
    """The account of one training: an adapter calls :meth:`validated` after each interval and asks :meth:`stopped_by`.

    Args:
        events: where each interval is reported.
        request: its budget and training settings.
        n_train: training frames.

    Attributes:
        steps: the budget in optimiser steps.
        epoch: intervals finished; each ends with a validation.
        step: optimiser steps taken.
        best: lowest validation loss so far, in units of the common loss.
        best_epoch: its interval, counted from 1.
        last_loss: the latest validation loss.
        resumed: True if this is the continuation of an interrupted training.
    """

    def __init__(self, events: EventLog, request: Request, n_train: int) -> None:
        self.events = events
        self.training: Mapping[str, Any] = request.training
        self.steps = Steps.of(request.budget, int(request.training["batch_size"]), n_train)
        self.patience: int | None = request.budget.get("patience")
        self.epoch = 0
        self.step = 0
        self.best = math.inf
        self.best_epoch = 0
        self.last_loss = math.nan
        self.resumed = False
        self._seconds_before = 0.0
        self._start = time.monotonic()

    def start_clock(self) -> None:
        """Begin to count seconds, or go on from where :meth:`restore` left them: called when the first step is near."""
        self._start = time.monotonic() - self._seconds_before

    @property
    def elapsed(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return time.monotonic() - self._start

    @property
    def anneals(self) -> bool:
        """Whether mlpbench sets the learning rate of each step (see :meth:`lr`); else the package's scheduler does."""
        return self.training["schedule"] in ANNEALED

    def lr(self, step: int) -> float:
        """The learning rate of the step with this number, counted from 0, where :attr:`anneals`."""
        return learning_rate(self.training, self.steps, step, self.elapsed)

    def stopped_by(self) -> str | None:
        """The limit that is reached after the intervals so far: ``steps``, ``epochs``, ``seconds``, ``patience``."""
        if self.steps.total is not None and self.step >= self.steps.total:
            return self.steps.limit
        if self.steps.seconds is not None and self.epoch > 0 and self.elapsed >= self.steps.seconds:
            return "seconds"  # after one interval at the earliest: there must be a checkpoint
        if self.patience is not None and self.epoch - self.best_epoch >= self.patience:
            return "patience"
        return None

    def validated(
        self,
        epoch: int,
        step: int,
        *,
        train_loss: float | None,
        valid_loss: float,
        valid_energy_mae: float | None,
        valid_force_mae: float | None,
        lr: float,
    ) -> bool:
        """Note and report one finished interval; True if its loss is the lowest so far.

        Args:
            epoch: intervals finished.
            step: optimiser steps taken.
            train_loss: mean over the interval, in units of the common loss.
            valid_loss: over all validation frames, likewise.
            valid_energy_mae: eV/atom.
            valid_force_mae: eV/Å.
            lr: learning rate of the last step.

        Raises:
            FloatingPointError: the validation loss is not a finite number.
        """
        self.epoch, self.step, self.last_loss = epoch, step, valid_loss
        if not math.isfinite(valid_loss):
            raise FloatingPointError(
                f"the validation loss is {valid_loss} after {step} optimiser steps: try a lower training.lr"
            )
        better = valid_loss < self.best
        if better:
            self.best, self.best_epoch = valid_loss, epoch
        self.events.epoch(
            epoch, step, self.elapsed, passes=self.steps.passes(step), train_loss=train_loss, valid_loss=valid_loss,
            valid_energy_mae=valid_energy_mae, valid_force_mae=valid_force_mae, lr=lr,
        )  # fmt: skip
        return better

    def state(self) -> dict[str, Any]:
        """What a resumed training needs to know; goes into the package's checkpoint."""
        return {
            "epoch": self.epoch, "step": self.step, "seconds": self.elapsed, "best": self.best,
            "best_epoch": self.best_epoch, "last_loss": self.last_loss,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` noted."""
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.best, self.best_epoch = float(state["best"]), int(state["best_epoch"])
        self.last_loss = float(state["last_loss"])
        self._seconds_before = float(state["seconds"])
        self.resumed = True
        self.start_clock()


def check_labels(labels: list[str], **splits: Frames) -> None:
    """Every frame of ``splits`` (name -> frames) must have the labels that enter the loss.

    Raises:
        ValueError: a frame has not; names the split, the frame (from 0) and the label.
    """
    for split, frames in splits.items():
        known = {
            "energy": np.isfinite(frames.target_energy),
            "forces": np.logical_and.reduceat(
                np.isfinite(frames.forces).all(axis=1) | frames.held, frames.offsets[:-1]
            ),
            "stress": np.isfinite(frames.stress).all(axis=1),
        }
        for label in labels:
            missing = np.flatnonzero(~known[label])
            if len(missing):
                raise ValueError(
                    f"the training uses {label}, but {len(missing)} of {len(frames)} {split} frames have none, the "
                    f"first is frame {missing[0]}: leave {label} out of dataset.labels, or those frames out of the data"
                )
        if "stress" in labels and not frames.pbc.all():
            first = np.flatnonzero(~frames.pbc.all(axis=1))[0]
            raise ValueError(f"the training uses stress, but {split} frame {first} is not periodic in all directions")


def label_scale(frames: Frames, labels: list[str]) -> float:
    """The size of the labels, by which every package scales its output: labels × f then give errors × f.

    The root mean square of the force components, eV/Å; without forces the deviation of the target energy over the
    square root of the number of atoms, eV; 1 where both vanish.
    """
    if "forces" in labels:
        scale = float(np.sqrt(np.mean(frames.known_forces**2)))
    else:
        scale = float(np.std(frames.target_energy / np.sqrt(frames.n_atoms)))
    return scale if scale > 0 else 1.0


def clip_norm(training: Mapping[str, Any], scale: float, factor: float = 1.0) -> float | None:
    """The largest norm of the gradient of a package's loss, so that the same steps are clipped in every package.

    Args:
        training: ``gradient_clip`` limits the gradient of the common loss over the squared :func:`label_scale`, a
            number that depends neither on units nor on the package.
        scale: the :func:`label_scale` of the training frames.
        factor: the package's loss over the common loss.
    """
    clip = training["gradient_clip"]
    return None if clip is None else float(clip) * scale**2 * factor


class RefusedOption(ValueError):
    """An option of ``architecture.native`` that cannot be used; its text says why, and what was meant."""


def require_options(native: Mapping[str, Any], config: Mapping[str, Any], package: str) -> None:
    """Refuse options of ``architecture.native`` that the package would not read.

    An entry is known if mlpbench's own configuration has it, or if the class or function that the node builds
    (``_target_``) takes it. Nodes that are built by something that takes any keyword are left to the package.

    Args:
        native: the user's options, nested as ``config`` is.
        config: mlpbench's configuration of the package.
        package: its name, for the message.

    Raises:
        RefusedOption: names the option and the close match.
    """

    def walk(over: Mapping[str, Any], base: Mapping[str, Any], path: str, inside: bool) -> None:
        target = over.get("_target_", base.get("_target_"))
        # A plain mapping within arguments (of an optimiser, by element) has entries that only the package knows.
        parameters = None if inside and target is None else _parameters(target)
        for key, value in over.items():
            place = f"{path}.{key}"
            if parameters is not None and key not in base and not key.startswith("_"):
                require_option(str(key), {*base, *parameters}, place, package)
            below = base.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping) and below:
                walk(value, below, place, inside or target is not None)

    walk(native, config, "architecture.native", False)


def require_option(name: str, known: Iterable[str], place: str, package: str) -> None:
    """Refuse ``name``, which stands at ``place``, unless ``package`` knows it.

    Raises:
        RefusedOption: it does not; with the close match.
    """
    options = sorted(option for option in known if not option.startswith("_"))
    if name in options:
        return
    match = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    meant = f": did you mean '{match[0]}'?" if match else "."
    listed = f" Known: {', '.join(options) or 'none'}." if len(options) <= 25 else ""
    raise RefusedOption(f"{place}: {package} has no such option{meant}{listed}")


def _parameters(target: Any) -> set[str] | None:
    """Keywords that the class or function ``target`` (dotted) takes, none for no target; None if it takes any."""
    if target is None:
        return set()
    module, _, attribute = str(target).rpartition(".")
    try:
        parameters = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters.values()
    except (ImportError, AttributeError, ValueError, TypeError):
        return None  # what cannot be looked at here is left to the package
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}
