"""Whether two configurations are the same: an isometry that carries one onto the other, and how far atoms stay apart.

The isometry is built from a few atoms (three of a molecule, an atom and three of its neighbours in a crystal) whose
mutual distances agree, checked on all atoms, and refined by least squares (Kabsch, Acta Cryst. A 32, 922, 1976; mirror
images count as the same, they have the same energy). Periodic structures are compared as infinite ones: primitive and
conventional cells, supercells and other choices of the lattice vectors are the same. Since every atom is matched,
structures that share all short distances (fcc and hcp, diamond and lonsdaleite) are not confused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from ase.geometry import complete_cell
from scipy.spatial import cKDTree

from mlpbench.frames import Bool, Float, Frames, Int

MOST_ATTEMPTS = 600  # isometries tried for a pair; a true match is among the first few dozen
_ROUGH = 0.3  # Å, within which an unrefined isometry must bring every atom; atoms are never that close
_ENOUGH, _NEIGHBOURS = 12, 60  # neighbours of an atom, among which a frame of reference is looked for
_ELEMENTS_APART = 10.0  # Å in a fourth coordinate for each step in atomic number


@dataclass(frozen=True)
class Structure:
    """One configuration: (N,) atomic numbers, (N, 3) Å, (3, 3) Å with vectors as rows, (3,) periodicity."""

    numbers: Int
    positions: Float
    cell: Float
    pbc: Bool

    @classmethod
    def of(cls, frames: Frames, i: int) -> Structure:
        """Frame ``i``; vectors that are not periodic are completed to a basis."""
        part = slice(frames.offsets[i], frames.offsets[i + 1])
        pbc = frames.pbc[i]
        cell = np.asarray(complete_cell(np.where(pbc[:, None], frames.cell[i], 0.0))) if pbc.any() else np.eye(3)
        return cls(frames.numbers[part], frames.positions[part], cell, pbc)


@dataclass(frozen=True)
class Fit:
    """Distances that remain between superposed atoms, Å: root mean square, largest, median."""

    rms: float
    largest: float
    median: float


def superpose(a: Structure, b: Structure, largest: float) -> Fit | None:
    """The best superposition with no atom farther than ``largest`` (Å) from its partner; None if there is none."""
    if a.pbc.any() != b.pbc.any() or set(a.numbers) != set(b.numbers):
        return None
    if not a.pbc.any() and len(a.numbers) != len(b.numbers):
        return None
    if len(a.numbers) == 1 and not a.pbc.any():
        return Fit(0.0, 0.0, 0.0)
    target = _Target(a)
    points, kinds = _points(b)
    frames = _crystal_frames(a, b, largest) if a.pbc.any() else _molecule_frames(a, b, largest)
    best: Fit | None = None
    for attempt, (turn, origin, place) in enumerate(frames):
        fit = _checked(target, points, kinds, turn, origin, place, largest)
        if fit is not None and (best is None or fit.rms < best.rms):
            best = fit
            if best.rms <= largest / 4:  # good enough: another isometry of a symmetric structure says the same
                break
        if attempt + 1 >= MOST_ATTEMPTS or (best is not None and attempt > 8):
            break
    return best


def _checked(
    target: _Target, points: Float, kinds: Int, turn: Float, origin: Float, place: Float, largest: float
) -> Fit | None:
    """Carry ``points`` by x -> (x − origin)·turn + place, match them, refine, and measure what is left."""
    moved = (points - origin) @ turn + place
    distance, partners = target.nearest(moved, kinds)
    if distance.max() > _ROUGH:
        return None
    centre, goal = points.mean(axis=0), partners.mean(axis=0)
    u, _, vt = np.linalg.svd((points - centre).T @ (partners - goal))
    refined = u @ vt  # rotation or reflection
    apart = np.linalg.norm((points - centre) @ refined + goal - partners, axis=1)
    if apart.max() > largest or (not target.structure.pbc.any() and not target.used_once(partners)):
        return None
    return Fit(float(np.sqrt((apart**2).mean())), float(apart.max()), float(np.median(apart)))


class _Target:
    """Atoms of a structure and their images, to be found by position and element."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        points, owners = with_images(structure.positions, structure.cell, structure.pbc, 2 * _ROUGH)
        self._points, self._owners = points, owners
        self._tree = cKDTree(np.c_[points, _ELEMENTS_APART * structure.numbers[owners]])

    def nearest(self, points: Float, kinds: Int) -> tuple[Float, Float]:
        """(P,) distance of each point to the nearest atom of its element, and (P, 3) where that atom is."""
        cell, pbc = self.structure.cell, self.structure.pbc
        inverse = np.linalg.inv(cell)
        shift = np.where(pbc, np.floor(points @ inverse), 0.0) @ cell
        distance, found = self._tree.query(np.c_[points - shift, _ELEMENTS_APART * kinds])
        return distance, self._points[found] + shift

    def used_once(self, partners: Float) -> bool:
        """True if no two points share an atom."""
        return len(np.unique(np.round(partners, 6), axis=0)) == len(partners)


