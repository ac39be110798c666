"""Reference codes as processes: several at once over the frames of one request, followed until they end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from mlpbench.backends.environment import resolve
from mlpbench.backends.processes import BOOTSTRAP, worker_environment
from mlpbench.backends.registry import BackendConfig
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.protocol import read_json, write_json
from mlpbench.references.methods import METHODS

WORKER = "mlpbench.worker.reference.code"
POLL = 0.1  # s
PATIENCE = 5.0  # s between asking a process to end and killing it

GIVE_UP_AFTER = 3  # processes that died on a frame before any frame was answered
# The answer for a frame on which the process died (out of memory, a crash of the code itself).
_LOST: dict[str, Any] = {
    "energy": None, "forces": None, "stress": None, "converged": False, "error": True, "seconds": 0.0, "version": "",
}  # fmt: skip

OnAnswer = Callable[[str, dict[str, Any]], None]


def request_frames(frames: Frames, names: Sequence[str]) -> list[dict[str, Any]]:
    """Frames as a request has them; ``names`` become their ``id``."""
    offsets = frames.offsets
    requests = []
    for i, name in enumerate(names):
        part = slice(offsets[i], offsets[i + 1])
        frame: dict[str, Any] = {
            "id": name, "numbers": frames.numbers[part].tolist(), "positions": frames.positions[part].tolist(),
        }  # fmt: skip
        if frames.pbc[i].any() or np.abs(frames.cell[i]).any():
            frame |= {"cell": frames.cell[i].tolist(), "pbc": frames.pbc[i].tolist()}
        requests.append(frame)
    return requests


def run_frames(
    frames: list[dict[str, Any]],
    method: dict[str, Any],
    backend: BackendConfig,
    seconds: float | None,
    threads: int,
    place: Path,
    *,
    jobs: int = 1,
    on_answer: OnAnswer | None = None,
) -> list[dict[str, Any]]:
    """Compute ``frames`` in the environment of the code; answers as its processes write them, in order.

    Args:
        frames: as :func:`request_frames` gives them.
        method: as :func:`mlpbench.references.methods.complete_method` gives it.
        backend: whose environment has the code.
        seconds: no new calculation is begun after this; None: no limit.
        threads: of the code, in each process.
        place: an empty folder for the request and the answers (``<id>.json``).
        jobs: processes at once.
        on_answer: called with ``id`` and answer of each frame as it comes.

    Raises:
        UserError: the environment is not built, or the code could not be started, or dies on every frame; what was
            finished lies in ``place``. A process that dies on a frame costs this frame alone.
    """
    code = METHODS[method["code"]].worker
    seen: set[str] = set()

    def collect() -> None:
        """Pass on the answers that have come since the last call."""
        for frame in frames:
            path = place / f"{frame['id']}.json"
            if frame["id"] not in seen and path.exists():
                seen.add(frame["id"])
                if on_answer is not None:
                    on_answer(frame["id"], read_json(path))

    begin, lost = time.monotonic(), 0
    while True:
        left = None if seconds is None else max(0.0, seconds - (time.monotonic() - begin))
        request = {"code": code, "method": method, "frames": frames, "seconds": left}
        try:
            run_workers(
                WORKER, request, backend, place, threads=threads, jobs=min(jobs, len(frames) - len(seen)),
                collect=collect, complete=lambda: len(seen) == len(frames), what="labelling frames",
            )  # fmt: skip
            break
        except UserError as error:  # a process died, on a frame that it had begun or before any
            begun = [f["id"] for f in frames if f["id"] not in seen and (place / f"{f['id']}.claim").exists()]
            lost += len(begun)
            if not begun or (lost == len(seen) + len(begun) and lost >= GIVE_UP_AFTER):
                raise
            for name in begun:
                write_json(place / f"{name}.json", {**_LOST, "reason": error.message})
            collect()
            if len(seen) == len(frames):
                break
    paths = [place / f"{frame['id']}.json" for frame in frames]
    return [read_json(path) for path in paths if path.exists()]


def run_workers(
    module: str,
    request: dict[str, Any],
    backend: BackendConfig,
    place: Path,
    *,
    threads: int,
    jobs: int,
    collect: Callable[[], None],
    complete: Callable[[], bool],
    what: str,
) -> None:
    """Start ``jobs`` processes of ``module`` on ``request`` and wait for them; none of them outlives this call.

    Args:
        module: of the worker; its ``main`` gets ``place``.
        request: written to ``place/request.json``.
        backend: in whose environment.
        place: an empty folder, shared by the processes.
        threads: of the numerical libraries, in each.
        jobs: how many; at least one.
        collect: called every now and then, and at the end, whatever the end is.
        complete: whether all is there, although a process failed.
        what: they are doing, for the message.

    Raises:
        UserError: the environment is not built, or a process failed and something is missing.
    """
    environment = resolve(backend)
    write_json(place / "request.json", request)
    command = [str(environment.python), "-P", "-s", str(BOOTSTRAP), str(place), module]
    variables = worker_environment(environment, threads)
    processes: list[subprocess.Popen[bytes]] = []
    logs = [place / f"log-{number}" for number in range(max(1, jobs))]
    try:
        for path in logs:
            with open(path, "wb") as log:
                processes.append(_start(command, variables, place, log))
        while any(process.poll() is None for process in processes):
            time.sleep(POLL)
            collect()
    finally:
        _end(processes)
        collect()
    failed = [(p.returncode, log) for p, log in zip(processes, logs, strict=True) if p.returncode != 0]
    if failed and not complete():
        raise UserError(
            f"{backend.name} ended with code {failed[0][0]} while {what}: {_last_line(failed[0][1])}",
            f"Check its environment: mlpbench env check {backend.name}",
        )


def _start(command: list[str], variables: dict[str, str], place: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C reaches us alone, and we end it with all that it started."""
    return subprocess.Popen(
        command, env=variables, cwd=place, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """TERM, then KILL, for those that still run; programs that they started too."""
    running = [process for process in processes if process.poll() is None]
    for number, patience in ((signal.SIGTERM, PATIENCE), (signal.SIGKILL, None)):
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
