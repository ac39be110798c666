"""A vector for each frame that does not change when it is rotated, shifted, mirrored or relabelled; farthest points.

Radial symmetry functions (G² of Behler & Parrinello, Phys. Rev. Lett. 98, 146401 (2007)): for an atom i and element b
Σ_j∈b exp(−(r_ij − μ_k)²/2σ²)·f_c(r_ij), with 12 centres μ_k from 0.8 Å to the cutoff of 5 Å, σ their spacing and f_c
the cosine cutoff, periodic images included. A frame has for every pair of elements the mean and the standard deviation
over the atoms of the first, so that frames of different sizes can be compared. It knows distances and no angles.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from mlpbench.frames import Float, Frames, Int

CUTOFF = 5.0  # Å
CENTRES = np.linspace(0.8, CUTOFF, 12)  # Å
WIDTH = float(CENTRES[1] - CENTRES[0])  # Å


def describe(frames: Frames) -> Float:
    """(F, D) descriptors, each component in units of its standard deviation over ``frames``; constant ones left out."""
    elements = tuple(np.unique(frames.numbers).tolist())
    parts = [slice(start, end) for start, end in pairwise(frames.offsets)]
    rows = [
        _one(
            frames.numbers[atoms].tobytes(), frames.positions[atoms].tobytes(), frames.cell[i].tobytes(),
            frames.pbc[i].tobytes(), elements,
        )
        for i, atoms in enumerate(parts)
    ]  # fmt: skip
    values = np.array(rows).reshape(len(frames), -1)
    spread = values.std(axis=0)
    varying = spread > 1e-9 * np.maximum(1.0, np.abs(values).max(axis=0, initial=0.0))
    return np.asarray(values[:, varying] / spread[varying])


@lru_cache(maxsize=100_000)  # every round of a series asks for the same frames
def _one(numbers: bytes, positions: bytes, cell: bytes, pbc: bytes, elements: tuple[int, ...]) -> Float:
    atoms = Atoms(
        np.frombuffer(numbers, dtype=np.int64), positions=np.frombuffer(positions).reshape(-1, 3),
        cell=np.frombuffer(cell).reshape(3, 3), pbc=np.frombuffer(pbc, dtype=bool),
    )  # fmt: skip
    first, second, distance = neighbor_list("ijd", atoms, CUTOFF)
    value = np.exp(-0.5 * ((distance[:, None] - CENTRES) / WIDTH) ** 2)
    value *= 0.5 * (1 + np.cos(np.pi * distance / CUTOFF))[:, None]
    place = np.searchsorted(elements, atoms.numbers)
    density = np.zeros((len(atoms), len(elements), len(CENTRES)))
    np.add.at(density, (first, place[second]), value)
    parts = []
    for element in range(len(elements)):
        own = density[place == element]
        none = np.zeros(density.shape[1:])
        parts += [own.mean(axis=0), own.std(axis=0)] if len(own) else [none, none]
    return np.concatenate([part.ravel() for part in parts])


def farthest_points(points: Float, known: Float, count: int) -> tuple[Int, Float]:
    """``count`` of ``points``, each the farthest from ``known`` and from those before it.

    Args:
        points: (C, D).
        known: (K, D); where there are none, the first is the one farthest from the mean.
        count: at most C.

    Returns:
        (count,) indices, and the distance of each at the time of its choice; of equal distances the first index wins.
    """
    start = known if len(known) else points.mean(axis=0, keepdims=True)
    nearest = np.full(len(points), np.inf)
    for point in start:
        nearest = np.minimum(nearest, np.linalg.norm(points - point, axis=1))
    chosen: list[int] = []
    distances: list[float] = []
    for _ in range(count):
        best = int(np.argmax(nearest))
        chosen.append(best)
        distances.append(float(nearest[best]))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[best], axis=1))
        nearest[chosen] = -1.0
    return np.array(chosen, dtype=np.int64), np.array(distances)
