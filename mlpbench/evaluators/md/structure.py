"""Distributions of distances and angles against reference MD, up to collapse and over matched durations."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from mlpbench.evaluators import Row
from mlpbench.evaluators.md.runs import Fate, Run
from mlpbench.frames import Float, Int
from mlpbench.metrics import metric_row
from mlpbench.protocol import replacing


@dataclass(frozen=True)
class Distribution:
    """A histogram as a density: ``edges`` (B+1,), ``density`` (B,) in 1/unit of the edges."""

    edges: Float
    density: Float

    @property
    def centres(self) -> Float:
        """(B,) middle of each bin."""
        return np.asarray(0.5 * (self.edges[1:] + self.edges[:-1]))


CURVES = "curves.npz"
# Name of the observable -> the potential's distribution, and the reference's where there is one.
Curves = dict[str, tuple[Distribution, Distribution | None]]


def distance_histogram(positions: Float, r_max: float = 10.0, bins: int = 500) -> Distribution:
    """h(r): all distances between atoms of a molecule, over all frames, ∫h dr = 1 (Fu et al. 2022, eq. 2).

    Args:
        positions: (T, N, 3) Å.
        r_max: upper end, Å; distances beyond it are outside the integral.
        bins: number of bins.
    """
    upper = np.triu_indices(positions.shape[1], k=1)
    edges = np.linspace(0.0, r_max, bins + 1)
    counts = np.zeros(bins)
    for begin in range(0, len(positions), 1000):
        part = positions[begin : begin + 1000]
        r = np.linalg.norm(part[:, upper[0]] - part[:, upper[1]], axis=-1)
        counts += np.histogram(r, bins=edges)[0]
    total = len(positions) * len(upper[0])
    return Distribution(edges, counts / total / np.diff(edges))


def hr_error(simulated: Distribution, reference: Distribution) -> float:
    """∫|h − h_ref| dr, between 0 and 2."""
    return float((np.abs(simulated.density - reference.density) * np.diff(reference.edges)).sum())


def minimum_images(positions: Float, cell: Float, pairs: tuple[Int, Int]) -> Float:
    """(P,) Å: nearest-image distances of ``pairs`` in one frame, right up to half the smallest width of the cell."""
    bond = positions[pairs[0]] - positions[pairs[1]]
    fractional = bond @ np.linalg.inv(cell)
    return np.asarray(np.linalg.norm((fractional - np.round(fractional)) @ cell, axis=-1), dtype=np.float64)


def largest_r(cell: Float) -> float:
    """Half the smallest distance between two faces of the cell, Å: g(r) is known up to here."""
    normals = np.linalg.inv(cell)  # columns are reciprocal vectors, of length 1/distance
    return float(0.5 / np.linalg.norm(normals, axis=0).max())


def rdf(positions: Float, cells: Float, first: Int, second: Int, r_max: float, bins: int = 120) -> Distribution:
    """g(r) between two sets of atoms in a periodic cell.

    Args:
        positions: (T, N, 3) Å.
        cells: (T, 3, 3) Å.
        first: indices of atoms of one kind.
        second: of the other (or the same) kind.
        r_max: upper end, Å, at most :func:`largest_r`.
        bins: number of bins.

    Raises:
        ValueError: r_max reaches beyond the nearest images.
    """
    if any(r_max > largest_r(cell) + 1e-9 for cell in cells):
        raise ValueError(f"g(r) to {r_max:.2f} Å, but the cell only holds {min(largest_r(c) for c in cells):.2f} Å")
    left, right = (part.ravel() for part in np.meshgrid(first, second, indexing="ij"))
    pairs = (left[left != right], right[left != right])
    edges = np.linspace(0.0, r_max, bins + 1)
    counts, ideal = np.zeros(bins), np.zeros(bins)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    for frame, cell in zip(positions, cells, strict=True):
        counts += np.histogram(minimum_images(frame, cell, pairs), bins=edges)[0]
        ideal += len(pairs[0]) / abs(np.linalg.det(cell)) * shells
    return Distribution(edges, counts / ideal)


def rdf_error(simulated: Distribution, reference: Distribution) -> float:
    """100·∫|g_ref − g| / ∫|g_ref − 1|, in %."""
    width = np.diff(reference.edges)
    scale = (np.abs(reference.density - 1.0) * width).sum()
    return float(100.0 * (np.abs(simulated.density - reference.density) * width).sum() / scale)


def rdf_distance(simulated: Distribution, reference: Distribution) -> float:
    """∫|g − g_ref| dr in Å: the stability test of Fu et al. 2022."""
    return float((np.abs(simulated.density - reference.density) * np.diff(reference.edges)).sum())


def angle_histogram(
    positions: Float, numbers: Int, cells: Float | None = None, factor: float = 1.2, bins: int = 180
) -> Distribution:
    """Angles between bonds at each atom, over all frames, in degrees, ∫ = 1.

    Args:
        positions: (T, N, 3) Å.
        numbers: (N,) atomic numbers.
        cells: (T, 3, 3) Å of a periodic system.
        factor: atoms are bonded up to this multiple of their covalent radii.
        bins: number of bins over [0, 180].

    Raises:
        ValueError: no atom has two neighbours in any frame.
    """
    reach = factor * (covalent_radii[numbers][:, None] + covalent_radii[numbers][None])
    edges = np.linspace(0.0, 180.0, bins + 1)
    counts = np.zeros(bins)
    for t in range(len(positions)):
        vectors = positions[t][None] - positions[t][:, None]  # [i, j]: from i to j
        if cells is not None:
            fractional = vectors @ np.linalg.inv(cells[t])
            vectors = (fractional - np.round(fractional)) @ cells[t]
        r = np.linalg.norm(vectors, axis=-1)
        near = (r < reach) & ~np.eye(len(numbers), dtype=bool)
        counts += np.histogram(_angles(vectors, r, near), bins=edges)[0]
    if counts.sum() == 0:
        raise ValueError("no atom has two bonds: there are no bond angles")
    return Distribution(edges, counts / counts.sum() / np.diff(edges))


def _angles(vectors: Float, r: Float, near: Float) -> Float:
    """Degrees, of every pair of bonds that share an atom."""
    angles = []
    for i in range(len(r)):
        neighbours = np.flatnonzero(near[i])
        if len(neighbours) < 2:
            continue
        units = vectors[i, neighbours] / r[i, neighbours, None]
        upper = np.triu_indices(len(neighbours), k=1)
        angles.append(np.degrees(np.arccos(np.clip((units @ units.T)[upper], -1.0, 1.0))))
    return np.concatenate(angles) if angles else np.zeros(0)


def wasserstein(first: Distribution, second: Distribution) -> float:
    """W1 between two densities on the same bins, in the unit of the edges: ∫|CDF₁ − CDF₂|."""
    width = np.diff(first.edges)
    p, q = first.density * width, second.density * width
    gap = np.cumsum(p / p.sum()) - np.cumsum(q / q.sum())
    return float((np.abs(gap) * width).sum())


def adf_error(simulated: Distribution, reference: Distribution) -> float:
    """100·W1(found, reference) / W1(reference, sin θ), in %: 100 is as wrong as no structure at all."""
    isotropic = Distribution(reference.edges, np.sin(np.radians(reference.centres)))
    return 100.0 * wasserstein(simulated, reference) / wasserstein(isotropic, reference)


MIN_FRAMES = 20  # fewer say nothing about a distribution
MAX_FRAMES = 2000  # more cost time and change nothing: neighbouring frames are alike
RDF_R_MAX = 10.0  # Å, or half the cell where that is less


def observable_rows(
    split: str,
    run: Run,
    fates: list[Fate],
    reference: tuple[Float, Float] | None,
    not_scored: dict[str, str],
    curves: Curves,
) -> list[Row]:
    """Rows of every observable that can be had; the reason for each other one goes into ``not_scored``.

    The first fifth of each replica is left out as equilibration.

    Args:
        split: as in the table.
        run: at constant temperature.
        fates: the fate of each replica; frames behind a collapse are not used.
        reference: (T, N, 3) and (T, 3, 3) Å of reference MD, or None.
        not_scored: metric -> reason, filled here.
        curves: the distributions behind the rows, filled here.
    """
    rows: list[Row] = []
    names = ("rdf_error", "adf_error") if run.periodic else ("hr_mae", "adf_error")
    if reference is None:
        return rows + _refuse(names, "the data set has no reference MD (evaluation.md.reference_splits)", not_scored)
    positions, cells = sound_frames(run, fates)
    if len(positions) < MIN_FRAMES or len(reference[0]) < MIN_FRAMES:
        few = f"{len(positions)} frames before collapse, {len(reference[0])} of the reference; {MIN_FRAMES} are needed"
        return rows + _refuse(names, few, not_scored)
    if run.periodic:
        pairs = pair_distributions(run, positions, cells, reference)
        curves.update({f"g(r) {name}": both for name, both in pairs.items()})
        error = float(np.mean([rdf_error(*both) for both in pairs.values()]))
        rows.append(metric_row(split, "rdf_error", error, len(positions)))
    else:
        ours, theirs = distance_histogram(positions), distance_histogram(reference[0])
        curves["h(r)"] = (ours, theirs)
        rows.append(metric_row(split, "hr_mae", hr_error(ours, theirs), len(positions)))
    try:
        angles = angle_histogram(positions, run.numbers, cells if run.periodic else None)
        expected = angle_histogram(reference[0], run.numbers, reference[1] if run.periodic else None)
    except ValueError as error_found:
        return rows + _refuse(("adf_error",), str(error_found), not_scored)
    curves["bond angles"] = (angles, expected)
    return [*rows, metric_row(split, "adf_error", adf_error(angles, expected), len(positions))]


def sound_frames(run: Run, fates: list[Fate]) -> tuple[Float, Float]:
    """(T, N, 3) and (T, 3, 3) Å of all replicas before collapse, equilibration left out, thinned evenly."""
    positions, cells = [], []
    for index, fate in enumerate(fates):
        part = slice(fate.frames // 5, fate.frames)
        positions.append(run.arrays["positions"][index, part].astype(np.float64))
        cells.append(run.cells(index, fate.frames)[part])
    joined, boxes = np.concatenate(positions), np.concatenate(cells)
    every = max(1, -(-len(joined) // MAX_FRAMES))
    return joined[::every], boxes[::every]


def pair_distributions(
    run: Run, positions: Float, cells: Float, reference: tuple[Float, Float]
) -> dict[str, tuple[Distribution, Distribution]]:
    """g(r) of every pair of elements, found and reference, up to half the smallest cell."""
    r_max = min(RDF_R_MAX, *(largest_r(cell) for cell in (*cells, *reference[1])))
    bins = max(40, round(r_max / 0.05))
    curves = {}
    for a, b in combinations_with_replacement(np.unique(run.numbers), 2):
        first, second = np.flatnonzero(run.numbers == a), np.flatnonzero(run.numbers == b)
        if a == b and len(first) < 2:
            continue
        name = f"{chemical_symbols[a]}–{chemical_symbols[b]}"
        ours = rdf(positions, cells, first, second, r_max, bins)
        curves[name] = (ours, rdf(*reference, first, second, r_max, bins))
    return curves


def save_curves(path: Path, curves: Curves) -> None:
    """Write ``curves`` as ``<name>|edges`` (B+1,), ``<name>|found`` (B,) and ``<name>|reference`` (B,)."""
    arrays: dict[str, Any] = {}
    for name, (simulated, reference) in curves.items():
        arrays |= {f"{name}|edges": simulated.edges, f"{name}|found": simulated.density}
        if reference is not None:
            arrays[f"{name}|reference"] = reference.density
    with replacing(path) as part, open(part, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_curves(path: Path) -> Curves:
    """What :func:`save_curves` wrote; empty where there is no file."""
    if not path.is_file():
        return {}
    curves: Curves = {}
    with np.load(path, allow_pickle=False) as stored:
        for name in (key.removesuffix("|edges") for key in stored.files if key.endswith("|edges")):
            edges, theirs = stored[f"{name}|edges"], f"{name}|reference"
            reference = Distribution(edges, stored[theirs]) if theirs in stored.files else None
            curves[name] = (Distribution(edges, stored[f"{name}|found"]), reference)
    return curves


def _refuse(names: Any, reason: str, not_scored: dict[str, str]) -> list[Row]:
    not_scored.update(dict.fromkeys(names, reason))
    return []
