"""A worker's process: it ends with the core that started it, and where it stays it is forked for every request.

Importing a framework takes 5 to 15 s. So the core keeps one process for each environment that imports the adapter
once (:func:`main`) and carries out each request in a fork of itself: nothing that a trial changes, and no crash,
outlives it. The fork computes what a fresh process would: the random generators are reseeded, the device is first
used after the fork, and the pages of libraries that a fresh process would hold are mapped, so that peak memory means
the same.

The core sends ``{"adapter", "device", "tasks", "directory"}``, one JSON line a request, through the socket whose number
is the only argument. The answers are ``{"pid"}`` and, once that fork has ended, ``{"code", "peak_mb", "last"}``, where
``last`` says that the resident process ends as well; or ``{"unfit"}``.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mlpbench.protocol import LOG

VARIABLE = "MLPBENCH_PARENT"  # process id a worker must not outlive; not set when it is started by hand
PROBE_SECONDS = 60  # a fork that cannot compute hangs; on a busy machine one that can takes a while
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Arrange that this process is killed when its parent dies, even by SIGKILL.

    Linux does it by itself (``prctl``); elsewhere a thread looks every second. Done here and not between fork
    and exec in the parent, where running Python is not safe.
    """
    named = os.environ.get(VARIABLE)
    if named is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(int(named),), daemon=True).start()
    if os.getppid() != int(named):  # it died before the arrangement was made
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGKILL)


def main(arguments: list[str]) -> int:
    """Serve requests from the socket ``arguments[0]`` until the core closes it. In a fork: carry one out."""
    channel = socket.socket(fileno=int(arguments[0]))
    os.set_inheritable(channel.fileno(), False)
    loaded: Loaded | None = None
    with channel.makefile("rb") as lines:
        for line in lines:
            asked = json.loads(line)
            loaded = loaded or Loaded.of(asked)
            if loaded.unfit:
                _send(channel, unfit=loaded.unfit)
                return 0
            pid = os.fork()
            if pid == 0:
                channel.detach()  # closed below with its number; the core must see the end of the resident process
                os.close(int(arguments[0]))
                _leave(_ended(Path(asked["directory"]), loaded))
            with contextlib.suppress(OSError):  # also done by the fork: whoever comes first
                os.setpgid(pid, pid)
            _send(channel, pid=pid)
            end = _follow(pid, channel)
            if end is None:
                return 0
            _send(channel, **end, last=bool(loaded.problem))
            if loaded.problem:
                return 0  # the packages may be repaired before the next trial
    return 0


@dataclass(frozen=True)
class Loaded:
    """What a resident process has imported.

    Attributes:
        problem: traceback of an import that failed; the fork that needs it reports it.
        unfit: why forks of this process cannot compute; empty if they can.
        pages: (address, count) of the runs of file pages that this process holds in memory.
    """

    problem: str = ""
    unfit: str = ""
    pages: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, asked: dict[str, Any]) -> Loaded:
        """Import the adapter of a request, the tasks it asks for and what the adapter wants imported with it."""
        from mlpbench.worker.main import load_adapter
        from mlpbench.worker.tasks import find_task

        try:
            adapter = load_adapter(asked["adapter"])
        except Exception:  # a package's import can fail in any way
            return cls(problem=traceback.format_exc())
        for task in asked["tasks"]:
            with contextlib.suppress(Exception):  # the fork that needs it imports it again, and says what is wrong
                find_task(task)
        for module in adapter.preload:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
        gc.collect()
        gc.freeze()  # the collector of a fork leaves these objects alone, so that their pages stay shared
        return cls(unfit=_unfit(asked["device"]), pages=_file_pages())


def _ended(directory: Path, loaded: Loaded) -> int:
    """Exit code of :func:`_carry_out`, as the interpreter would give it."""
    try:
        return _carry_out(directory, loaded)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


def _leave(code: int) -> NoReturn:
    """End this process as the interpreter does, but without taking thousands of modules apart first.

    That takes a second with torch, and the system gives everything back by itself.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that are no daemons
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _carry_out(directory: Path, loaded: Loaded) -> int:
    """In a fork: become an ordinary worker of the request in ``directory``."""
    from mlpbench.worker.main import main as work

    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    os.environ[VARIABLE] = str(os.getppid())
    log = os.open(directory / LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    with contextlib.suppress(OSError):  # what the packages said when they were imported, as in a fresh process
        os.write(log, os.pread(1, 1 << 20, 0))
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(directory)
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    for address, count in loaded.pages:
        _touch(address, count)
    if loaded.problem:
        print(loaded.problem, file=sys.stderr)
        return 1
    return work([str(directory)])


def _follow(pid: int, channel: socket.socket) -> dict[str, Any] | None:
    """Wait for a fork; ``code`` and ``peak_mb`` of its end, or None if the core ended first and the fork was killed."""
    handle = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    try:
        while True:
            watched = [channel.fileno()] if handle is None else [channel.fileno(), handle]
            ready, _, _ = select.select(watched, [], [], 0.02 if handle is None else None)
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if done:
                return {"code": os.waitstatus_to_exitcode(status), "peak_mb": usage.ru_maxrss * _RSS_UNIT / 1e6}
            if channel.fileno() in ready:  # nothing is asked while a request is at work: the core has closed it
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return None
    finally:
        if handle is not None:
            os.close(handle)


_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def _send(channel: socket.socket, **values: Any) -> None:
    with contextlib.suppress(BrokenPipeError):  # the core has ended; the next read says so
        channel.sendall(json.dumps(values).encode() + b"\n")


def _unfit(device: str) -> str:
    """Why a fork of this process could not compute on ``device``, tried in one; empty if it can.

    A device that was initialised by an import cannot be used after a fork, and threads of OpenMP that an import
    started are missing in it, which hangs.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return ""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(PROBE_SECONDS)
        if device.startswith("cuda") and torch.cuda._is_in_bad_fork():
            os._exit(1)
        torch.ones(1 << 20).sum()  # large enough for all threads
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 1:
        return "importing the packages has initialised the device"
    return "" if code == 0 else f"a computation in a fork ended with code {code}"


def _file_pages() -> list[tuple[int, int]]:
    """(address, count) of the runs of pages of mapped files that are in this process's memory; empty without /proc."""
    import numpy as np

    size = os.sysconf("SC_PAGE_SIZE")
    runs: list[tuple[int, int]] = []
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
        with open("/proc/self/pagemap", "rb") as pagemap:
            for line in maps:
                fields = line.split(maxsplit=5)
                if len(fields) < 6 or not fields[5].startswith("/") or not fields[1].startswith("r"):
                    continue
                start, end = (int(part, 16) for part in fields[0].split("-"))
                pagemap.seek(start // size * 8)
                entries = np.frombuffer(pagemap.read((end - start) // size * 8), dtype=np.uint64)
                present = np.concatenate([[0], (entries >> np.uint64(63)).astype(np.int8), [0]])
                edges = np.flatnonzero(np.diff(present))
                runs += [
                    (start + int(first) * size, int(last - first))
                    for first, last in zip(edges[::2], edges[1::2], strict=True)
                ]
    except OSError:
        return []
    return runs


def _touch(address: int, count: int) -> None:
    """Read a byte of each of ``count`` pages, which maps them."""
    size = os.sysconf("SC_PAGE_SIZE")
    memoryview((ctypes.c_ubyte * (count * size)).from_address(address))[::size].tobytes()
