"""Configurations that two sets of frames share, and what is done about training and test frames that do.

Two frames are the same configuration if they can be superposed with a root-mean-square displacement of the atoms below
the tolerance (0.001 Å) and none above four times that, unless

- their energies per atom differ by more than 0.1 meV while their atoms are farther apart than rounding explains, or
- most atoms coincide and few are displaced, as in finite differences: a displacement on purpose, not noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from mlpbench.datasets.dataset import Dataset
from mlpbench.datasets.fingerprint import Family, families
from mlpbench.datasets.stages import OnProgress, silent
from mlpbench.datasets.superposition import Fit, Structure, superpose
from mlpbench.errors import UserError
from mlpbench.frames import Float, Frames, Int

TOO_CLOSE = 0.1  # median distance to the nearest training frame over that of random pairs; 0.07 for MD at 0.5 fs
_LARGEST_POOL = 100_000  # frames that are compared with each other; 'data validate' does it for its own choice
_ENOUGH = 50  # frames below which that ratio says nothing
_LARGEST = 4.0  # largest displacement of an atom over the tolerance of their root mean square
_EXACT = 5e-5  # Å, within which rounding of positions explains what is left, whatever the energies say
_SAME_ENERGY = 1e-4  # eV/atom between labels of one configuration
_ON_PURPOSE = 0.25  # median over largest displacement, below which few atoms were moved and the others were not
_NOTICED = 0.3  # of the tolerance: displacements below it are never on purpose

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
        distance: root mean square displacement of the atoms once superposed, Å.
        energy_difference: of the labels, eV for the atoms of the second; the same configuration has the same energy.
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
        tolerance: Å; root mean square displacement of the atoms between copies.
        progress: called with the number of frames of the second set done since the last call.
    """
    judge = _Judge(first, second, tolerance)
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
            near = tree.query_ball_point(b, judge.reach, p=np.inf, return_sorted=True)
            for row, candidates in enumerate(near, start):
                copies.extend(judge.copies(other, family, row, candidates))
            _, closest = tree.query(b)
            difference = family.values[part] - other.values[closest]
            nearest[family.frames[part]] = np.sqrt((difference**2).mean(axis=1))
            if progress is not None:
                progress(len(b))
        spreads.append(_spread(other.values, family.values))
    copies.sort(key=lambda copy: (copy.second, copy.first))
    return Neighbours(
        copies, nearest, float(np.median(known)) if (known := [s for s in spreads if np.isfinite(s)]) else float("nan")
    )


def duplicates(frames: Fingerprinted, tolerance: float) -> list[Copy]:
    """Frames of a set that repeat an earlier one, each with the first that it repeats; ``first`` < ``second``."""
    judge = _Judge(frames, frames, tolerance)
    copies = []
    for family in frames.families.values():
        tree = cKDTree(_reduce(family.values))
        earlier: dict[int, list[int]] = {}
        for i, j in tree.query_pairs(judge.reach, p=np.inf):
            earlier.setdefault(max(i, j), []).append(min(i, j))
        repeated: set[int] = set()
        for row in sorted(earlier):
            originals = [i for i in sorted(earlier[row]) if i not in repeated]
            copies_of_row = judge.copies(family, family, row, originals, first_only=True)
            repeated.update([row] if copies_of_row else [])
            copies.extend(copies_of_row)
    return sorted(copies, key=lambda copy: (copy.second, copy.first))


class _Judge:
    """Decides which pairs with like fingerprints are copies."""

    def __init__(self, first: Fingerprinted, second: Fingerprinted, tolerance: float) -> None:
        self.first, self.second, self.tolerance = first, second, tolerance
        self.reach = 2 * _LARGEST * tolerance  # no entry of a fingerprint changes by more

    def copies(self, a: Family, b: Family, row: int, candidates: list[int], first_only: bool = False) -> list[Copy]:
        """Those of ``candidates`` (rows of ``a``) that are the configuration in ``row`` of ``b``."""
        if len(candidates) == 0:
            return []
        apart = a.values[candidates] - b.values[row]
        close = (np.abs(apart).max(axis=1) <= self.reach) & (np.sqrt((apart**2).mean(axis=1)) <= 3 * self.tolerance)
        j = int(b.frames[row])
        result: list[Copy] = []
        structure = Structure.of(self.second.frames, j) if close.any() else None
        for candidate in np.asarray(candidates)[close]:
            i = int(a.frames[candidate])
            assert structure is not None
            fit = superpose(Structure.of(self.first.frames, i), structure, _LARGEST * self.tolerance)
            energies = float(self.first.frames.energy[i]), float(self.second.frames.energy[j])
            sizes = int(self.first.frames.n_atoms[i]), int(self.second.frames.n_atoms[j])
            per_atom = energies[0] / sizes[0] - energies[1] / sizes[1]
            if fit is not None and self._same(fit, per_atom):
                result.append(Copy(i, j, fit.rms, per_atom * sizes[1]))
                if first_only:
                    break
        return result

    def _same(self, fit: Fit, energy_per_atom: float) -> bool:
        if fit.rms > self.tolerance:
            return False
        if fit.largest <= _EXACT:
            return True
        if np.isfinite(energy_per_atom) and abs(energy_per_atom) > _SAME_ENERGY:
            return False
        return fit.median >= _ON_PURPOSE * fit.largest or fit.largest < _NOTICED * self.tolerance


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


