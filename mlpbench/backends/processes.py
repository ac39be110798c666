"""The process a worker runs in: one of its own, or a fork of one that stays and has imported the packages already.

A resident process serves one environment, adapter and set of variables, is started when first needed and ends with this
one. ``MLPBENCH_RESIDENT=0`` does without. Trials that time something always get a process of their own.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from mlpbench.backends.probe import child_environment
from mlpbench.backends.registry import Environment
from mlpbench.protocol import LOG, Request

BOOTSTRAP = Path(__file__).parents[1] / "worker" / "bootstrap.py"
PARENT_VARIABLE = "MLPBENCH_PARENT"  # process id the worker must not outlive; read by mlpbench.worker.process
PACKAGE_VARIABLE = "MLPBENCH_PACKAGE"  # folder of the package that holds an adapter from outside; read by bootstrap.py
SWITCH = "MLPBENCH_RESIDENT"
MOST_IDLE = 4  # resident processes kept beside the one at work; with torch each holds 0.5 to 0.8 GB
TIMED = {"speed"}  # tasks that are measured in a process of their own, as their users will run them
POLL = 0.1  # s

_RSS_UNIT = 1 if os.uname().sysname == "Darwin" else 1024


class Unfit(Exception):
    """A resident process cannot carry out a request; its text is the reason."""


class WorkerProcess(ABC):
    """A worker at work.

    Attributes:
        pid: process id, also of its group; None as long as it has not begun.
        peak_mb: largest resident memory seen (10⁶ bytes).
        cause: why it ended, where its exit code does not say so.
    """

    pid: int | None = None
    peak_mb: float = 0.0
    cause: str = ""

    @abstractmethod
    def wait(self, seconds: float) -> int | None:
        """Its exit code (negative: the signal that killed it), or None if it still runs after ``seconds``.

        Raises:
            Unfit: a resident process could not begin the request; nothing of it was done.
        """

    @abstractmethod
    def release(self) -> None:
        """Give back what it held; it has ended, or is ended now."""

    def signal(self, number: signal.Signals) -> None:
        """Send ``number`` to the worker and all it started."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
                os.killpg(self.pid, number)

    def _note_memory(self) -> None:
        if self.pid is not None:
            self.peak_mb = max(self.peak_mb, _high_water_mb(self.pid))


def start(request: Request, environment: Environment) -> WorkerProcess:
    """Start a worker for ``request``, which has been written to its folder.

    Raises:
        OSError: the interpreter cannot be started.
    """
    if os.environ.get(SWITCH, "1") == "0" or any(task.name in TIMED for task in request.tasks):
        return Separate(request, environment)
    key = _key(request, environment)
    reason = _unfit.get(key)
    if reason is not None:
        return fall_back(request, environment, reason)
    return Forked(request, environment, key)


def fall_back(request: Request, environment: Environment, reason: str) -> WorkerProcess:
    """A process of its own for ``request``, after a resident one could not carry it out; its log says why."""
    _unfit[_key(request, environment)] = reason
    with open(Path(request.directory) / LOG, "a", encoding="utf-8") as log:
        log.write(f"mlpbench: in a process of its own, because a resident one cannot: {reason}\n")
    return Separate(request, environment)


