"""Numbers that stay the same when a configuration is rotated, shifted, mirrored, relabelled or copied by symmetry.

Each entry is a sorted interatomic distance (Å), so moving every atom by at most δ changes no entry by more than 2δ:
two frames whose fingerprints differ by less than a tolerance everywhere count as the same configuration. Small
molecules get all their distances; larger and periodic systems, for every atom, the distances to its nearest
neighbours of each element (with periodic images), sorted over the atoms. Chirality is not told apart on purpose: a
mirror image has the same energy. Distances do not determine every structure uniquely, but those that they confuse are
measure-zero accidents (Bartók and co-workers, Phys. Rev. B 87, 184115, 2013).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase.geometry import complete_cell
from scipy.spatial import cKDTree

from mlpbench.frames import Bool, Float, Frames, Int

ALL_PAIRS_UP_TO = 32  # atoms; N(N−1)/2 distances are few enough to keep
NEIGHBOURS = 12  # per atom and element in larger systems
_BATCH = 4_000_000  # distances held at a time


@dataclass(frozen=True)
class Family:
    """Frames that can be compared: same atoms (up to order), same periodicity.

    Attributes:
        frames: (M,) their indices.
        values: (M, D) fingerprints, Å.
    """

    frames: Int
    values: Float


def families(frames: Frames, progress: Callable[[int], None] | None = None) -> dict[bytes, Family]:
    """The fingerprints of all ``frames``, by composition and periodicity.

    Args:
        frames: any mixture.
        progress: called with the number of frames done since the last call.
    """
    result = {}
    for key, members in _by_composition(frames).items():
        parts = []
        for batch in _batches(frames, members):
            parts.append(_distances(frames, batch))
            if progress is not None:
                progress(len(batch))
        result[key] = Family(members, np.concatenate(parts))
    return result


def _by_composition(frames: Frames) -> dict[bytes, Int]:
    """Composition and periodicity -> (M,) frames that have them."""
    offsets = frames.offsets
    if len(frames) and (frames.n_atoms == frames.n_atoms[0]).all():  # one size: sort all rows at once
        rows = np.sort(frames.numbers.reshape(len(frames), -1), axis=1)
        codes = np.concatenate([rows, frames.pbc.astype(np.int64)], axis=1)
        unique, inverse = np.unique(codes, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        order = np.argsort(inverse, kind="stable")
        bounds = np.searchsorted(inverse[order], np.arange(len(unique) + 1))
        return {unique[i].tobytes(): order[bounds[i] : bounds[i + 1]] for i in range(len(unique))}
    found: dict[bytes, list[int]] = {}
    for i in range(len(frames)):
        numbers = np.sort(frames.numbers[offsets[i] : offsets[i + 1]])
        found.setdefault(np.concatenate([numbers, frames.pbc[i].astype(np.int64)]).tobytes(), []).append(i)
    return {key: np.array(members) for key, members in found.items()}


def _batches(frames: Frames, members: Int) -> Iterator[Int]:
    n_atoms = int(frames.n_atoms[members[0]])
    size = max(1, _BATCH // max(1, n_atoms * n_atoms))
    for start in range(0, len(members), size):
        yield members[start : start + size]


def _sorted_by_element(frames: Frames, members: Int) -> tuple[Int, Float]:
    """(N,) atomic numbers in ascending order and (M, N, 3) positions in that order."""
    n_atoms = int(frames.n_atoms[members[0]])
    rows = frames.offsets[members][:, None] + np.arange(n_atoms)
    order = np.argsort(frames.numbers[rows], axis=1, kind="stable")
    rows = np.take_along_axis(rows, order, axis=1)
    return frames.numbers[rows[0]], frames.positions[rows]


def _distances(frames: Frames, members: Int) -> Float:
    numbers, positions = _sorted_by_element(frames, members)
    if not frames.pbc[members[0]].any() and len(numbers) <= ALL_PAIRS_UP_TO:
        return _all_pairs(numbers, positions)
    return np.array([
        _neighbours(numbers, positions[i], frames.cell[m], frames.pbc[m]) for i, m in enumerate(members)
    ])  # fmt: skip


def _all_pairs(numbers: Int, positions: Float) -> Float:
    """(M, N(N−1)/2) distances, sorted within each pair of elements."""
    first, second = np.triu_indices(len(numbers), k=1)
    if len(first) == 0:
        return np.zeros((len(positions), 1))  # single atoms are all alike
    distance = np.sqrt(((positions[:, first] - positions[:, second]) ** 2).sum(axis=2))
    kind = numbers[first] * 1000 + numbers[second]
    blocks = [np.sort(distance[:, kind == k], axis=1) for k in np.unique(kind)]
    return np.concatenate(blocks, axis=1)


def _neighbours(numbers: Int, positions: Float, cell: Float, pbc: Bool) -> Float:
    """(D,) distances of each atom to its nearest of each element, sorted over the atoms, and the cell's size."""
    elements = np.unique(numbers)
    parts = [np.array([_edge(cell, pbc)])]
    for element in elements:
        targets = positions[numbers == element]
        found = _nearest(positions, targets, cell, pbc)
        for centre in elements:
            own = found[numbers == centre]
            own = own[:, 1:] if centre == element else own[:, :NEIGHBOURS]  # the atom itself lies at 0
            parts.append(np.sort(own[:, :NEIGHBOURS], axis=0).ravel())
    return np.concatenate(parts)


def _edge(cell: Float, pbc: Bool) -> float:
    """Cube root of the cell's volume (Å), so that cells of other size differ; 0 where not periodic throughout."""
    return float(np.cbrt(abs(np.linalg.det(cell)))) if pbc.all() else 0.0


def _nearest(positions: Float, targets: Float, cell: Float, pbc: Bool) -> Float:
    """(N, K) ascending distances from each position to targets and their images; K depends on the composition."""
    if not pbc.any():
        count = min(NEIGHBOURS + 1, len(targets))
        found, _ = cKDTree(targets).query(positions, k=count)
        return np.asarray(found).reshape(len(positions), count)
    full = np.asarray(complete_cell(cell))
    inverse = np.linalg.inv(full)
    heights = 1 / np.linalg.norm(inverse, axis=0)
    wrapped, wrapped_targets = (_wrap(x, full, inverse, pbc) for x in (positions, targets))
    density = len(targets) / abs(np.linalg.det(full))
    cutoff = float(np.cbrt(2 * (NEIGHBOURS + 1) / (4 / 3 * np.pi * density)))
    count = NEIGHBOURS + 1
    while True:
        images = _images(wrapped_targets, full, np.where(pbc, np.ceil(cutoff / heights), 0).astype(int))
        if len(images) >= count:
            found, _ = cKDTree(images).query(wrapped, k=count)
            if found[:, -1].max() <= cutoff:
                return np.asarray(found)
        cutoff *= 1.3


def _wrap(positions: Float, cell: Float, inverse: Float, pbc: Bool) -> Float:
    fractional = positions @ inverse
    return np.asarray(np.where(pbc, fractional - np.floor(fractional), fractional) @ cell)


def _images(positions: Float, cell: Float, repeats: Int) -> Float:
    shifts = np.array(list(product(*(range(-n, n + 1) for n in repeats))), dtype=np.float64) @ cell
    return np.asarray((positions[None] + shifts[:, None]).reshape(-1, 3))