def _spread(a: Float, b: Float) -> float:
    """Median root-mean-square difference of 2000 random pairs."""
    generator = np.random.default_rng(0)
    i: Int = generator.integers(len(a), size=2000)
    j: Int = generator.integers(len(b), size=2000)
    apart = np.sqrt(((a[i] - b[j]) ** 2).mean(axis=1))
    return float(np.median(apart[apart > 0])) if (apart > 0).any() else float("nan")


@dataclass(frozen=True)
class LeakCheck:
    """The outcome, for every test split.

    Attributes:
        tolerance: Å, root mean square displacement of the atoms.
        splits: test split -> copies and nearest distances.
        pool_frames: frames of the pool that repeat a test frame, ascending.
        repeated: frames of the pool that repeat an earlier one of the pool; None where it was too large to look.
    """

    tolerance: float
    splits: dict[str, Neighbours]
    pool_frames: Int
    repeated: list[Copy] | None = None

    @property
    def warnings(self) -> list[str]:
        """Splits that lie suspiciously close to the pool, and frames that the pool holds twice."""
        repeated = self.repeated or []
        pairs = ", ".join(f"{copy.first} = {copy.second}" for copy in repeated[:6])
        twice = f"{len(repeated)} frames of the pool repeat an earlier one (same configuration): {pairs}"
        doubled = [f"{twice}; validation frames may be training frames too"] if repeated else []
        return doubled + [
            f"split {name}: a typical test frame lies {1 / max(leak.ratio, 1e-3):.0f} times closer to a pool frame "
            "than random pairs do, as neighbours of one trajectory would; errors on it say little about new "
            "configurations"
            for name, leak in self.splits.items()
            if leak.ratio < TOO_CLOSE and np.isfinite(leak.nearest).sum() >= _ENOUGH
        ]

    def allowed(self, dataset: Dataset, policy: str) -> Int:
        """Frames of the pool that may be trained on: all, or with ``drop`` those that repeat no test frame.

        Test splits stay as they are, so that published numbers remain comparable.

        Raises:
            UserError: there are copies and ``policy`` is ``refuse``; the pairs are listed.
        """
        everything = np.arange(len(dataset.pool))
        if policy == "drop":
            return np.setdiff1d(everything, self.pool_frames)
        if policy == "refuse" and len(self.pool_frames):
            raise UserError(
                f"{dataset.name}: {len(self.pool_frames)} frames of the pool repeat test frames "
                f"(same configuration within {self.tolerance:g} Å): {self._pairs()}",
                "dataset.on_leak=drop takes them out of the pool; dataset.on_leak=warn keeps them.",
            )
        return everything

    def describe(self, policy: str) -> dict[str, Any]:
        """The outcome as JSON for the manifest."""
        return {
            "policy": policy,
            "tolerance_A": self.tolerance,
            "pool_frames": self.pool_frames.tolist(),
            "dropped": len(self.pool_frames) if policy == "drop" else 0,
            "repeated_in_pool": None if self.repeated is None else len(self.repeated),
            "splits": {
                name: {
                    "test_frames_repeated": len({copy.second for copy in found.copies}),
                    "pairs": describe(found.copies),
                    "nearest_over_random": None if np.isnan(found.ratio) else round(found.ratio, 4),
                }
                for name, found in self.splits.items()
            },
        }

    def _pairs(self, limit: int = 6) -> str:
        pairs = [f"pool {c.first} = {name} {c.second}" for name, leaks in self.splits.items() for c in leaks.copies]
        return ", ".join(pairs[:limit]) + (f", and {len(pairs) - limit} more pairs" if len(pairs) > limit else "")


def check_leaks(dataset: Dataset, tolerance: float, progress: OnProgress = silent) -> LeakCheck:
    """Compare the pool with every test split; computed once for a data set.

    Args:
        dataset: with its test splits.
        tolerance: Å; see the module.
        progress: told how far it is.
    """
    key = ("leaks", tolerance)
    if key not in dataset.cache:
        total = len(dataset.pool) + sum(len(test) for test in dataset.tests.values())
        counted = _Counted(progress, "fingerprints", total)
        pool = Fingerprinted.of(dataset.pool, counted)
        tests = {name: Fingerprinted.of(test, counted) for name, test in dataset.tests.items()}
        counted = _Counted(progress, "looking for copies", total - len(dataset.pool))
        splits = {name: compare(pool, test, tolerance, counted) for name, test in tests.items()}
        frames = sorted({copy.first for leaks in splits.values() for copy in leaks.copies})
        repeated = duplicates(pool, tolerance) if len(dataset.pool) <= _LARGEST_POOL else None
        dataset.cache[key] = LeakCheck(tolerance, splits, np.array(frames, dtype=np.int64), repeated)
    check: LeakCheck = dataset.cache[key]
    return check


class _Counted:
    """Adds up frames done since the last call."""

    def __init__(self, progress: OnProgress, stage: str, total: int) -> None:
        self.progress, self.stage, self.total, self.done = progress, stage, total, 0

    def __call__(self, frames: int) -> None:
        self.done += frames
        self.progress(self.stage, self.done, self.total)
