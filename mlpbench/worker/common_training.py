"""What the trainings of all packages share: the batches, the number of optimiser steps, and how the rate is annealed.

It imports numpy alone: a copy lies beside a package's own configuration, so that the training can be repeated there
without mlpbench.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

ANNEALED = ("cosine", "linear")  # the rate ends with the budget; every other schedule is the package's own


@dataclass(frozen=True)
class Steps:
    """A budget in optimiser steps, with a validation after every interval.

    Attributes:
        n_train: training frames.
        batch_size: frames in a step, at most ``n_train``.
        interval: steps from one validation to the next.
        total: steps of the whole training, a multiple of ``interval``; None where time alone ends it.
        limit: which part of the budget ``total`` comes from.
        seconds: wall time that ends the training, or None.
    """

    n_train: int
    batch_size: int
    interval: int
    total: int | None
    limit: Literal["steps", "epochs"] | None
    seconds: float | None

    @classmethod
    def of(cls, budget: Mapping[str, Any], batch_size: int, n_train: int) -> Steps:
        """The steps that ``budget`` (epochs, steps, seconds, interval) means for ``n_train`` frames.

        An epoch is one pass over the training set, and without ``interval`` a validation follows each. The total is
        rounded up, so that the training ends with a validation.

        Raises:
            ValueError: the budget has no limit.
        """
        batch_size = min(batch_size, n_train)
        per_pass = math.ceil(n_train / batch_size)
        limits: dict[Literal["steps", "epochs"], int] = {}
        if budget.get("epochs") is not None:
            limits["epochs"] = int(budget["epochs"]) * per_pass
        if budget.get("steps") is not None:
            limits["steps"] = int(budget["steps"])
        seconds = budget.get("seconds")
        if not limits and seconds is None:
            raise ValueError("the budget has no limit: set one of epochs, steps and seconds")
        interval = int(budget.get("interval") or per_pass)
        limit = min(limits, key=lambda name: limits[name], default=None)
        if limit is None:
            return cls(n_train, batch_size, interval, None, None, seconds)
        interval = min(interval, limits[limit])
        total = math.ceil(limits[limit] / interval) * interval
        return cls(n_train, batch_size, interval, total, limit, seconds)

    @property
    def per_pass(self) -> int:
        """Steps of one pass over the training set."""
        return math.ceil(self.n_train / self.batch_size)

    @property
    def intervals(self) -> int | None:
        """Validations in the whole training, or None where time alone ends it."""
        return None if self.total is None else self.total // self.interval

    def passes(self, step: int) -> float:
        """Passes over the training set after ``step`` steps."""
        return step / self.per_pass

    def fraction(self, step: int, elapsed: float) -> float:
        """The share of the budget that is spent after ``step`` steps and ``elapsed`` seconds, 0 to 1."""
        shares = [0.0]
        if self.total is not None:
            shares.append(step / self.total)
        if self.seconds is not None:
            shares.append(elapsed / self.seconds)
        return min(1.0, max(shares))


class Batches:
    """An endless sequence of batches: pass after pass over all frames, each in a random order of its own.

    The batch of a step follows from the seed and the step alone, so a resumed training goes on with the right one. The
    last batch of a pass holds what is left, and no frame is ever dropped.

    Args:
        n_frames: training frames.
        batch_size: frames in a batch, at most ``n_frames``.
        seed: of the orders.
    """

    def __init__(self, n_frames: int, batch_size: int, seed: int) -> None:
        self.n_frames = n_frames
        self.batch_size = min(batch_size, n_frames)
        self.per_pass = math.ceil(n_frames / self.batch_size)
        self.seed = seed
        self._pass = -1
        self._order: list[int] = []

    def at(self, step: int) -> list[int]:
        """The frames of step ``step``, counted from 0."""
        number, batch = divmod(step, self.per_pass)
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng([self.seed, number]).permutation(self.n_frames).tolist()
        return self._order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def between(self, start: int, stop: int) -> Iterator[list[int]]:
        """The batches of the steps from ``start`` to before ``stop``."""
        for step in range(start, stop):
            yield self.at(step)


class IntervalSampler:
    """A torch batch sampler that gives one interval of :class:`Batches` a time, as a package's "epoch".

    Lightning tells it the epoch (``set_epoch``, found through :attr:`sampler`); elsewhere set :attr:`epoch`.

    Args:
        n_frames: training frames.
        batch_size: frames in a batch.
        interval: batches in an interval.
        seed: of the order of the frames.
    """

    def __init__(self, n_frames: int, batch_size: int, interval: int, seed: int) -> None:
        self.batches = Batches(n_frames, batch_size, seed)
        self.batch_size = self.batches.batch_size
        self.interval = interval
        self.epoch = 0
        self.drop_last = False

    @property
    def sampler(self) -> IntervalSampler:
        """Itself: where Lightning looks for something that has ``set_epoch``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The interval to give next, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.interval

    def __iter__(self) -> Iterator[list[int]]:
        # a generator, because Lightning asks for the iterator of a resumed training before it sets the epoch
        start = self.epoch * self.interval
        yield from self.batches.between(start, start + self.interval)


def learning_rate(training: Mapping[str, Any], steps: Steps, step: int, elapsed: float) -> float:
    """The rate of step ``step`` (counted from 0), ``elapsed`` seconds into the training, where mlpbench sets it.

    ``cosine``: lr_min + (lr − lr_min)·(1 + cos πf)/2 (Loshchilov and Hutter, ICLR 2017, one period); ``linear``:
    lr + (lr_min − lr)·f, with f the share of the budget that is spent; both after a linear rise over ``warmup_steps``.

    Raises:
        ValueError: another schedule, which is the package's own.
    """
    fraction = steps.fraction(step, elapsed)
    if training["schedule"] == "cosine":
        share = 0.5 * (1 + math.cos(math.pi * fraction))
    elif training["schedule"] == "linear":
        share = 1 - fraction
    else:
        raise ValueError(f"training.schedule={training['schedule']} is not annealed with the budget")
    low = min(float(training["lr_min"]), float(training["lr"]))
    rate = low + (float(training["lr"]) - low) * share
    warmup = int(training.get("warmup_steps") or 0)
    return rate * min(1.0, (step + 1) / warmup) if warmup else rate


def relative_rate(step: int, *, schedule: str, lr: float, lr_min: float, warmup_steps: int, total: int | None) -> float:
    """:func:`learning_rate` of step ``step`` over ``lr``, for torch's ``LambdaLR``; seconds do not count here.

    Args:
        step: optimiser steps taken before it.
        schedule: ``cosine`` or ``linear``.
        lr: the largest rate.
        lr_min: the last one.
        warmup_steps: steps over which the rate rises from zero.
        total: steps of the whole training; None: the rate does not fall.
    """
    training = {"schedule": schedule, "lr": lr, "lr_min": lr_min, "warmup_steps": warmup_steps}
    limit: Literal["steps"] | None = None if total is None else "steps"
    return learning_rate(training, Steps(1, 1, 1, total, limit, None), step, 0.0) / lr