def _points(b: Structure) -> tuple[Float, Int]:
    """The atoms, and those of the next cell along each vector: what they show holds for all cells."""
    shifts = np.array(list(product(*((0, 1) if periodic else (0,) for periodic in b.pbc)))) @ b.cell
    points = (shifts[:, None] + b.positions[None]).reshape(-1, 3)
    return points, np.tile(b.numbers, len(shifts))


def _turned(vectors: Float, onto: Float) -> Float:
    """The orthogonal matrix that best turns (3, 3) rows into others."""
    u, _, vt = np.linalg.svd(vectors.T @ onto)
    return np.asarray(u @ vt)


def _molecule_frames(a: Structure, b: Structure, largest: float) -> Iterator[tuple[Float, Float, Float]]:
    """Isometries from three atoms of ``a`` and all triples of ``b`` with the same elements and distances."""
    apart_a = np.linalg.norm(a.positions[:, None] - a.positions[None], axis=2)
    apart_b = np.linalg.norm(b.positions[:, None] - b.positions[None], axis=2)
    first, second, third = _triple(a, apart_a)
    near = 2 * largest + 1e-9
    for i in np.flatnonzero(b.numbers == a.numbers[first]):
        fits = (b.numbers == a.numbers[second]) & (np.abs(apart_b[i] - apart_a[first, second]) <= near)
        for j in np.flatnonzero(fits):
            if third is None:
                edge_a, edge_b = a.positions[second] - a.positions[first], b.positions[j] - b.positions[i]
                yield _turned(edge_b[None], edge_a[None]), b.positions[i], a.positions[first]
                continue
            fits = (
                (b.numbers == a.numbers[third])
                & (np.abs(apart_b[i] - apart_a[first, third]) <= near)
                & (np.abs(apart_b[j] - apart_a[second, third]) <= near)
            )
            for k in np.flatnonzero(fits):
                edges_a = a.positions[[second, third]] - a.positions[first]
                edges_b = b.positions[[j, k]] - b.positions[i]
                yield from _both_hands(edges_b, edges_a, b.positions[i], a.positions[first])


def _both_hands(edges_b: Float, edges_a: Float, origin: Float, place: Float) -> Iterator[tuple[Float, Float, Float]]:
    """The rotation and the reflection that carry two edges onto two others."""
    normal_a, normal_b = np.cross(*edges_a), np.cross(*edges_b)
    for sign in (1.0, -1.0):
        yield _turned(np.vstack([edges_b, sign * normal_b]), np.vstack([edges_a, normal_a])), origin, place


def _triple(a: Structure, apart: Float) -> tuple[int, int, int | None]:
    """Three atoms far apart and off a line, rare elements first; the third None in a linear molecule."""
    counts = np.array([(a.numbers == number).sum() for number in a.numbers])
    first = int(np.lexsort((-apart.sum(axis=1), counts))[0])
    others = np.setdiff1d(np.arange(len(a.numbers)), [first])
    second = int(others[np.lexsort((-apart[first, others], counts[others]))[0]])
    axis = (a.positions[second] - a.positions[first]) / max(apart[first, second], 1e-12)
    height = np.linalg.norm(np.cross(a.positions - a.positions[first], axis), axis=1)
    if height.max(initial=0.0) < 0.05:
        return first, second, None
    useful = np.flatnonzero(height > 0.5 * height.max())
    return first, second, int(useful[np.argmin(counts[useful])])


