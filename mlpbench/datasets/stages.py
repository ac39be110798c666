"""Progress of reading, splitting and labelling, where it takes longer than a moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from mlpbench.numbers import duration


class OnProgress(Protocol):
    """Told how far something is."""

    def __call__(self, stage: str, done: int, total: int | None, unit: str = "frames") -> None:
        """``done`` of ``total`` (None: not known) have gone through ``stage``."""


_PATIENCE = 2.0  # s of work that nobody needs to hear of
_ON_A_TERMINAL = 0.2  # s between two updates of a line
_IN_A_LOG = 30.0  # s between two lines


def silent(stage: str, done: int, total: int | None, unit: str = "frames") -> None:
    """Says nothing."""


class Stages:
    """Says on standard error what is being done and how far it is: one moving line, or now and then one in a log.

    Args:
        name: of the data set.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._live = sys.stderr.isatty()
        self._stage, self._begin, self._before = "", time.monotonic(), 0
        self._last, self._shown = time.monotonic(), False

    def __call__(self, stage: str, done: int, total: int | None, unit: str = "frames") -> None:
        """``done`` of ``total`` have gone through ``stage``; a new stage starts a new clock."""
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._begin, self._before = stage, now, done
        if now - self._last < (_ON_A_TERMINAL if self._shown and self._live else _PATIENCE):
            return
        if self._shown and not self._live and now - self._last < _IN_A_LOG:
            return
        self._last, self._shown = now, True
        text = f"{self.name}: {stage}, {done:,}{f' of {total:,}' if total else ''} {unit}"
        if total and done > self._before:  # what was there at the start says nothing about the pace
            text += f", about {duration((now - self._begin) / (done - self._before) * (total - done))} left"
        print(f"\r\x1b[2K{text}" if self._live else text, end="" if self._live else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the moving line."""
        if self._shown and self._live:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
        self._shown, self._last = False, time.monotonic()


@contextmanager
def stages(name: str) -> Iterator[Stages]:
    """:class:`Stages`, closed at the end whatever happens."""
    told = Stages(name)
    try:
        yield told
    finally:
        told.close()
