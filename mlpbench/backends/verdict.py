"""What to make of a worker's end: a result for every task, each with a reason that says what happened."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from mlpbench.protocol import LOG, ProtocolError, Request, Result, Status, Task

LOG_LINES = 12


@dataclass(frozen=True)
class Ending:
    """How a worker's process ended.

    Attributes:
        code: exit code; negative: the signal that killed it.
        log: what it printed during this run.
        peak_memory_mb: largest resident memory seen (10⁶ bytes).
        timeout: the limit in seconds that it exceeded, or None.
        interrupted: whether the user stopped it.
    """

    code: int
    log: str
    peak_memory_mb: float
    timeout: float | None = None
    interrupted: bool = False


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
        return None, f"the worker's result has the key '{result.key}', asked for was '{task.key}'"
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
    return f"the worker ended as if all were well, but left no result{_tail(ending.log)}"


def _tail(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()][-LOG_LINES:]
    return "; it printed nothing" if not lines else f"; the end of {LOG}:\n" + "\n".join(lines)
