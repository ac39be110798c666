"""Wall times of a reference method: of frames and growing systems measured here, or as others published them.

:func:`measure` serves ``mlpbench dft time`` and is kept with a study, :func:`time_for_trial` a trial's ``speed`` task,
:func:`read_published` codes that cannot run here.
"""

from __future__ import annotations

import datetime
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.build import molecule

from mlpbench import turns
from mlpbench.backends.registry import BackendConfig, home
from mlpbench.errors import UserError, close_match
from mlpbench.evaluators.speed import REFERENCE
from mlpbench.files import digest
from mlpbench.frames import Frames
from mlpbench.protocol import ProtocolError, read_json, write_json
from mlpbench.references.labels import label_keys
from mlpbench.references.methods import complete_method, environment_of, level_of, parse_method, require_open
from mlpbench.references.running import request_frames, run_frames
from mlpbench.statistics.extrapolation import fit_power_law
from mlpbench.worker.clock import Watch
from mlpbench.worker.reference.code import kpoint_mesh

FOLDER = "dft"  # in a study's results
FORMAT = 1
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # members of a series that are tried, in this order
AUTO = "auto"
SUPERCELLS = "supercells"
SUPERCELL_MEMBERS = 7
PUBLISHED = Path(__file__).with_name("published_wall_times.csv")
COLUMNS = ("system", "n_atoms", "code", "cores", "seconds_per_step", "source")  # of that file

Say = Callable[[str], None]


