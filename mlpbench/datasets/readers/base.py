"""What every reader gives: chunks of frames in eV and Å, their headers, and what was detected or assumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mlpbench.errors import UserError
from mlpbench.frames import Bool, Float, Frames, Int
from mlpbench.units import factor

CHUNK = 1000  # frames converted at a time: bounds the memory of counting, hashing and describing a large set


@dataclass(frozen=True)
class Labels:
    """Names, units and conventions of the labels in a file; None: the format's own, or detected and noted."""

    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    energy_unit: str | None = None
    length_unit: str | None = None
    forces_unit: str | None = None
    stress_unit: str | None = None
    forces_sign: str | None = None
    stress_sign: str | None = None
    stress_order: str | None = None
    index: str = ":"


@dataclass(frozen=True)
class Chunk:
    """Some frames, and one header for each.

    Attributes:
        frames: labels that the file lacks are NaN.
        headers: per frame, the values that are neither geometry nor label (temperature_K, config_type ...).
    """

    frames: Frames
    headers: list[dict[str, Any]]


@dataclass
class Notes:
    """What a reader detected or assumed, each sentence once, in order."""

    sentences: dict[str, None] = field(default_factory=dict)

    def add(self, sentence: str) -> None:
        """Remember ``sentence``."""
        self.sentences.setdefault(sentence)

    def listed(self) -> list[str]:
        """All sentences."""
        return list(self.sentences)


class Reader(Protocol):
    """Reads one file (or folder) chunk by chunk; raises UserError where it cannot be understood."""

    def __call__(self, path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
        """Chunks of at most :data:`CHUNK` frames, in the order of the file."""


@dataclass(frozen=True)
class Factors:
    """Multiply values of a file by these to get eV, Å, eV/Å and eV/Å³; the force factor carries the sign."""

    energy: float
    length: float
    forces: float
    stress: float


def unit_factors(
    labels: Labels,
    energy: str = "eV",
    length: str = "Å",
    forces: str | None = None,
    forces_sign: str = "forces",
    stress: str = "eV/Å³",
    stress_sign: str = "tension",
) -> Factors:
    """Factors from what the configuration declares, else from the layout's own conventions (the other arguments).

    Raises:
        UserError: a unit is not known.
    """
    energy, length = labels.energy_unit or energy, labels.length_unit or length
    declared = labels.energy_unit or labels.length_unit
    forces = labels.forces_unit or (f"{energy}/{length}" if declared or forces is None else forces)
    gradient = (labels.forces_sign or forces_sign) == "gradient"
    compression = (labels.stress_sign or stress_sign) == "compression"
    try:
        return Factors(
            energy=factor(energy),
            length=factor(length),
            forces=factor(forces) * (-1 if gradient else 1),
            stress=factor(labels.stress_unit or stress) * (-1 if compression else 1),
        )
    except KeyError as error:
        raise UserError(
            str(error.args[0]), "Check dataset.energy_unit, length_unit, forces_unit, stress_unit."
        ) from error


def uniform(
    numbers: Int,
    positions: Float,
    energy: Float,
    forces: Float | None = None,
    cell: Float | None = None,
    pbc: Bool | bool = False,
    stress: Float | None = None,
) -> Frames:
    """Frames of one composition: (A,) numbers, (F, A, 3) positions Å, (F,) eV, (F, A, 3) eV/Å, (F, 3, 3) Å, (F, 6)."""
    n, atoms = positions.shape[:2]
    missing = np.full((n * atoms, 3), np.nan)
    return Frames(
        n_atoms=np.full(n, atoms, dtype=np.int64),
        numbers=np.tile(np.asarray(numbers, dtype=np.int64), n),
        positions=np.asarray(positions, dtype=np.float64).reshape(-1, 3),
        cell=np.zeros((n, 3, 3)) if cell is None else np.asarray(cell, dtype=np.float64).reshape(n, 3, 3),
        pbc=np.broadcast_to(np.asarray(pbc, dtype=bool), (n, 3)).copy(),
        energy=np.asarray(energy, dtype=np.float64).reshape(n),
        forces=missing if forces is None else np.asarray(forces, dtype=np.float64).reshape(-1, 3),
        stress=np.full((n, 6), np.nan) if stress is None else np.asarray(stress, dtype=np.float64).reshape(n, 6),
        baseline=np.zeros(n),
        group=np.zeros(n, dtype=np.int64),
    )


def reorder(values: Float, order: str) -> Float:
    """(..., 6) components named by ``order`` ('xx yy zz xy yz xz') in ASE's order xx yy zz yz xz xy."""
    names = ["".join(sorted(name)) for name in order.split()]
    return np.asarray(values[..., [names.index(name) for name in ("xx", "yy", "zz", "yz", "xz", "xy")]])
