"""Judging a finished training: *at rest*, from its own curve; *converged*, from a second, longer one; what it cost.

Errors here are roots of the validation loss, which is a mean of squares: 1 % in the error is 2 % in the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.evaluators import Context, Row
from mlpbench.frames import Frames
from mlpbench.metrics import metric_row

MIN_VALIDATIONS = 10  # fewer do not show a shape
SOLVED = "solved"  # what a training without iterations was stopped by
FINISHED = 0.1  # the schedule has finished: the last learning rate is below this fraction of the largest
TRIVIAL = 0.9  # a training has begun to learn: its error is below this fraction of the trivial predictor's
NEAR_BEST = 1.05  # the last error over the lowest one, at the most
LATE = 0.2  # the last part of the validations, in which ...
STEADY = 1.2  # ... the largest error over the smallest is at most this
LAST = 0.1  # over the last part of the validations ...
FLAT = 0.03  # ... the lowest error so far may fall by this fraction


@dataclass(frozen=True)
class Verdict:
    """An answer and, where it is no, the reason.

    Attributes:
        passed: True, False, or None where nothing can be said.
        reason: empty where ``passed`` is True.
    """

    passed: bool | None
    reason: str = ""


def trivial_loss(valid: Frames, training: Mapping[str, Any], labels: Sequence[str]) -> float:
    """The common loss on ``valid`` (F frames) of a potential without forces, whose energy is the baseline.

    Args:
        valid: the validation frames.
        training: ``energy_weight`` (1/eV²), ``force_weight`` ((Å/eV)²), ``stress_weight`` ((Å³/eV)²).
        labels: which of energy, forces and stress the loss is made of.
    """
    targets = {
        "energy": valid.target_energy / valid.n_atoms,
        "forces": valid.known_forces,
        "stress": valid.stress,
    }
    weights = {"energy": "energy_weight", "forces": "force_weight", "stress": "stress_weight"}
    return float(sum(float(training[weights[label]]) * np.mean(targets[label] ** 2) for label in labels))


def learnt(curve: Sequence[Mapping[str, Any]], trivial: float) -> Verdict:
    """Whether a training has begun to learn: all that is asked of a model that is solved at once (``SOLVED``).

    Args:
        curve: as in :func:`at_rest`.
        trivial: likewise.
    """
    share = math.sqrt(min(point["valid_loss"] for point in curve) / trivial) if trivial > 0 else math.inf
    if share > TRIVIAL:
        return Verdict(False, f"the error is {share:.2g} times that of predicting no forces and the mean energy")
    return Verdict(True)


def at_rest(curve: Sequence[Mapping[str, Any]], trivial: float) -> Verdict:
    """Whether a training had come to rest under its schedule when it ended.

    It has, if the learning rate has fallen to a tenth of its largest value, the validation error is below 0.9 times
    the trivial predictor's, and the curve's end is flat, steady and near its lowest point. A vanishing rate, a
    diverging or oscillating curve, and a plateau at the full rate are not at rest. It says nothing about what a longer
    training would reach: see :func:`agreement`.

    Args:
        curve: one entry a validation, in order, with ``valid_loss`` and ``lr``.
        trivial: :func:`trivial_loss` of the same frames, in the units of ``valid_loss``.
    """
    if any(point.get("valid_loss") is None for point in curve):
        return Verdict(False, "the validation loss is not finite")
    if len(curve) < MIN_VALIDATIONS:
        return Verdict(False, f"only {len(curve)} validations: at least {MIN_VALIDATIONS} are needed to judge")
    error = np.sqrt(np.array([point["valid_loss"] for point in curve], dtype=float))
    rate = np.array([math.nan if point.get("lr") is None else point["lr"] for point in curve], dtype=float)
    if not rate[-1] <= FINISHED * np.nanmax(rate):
        return Verdict(False, f"the learning rate ended at {rate[-1]:.2g}, not yet a tenth of {np.nanmax(rate):.2g}")
    if not (begun := learnt(curve, trivial)).passed:
        return begun
    if error[-1] > NEAR_BEST * error.min():
        return Verdict(False, f"the last validation error is {error[-1] / error.min():.2f} times the lowest one")
    before = error[: -max(1, math.floor(LAST * len(error)))].min()
    if (fall := 1 - error.min() / before) > FLAT:
        return Verdict(False, f"the error still fell by {100 * fall:.1f} % over the last 10 % of the training")
    late = error[-max(2, math.ceil(LATE * len(error))) :]
    if late.max() > STEADY * late.min():
        return Verdict(False, f"the error varied by a factor of {late.max() / late.min():.2f} over the last 20 %")
    return Verdict(True)


@dataclass(frozen=True)
class Rung:
    """One training of a series in which each takes twice the optimiser steps of the one before.

    Attributes:
        trial: its folder's name.
        steps: optimiser steps.
        error: root of the lowest validation loss.
        at_rest: see :func:`at_rest`.
    """

    trial: str
    steps: int
    error: float
    at_rest: bool


def agreement(rungs: Sequence[Rung], margin: float) -> Verdict:
    """Whether the longest training is converged: it and one with half its steps are at rest at the same error.

    Args:
        rungs: in order of their steps.
        margin: by which fraction of the error the two may differ, in either direction.
    """
    if len(rungs) < 2:
        return Verdict(None, "not tested: no training with another number of steps (budget=converge does that)")
    shorter, longer = rungs[-2], rungs[-1]
    for rung in (shorter, longer):
        if not rung.at_rest:
            return Verdict(False, f"the training of {rung.steps} steps did not come to rest")
    change = longer.error / shorter.error - 1
    if abs(change) >= margin:
        word = "lower" if change < 0 else "higher"
        return Verdict(
            False, f"{longer.steps} steps give an error {100 * abs(change):.1f} % {word} than {shorter.steps} steps"
        )
    return Verdict(True)


def score(directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """Rows of the finished training; all that they need stands in ``context``."""
    return cost_rows(context.training, context.curve, context.training["threads"])


def cost_rows(training: dict[str, Any], curve: list[dict[str, Any]], threads: int) -> list[Row]:
    """Rows of the cost metrics; those that are not known are left out.

    Args:
        training: of the record: ``wall_seconds``, ``on_device``, ``peak_memory_mb``, ``n_parameters``, ``best_epoch``,
            and ``energy_wh`` where a device counted it.
        curve: the epochs, each with ``epoch`` and ``step``.
        threads: of the CPU; a training on a device holds one device.
    """
    held = 1 if training["on_device"] else threads
    values = {
        "train_seconds": training["wall_seconds"],
        "train_device_seconds": training["wall_seconds"] * held,
        "train_peak_memory": training["peak_memory_mb"],
        "train_energy": training.get("energy_wh"),
        "n_parameters": training["n_parameters"],
        "best_epoch": training["best_epoch"],
        "best_step": next((e["step"] for e in curve if e["epoch"] == training["best_epoch"]), None),
    }
    return [metric_row("", name, value) for name, value in values.items() if value is not None]


@dataclass(frozen=True)
class Payback:
    """What was invested, and when it is back.

    Attributes:
        labels: cost of all labels.
        training: cost of the training.
        saved: by each MD step that the potential takes in place of the reference; not positive: it saves nothing.
    """

    labels: float
    training: float
    saved: float

    @property
    def invested(self) -> float:
        """Labels and training together."""
        return self.labels + self.training

    @property
    def steps(self) -> float | None:
        """MD steps until the investment is back; None if it never is."""
        return self.invested / self.saved if self.saved > 0 else None


def payback(
    n_labels: int,
    reference_seconds: float,
    training_seconds: float,
    step_seconds: float,
    *,
    reference_rate: float = 1.0,
    training_rate: float = 1.0,
    step_rate: float = 1.0,
) -> Payback:
    """Break-even (labels × reference + training) / (reference − MD step).

    Args:
        n_labels: training and validation frames.
        reference_seconds: of one label, and of one MD step with the reference, s.
        training_seconds: s.
        step_seconds: of one MD step with the potential, s.
        reference_rate: cost of one second of the reference: 1 for wall time, its cores for core-seconds, a price.
        training_rate: likewise of the training.
        step_rate: likewise of MD with the potential.
    """
    label = reference_seconds * reference_rate
    return Payback(n_labels * label, training_seconds * training_rate, label - step_seconds * step_rate)
