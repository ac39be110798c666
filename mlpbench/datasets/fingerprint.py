"""Numbers that stay the same when a configuration is rotated, shifted, mirrored, relabelled or written in another cell.

They find the pairs of frames that may be the same configuration, among millions; :mod:`superposition` then decides.
Each entry is a sorted interatomic distance or a mean of some (Å), so moving every atom by at most δ changes no entry by
more than 2δ. Small molecules get all their distances. In larger and periodic systems, the distances of each atom to its
nearest neighbours of each element (with periodic images) are sorted over the atoms and averaged over quarters of them:
the same for a primitive cell, a conventional one and a supercell.
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
    """Frames that can be compared: same atoms (in crystals: same ratio of elements), as many periodic vectors.

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
    dimensions = frames.pbc.sum(axis=1)
    offsets = frames.offsets
    if len(frames) and not dimensions.any() and (frames.n_atoms == frames.n_atoms[0]).all():  # all rows at once
        rows = np.sort(frames.numbers.reshape(len(frames), -1), axis=1)
        unique, inverse = np.unique(rows, axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        order = np.argsort(inverse, kind="stable")
        bounds = np.searchsorted(inverse[order], np.arange(len(unique) + 1))
        return {
            _key(*np.unique(unique[i], return_counts=True), 0): order[bounds[i] : bounds[i + 1]]
            for i in range(len(unique))
        }
    result: dict[bytes, list[int]] = {}
    for i in range(len(frames)):
        elements, counts = np.unique(frames.numbers[offsets[i] : offsets[i + 1]], return_counts=True)
        result.setdefault(_key(elements, counts, int(dimensions[i])), []).append(i)
    return {key: np.array(members) for key, members in result.items()}


def _key(elements: Int, counts: Int, dimensions: int) -> bytes:
    ratio = counts // np.gcd.reduce(counts) if dimensions else counts
    return np.concatenate([elements, ratio, [dimensions]]).astype(np.int64).tobytes()


def _batches(frames: Frames, members: Int) -> Iterator[Int]:
    n_atoms = int(frames.n_atoms[members].max())
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
    if not frames.pbc[members[0]].any() and frames.n_atoms[members[0]] <= ALL_PAIRS_UP_TO:
        return _all_pairs(*_sorted_by_element(frames, members))
    rows = []
    for i in members:
        part = slice(frames.offsets[i], frames.offsets[i + 1])
        rows.append(_neighbours(frames.numbers[part], frames.positions[part], frames.cell[i], frames.pbc[i]))
    return np.array(rows)


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
    """(D,) for each pair of elements, quarterly means of the distances to the nearest neighbours; and the volume."""
    elements = np.unique(numbers)
    parts = [np.array([_edge(cell, pbc, len(numbers))])]
    for element in elements:
        targets = positions[numbers == element]
        nearest = _nearest(positions, targets, cell, pbc)
        for centre in elements:
            own = nearest[numbers == centre]
            own = own[:, 1:] if centre == element else own[:, :NEIGHBOURS]  # the atom itself lies at 0
            parts.append(_quarters(np.sort(own[:, :NEIGHBOURS], axis=0)).ravel())
    return np.concatenate(parts)


def _quarters(values: Float) -> Float:
    """(4, K) means over each quarter of (N, K) ascending rows, of which a quarter need not have a whole number."""
    cumulative = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    places = np.linspace(0, len(values), 5)
    below = np.minimum(places.astype(int), len(values) - 1)
    share = (places - below)[:, None]
    reached = cumulative[below] * (1 - share) + cumulative[below + 1] * share
    return np.asarray(np.diff(reached, axis=0) * 4 / len(values))


def _edge(cell: Float, pbc: Bool, atoms: int) -> float:
    """Cube root of the volume per atom (Å); 0 where not periodic throughout."""
    return float(np.cbrt(abs(np.linalg.det(cell)) / atoms)) if pbc.all() else 0.0


def _nearest(positions: Float, targets: Float, cell: Float, pbc: Bool) -> Float:
    """(N, K) ascending distances from each position to targets and their images; K depends on the composition."""
    if not pbc.any():
        count = min(NEIGHBOURS + 1, len(targets))
        distances, _ = cKDTree(targets).query(positions, k=count)
        return np.asarray(distances).reshape(len(positions), count)
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
            distances, _ = cKDTree(images).query(wrapped, k=count)
            if distances[:, -1].max() <= cutoff:
                return np.asarray(distances)
        cutoff *= 1.3


def _wrap(positions: Float, cell: Float, inverse: Float, pbc: Bool) -> Float:
    fractional = positions @ inverse
    return np.asarray(np.where(pbc, fractional - np.floor(fractional), fractional) @ cell)


def _images(positions: Float, cell: Float, repeats: Int) -> Float:
    shifts = np.array(list(product(*(range(-n, n + 1) for n in repeats))), dtype=np.float64) @ cell
    return np.asarray((positions[None] + shifts[:, None]).reshape(-1, 3))
