"""Names and locks of files, writing that never leaves half a file, and digests, from which seeds are derived."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlpbench.errors import UserError

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
# What a user can do something about; anything else is a fault of ours and shows its traceback.
_HINTS = {
    errno.EACCES: "Make the folder writable, or set results_dir (and MLPBENCH_HOME) to one that is.",
    errno.EPERM: "Make the folder writable, or set results_dir (and MLPBENCH_HOME) to one that is.",
    errno.EROFS: "The file system is mounted read-only: set results_dir (and MLPBENCH_HOME) to another one.",
    errno.ENOSPC: "The disk is full: free some space; what is finished is kept, and the same command goes on.",
    errno.EDQUOT: "The disk quota is used up: free some space; the same command goes on.",
}


def slug(text: str, limit: int = 60) -> str:
    """``text`` as part of a file name on any system: letters, digits, ``-_.+``; a long one is cut and marked.

    Texts that differ only in what is replaced or cut get different marks, so that no two share a file.
    """
    safe = re.sub(r"[^\w.+-]+", "_", text).lstrip(".-")
    if safe and safe == text and len(safe) <= limit:
        return safe
    mark = hashlib.sha256(text.encode()).hexdigest()[:6]
    return f"{safe[: limit - 7]}-{mark}" if safe else f"name-{mark}"


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True, busy: str = "another process holds it") -> Iterator[None]:
    """Hold the lock file ``path`` for this process.

    Args:
        path: of the lock; its folder is made.
        wait: until it is free; False: refuse at once.
        busy: what to say then.

    Raises:
        UserError: it is held by another process, or the file system has no locks or cannot be written.
    """
    with told():
        path.parent.mkdir(parents=True, exist_ok=True)
        _probe_locks(path.parent)
    from filelock import FileLock, Timeout  # not at the top: every command imports this module

    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        with told():
            lock.acquire()
    except Timeout as error:
        raise UserError(busy, "Wait for it, or end it, then run this again.") from error
    try:
        yield
    finally:
        lock.release()


@lru_cache(maxsize=256)
def _probe_locks(folder: Path) -> None:
    """Try a lock once: where the file system has none, waiting for one would last for ever."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system: filelock knows what to do there
        return
    probe = folder / f".lock-probe-{os.getpid()}"
    descriptor = os.open(probe, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise UserError(
                f"the file system of {folder} has no file locks ({error.strerror})",
                "Set results_dir (and MLPBENCH_HOME) to a file system with flock.",
            ) from error
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn a full disk, a read-only folder and the like into a :class:`UserError` that says what to do."""
    try:
        yield
    except OSError as error:
        problem = problem_of(error)
        if problem is None:
            raise
        raise problem from error


def problem_of(error: OSError) -> UserError | None:
    """The user's side of ``error``: a disk that is full, a folder that cannot be written; None for anything else."""
    hint = _HINTS.get(error.errno or 0)
    if hint is None:
        return None
    place = f"{error.filename}: " if error.filename else ""
    return UserError(f"{place}{(error.strerror or str(error)).lower()}", hint)


def sha256(path: Path) -> str:
    """sha256 (hex) of a file, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def derive(*parts: object) -> int:
    """A seed in [0, 2³¹) from the parts' text; the same parts always give the same seed."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def digest(content: Any) -> str:
    """sha256 (hex) of JSON ``content`` with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
