"""Families of molecules of growing size, on which a reference code shows how its cost grows with the atoms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import molecule

from mlpbench.errors import UserError, close_match

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
