"""A task in a process of its own: what may run out of memory, or crash, or change torch for good, costs only itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlpbench.protocol import CHECKPOINT, EVENTS, LOG, REQUEST, ProtocolError, Request, Result, Task
from mlpbench.worker import parent

BOOTSTRAP = Path(__file__).parents[1] / "bootstrap.py"
POLL = 0.05  # s; a process that takes memory at 5 GB/s gains 250 MB between two looks


def run_child(
    request: Request, folder: Path, task: str, options: dict[str, Any], *, seconds: float, cap_mb: float | None = None
) -> Result:
    """Carry out ``task`` on the trained potential of ``request`` in a child process and return its result.

    Args:
        request: of the trial; the child sees its checkpoint, and writes below ``folder``.
        folder: of the child's own request, log, events and result; what an earlier child left there is removed.
        task: a module of :mod:`mlpbench.worker.tasks`.
        options: of the task.
        seconds: after these the child is ended (status ``timeout``).
        cap_mb: largest resident memory (10⁶ bytes) before it is ended (status ``out_of_memory``); None: no limit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (EVENTS, LOG):
        (folder / name).unlink(missing_ok=True)
    (folder / "tasks" / f"{task}.json").unlink(missing_ok=True)
    link = folder / CHECKPOINT
    if not link.is_symlink():
        link.symlink_to(os.path.relpath(Path(request.directory) / CHECKPOINT, folder))
    replace(request, directory=str(folder), tasks=[Task(task, options=options)]).write(folder / REQUEST)
    # A room of its own: the turn of this machine is the parent's, and waiting for it would be waiting for ever.
    variables = {**os.environ, parent.VARIABLE: str(os.getpid()), "MLPBENCH_TURNS": str(folder / "turns")}
    with open(folder / LOG, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-u", str(BOOTSTRAP), str(folder)],
            cwd=folder, env=variables, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            ended = _follow(process, seconds, cap_mb)
        finally:
            process.kill()
            process.wait()
    return _result(folder, task, ended, process.returncode, seconds, cap_mb)


def _follow(process: subprocess.Popen[bytes], seconds: float, cap_mb: float | None) -> str:
    """Wait for the child; ``""``, ``timeout`` or ``out_of_memory``."""
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            return "timeout"
        if cap_mb is not None and resident_mb(process.pid) > cap_mb:
            return "out_of_memory"
        time.sleep(POLL)
    return ""


def _result(folder: Path, task: str, ended: str, code: int, seconds: float, cap_mb: float | None) -> Result:
    try:
        return Result.read(folder, task)
    except (FileNotFoundError, ProtocolError):
        pass  # it did not get that far; why, is told below
    if ended == "timeout":
        return Result(task, "", "timeout", f"not done after {seconds:g} s")
    if ended == "out_of_memory":
        return Result(task, "", "out_of_memory", f"it needs more than the cap of {cap_mb:.0f} MB")
    if code == -signal.SIGKILL:
        return Result(task, "", "out_of_memory", "the system ended it, most likely for want of memory")
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return Result(task, "", "failed", f"its process ended with code {code}: {lines[-1] if lines else 'no output'}")


def resident_mb(pid: int) -> float:
    """Resident memory of a process now (10⁶ bytes); 0 once it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, IndexError):
        pass  # no /proc, or no such process any more
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return int(found) * 1024 / 1e6 if found.strip() else 0.0


def total_memory_mb() -> float:
    """The machine's memory (10⁶ bytes), or the limit of its control group where that is smaller."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e6
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text) / 1e6)
    return total