class Separate(WorkerProcess):
    """A process of its own, started afresh."""

    def __init__(self, request: Request, environment: Environment) -> None:
        with open(Path(request.directory) / LOG, "ab") as log:
            self._process = subprocess.Popen(
                [str(environment.python), "-P", "-s", "-u", str(BOOTSTRAP), request.directory],
                cwd=request.directory, env=worker_environment(environment, request.threads),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid
        self._handle = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None

    def wait(self, seconds: float) -> int | None:
        """See :meth:`WorkerProcess.wait`."""
        if self._process.returncode is None:
            self._note_memory()
            if self._handle is None:
                time.sleep(min(seconds, POLL / 4))
            else:
                select.select([self._handle], [], [], seconds)
            pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                if not self.peak_mb:  # no /proc: the kernel's figure, which counts the parent's memory as well
                    self.peak_mb = usage.ru_maxrss * _RSS_UNIT / 1e6
        return self._process.returncode

    def release(self) -> None:
        """See :meth:`WorkerProcess.release`."""
        self.signal(signal.SIGKILL)
        self._process.wait()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class Forked(WorkerProcess):
    """A fork of a resident process, which is started first where there is none yet."""

    def __init__(self, request: Request, environment: Environment, key: str) -> None:
        self._key = key
        self._code: int | None = None
        tasks = [task.name for task in request.tasks]
        asked = {"adapter": request.adapter, "device": request.device, "tasks": tasks, "directory": request.directory}
        while (resident := _take(key)) is not None:
            if resident.ask(asked):
                break
            resident.close()
        else:
            resident = Resident(environment, request.threads)
            resident.ask(asked)
        self._resident = resident

    def wait(self, seconds: float) -> int | None:
        """See :meth:`WorkerProcess.wait`."""
        if self._code is not None:
            return self._code
        self._note_memory()
        for answer in self._resident.answers(seconds):
            if "unfit" in answer:
                raise Unfit(answer["unfit"])
            self.pid = answer.get("pid", self.pid)
            if "code" in answer:
                self._code = int(answer["code"])
                self._resident.ended = answer["last"]
                self.peak_mb = self.peak_mb or answer["peak_mb"]
        if self._code is None and self._resident.ended:
            if self.pid is None:
                raise Unfit(f"it ended while it imported the packages: {self._resident.said() or 'it printed nothing'}")
            self._code = -signal.SIGKILL
            self.cause = "the process that the worker was forked from ended, and the worker with it"
        return self._code

    def signal(self, number: signal.Signals) -> None:
        """See :meth:`WorkerProcess.signal`; before the fork there is only the resident process to end."""
        if self.pid is not None:
            super().signal(number)
        elif self._code is None:
            self._resident.close()
            self._code = -number

    def release(self) -> None:
        """See :meth:`WorkerProcess.release`."""
        self.signal(signal.SIGKILL)
        if self.pid is None or self._resident.ended or self._code is None:
            self._resident.close()
        else:
            _give_back(self._key, self._resident)


class Resident:
    """A process that imports an adapter once and forks for each request (``mlpbench.worker.process``)."""

    def __init__(self, environment: Environment, threads: int) -> None:
        self._channel, theirs = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  # what is said at import; each fork copies it to its log
        with theirs:
            self._process = subprocess.Popen(
                [str(environment.python), "-P", "-s", "-u", str(BOOTSTRAP), str(theirs.fileno()),
                 "mlpbench.worker.process"],
                cwd="/", env=worker_environment(environment, threads), stdin=subprocess.DEVNULL,
                stdout=self._output, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        self._buffer = b""
        self.ended = False

    def ask(self, request: dict[str, Any]) -> bool:
        """Send a request; False if the process has ended."""
        if self.ended or self._process.poll() is not None:
            return False
        try:
            self._channel.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            return False
        return True

    def answers(self, seconds: float) -> list[dict[str, Any]]:
        """What it says within ``seconds``; notes in :attr:`ended` that it will say no more."""
        if self.ended or not select.select([self._channel], [], [], seconds)[0]:
            return []
        try:
            data = self._channel.recv(1 << 16)
        except OSError:
            data = b""
        self.ended = not data
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def said(self) -> str:
        """The last line it printed."""
        self._output.seek(0)
        lines = self._output.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End it; a fork that is at work ends with it."""
        self.ended = True
        self._channel.close()
        self._process.kill()
        self._process.wait()
        self._output.close()


_idle: dict[str, list[Resident]] = {}  # key -> those not at work; the longest unused key first
_unfit: dict[str, str] = {}  # key -> why a resident process cannot serve it
_lock = threading.Lock()


def close_residents() -> None:
    """End all resident processes that are not at work."""
    with _lock:
        residents = [resident for several in _idle.values() for resident in several]
        _idle.clear()
    for resident in residents:
        resident.close()


def _take(key: str) -> Resident | None:
    with _lock:
        several = _idle.get(key)
        return several.pop() if several else None


def _give_back(key: str, resident: Resident) -> None:
    surplus: list[Resident] = []
    with _lock:
        _idle[key] = [*_idle.pop(key, []), resident]
        while sum(len(several) for several in _idle.values()) > MOST_IDLE:
            oldest = next(name for name, several in _idle.items() if several)
            surplus.append(_idle[oldest].pop(0))
    for other in surplus:
        other.close()


def _key(request: Request, environment: Environment) -> str:
    """What a resident process is bound to: the interpreter, the adapter, and all variables it started with."""
    kind = request.device.partition(":")[0]
    variables = worker_environment(environment, request.threads)
    return json.dumps([str(environment.python), environment.lock, request.adapter, kind, variables], sort_keys=True)


def _forget() -> None:
    """In a fork of the core: its resident processes are the parent's."""
    _idle.clear()


atexit.register(close_residents)
os.register_at_fork(after_in_child=_forget)


def worker_environment(environment: Environment, threads: int) -> dict[str, str]:
    """The variables a worker starts with: threads pinned, the core's own packages out of reach."""
    variables = child_environment(environment.pythonpath)
    if environment.package is not None:
        variables[PACKAGE_VARIABLE] = environment.package
    for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
        variables[f"{name}_NUM_THREADS"] = str(threads)
    variables["VECLIB_MAXIMUM_THREADS"] = str(threads)
    variables["PYTHONHASHSEED"] = "0"  # the order of sets must not vary from run to run
    variables["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # an import that asks for a GPU must not initialise it: see Forked
    variables[PARENT_VARIABLE] = str(os.getpid())
    return variables


def _high_water_mb(pid: int) -> float:
    """Largest resident memory of a living process so far (10⁶ bytes), or 0 where there is no ``/proc``."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            line = next((line for line in status if line.startswith("VmHWM:")), "")
    except OSError:
        return 0.0
    return int(line.split()[1]) * 1024 / 1e6 if line else 0.0
