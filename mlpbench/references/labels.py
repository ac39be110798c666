"""Labels from a reference method, kept by geometry and method, so that no frame is ever paid for twice."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.backends.environment import resolve
from mlpbench.backends.launcher import worker_environment
from mlpbench.backends.locks import home
from mlpbench.backends.schema import BackendConfig
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Float, Int
from mlpbench.protocol import ProtocolError, read_json, write_json

SCRIPTS = {"pyscf": Path(__file__).parent / "pyscf_script.py"}

# What a method is made of, with the values a configuration may leave out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "pyscf": {"density_fit": False, "grid_level": 3, "conv_tol": 1e-9, "charge": 0, "spin": 0},
}
REQUIRED = {"pyscf": ("xc", "basis")}


@dataclass(frozen=True)
class Label:
    """What the reference method says of one frame.

    Attributes:
        energy: eV, total.
        forces: (N, 3) eV/Å.
        seconds: it took; what it cost when it was computed, also where it came from the cache.
        cached: True if it was there already.
    """

    energy: float
    forces: Float
    seconds: float
    cached: bool


def complete_method(method: dict[str, Any]) -> dict[str, Any]:
    """``method`` with ``code`` and all its settings.

    Raises:
        UserError: an unknown code or setting, or one that is missing.
    """
    code = method.get("code", "")
    if code not in SCRIPTS:
        raise UserError(f"reference code '{code}' is not known", close_match(str(code), SCRIPTS))
    known = {"code", *REQUIRED[code], *DEFAULTS[code]}
    for name in method:
        if name not in known:
            raise UserError(f"the reference method {code} has no setting '{name}'", close_match(name, known))
    for name in REQUIRED[code]:
        if not method.get(name):
            raise UserError(f"the reference method {code} needs '{name}'", f"Set ...own_trajectory.reference.{name}.")
    return {**DEFAULTS[code], **method}


def label_key(numbers: Int, positions: Float, method: dict[str, Any]) -> str:
    """sha256 of an open structure and a complete method; positions in Å, to the last bit."""
    text = json.dumps(method, sort_keys=True)
    parts = (text.encode(), np.asarray(numbers, "<i8").tobytes(), np.ascontiguousarray(positions, "<f8").tobytes())
    return hashlib.sha256(b"".join(parts)).hexdigest()


def label(
    numbers: Int,
    geometries: Sequence[Float],
    method: dict[str, Any],
    backend: BackendConfig,
    *,
    seconds: float | None = None,
    threads: int = 1,
    cache: Path | None = None,
) -> list[Label | None]:
    """Labels of ``geometries``; None where the method did not converge or the time ran out.

    Args:
        numbers: (N,) atomic numbers, the same for all.
        geometries: (N, 3) Å each.
        method: as :func:`complete_method` gives it.
        backend: whose environment has the code.
        seconds: no new calculation is begun after this; None: no limit.
        threads: of the code.
        cache: folder of the labels; None: ``labels`` in mlpbench's home, shared by all studies.

    Raises:
        UserError: the environment is not built, or the code could not be run; names the reason.
    """
    folder = home() / "labels" if cache is None else cache
    keys = [label_key(numbers, positions, method) for positions in geometries]
    found = {key: _read(folder, key) for key in keys}
    missing = [k for k, key in enumerate(keys) if found[key] is None]
    if missing:
        frames = [
            {"id": keys[k], "numbers": np.asarray(numbers).tolist(), "positions": np.asarray(geometries[k]).tolist()}
            for k in missing
        ]
        _run(frames, method, backend, seconds, threads, folder)
    answers: list[Label | None] = []
    for k, key in enumerate(keys):
        data = found[key] or _read(folder, key)
        usable = data is not None and data["converged"]
        answers.append(
            Label(data["energy"], np.array(data["forces"]), data["seconds"], k not in missing)
            if data is not None and usable
            else None
        )
    return answers


def _read(folder: Path, key: str) -> dict[str, Any] | None:
    try:
        return read_json(folder / key[:2] / f"{key}.json")
    except (FileNotFoundError, ProtocolError):
        return None  # not there, or cut short by a full disk: it is computed (again)


def _run(
    frames: list[dict[str, Any]],
    method: dict[str, Any],
    backend: BackendConfig,
    seconds: float | None,
    threads: int,
    folder: Path,
) -> None:
    """Compute ``frames`` and file what came of them, even if it broke down midway."""
    by_id = {frame["id"]: frame for frame in frames}
    with tempfile.TemporaryDirectory(prefix="mlpbench-label-") as scratch:
        place = Path(scratch)
        try:
            run_frames(frames, method, backend, seconds, threads, place)
        finally:
            for key, frame in by_id.items():
                path = place / f"{key}.json"
                if path.exists():
                    answer = {**read_json(path), "method": method, "numbers": frame["numbers"]}
                    write_json(folder / key[:2] / path.name, answer)


def run_frames(
    frames: list[dict[str, Any]],
    method: dict[str, Any],
    backend: BackendConfig,
    seconds: float | None,
    threads: int,
    place: Path,
) -> list[dict[str, Any]]:
    """Compute ``frames`` in the environment of the code; answers as its script writes them, in order.

    Args:
        frames: ``id, numbers, positions`` (Å) each.
        method: as :func:`complete_method` gives it.
        backend: whose environment has the code.
        seconds: no new calculation is begun after this; None: no limit.
        threads: of the code.
        place: folder for the request and the answers (``<id>.json``).

    Raises:
        UserError: the environment is not built, or the code could not be run; what was finished lies in ``place``.
    """
    environment = resolve(backend)
    write_json(place / "request.json", {"method": method, "frames": frames, "seconds": seconds})
    script = SCRIPTS[method["code"]]
    done = subprocess.run(
        [str(environment.python), "-P", "-s", str(script), str(place / "request.json")],
        env=worker_environment(environment, threads), cwd=place, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(
            f"{method['code']} ended with code {done.returncode} while labelling frames: {last}",
            f"Check its environment: mlpbench env check {backend.name}",
        )
    paths = [place / f"{frame['id']}.json" for frame in frames]
    return [read_json(path) for path in paths if path.exists()]
