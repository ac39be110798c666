"""Configurations that two sets of frames share, found by nearest neighbour on invariant fingerprints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from mlpbench.datasets.fingerprint import Family, families
from mlpbench.frames import Float, Frames, Int

_COORDINATES = 8  # of the search tree: block means of a fingerprint differ by no more than its largest entry does
_ROWS = 10_000  # frames looked up at a time
RELATED = (
    0.35  # nearest-neighbour distance over the distance of random pairs, below which frames are neighbours in time
)


@dataclass(frozen=True)
class Copy:
    """Two frames with the same configuration.

    Attributes:
        first: index in the first set (the pool).
        second: index in the second (the test split).
        distance: largest difference of their fingerprints, Å.
        energy_difference: of the labels, eV; the same configuration has the same energy.
    """

    first: int
    second: int
    distance: float
    energy_difference: float


@dataclass(frozen=True)
class Neighbours:
    """How the second set lies to the first.

    Attributes:
        copies: pairs closer than the tolerance, in the order of the second set.
        nearest: (F₂,) distance (Å, root mean square) of each second frame to its nearest first; inf where no first
            frame has its composition.
        spread: median of that distance between random pairs, Å; NaN if there are none.
    """

    copies: list[Copy]
    nearest: Float
    spread: float

    @property
    def ratio(self) -> float:
        """Median nearest distance over the distance of random pairs: small where frames are neighbours in time."""
        finite = self.nearest[np.isfinite(self.nearest)]
        return float(np.median(finite) / self.spread) if len(finite) and self.spread > 0 else float("nan")


@dataclass
class Fingerprinted:
    """Frames and their fingerprints, computed once."""

    frames: Frames
    families: dict[bytes, Family] = field(default_factory=dict)

    @classmethod
    def of(cls, frames: Frames, progress: Callable[[int], None] | None = None) -> Fingerprinted:
        """Compute the fingerprints of ``frames``."""
        return cls(frames, families(frames, progress))


def compare(
    first: Fingerprinted, second: Fingerprinted, tolerance: float, progress: Callable[[int], None] | None = None
) -> Neighbours:
    """Pairs of frames, one of each set, that are the same configuration, and how close the sets lie.

    Args:
        first: for instance the pool of training frames.
        second: for instance a test split.
        tolerance: Å; the largest difference of any fingerprint entry between copies.
        progress: called with the number of frames of the second set done since the last call.
    """
    copies: list[Copy] = []
    nearest = np.full(len(second.frames), np.inf)
    spreads = []
    for key, family in second.families.items():
        other = first.families.get(key)
        if other is None:
            continue
        tree = cKDTree(_reduce(other.values))
        for start in range(0, len(family.frames), _ROWS):
            part = slice(start, start + _ROWS)
            b = _reduce(family.values[part])
            for row, candidates in enumerate(tree.query_ball_point(b, tolerance, p=np.inf, return_sorted=True), start):
                copies.extend(_confirm(first, second, other, family, row, candidates, tolerance))
            _, closest = tree.query(b)
            difference = family.values[part] - other.values[closest]
            nearest[family.frames[part]] = np.sqrt((difference**2).mean(axis=1))
            if progress is not None:
                progress(len(b))
        spreads.append(_spread(other.values, family.values))
    copies.sort(key=lambda copy: (copy.second, copy.first))
    return Neighbours(copies, nearest, float(np.nanmedian(spreads)) if spreads else float("nan"))


def duplicates(frames: Fingerprinted, tolerance: float) -> list[Copy]:
    """Pairs within one set that are the same configuration; ``first`` < ``second``."""
    copies = []
    for family in frames.families.values():
        tree = cKDTree(_reduce(family.values))
        for i, j in tree.query_pairs(tolerance, p=np.inf):
            copies.extend(_confirm(frames, frames, family, family, max(i, j), [min(i, j)], tolerance))
    ordered = [c if c.first < c.second else Copy(c.second, c.first, c.distance, -c.energy_difference) for c in copies]
    return sorted(ordered, key=lambda copy: (copy.second, copy.first))


def lag_ratio(frames: Fingerprinted, lag: int = 1) -> float:
    """Median distance of frames ``lag`` apart in the file over that of random pairs.

    Small in a trajectory, about 1 where the order means nothing; NaN with too few frames.
    """
    ratios, weights = [], []
    for family in frames.families.values():
        if len(family.frames) <= max(10, lag):
            continue
        follow = np.arange(len(family.frames) - lag)
        group = frames.frames.group[family.frames]
        follow = follow[group[follow] == group[follow + lag]]
        if len(follow) == 0:
            continue
        apart = family.values[follow + lag] - family.values[follow]
        spread = _spread(family.values, family.values)
        if spread > 0:
            ratios.append(float(np.median(np.sqrt((apart**2).mean(axis=1)))) / spread)
            weights.append(len(family.frames))
    return float(np.average(ratios, weights=weights)) if ratios else float("nan")


def describe(copies: list[Copy], limit: int = 10) -> list[dict[str, Any]]:
    """The first copies as JSON."""
    return [
        {
            "pool_frame": copy.first,
            "test_frame": copy.second,
            "distance_A": round(copy.distance, 9),
            "energy_difference_eV": None if np.isnan(copy.energy_difference) else round(copy.energy_difference, 9),
        }
        for copy in copies[:limit]
    ]


def _reduce(values: Float) -> Float:
    """(M, ≤8) means over stretches of the fingerprint: they differ by no more than its largest entry does."""
    bounds = np.unique(np.linspace(0, values.shape[1], _COORDINATES + 1).astype(int))
    sums = np.add.reduceat(values, bounds[:-1], axis=1)
    return np.asarray(sums / np.diff(bounds))


def _confirm(
    first: Fingerprinted, second: Fingerprinted, a: Family, b: Family, row: int, candidates: list[int], tolerance: float
) -> list[Copy]:
    if len(candidates) == 0:
        return []
    largest = np.abs(a.values[candidates] - b.values[row]).max(axis=1)
    result = []
    for candidate, distance in zip(
        np.asarray(candidates)[largest < tolerance], largest[largest < tolerance], strict=True
    ):
        i, j = int(a.frames[candidate]), int(b.frames[row])
        result.append(Copy(i, j, float(distance), float(first.frames.energy[i] - second.frames.energy[j])))
    return result


def _spread(a: Float, b: Float) -> float:
    """Median root-mean-square difference of 2000 random pairs."""
    generator = np.random.default_rng(0)
    i: Int = generator.integers(len(a), size=2000)
    j: Int = generator.integers(len(b), size=2000)
    apart = np.sqrt(((a[i] - b[j]) ** 2).mean(axis=1))
    return float(np.median(apart[apart > 0])) if (apart > 0).any() else float("nan")