def _crystal_frames(a: Structure, b: Structure, largest: float) -> Iterator[tuple[Float, Float, Float]]:
    """Isometries from an atom of ``a`` with three neighbours, and all such of ``b`` with the same distances."""
    near = 2 * largest + 1e-9
    around_a, around_b = _surroundings(a), _surroundings(b)
    centre = _rarest(a.numbers, around_a, near)
    chosen = _reference(*_neighbours(a, centre))
    if chosen is None:
        return
    kinds, edges = chosen
    lengths = np.linalg.norm(edges, axis=1)
    mutual = np.linalg.norm(edges[:, None] - edges[None], axis=2)
    points, owners = with_images(b.positions, b.cell, b.pbc, lengths.max() + near)
    tree = cKDTree(points)
    like = np.abs(around_b - around_a[centre]).max(axis=1) <= near
    alike = np.flatnonzero(like & (b.numbers == a.numbers[centre]))
    for i in (*alike[alike == centre], *alike[alike != centre]):  # copies often keep the order of the atoms
        inside = np.array([k for k in tree.query_ball_point(points[i], lengths.max() + near) if k != i], dtype=np.int64)
        there, vectors = b.numbers[owners[inside]], points[inside] - points[i]
        length = np.linalg.norm(vectors, axis=1)
        fits = [np.flatnonzero((there == kinds[k]) & (np.abs(length - lengths[k]) <= near)) for k in range(len(edges))]
        for j in fits[0]:
            for k in fits[1]:
                if abs(np.linalg.norm(vectors[j] - vectors[k]) - mutual[0, 1]) > near:
                    continue
                if len(edges) == 2:
                    yield from _both_hands(vectors[[j, k]], edges, points[i], a.positions[centre])
                    continue
                to_j = np.linalg.norm(vectors[fits[2]] - vectors[j], axis=1)
                to_k = np.linalg.norm(vectors[fits[2]] - vectors[k], axis=1)
                for m in fits[2][(np.abs(to_j - mutual[0, 2]) <= near) & (np.abs(to_k - mutual[1, 2]) <= near)]:
                    yield _turned(vectors[[j, k, m]], edges), points[i], a.positions[centre]


def _surroundings(structure: Structure) -> Float:
    """(N, 12) distances of each atom to its nearest neighbours, Å."""
    reach = 2.0 * float(np.cbrt(abs(np.linalg.det(structure.cell)) / len(structure.numbers)))
    while True:
        points, _ = with_images(structure.positions, structure.cell, structure.pbc, reach)
        if len(points) > _ENOUGH:
            distance, _ = cKDTree(points).query(points[: len(structure.numbers)], k=_ENOUGH + 1)
            if distance[:, -1].max() <= reach:
                return np.asarray(distance[:, 1:])
        reach *= 1.3


def _rarest(numbers: Int, around: Float, near: float) -> int:
    """The atom whose element and surroundings the fewest others share: the fewest partners need to be tried."""
    sample = np.arange(len(numbers))[:: -(-len(numbers) // 300)]
    counts = [int(((np.abs(around - around[i]).max(axis=1) <= near) & (numbers == numbers[i])).sum()) for i in sample]
    return int(sample[np.argmin(counts)])


def _reference(kinds: Int, vectors: Float) -> tuple[Int, Float] | None:
    """The nearest neighbours that span space (three) or at least a plane (two); None on a line."""
    chosen = [0]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for i in range(1, len(unit)):
        if len(chosen) == 1 and np.linalg.norm(np.cross(unit[0], unit[i])) > 0.3:
            chosen.append(i)
        elif len(chosen) == 2 and abs(np.linalg.det(unit[[*chosen, i]])) > 0.2:
            chosen.append(i)
            break
    return (kinds[chosen], vectors[chosen]) if len(chosen) > 1 else None


def _neighbours(structure: Structure, i: int) -> tuple[Int, Float]:
    """Elements of and vectors to enough neighbours of atom ``i``, nearest first."""
    reach = 1.5 * float(np.cbrt(abs(np.linalg.det(structure.cell)) / len(structure.numbers)))
    while True:
        points, owners = with_images(structure.positions, structure.cell, structure.pbc, reach)
        vectors = points - points[i]
        length = np.linalg.norm(vectors, axis=1)
        inside = np.flatnonzero((length > 1e-6) & (length <= reach))
        if len(inside) >= _ENOUGH:
            order = inside[np.argsort(length[inside], kind="stable")][:_NEIGHBOURS]
            return structure.numbers[owners[order]], vectors[order]
        reach *= 1.3


def with_images(positions: Float, cell: Float, pbc: Bool, reach: float) -> tuple[Float, Int]:
    """Positions (wrapped) followed by the images within ``reach`` (Å) of the cell, and the atom each belongs to."""
    if not pbc.any():
        return positions, np.arange(len(positions))
    full = np.asarray(complete_cell(cell))
    inverse = np.linalg.inv(full)
    near = np.where(pbc, reach * np.linalg.norm(inverse, axis=0), 0.0)
    fractional = positions @ inverse
    fractional = np.where(pbc, fractional - np.floor(fractional), fractional)
    points, owners = [fractional @ full], [np.arange(len(positions))]
    repeats = np.where(pbc, np.ceil(near), 0).astype(int)
    for shift in product(*(range(-n, n + 1) for n in repeats)):
        if not any(shift):
            continue
        image = fractional + np.array(shift)
        close = (((image > -near - 1e-9) & (image < 1 + near)) | ~pbc).all(axis=1)
        points.append(image[close] @ full)
        owners.append(np.flatnonzero(close))
    return np.concatenate(points), np.concatenate(owners)
