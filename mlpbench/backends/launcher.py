"""Start a worker in a backend's environment, follow it, and turn whatever becomes of it into results."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlpbench.backends import processes
from mlpbench.backends.processes import POLL, Unfit
from mlpbench.backends.registry import Environment
from mlpbench.devices import one_device
from mlpbench.protocol import EVENTS, HELLO, LOG, REQUEST, TASKS, ProtocolError, Request, Result, Status, Task

OnEvent = Callable[[dict[str, Any]], None]

PATIENCE_TERM = 5.0  # s between asking a worker to end and killing it
PATIENCE_INTERRUPT = 10.0  # s for the worker to write what it has after Ctrl-C
PATIENCE_KILL = 30.0  # s for the system to report a worker that was killed
LOG_LINES = 12  # of the log in a reason


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
        timeout: seconds of work after which the worker is stopped; None: never. Waiting for its turn on the
            machine is no work.
        on_event: called with each event the worker writes, in order.

    Raises:
        KeyboardInterrupt: raised again, once the worker has ended and the results are written.
        OSError: the interpreter cannot be started.
        UserError: the folder of this machine's locks cannot be used.
    """
    directory = Path(request.directory)
    with one_device(request.device, environment) as device:
        request = replace(request, device=device)
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
        finally:
            worker.release()
    return _finish(directory, request, ending)


class _Worker:
    """One worker at work, its events and its end."""

    def __init__(self, request: Request, environment: Environment, on_event: OnEvent | None) -> None:
        directory = Path(request.directory)
        self._request, self._environment = request, environment
        self._events = directory / EVENTS
        self._position = self._events.stat().st_size if self._events.exists() else 0
        self._on_event = on_event
        self._waited = 0.0  # s for its turn
        self._waiting_since: float | None = None  # seconds since 1970
        self._log = directory / LOG
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        self._process = processes.start(request, environment)
        self._code: int | None = None

    def follow(self, timeout: float | None) -> Ending:
        """Pass events on until the worker ends, or has to be ended."""
        start = time.monotonic()
        while self._running(POLL):
            self._pass_events()
            if timeout is not None and time.monotonic() - start - self._waited_seconds() > timeout:
                self.stop()
                self._pass_events()
                return self._ending(timeout=timeout)
        self._process.signal(signal.SIGKILL)  # data loaders and the like that outlived it
        self._pass_events()
        return self._ending()

    def interrupt(self) -> Ending:
        """Forward Ctrl-C, give the worker time to write what it has, and end it."""
        self._process.signal(signal.SIGINT)
        with contextlib.suppress(KeyboardInterrupt):  # a second Ctrl-C: wait no longer
            self._wait(PATIENCE_INTERRUPT)
        self._process.signal(signal.SIGKILL)
        self._wait(PATIENCE_KILL)
        return self._ending(interrupted=True)

    def stop(self) -> None:
        """End the worker and all it started: TERM, then KILL."""
        self._process.signal(signal.SIGTERM)
        self._wait(PATIENCE_TERM)
        self._process.signal(signal.SIGKILL)
        self._wait(PATIENCE_KILL)

    def release(self) -> None:
        """Let the next trial have what this one no longer needs."""
        self._process.release()

    def _waited_seconds(self) -> float:
        now = 0.0 if self._waiting_since is None else max(0.0, time.time() - self._waiting_since)
        return self._waited + now

    def _pass_events(self) -> None:
        if not self._events.exists():
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
            if event is None:
                continue
            if self._waiting_since is not None:
                self._waited += max(0.0, event.get("time", 0.0) - self._waiting_since)
            self._waiting_since = event["time"] if event.get("waiting") else None
            if self._on_event is not None:
                self._on_event(event)

    def _running(self, seconds: float) -> bool:
        """Whether the worker still runs after ``seconds``."""
        if self._code is None:
            try:
                self._code = self._process.wait(seconds)
            except Unfit as unfit:
                self._process.release()
                self._process = processes.fall_back(self._request, self._environment, str(unfit))
        return self._code is None

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self._running(POLL / 4) and time.monotonic() < deadline:
            pass

    def _ending(self, *, timeout: float | None = None, interrupted: bool = False) -> Ending:
        code = -signal.SIGKILL if self._code is None else self._code
        with open(self._log, "ab+") as log:
            log.seek(self._log_start)
            text = log.read().decode("utf-8", "replace")
        process = self._process
        return Ending(code, text, process.peak_mb, timeout=timeout, interrupted=interrupted, cause=process.cause)


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


