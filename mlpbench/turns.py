"""Whose turn it is on this machine: trials work side by side, a timing works alone, devices are shared out.

Sweeps may run several trials at once (``hydra/launcher=joblib``, two commands, two jobs of a cluster on one node).
Nothing of ours may compute while something is timed, so work takes a shared lock and a timing an exclusive one. Who
wants to be alone keeps newcomers waiting, so that it is not put off for ever.

All locks are ``flock``: they end with the process that holds them, however it ends. Where a file system has none, work
goes on without, and it is said once.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# A file system mounted without locks, one whose lock server does not answer, and one that has none at all.
_WITHOUT_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}

Waiting = Callable[[], None] | None  # called once if the lock is held by another, before it is waited for


class HeldByAnother(Exception):
    """Another process holds the file."""


class Unsafe(Exception):
    """The folder or file of a lock may be another user's doing; its text says what is wrong with it."""


def place() -> Path:
    """Folder of this machine's locks: ``$MLPBENCH_TURNS``, else in the user's runtime folder, else in a temporary one.

    Never in a home, which several machines may share.
    """
    named = os.environ.get("MLPBENCH_TURNS")
    if named:
        return Path(named)
    for folder in (os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.getuid()}"):
        if folder and os.path.isabs(folder) and _problem(Path(folder)) == "" and os.access(folder, os.W_OK):
            return Path(folder) / "mlpbench-turns"
    return Path(tempfile.gettempdir()) / f"mlpbench-turns-{os.getuid()}"


@contextmanager
def beside_others(waiting: Waiting = None) -> Iterator[None]:
    """Work that others may work beside.

    Args:
        waiting: called once if something is being timed, before it is waited for.

    Raises:
        Unsafe: the folder of the locks is not this user's own.
    """
    with _take(fcntl.LOCK_SH, waiting):
        yield


@contextmanager
def alone(waiting: Waiting = None) -> Iterator[None]:
    """Work that nothing of ours may work beside: timings. Not within :func:`beside_others`, which it would wait for.

    Args:
        waiting: called once if others are at work, before they are waited for.

    Raises:
        Unsafe: the folder of the locks is not this user's own.
    """
    with _take(fcntl.LOCK_EX, waiting):
        yield


@contextmanager
def least_used(names: list[str]) -> Iterator[str]:
    """One of ``names`` (devices of this machine) that as few others as possible hold at this moment.

    Raises:
        Unsafe: the folder of the locks is not this user's own.
    """
    folder = safe_place()
    for seat in range(1000):  # the first seat of every device, then the second ...
        for name in names:
            handle = _open(folder / f"{name.replace(':', '-')}.{seat}")
            try:
                _lock(handle, fcntl.LOCK_EX, None, folder, wait=False)
                yield name
                return
            except HeldByAnother:
                continue
            finally:
                os.close(handle)
    yield names[0]


@contextmanager
def _take(kind: int, waiting: Waiting) -> Iterator[None]:
    folder = safe_place()
    work, gate = _open(folder / "work"), _open(folder / "gate")  # the gate is held only while one waits for `work`
    try:
        told = _lock(gate, fcntl.LOCK_EX, waiting, folder)
        _lock(work, kind, None if told else waiting, folder)
        os.close(gate)
        gate = -1
        yield
    finally:  # closing releases the lock, also when this process is killed
        os.close(work)
        if gate >= 0:
            os.close(gate)


def safe_place() -> Path:
    """The folder of this machine's locks, made if it is not there.

    Raises:
        Unsafe: it is a link, another user's, or open to others, and the user did not name it; or a lock is a link.
        OSError: it cannot be made.
    """
    folder = place()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    problem = "" if os.environ.get("MLPBENCH_TURNS") else _problem(folder)  # who names a folder may share it
    if problem:
        raise Unsafe(
            f"{folder}, the folder of the locks of this machine, {problem}; "
            "remove it, or set MLPBENCH_TURNS to a folder of your own"
        )
    for path in (folder / "work", folder / "gate"):
        if path.is_symlink():
            raise Unsafe(f"{path} is a link, and locks are files; remove it")
    return folder


def _problem(folder: Path) -> str:
    """Why ``folder`` cannot be trusted, or an empty text."""
    try:
        status = os.lstat(folder)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not stat.S_ISDIR(status.st_mode):
        return "is a link or a file"
    if status.st_uid != os.getuid():
        return "belongs to another user"
    return "can be written to by others" if status.st_mode & 0o022 else ""


def _open(path: Path) -> int:
    """Open a lock file for this user alone, following no link and emptying nothing."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unsafe(f"{path} is a link, and locks are files; remove it") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Unsafe(f"{path} is not an ordinary file; remove it")
    return handle


def _lock(handle: int, kind: int, waiting: Waiting, path: Path, *, wait: bool = True) -> bool:
    """Lock, telling ``waiting`` if that takes a while; returns whether it did."""
    told = False
    try:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if not wait:
                raise HeldByAnother(str(path)) from error
            if waiting is not None:
                waiting()
                told = True
            fcntl.flock(handle, kind)
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        _say_once(f"{path}: no locks on this file system ({error.strerror}); trials that run at the same time are not "
                  "kept apart, and MLPBENCH_TURNS can name another folder for the locks of this machine")  # fmt: skip
    return told


_said: set[str] = set()


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        print(f"mlpbench: warning: {text}", file=sys.stderr, flush=True)
