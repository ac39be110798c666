"""Start a worker in a backend's environment, follow it, and turn whatever becomes of it into results."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlpbench.backends.locks import Environment
from mlpbench.backends.probe import child_environment
from mlpbench.backends.verdict import Ending, verdicts
from mlpbench.protocol import EVENTS, HELLO, LOG, REQUEST, TASKS, Request, Result

OnEvent = Callable[[dict[str, Any]], None]

BOOTSTRAP = Path(__file__).parents[1] / "worker" / "bootstrap.py"
PARENT_VARIABLE = "MLPBENCH_PARENT"  # process id the worker must not outlive; read by mlpbench.worker.parent
POLL = 0.1  # s
PATIENCE_TERM = 5.0  # s between asking a worker to end and killing it
PATIENCE_INTERRUPT = 10.0  # s for the worker to write what it has after Ctrl-C


def launch(
    request: Request,
    environment: Environment,
    *,
    timeout: float | None = None,
    on_event: OnEvent | None = None,
) -> dict[str, Result]:
    """Carry out ``request`` in ``environment``; every task it asks for gets a result, whatever happens.

    A result is the worker's own, if it was written during this call and can be read; else one that says why
    there is none, which is also written to the trial's folder.

    Args:
        request: what to do; its folder is made if it is not there.
        environment: where to do it.
        timeout: seconds after which the worker is stopped; None: never.
        on_event: called with each event the worker writes, in order.

    Raises:
        KeyboardInterrupt: raised again, once the worker has ended and the results are written.
        OSError: the interpreter cannot be started.
    """
    directory = Path(request.directory)
    _clear(directory, request)
    request.write(directory / REQUEST)
    worker = _Worker(request, environment, on_event)
    try:
        ending = worker.follow(timeout)
    except KeyboardInterrupt:
        ending = worker.interrupt()
        _finish(directory, request, ending)
        raise
    except BaseException:  # on_event failed: the worker must not go on without anyone listening
        worker.stop()
        raise
    return _finish(directory, request, ending)


def worker_environment(environment: Environment, threads: int) -> dict[str, str]:
    """The variables a worker starts with: threads pinned, the core's own packages out of reach."""
    variables = child_environment(environment.pythonpath)
    for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
        variables[f"{name}_NUM_THREADS"] = str(threads)
    variables["VECLIB_MAXIMUM_THREADS"] = str(threads)
    variables["PYTHONHASHSEED"] = "0"  # the order of sets must not vary from run to run
    variables[PARENT_VARIABLE] = str(os.getpid())
    return variables


class _Worker:
    """One worker process, its events and its end."""

    def __init__(self, request: Request, environment: Environment, on_event: OnEvent | None) -> None:
        directory = Path(request.directory)
        self._events = directory / EVENTS
        self._position = self._events.stat().st_size if self._events.exists() else 0
        self._on_event = on_event
        self._peak_mb = 0.0
        self._log = directory / LOG
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [str(environment.python), "-P", "-s", "-u", str(BOOTSTRAP), str(directory)],
                cwd=directory, env=worker_environment(environment, request.threads), stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def follow(self, timeout: float | None) -> Ending:
        """Pass events on until the worker ends, or has to be ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._running():
            self._pass_events()
            if deadline is not None and time.monotonic() > deadline:
                self.stop()
                self._pass_events()
                return self._ending(timeout=timeout)
            time.sleep(POLL)
        self._kill_group()  # data loaders and the like that outlived it
        self._pass_events()
        return self._ending()

    def interrupt(self) -> Ending:
        """Forward Ctrl-C, give the worker time to write what it has, and end it."""
        self._signal(signal.SIGINT)
        with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C: wait no longer
            self._wait(PATIENCE_INTERRUPT)
        self._kill_group()
        self._wait(None)
        return self._ending(interrupted=True)

    def stop(self) -> None:
        """End the worker and all it started: TERM, then KILL."""
        self._signal(signal.SIGTERM)
        self._wait(PATIENCE_TERM)
        self._kill_group()
        self._wait(None)

    def _pass_events(self) -> None:
        if not self._events.exists() or self._on_event is None:
            return
        size = self._events.stat().st_size
        if size == self._position:
            return
        with open(self._events, "rb") as stream:
            stream.seek(self._position)
            whole = stream.read(size - self._position).rpartition(b"\n")[0]
        if not whole:
            return  # a line still being written
        self._position += len(whole) + 1
        for line in whole.splitlines():
            event = _event(line)
            if event is not None:
                self._on_event(event)

    def _running(self) -> bool:
        """Whether the process lives; notes its peak memory, and reaps it when it has ended."""
        if self._process.returncode is not None:
            return False
        self._peak_mb = max(self._peak_mb, _high_water_mb(self._process.pid))
        pid, status, usage = os.wait4(self._process.pid, os.WNOHANG)
        if pid == 0:
            return True
        self._process.returncode = os.waitstatus_to_exitcode(status)
        if not self._peak_mb:  # no /proc: the kernel's figure, which counts the parent's memory at the fork as well
            self._peak_mb = usage.ru_maxrss * _RSS_UNIT / 1e6
        return False

    def _wait(self, seconds: float | None) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        while self._running() and (deadline is None or time.monotonic() < deadline):
            time.sleep(POLL / 4)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
            os.killpg(self._process.pid, number)

    def _kill_group(self) -> None:
        self._signal(signal.SIGKILL)

    def _ending(self, *, timeout: float | None = None, interrupted: bool = False) -> Ending:
        code = self._process.returncode
        assert code is not None
        with open(self._log, "rb") as log:
            log.seek(self._log_start)
            text = log.read().decode("utf-8", "replace")
        return Ending(code=code, log=text, peak_memory_mb=self._peak_mb, timeout=timeout, interrupted=interrupted)


_RSS_UNIT = 1 if os.uname().sysname == "Darwin" else 1024


def _high_water_mb(pid: int) -> float:
    """Largest resident memory of a living process so far (10⁶ bytes), or 0 where there is no ``/proc``."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            line = next((line for line in status if line.startswith("VmHWM:")), "")
    except OSError:
        return 0.0
    return int(line.split()[1]) * 1024 / 1e6 if line else 0.0


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None  # half a line of a worker that was killed
    return event if isinstance(event, dict) else None


def _clear(directory: Path, request: Request) -> None:
    """Remove what earlier runs left where this one's results will be looked for."""
    (directory / TASKS).mkdir(parents=True, exist_ok=True)
    (directory / HELLO).unlink(missing_ok=True)
    for task in request.tasks:
        (directory / TASKS / f"{task.name}.json").unlink(missing_ok=True)


def _finish(directory: Path, request: Request, ending: Ending) -> dict[str, Result]:
    results, made = verdicts(directory, request, ending)
    for name in made:
        results[name].write(directory)
    return results
