"""Steps with time limits, whose results are kept at once and which a second call does not repeat.

A step returns rows of tables, or raises :class:`Trouble` with one line of reason and the rows it has all the same.
What it starts is a process group of its own: at the limit it is interrupted, so that mlpbench writes its record, then
killed. Standard library only.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Rows = dict[str, list[dict[str, Any]]]  # table -> rows
TABLES = ("agreement", "speed", "md", "packing", "accuracy")
STATE, LOG = "acceptance.json", "acceptance.log"
INSTALLATION = ("install", "import")  # kinds of steps that are repeated on each machine
GRACE = 20.0  # s that an interrupted process has to write what it knows
LEAST = 10.0  # s; with less time left no step is begun
STOPPING = threading.Event()  # set by Ctrl-C: every step interrupts what it has started


class Trouble(Exception):
    """A step did not do all it should: one line of reason, and what was measured all the same."""

    def __init__(self, reason: str, rows: Rows | None = None, status: str = "failed") -> None:
        super().__init__(reason)
        self.rows = rows or {}
        self.status = status


@dataclass
class Step:
    """One thing to do.

    Attributes:
        name: ``kind:detail``.
        seconds: its limit.
        work: called with its clock; returns rows.
        beside: it times nothing, and may run beside its neighbours that have the same word here; empty: alone.
    """

    name: str
    seconds: float
    work: Callable[[Clock], Rows]
    beside: str = ""


@dataclass
class Clock:
    """What a step has used, and how long it may go on."""

    name: str
    end: float
    cpu_seconds: float = 0.0
    tail: str = ""
    begun: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until the step's limit."""
        return self.end - time.monotonic()

    def call(
        self,
        command: Sequence[str],
        variables: dict[str, str],
        log: Path,
        until: Callable[[], bool] | None = None,
        may_fail: bool = False,
    ) -> str:
        """Run ``command`` and return what it printed.

        Args:
            command: with its arguments.
            variables: its whole environment.
            log: file to append its output to.
            until: looked at often; once true, the command is interrupted as by Ctrl-C, which is then no trouble.
            may_fail: whether an exit code other than 0 is no trouble.

        Raises:
            Trouble: the command failed (with the last line it printed), or the limit was reached.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            start = stream.tell()
            process = subprocess.Popen(
                command, env=variables, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        code, stopped = None, False
        while code is None:
            code = self._wait(process)
            if code is None and (STOPPING.is_set() or self.left <= 0 or (until is not None and until())):
                stopped = True
                code = self._stop(process)
                break
            time.sleep(0.02)
        text = log.read_bytes()[start:].decode("utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        self.tail = "\n".join(lines[-12:])
        if stopped and STOPPING.is_set():
            raise Trouble("interrupted by the user", status="interrupted")
        if stopped and self.left <= 0:
            raise Trouble("its time limit was reached", status="timeout")
        if code != 0 and not stopped and not may_fail:
            said = next((line for line in lines if line.startswith("mlpbench:")), lines[-1] if lines else "no output")
            raise Trouble(f"exit code {code}: {said.strip()[:300]}")
        return text

    def _wait(self, process: subprocess.Popen[bytes]) -> int | None:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.cpu_seconds += usage.ru_utime + usage.ru_stime  # with all its descendants that were waited for
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode

    def _stop(self, process: subprocess.Popen[bytes]) -> int | None:
        for number, patience in ((signal.SIGINT, GRACE), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            end = time.monotonic() + patience
            while time.monotonic() < end:
                code = self._wait(process)
                if code is not None:
                    return code
                time.sleep(0.05)
        return None


class Kept:
    """What is known so far, in ``work`` and at once in ``out`` as JSON, CSV tables and a log."""

    def __init__(self, out: Path, work: Path, earlier: Path | None) -> None:
        self.out, self.work = out, work
        self.lock = threading.RLock()
        for folder in (out, work):
            folder.mkdir(parents=True, exist_ok=True)
        known = [f / STATE for f in (work, out, *([earlier] if earlier else [])) if (f / STATE).is_file()]
        self.state: dict[str, Any] = {"machine": {}, "steps": {}, "rows": {}}
        if known:
            self.state = json.loads(known[0].read_text(encoding="utf-8"))
            if earlier is not None and known[0].parent == earlier:  # of another machine: what must be there is not
                steps = self.state["steps"]
                self.state["steps"] = {n: entry for n, entry in steps.items() if n.split(":")[0] not in INSTALLATION}
            log = known[0].with_name(LOG)
            if log.is_file() and not (out / LOG).exists():
                shutil.copy(log, out / LOG)

    def done(self, name: str) -> bool:
        """Whether the step was finished, by this call or an earlier one, or cannot be tried here (no MPS)."""
        return self.state["steps"].get(name, {}).get("status") in ("done", "skipped")

    def add(self, name: str, entry: dict[str, Any], rows: Rows) -> None:
        """Keep what came of a step, in place of what an earlier try gave, and write everything."""
        with self.lock:
            self.state["steps"][name] = entry
            for table in TABLES:
                known, new = self.state["rows"].get(table, []), rows.get(table, [])
                if new or entry["status"] == "done":  # a try that measured nothing takes nothing away
                    known = [row for row in known if row["step"] != name]
                self.state["rows"][table] = known + [{"step": name, **row} for row in new]
            self.write()

    def write(self) -> None:
        """All files, each replaced in one go."""
        text = json.dumps(self.state, indent=1) + "\n"
        for folder in (self.work, self.out):
            _replace(folder / STATE, text)
        for table, rows in self.state["rows"].items():
            if rows:
                part = self.out / f".{table}.part"
                with part.open("w", newline="", encoding="utf-8") as stream:
                    writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
                    writer.writeheader()
                    writer.writerows(rows)
                os.replace(part, self.out / f"{table}.csv")

    def say(self, line: str) -> None:
        """Print a line and keep it."""
        with self.lock:
            print(line, flush=True)
            for folder in (self.work, self.out):
                with (folder / LOG).open("a", encoding="utf-8") as stream:
                    stream.write(line + "\n")


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def run_steps(steps: Sequence[Step], kept: Kept, end: float, side_by_side: int) -> bool:
    """Run the steps in order until ``end`` (monotonic seconds); whether all are done.

    Neighbours that share a word in ``beside`` run at the same time, ``side_by_side`` of them. What an earlier call
    finished is skipped, what failed or ran out of time is tried again.
    """
    todo = [step for step in steps if not kept.done(step.name)]
    if len(todo) < len(steps):
        kept.say(f"{len(steps) - len(todo)} steps were finished by an earlier call")
    while todo:
        group = [todo.pop(0)]
        while group[0].beside and todo and todo[0].beside == group[0].beside:
            group.append(todo.pop(0))
        with ThreadPoolExecutor(max_workers=min(len(group), side_by_side)) as pool:
            try:
                list(pool.map(lambda step: _run(step, kept, end), group))
            except KeyboardInterrupt:
                STOPPING.set()  # before the pool waits for its threads
                raise
    return all(kept.done(step.name) for step in steps)


def _run(step: Step, kept: Kept, end: float) -> None:
    if STOPPING.is_set():
        return
    left = end - time.monotonic()
    if left < LEAST:
        kept.say(f"{step.name:<24} not begun: {max(left, 0):.0f} s are left of the whole; a second call goes on here")
        return
    clock = Clock(step.name, time.monotonic() + min(step.seconds, left))
    status, reason, rows = "done", "", Rows()
    try:
        rows = step.work(clock)
    except Trouble as trouble:
        status, reason, rows = trouble.status, str(trouble), trouble.rows
    except Exception as error:  # a fault of one step must not take the others with it
        status, reason = "failed", f"{type(error).__name__}: {error}"
    wall = time.monotonic() - clock.begun
    entry = {
        "status": status, "reason": reason, "wall_seconds": round(wall, 1), "cpu_seconds": round(clock.cpu_seconds, 1),
        "at": time.strftime("%Y-%m-%d %H:%M:%S"),
    }  # fmt: skip
    kept.add(step.name, entry, rows)
    kept.say(f"{step.name:<24} {status:<8} {wall:6.1f} s wall, {clock.cpu_seconds:6.1f} s CPU  {reason}")
    if status == "failed" and clock.tail:
        kept.say("    | " + clock.tail.replace("\n", "\n    | "))


def after(mark: str, text: str) -> dict[str, Any]:
    """The JSON object behind ``mark`` in what a child printed.

    Raises:
        Trouble: there is none.
    """
    for line in text.splitlines():
        if line.startswith(mark):
            found: dict[str, Any] = json.loads(line.removeprefix(mark))
            return found
    raise Trouble(f"no answer: {(text.strip().splitlines() or ['nothing was printed'])[-1][:200]}")


def read_csv(path: Path) -> list[dict[str, Any]]:
    """The rows of a table; none if it is not there."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