@dataclass(frozen=True)
class Ending:
    """How a worker's process ended.

    Attributes:
        code: exit code; negative: the signal that killed it.
        log: what it printed during this run.
        peak_memory_mb: largest resident memory seen (10⁶ bytes).
        timeout: the limit in seconds that it exceeded, or None.
        interrupted: whether the user stopped it.
        cause: why it ended, where the exit code does not say so.
    """

    code: int
    log: str
    peak_memory_mb: float
    timeout: float | None = None
    interrupted: bool = False
    cause: str = ""


def verdicts(directory: Path, request: Request, ending: Ending) -> tuple[dict[str, Result], list[str]]:
    """A result for every task of ``request``, and the names of those that the worker did not write itself.

    The first task without a result is the one in which the worker ended; those after it were never begun.
    """
    results: dict[str, Result] = {}
    made: list[str] = []
    broken: Result | None = None  # the first task the worker left without a good result
    for task in request.tasks:
        found, problem = _read(directory, task)
        if found is None:
            status, reason = _missing(task, ending, problem, results, broken)
            found = Result(task.name, task.key, status, reason, peak_memory_mb=ending.peak_memory_mb)
            made.append(task.name)
            broken = broken or found
        results[task.name] = found
    return results, made


def _read(directory: Path, task: Task) -> tuple[Result | None, str]:
    try:
        result = Result.read(directory, task.name)
    except FileNotFoundError:
        return None, ""
    except ProtocolError as error:
        return None, f"the worker's result cannot be used: {error}"
    if result.key != task.key:
        return None, f"the worker's result has the key '{result.key}', expected '{task.key}'"
    return result, ""


def _missing(
    task: Task, ending: Ending, problem: str, results: dict[str, Result], broken: Result | None
) -> tuple[Status, str]:
    """Status and reason of a task without a good result."""
    if problem:
        return "failed", problem
    train = results.get("train")
    if train is not None and train.status != "done":
        return "skipped", f"not attempted, because train is {train.status}: {train.reason}"
    if ending.interrupted:
        return "interrupted", "interrupted by the user; run the same command again to go on"
    if broken is not None:
        return broken.status, f"not reached, because the worker ended in {broken.task}: {broken.reason}"
    if ending.timeout is not None:
        return "timeout", (
            f"stopped after the limit of {ending.timeout:g} s; raise timeout=SECONDS (run again to go on "
            "from the last checkpoint), or take a smaller budget"
        )
    return "failed", _death(ending)


def _death(ending: Ending) -> str:
    if ending.cause:
        return f"{ending.cause}{_tail(ending.log)}"
    if ending.code < 0:
        try:
            name = signal.Signals(-ending.code).name
        except ValueError:
            name = f"signal {-ending.code}"
        cause = " (often the system's out-of-memory killer)" if name == "SIGKILL" else ""
        memory = f"{ending.peak_memory_mb:.0f} MB of memory"
        return f"the worker was killed by {name}{cause}, at {memory}{_tail(ending.log)}"
    if ending.code > 0:
        return f"the worker ended with exit code {ending.code}{_tail(ending.log)}"
    return f"the worker exited normally but left no result{_tail(ending.log)}"


def _tail(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()][-LOG_LINES:]
    return "; it printed nothing" if not lines else f"; the end of {LOG}:\n" + "\n".join(lines)
