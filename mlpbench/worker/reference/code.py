"""What a reference code is: a class made from a method's settings, whose object computes structures."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

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


def load(path: str) -> Any:
    """The class or function at ``module:Name`` or ``module.Name``.

    Raises:
        ImportError: there is no such module.
        AttributeError: the module has no such name.
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    return getattr(importlib.import_module(module), name)
