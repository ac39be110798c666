"""What a reference code is: a class made from a method's settings, whose object computes structures."""

from __future__ import annotations

import importlib
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlpbench.protocol import replacing
from mlpbench.worker.process import die_with_parent

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Structure:
    """What is computed: (N,) atomic numbers, (N, 3) positions in Å, (3, 3) cell in Å (rows; zero: none), (3,) pbc."""

    numbers: Array
    positions: Array
    cell: Array
    pbc: Array

    @classmethod
    def from_request(cls, frame: dict[str, Any]) -> Structure:
        """A frame as the request has it; ``cell`` and ``pbc`` are only there where something is periodic."""
        return cls(
            np.asarray(frame["numbers"], dtype=np.int64),
            np.asarray(frame["positions"], dtype=np.float64),
            np.asarray(frame.get("cell", np.zeros((3, 3))), dtype=np.float64),
            np.asarray(frame.get("pbc", [False] * 3), dtype=bool),
        )


@dataclass(frozen=True)
class Answer:
    """What a code says of a structure.

    Attributes:
        energy: eV, total, the one whose derivative the forces are.
        forces: (N, 3) eV/Å.
        stress: (6,) eV/Å³, Voigt xx yy zz yz xz xy, ASE's sign; None where there is none.
    """

    energy: float
    forces: Array
    stress: Array | None = None


class NotConverged(Exception):
    """The code ran to its end and found no solution; trying again would end the same way."""


class Code(Protocol):
    """A reference code. Importing its module imports the package; the object is made once a process."""

    packages: tuple[str, ...]

    def __init__(self, method: dict[str, Any]) -> None:
        """``method``: the settings, as the core's schema gives them."""

    @property
    def version(self) -> str:
        """Name and version of the package, for the level of theory in a file."""

    def compute(self, structure: Structure) -> Answer:
        """Energy and forces.

        Raises:
            NotConverged: see there.
        """


def kpoint_mesh(cell: Array, pbc: Array, density: float) -> list[int]:
    """Numbers of k-points along each reciprocal vector, one along open directions.

    Args:
        cell: (3, 3) Å, rows.
        pbc: (3,) bool.
        density: k-points per Å⁻¹, in Å: at least ``density``·|b| along a reciprocal vector b (with its 2π).
    """
    lengths = 2 * np.pi * np.linalg.norm(np.linalg.inv(cell).T, axis=1)
    return [math.ceil(density * b - 1e-9) if periodic else 1 for b, periodic in zip(lengths, pbc, strict=True)]


def load(path: str) -> Any:
    """The class or function at ``module:Name`` or ``module.Name``.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such name.
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    return getattr(importlib.import_module(module), name)


GIVE_UP_AFTER = 3  # frames that broke down before any was computed: it is not the frame's fault then


def main(argv: list[str]) -> int:
    """Label what is left of the request in the folder ``argv[0]``."""
    die_with_parent()
    folder = Path(argv[0])
    begin = time.perf_counter()
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    scratch = folder / f"process-{os.getpid()}"  # codes that write files do it here, apart from one another
    scratch.mkdir()
    os.chdir(scratch)
    code: Code = load(request["code"])(request["method"])
    good = broken = 0
    for frame in request["frames"]:
        if request.get("seconds") is not None and time.perf_counter() - begin > request["seconds"]:
            break
        if not claim(folder / f"{frame['id']}.claim"):
            continue
        answer = label(code, Structure.from_request(frame))
        _write(folder / f"{frame['id']}.json", answer)
        good, broken = good + (not answer["error"]), broken + answer["error"]
        if broken >= GIVE_UP_AFTER and not good:
            break
    return 0


def label(code: Code, structure: Structure) -> dict[str, Any]:
    """The answer for one structure, whatever becomes of it."""
    start = time.perf_counter()
    outcome: dict[str, Any] = {"energy": None, "forces": None, "stress": None, "converged": False, "error": False}
    try:
        answer = code.compute(structure)
        outcome |= {"energy": float(answer.energy), "forces": answer.forces.tolist(), "converged": True, "reason": ""}
        outcome["stress"] = None if answer.stress is None else answer.stress.tolist()
    except NotConverged as error:
        outcome["reason"] = str(error) or "did not converge"
    except Exception as error:  # a code may fail in any way on a bad geometry; the other frames are still wanted
        outcome |= {"error": True, "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    return {**outcome, "seconds": time.perf_counter() - start, "version": code.version}


def claim(path: Path) -> bool:
    """True for the one process that comes first."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _write(path: Path, answer: dict[str, Any]) -> None:
    with replacing(path) as part:
        part.write_text(json.dumps(answer), encoding="utf-8")
