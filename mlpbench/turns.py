"""Whose turn it is on this machine: trials work side by side, a timing works alone.

Sweeps may run several trials at once (``hydra/launcher=joblib``, two commands, two jobs of a cluster on one node).
Nothing of ours may compute while something is timed, so work takes a shared lock and a timing an exclusive one. Who
wants to be alone keeps newcomers waiting, so that it is not put off for ever.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def place() -> Path:
    """Folder of the locks: one per machine and user, so not in a home that several machines share."""
    return Path(os.environ.get("MLPBENCH_TURNS") or Path(tempfile.gettempdir()) / f"mlpbench-turns-{os.getuid()}")


@contextmanager
def beside_others(waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Work that others may work beside.

    Args:
        waiting: called once if something is being timed, before it is waited for.
    """
    with _take(fcntl.LOCK_SH, waiting):
        yield


@contextmanager
def alone(waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Work that nothing of ours may work beside: timings. Not within :func:`beside_others`, which it would wait for.

    Args:
        waiting: called once if others are at work, before they are waited for.
    """
    with _take(fcntl.LOCK_EX, waiting):
        yield


@contextmanager
def _take(kind: int, waiting: Callable[[], None] | None) -> Iterator[None]:
    place().mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(place() / "room", "w") as room:
        with open(place() / "gate", "w") as gate:  # held only while one waits for the room
            told = _lock(gate.fileno(), fcntl.LOCK_EX, waiting)
            _lock(room.fileno(), kind, None if told else waiting)
        yield  # closing the file gives the room back, also when this process is killed


def _lock(handle: int, kind: int, waiting: Callable[[], None] | None) -> bool:
    """Lock, telling ``waiting`` if that takes a while; returns whether it did."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        if waiting is not None:
            waiting()
        fcntl.flock(handle, kind)
        return waiting is not None
    return False