def measure(
    frames: Frames,
    method: dict[str, Any],
    backend: BackendConfig,
    *,
    threads: int,
    machine: dict[str, Any],
    count: int = 3,
    series: str | None = AUTO,
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
        series: name of a series of :mod:`mlpbench.references.walltimes`; ``auto``: supercells of the first frame if it
            is periodic in three directions, else alkanes; None: no series.
        series_seconds: no member of the series is begun after these.
        say: told what is being done.

    Returns:
        JSON: ``method``, ``level`` (in words), ``version``, ``threads``, ``hardware``, ``date``, ``system``,
        ``n_atoms``, ``seconds`` (one a frame), ``cold_seconds``, ``start_seconds`` (interpreter, imports), ``series``
        (``name``, ``points`` of ``system, n_atoms, seconds`` and, where the method has a mesh, ``kpoints``), ``fit``
        (seconds = factor·N^exponent, or None) and ``conditions``.

    Raises:
        UserError: the environment is not built, the code fails, a frame does not converge, or supercells were asked for
            of a system that is not periodic in three directions.
    """
    method = complete_method(method)
    few = frames.select(slice(min(count, len(frames))))
    require_open(method, bool(few.pbc.any()))
    first = few.to_atoms()[0]
    if series == AUTO:
        series = SUPERCELLS if first.pbc.all() else "alkanes"
    members = [] if series is None else _members(series, first)
    say(f"{len(few)} frames, {threads} thread{'s' * (threads > 1)}")
    answers, start_seconds, conditions = time_frames(few, method, backend, threads, say)
    measured: dict[str, Any] = {
        "format": FORMAT, "method": method, "level": parse_method(method).words(), "version": answers[0]["version"],
        "threads": threads, "hardware": machine, "date": datetime.date.today().isoformat(),
        "system": first.get_chemical_formula(), "n_atoms": float(np.mean(few.n_atoms)),
        "seconds": [answer["seconds"] for answer in answers[1:]], "cold_seconds": answers[0]["seconds"],
        "start_seconds": start_seconds, "source": "measured on this machine", "series": None, "fit": None,
    }  # fmt: skip
    if series is not None:
        say(f"series of {series}, at most {series_seconds:g} s")
        points, later = _series(members, method, backend, threads, series_seconds, say)
        measured["series"] = {"name": series, "points": points}
        conditions = max(conditions, later, key=lambda one: float(one["others_cores"] or 0.0))  # the busier of both
        law = fit_power_law([p["n_atoms"] for p in points], [p["seconds"] for p in points])
        measured["fit"] = None if law is None else {k: v for k, v in asdict(law).items() if np.isfinite(v)}
    return {**measured, "conditions": conditions}


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
    members: list[Atoms], method: dict[str, Any], backend: BackendConfig, threads: int, seconds: float, say: Say
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The members that were computed, and the conditions."""
    answers, _, conditions = _run(Frames.from_atoms(members), method, backend, threads, seconds, say)
    points = [
        {
            "system": atoms.get_chemical_formula(),
            "n_atoms": len(atoms),
            "seconds": answer["seconds"],
            **_mesh(atoms, method),
        }
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


def keep(folder: Path, measured: dict[str, Any]) -> Path:
    """Write a measurement to ``folder``; one of the same method, threads and hardware before it is replaced."""
    who = digest([level_of(measured["method"]), measured["hardware"].get("cpu"), measured["hardware"].get("gpus")])
    path = folder / f"{measured['method']['code']}-{who[:8]}-threads{measured['threads']}.json"
    write_json(path, measured)
    return path


def load_kept(folder: Path) -> list[dict[str, Any]]:
    """The measurements in ``folder``, by file name.

    Raises:
        ProtocolError: one of them cannot be read, or is of another version.
    """
    measurements = []
    for path in sorted(folder.glob("*-threads*.json")):
        data = read_json(path)
        if data.get("format") != FORMAT:
            raise ProtocolError(f"{path}: format {data.get('format')}, this version reads format {FORMAT}")
        measurements.append(data)
    return measurements


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
        :class:`mlpbench.worker.clock.Watch`) and ``busy``: others were computing meanwhile; such a measurement
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
    measured = {
        "seconds": seconds[1:], "cold_seconds": seconds[0], "threads": threads, "method": method,
        "cpu": machine.get("cpu"), "source": "measured on this machine", "conditions": conditions,
        "busy": conditions["busy"], "version": answers[0]["version"],
    }  # fmt: skip
    if not conditions["busy"]:  # a time taken while others were computing is told, but not kept for later studies
        write_json(path, measured)
    return measured


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
        measured = time_reference(
            frames, method, backend, threads=wanted["threads"], machine=machine, count=wanted["frames"]
        )
        status = {"status": "done", "reason": "", **measured, "median_seconds": float(np.median(measured["seconds"]))}
    except UserError as error:
        status = {"status": "skipped", "reason": str(error).replace("\n ", ";")}
    write_json(directory / REFERENCE, status)
    return status


def read_published(path: Path = PUBLISHED) -> list[dict[str, Any]]:
    """Times of codes that cannot run here, one mapping a row.

    Each has ``system``, ``n_atoms``, ``code``, ``cores`` (None: not recorded), ``seconds_per_step`` (wall
    time of one self-consistent energy with forces, s) and ``source``, which none may lack.

    Raises:
        UserError: no such file, a column is missing, or a row has no source or no positive number.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as CSV: {error}") from error
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise UserError(f"{path} has no column {', '.join(missing)}", f"It needs: {', '.join(COLUMNS)}")
    rows = []
    for number, row in enumerate(table.to_dict("records"), start=2):
        size, seconds = pd.to_numeric([row["n_atoms"], row["seconds_per_step"]], errors="coerce")
        if not (size > 0 and seconds > 0):
            raise UserError(f"{path}, line {number}: n_atoms and seconds_per_step must be positive numbers")
        if not isinstance(row["source"], str) or not row["source"].strip():
            raise UserError(f"{path}, line {number}: a published time needs its source")
        cores = None if pd.isna(row["cores"]) else int(row["cores"])
        rows.append({"system": str(row["system"]), "n_atoms": int(size), "code": str(row["code"]), "cores": cores,
                     "seconds_per_step": float(seconds), "source": row["source"]})  # fmt: skip
    return rows


# Å and degrees, usual values of the textbooks; cost does not depend on their last digit.
CC, CH = 1.53, 1.09
CCC = np.deg2rad(112.0)
HCH = np.deg2rad(107.0)
OO = 2.9  # Å between neighbours of the water grid


def alkane(n: int) -> Atoms:
    """All-trans CₙH₂ₙ₊₂: 3n + 2 atoms; the carbons lie as a zigzag in the xy plane.

    Args:
        n: carbon atoms, from 1.
    """
    if n == 1:
        methane: Atoms = molecule("CH4")
        return methane
    step = np.array([CC * np.sin(CCC / 2), CC * np.cos(CCC / 2), 0.0])
    carbons = np.array([[i * step[0], (i % 2) * step[1], 0.0] for i in range(n)])
    hydrogens: list[np.ndarray] = []
    for i, carbon in enumerate(carbons):
        side = np.array([0.0, 1.0 if i % 2 else -1.0, 0.0])  # away from both neighbours
        if 0 < i < n - 1:
            pair = (np.cos(HCH / 2) * side + sign * np.sin(HCH / 2) * np.array([0, 0, 1.0]) for sign in (1, -1))
            hydrogens += [carbon + CH * direction for direction in pair]
        else:
            inner = carbons[1] if i == 0 else carbons[n - 2]
            axis = (carbon - inner) / CC
            hydrogens += [carbon + CH * direction for direction in _tetrahedral(axis, side)]
    return Atoms("C" * n + "H" * len(hydrogens), positions=np.concatenate([carbons, np.array(hydrogens)]))


def _tetrahedral(axis: np.ndarray, side: np.ndarray) -> list[np.ndarray]:
    """Three unit vectors at the tetrahedral angle to ``-axis``, staggered to the chain."""
    across = side - (side @ axis) * axis
    across /= np.linalg.norm(across)
    third = np.cross(axis, across)
    cosine, sine = 1 / 3, np.sqrt(8) / 3
    angles = np.deg2rad([0.0, 120.0, 240.0])  # the first hydrogen goes on with the zigzag
    return [cosine * axis + sine * (np.cos(a) * across + np.sin(a) * third) for a in angles]


def water(n: int) -> Atoms:
    """(H₂O)ₙ on a cubic grid: 3n atoms."""
    side = 1
    while side**3 < n:
        side += 1
    grid = [(i, j, k) for i in range(side) for j in range(side) for k in range(side)][:n]
    cluster = Atoms()
    for place in grid:
        one = molecule("H2O")
        one.translate(np.array(place) * OO)
        cluster += one
    return cluster


def supercells(crystal: Atoms) -> list[Atoms]:
    """The crystal itself, then doubled along its shortest vector again and again: 1, 2, 4 ... 64 times its atoms."""
    members = [crystal]
    while len(members) < SUPERCELL_MEMBERS:
        times = [1, 1, 1]
        times[int(np.argmin(members[-1].cell.lengths().round(6)))] = 2
        members.append(members[-1].repeat(times))
    return members


def _members(series: str, first: Atoms) -> list[Atoms]:
    """The structures of a series.

    Raises:
        UserError: see :func:`measure` and :func:`build`.
    """
    if series != SUPERCELLS:
        return [build(series, n) for n in SIZES]
    if not first.pbc.all():
        raise UserError(
            "there are no supercells of a system that is not periodic in three directions",
            f"Take another series: --series {' or '.join(SERIES)}.",
        )
    return supercells(first)


def _mesh(atoms: Atoms, method: dict[str, Any]) -> dict[str, Any]:
    """``kpoints`` of a structure, where the method has a mesh."""
    if "kpoint_density_A" not in method:
        return {}
    mesh = method.get("kpoints") or kpoint_mesh(atoms.cell.array, atoms.pbc, method["kpoint_density_A"])
    return {"kpoints": list(mesh)}


SERIES: dict[str, Callable[[int], Atoms]] = {"alkanes": alkane, "water": water}


def build(name: str, n: int) -> Atoms:
    """The member of size ``n`` of a series.

    Raises:
        UserError: no such series, or ``n`` below 1.
    """
    if name not in SERIES:
        raise UserError(f"there is no series '{name}'", close_match(name, SERIES))
    if n < 1:
        raise UserError(f"a member of the series '{name}' has a size of at least 1, not {n}")
    return SERIES[name](n)
