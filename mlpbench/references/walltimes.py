"""What DFT costs: frames of a data set and growing molecules, timed with a reference code and kept with a study."""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlpbench import turns
from mlpbench.backends.registry import BackendConfig
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.protocol import ProtocolError, read_json, write_json
from mlpbench.references.methods import complete_method, level_of, parse_method, require_open
from mlpbench.references.running import request_frames, run_frames
from mlpbench.references.series import build
from mlpbench.seeds import digest
from mlpbench.statistics.extrapolation import fit_power_law
from mlpbench.worker.timing.machine import Watch

FOLDER = "dft"  # in a study's results
FORMAT = 1
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # members of a series that are tried, in this order

Say = Callable[[str], None]


def measure(
    frames: Frames,
    method: dict[str, Any],
    backend: BackendConfig,
    *,
    threads: int,
    machine: dict[str, Any],
    count: int = 3,
    series: str | None = "alkanes",
    series_seconds: float = 120.0,
    say: Say = print,
) -> dict[str, Any]:
    """Time energy and forces of ``count`` frames and of a series, one calculation at a time.

    The frames and the series each get a new process. In each the first structure is computed twice: its first
    run pays for tables and libraries (``cold_seconds``) and does not count.

    Args:
        frames: of the data set; the first ``count`` are timed.
        method: of the reference code.
        backend: whose environment has it.
        threads: of the code.
        machine: what :func:`mlpbench.devices.hardware` says.
        count: frames.
        series: name of a series of :mod:`mlpbench.references.series`; None: no series.
        series_seconds: no member of the series is begun after these.
        say: told what is being done.

    Returns:
        JSON: ``method``, ``level`` (in words), ``version``, ``threads``, ``hardware``, ``date``, ``system``,
        ``n_atoms``, ``seconds`` (one a frame), ``cold_seconds``, ``start_seconds`` (interpreter, imports), ``series``
        (``name``, ``points`` of ``system, n_atoms, seconds``), ``fit`` (seconds = factor·N^exponent, or None) and
        ``conditions``.

    Raises:
        UserError: the environment is not built, the code fails, or a frame does not converge.
    """
    method = complete_method(method)
    few = frames.select(slice(min(count, len(frames))))
    require_open(method, bool(few.pbc.any()))
    say(f"{len(few)} frames, {threads} thread{'s' * (threads > 1)}")
    answers, start_seconds, conditions = time_frames(few, method, backend, threads, say)
    found: dict[str, Any] = {
        "format": FORMAT, "method": method, "level": parse_method(method).words(), "version": answers[0]["version"],
        "threads": threads, "hardware": machine, "date": datetime.date.today().isoformat(),
        "system": few.to_atoms()[0].get_chemical_formula(), "n_atoms": float(np.mean(few.n_atoms)),
        "seconds": [answer["seconds"] for answer in answers[1:]], "cold_seconds": answers[0]["seconds"],
        "start_seconds": start_seconds, "source": "measured on this machine", "series": None, "fit": None,
    }  # fmt: skip
    if series is not None:
        say(f"series of {series}, at most {series_seconds:g} s")
        points, later = _series(series, method, backend, threads, series_seconds, say)
        found["series"] = {"name": series, "points": points}
        conditions = max(conditions, later, key=lambda one: float(one["others_cores"] or 0.0))  # the busier of both
        law = fit_power_law([p["n_atoms"] for p in points], [p["seconds"] for p in points])
        found["fit"] = None if law is None else {k: v for k, v in asdict(law).items() if np.isfinite(v)}
    return {**found, "conditions": conditions}


def time_frames(
    frames: Frames, method: dict[str, Any], backend: BackendConfig, threads: int, say: Say
) -> tuple[list[dict[str, Any]], float, dict[str, Any]]:
    """Answers for the first of F frames, a cold start, and then for all F; seconds outside of them; the conditions.

    Raises:
        UserError: the environment is not built, the code fails, or a frame does not converge.
    """
    answers, start_seconds, conditions = _run(frames, method, backend, threads, None, say)
    bad = next((answer["reason"] for answer in answers if not answer["converged"]), None)
    if bad is not None or len(answers) < len(frames) + 1:
        raise UserError(f"the reference method did not label every frame it was timed on: {bad or 'it ended early'}")
    return answers, start_seconds, conditions


def _series(
    name: str, method: dict[str, Any], backend: BackendConfig, threads: int, seconds: float, say: Say
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The members that were computed, and the conditions."""
    members: list[Atoms] = [build(name, n) for n in SIZES]
    answers, _, conditions = _run(Frames.from_atoms(members), method, backend, threads, seconds, say)
    points = [
        {"system": atoms.get_chemical_formula(), "n_atoms": len(atoms), "seconds": answer["seconds"]}
        for atoms, answer in zip(members, answers[1:], strict=False)
        if answer["converged"]
    ]
    return points, conditions


def _run(
    frames: Frames, method: dict[str, Any], backend: BackendConfig, threads: int, seconds: float | None, say: Say
) -> tuple[list[dict[str, Any]], float, dict[str, Any]]:
    """Answers for the first frame and then for all of them, the seconds outside of calculations, and the conditions."""
    order = [0, *range(len(frames))]
    request = request_frames(frames.select(order), [f"{i:04d}" for i in range(len(order))])
    waiting = "waiting: a trial is at work on this machine"
    with turns.alone(lambda: say(waiting)), tempfile.TemporaryDirectory(prefix="mlpbench-timing-") as scratch:
        watch, start = Watch(threads, str(method.get("device", "cpu"))), time.perf_counter()
        answers = run_frames(request, method, backend, seconds, threads, Path(scratch))
        wall, conditions = time.perf_counter() - start, watch.report()
    return answers, wall - sum(answer["seconds"] for answer in answers), conditions


def keep(folder: Path, found: dict[str, Any]) -> Path:
    """Write a measurement to ``folder``; one of the same method, threads and hardware before it is replaced."""
    who = digest([level_of(found["method"]), found["hardware"].get("cpu"), found["hardware"].get("gpus")])
    path = folder / f"{found['method']['code']}-{who[:8]}-threads{found['threads']}.json"
    write_json(path, found)
    return path


def load_kept(folder: Path) -> list[dict[str, Any]]:
    """The measurements in ``folder``, by file name.

    Raises:
        ProtocolError: one of them cannot be read, or is of another version.
    """
    found = []
    for path in sorted(folder.glob("*-threads*.json")):
        data = read_json(path)
        if data.get("format") != FORMAT:
            raise ProtocolError(f"{path}: format {data.get('format')}, this version reads format {FORMAT}")
        found.append(data)
    return found
