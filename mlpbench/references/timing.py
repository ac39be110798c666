"""What one frame costs with the reference method: measured here, on the frames that the potentials are timed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.backends.registry import BackendConfig, home
from mlpbench.errors import UserError
from mlpbench.evaluators.speed import REFERENCE
from mlpbench.frames import Frames
from mlpbench.protocol import ProtocolError, read_json, write_json
from mlpbench.references.labels import label_keys
from mlpbench.references.methods import complete_method, environment_of, require_open
from mlpbench.references.walltimes import time_frames
from mlpbench.seeds import digest


def time_reference(
    frames: Frames,
    method: dict[str, Any],
    backend: BackendConfig,
    *,
    threads: int,
    machine: dict[str, Any],
    count: int = 3,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Seconds per frame (energy and forces) of ``method``; measured once per machine, method, frames and threads.

    The first frame is computed twice: its first run pays for imports and tables (``cold_seconds``), the second counts.

    Args:
        frames: frames of a test split; the first ``count`` are used.
        method: of the reference code (see :func:`mlpbench.references.methods.complete_method`).
        backend: whose environment has the code.
        threads: of the code.
        machine: what :func:`mlpbench.devices.hardware` says.
        count: frames to time.
        cache: folder of the measurements; None: ``timings`` in mlpbench's home.

    Returns:
        ``seconds`` (one a frame), ``cold_seconds``, ``threads``, ``method``, ``cpu``, ``source``, ``conditions`` (see
        :class:`mlpbench.worker.timing.machine.Watch`) and ``busy``: others were computing meanwhile; such a measurement
        is not kept.

    Raises:
        UserError: the environment is not built, the code fails, or a frame does not converge.
    """
    method = complete_method(method)
    few = frames.select(slice(min(count, len(frames))))
    require_open(method, bool(few.pbc.any()))
    keys = label_keys(few, method)
    folder = home() / "timings" if cache is None else cache
    path = folder / f"{digest([keys, method, threads, machine.get('cpu')])[:32]}.json"
    try:
        return read_json(path)
    except (FileNotFoundError, ProtocolError):
        pass  # never measured here, or cut short: it is measured now
    answers, _, conditions = time_frames(few, method, backend, threads, lambda _: None)
    seconds = [float(answer["seconds"]) for answer in answers]
    found = {
        "seconds": seconds[1:], "cold_seconds": seconds[0], "threads": threads, "method": method,
        "cpu": machine.get("cpu"), "source": "measured on this machine", "conditions": conditions,
        "busy": conditions["busy"], "version": answers[0]["version"],
    }  # fmt: skip
    if not conditions["busy"]:  # a time taken while others were computing is told, but not kept for later studies
        write_json(path, found)
    return found


def time_for_trial(
    directory: Path,
    options: dict[str, Any],
    frames: Frames,
    backends: dict[str, BackendConfig],
    machine: dict[str, Any],
) -> dict[str, Any]:
    """Time the reference beside a trial's ``speed`` task, and leave what came of it in its folder.

    What hinders it becomes ``status: skipped`` and a reason: the potential's own speed does not depend on it.

    Args:
        directory: the trial's folder; ``speed_reference.json`` is written there.
        options: ``evaluation.speed``; its ``reference`` has ``frames``, ``threads`` and ``method``, or is null.
        frames: the split whose frames the potential was timed on.
        backends: all backends.
        machine: what :func:`mlpbench.devices.hardware` says.
    """
    wanted = options.get("reference")
    if not wanted:
        return {}
    try:
        method = complete_method(wanted["method"])
        backend = environment_of(method, backends)
        found = time_reference(
            frames, method, backend, threads=wanted["threads"], machine=machine, count=wanted["frames"]
        )
        status = {"status": "done", "reason": "", **found, "median_seconds": float(np.median(found["seconds"]))}
    except UserError as error:
        status = {"status": "skipped", "reason": str(error).replace("\n ", ";")}
    write_json(directory / REFERENCE, status)
    return status
