"""Labels from a reference method, kept by geometry and method, so that no frame is ever paid for twice."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench import turns
from mlpbench.backends.registry import BackendConfig, home
from mlpbench.errors import UserError
from mlpbench.frames import Float, Frames, Int
from mlpbench.protocol import ProtocolError, read_json, write_json
from mlpbench.references.methods import level_of, require_open
from mlpbench.references.running import request_frames, run_frames


@dataclass(frozen=True)
class Label:
    """What the reference method says of one frame.

    Attributes:
        energy: eV, total.
        forces: (N, 3) eV/Å.
        stress: (6,) eV/Å³, Voigt, ASE's sign; None where there is none.
        seconds: it took; what it cost when it was computed, also where it came from the cache.
        cached: True if it was there already.
        version: name and version of the code.
    """

    energy: float
    forces: Float
    stress: Float | None
    seconds: float
    cached: bool
    version: str


@dataclass(frozen=True)
class Unlabelled:
    """Why a frame has no label.

    Attributes:
        reason: as the code says it; ``out of time`` where it was never begun.
        final: True if another try would end the same way.
    """

    reason: str
    final: bool


OnLabel = Callable[[int, int], None]  # frames that need no more work, all frames


def label_key(
    numbers: Int, positions: Float, method: dict[str, Any], cell: Float | None = None, pbc: Any = False
) -> str:
    """sha256 of a structure and the level of a complete method; positions and cell in Å, to the last bit."""
    text = json.dumps(level_of(method), sort_keys=True)
    parts = [text.encode(), np.asarray(numbers, "<i8").tobytes(), np.ascontiguousarray(positions, "<f8").tobytes()]
    if np.any(pbc):
        parts += [np.ascontiguousarray(cell, "<f8").tobytes(), np.broadcast_to(np.asarray(pbc, bool), 3).tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def label_keys(frames: Frames, method: dict[str, Any]) -> list[str]:
    """:func:`label_key` of each frame."""
    offsets = frames.offsets
    return [
        label_key(frames.numbers[a:b], frames.positions[a:b], method, frames.cell[i], frames.pbc[i])
        for i, (a, b) in enumerate(pairwise(offsets))
    ]


def label(
    frames: Frames,
    method: dict[str, Any],
    backend: BackendConfig,
    *,
    seconds: float | None = None,
    threads: int = 1,
    jobs: int = 1,
    cache: Path | None = None,
    on_label: OnLabel | None = None,
) -> list[Label | Unlabelled]:
    """Labels of ``frames``; a reason where the method did not converge, broke down, or the time ran out.

    Every label is kept as soon as it is there: a call that is interrupted goes on where it was.

    Args:
        frames: their own labels are not looked at.
        method: as :func:`mlpbench.references.methods.complete_method` gives it.
        backend: whose environment has the code.
        seconds: no new calculation is begun after this; None: no limit.
        threads: of the code, in each process.
        jobs: processes at once.
        cache: folder of the labels; None: ``labels`` in mlpbench's home, shared by all studies.
        on_label: called at the start and on each frame (see ``OnLabel``).

    Raises:
        UserError: the environment is not built, the code could not be run or cannot compute such systems.
    """
    require_open(method, bool(frames.pbc.any()))
    folder = home() / "labels" if cache is None else cache
    keys = label_keys(frames, method)
    found = {key: _read(folder, key) for key in keys}
    missing = list(dict.fromkeys(key for key in keys if found[key] is None))
    broken: dict[str, str] = {}
    computed = 0
    if missing:
        first = {key: keys.index(key) for key in missing}
        request = request_frames(frames.select([first[key] for key in missing]), missing)
        by_id = {frame["id"]: frame for frame in request}
        settled = sum(key not in first for key in keys)

        def file(key: str, answer: dict[str, Any]) -> None:
            nonlocal computed
            computed += 1
            if answer["error"]:
                broken[key] = answer["reason"]
            else:
                frame = {k: v for k, v in by_id[key].items() if k != "id"}
                write_json(folder / key[:2] / f"{key}.json", {**answer, "method": level_of(method), **frame})
            if on_label is not None:
                on_label(settled + computed, len(keys))

        if on_label is not None:
            on_label(settled, len(keys))
        with turns.beside_others(), tempfile.TemporaryDirectory(prefix="mlpbench-label-") as scratch:
            run_frames(request, method, backend, seconds, threads, Path(scratch), jobs=jobs, on_answer=file)
    any_label = any(answer is not None and answer["converged"] for answer in found.values())
    if broken and len(broken) == computed and (len(broken) >= 3 or not any_label):
        raise UserError(
            f"{method['code']} failed on every frame it was given: {next(iter(broken.values()))}",
            f"Correct the method's settings, or check its environment: mlpbench env check {backend.name}",
        )
    return [_answer(found[key] or _read(folder, key), key in missing, broken.get(key)) for key in keys]


def _answer(data: dict[str, Any] | None, new: bool, error: str | None) -> Label | Unlabelled:
    if data is None:
        return Unlabelled(error or "out of time", final=False)
    if not data["converged"]:
        return Unlabelled(data.get("reason") or "did not converge", final=True)
    stress = data.get("stress")
    return Label(
        data["energy"], np.array(data["forces"]), None if stress is None else np.array(stress),
        data["seconds"], not new, data.get("version", ""),
    )  # fmt: skip


def _read(folder: Path, key: str) -> dict[str, Any] | None:
    try:
        return read_json(folder / key[:2] / f"{key}.json")
    except (FileNotFoundError, ProtocolError):
        return None  # not there, or cut short by a full disk: it is computed (again)
