"""Whether training and test frames of a data set share configurations, and what is done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlpbench.datasets import leaks
from mlpbench.datasets.dataset import Dataset
from mlpbench.datasets.leaks import Fingerprinted, Neighbours, compare
from mlpbench.datasets.stages import OnProgress, silent
from mlpbench.errors import UserError
from mlpbench.frames import Int

TOO_CLOSE = 0.1  # median distance to the nearest training frame over that of random pairs; 0.07 for MD at 0.5 fs
_ENOUGH = 50  # frames below which that ratio says nothing


@dataclass(frozen=True)
class LeakCheck:
    """The outcome, for every test split.

    Attributes:
        tolerance: Å, of the fingerprints' entries.
        splits: test split -> copies and nearest distances.
        pool_frames: frames of the pool that repeat a test frame, ascending.
    """

    tolerance: float
    splits: dict[str, Neighbours]
    pool_frames: Int

    @property
    def warnings(self) -> list[str]:
        """Splits that lie suspiciously close to the pool."""
        return [
            f"split {name}: a typical test frame lies {1 / found.ratio:.0f} times closer to a pool frame than random "
            "pairs do, as neighbours of one trajectory would; errors on it say little about new configurations"
            for name, found in self.splits.items()
            if found.ratio < TOO_CLOSE and np.isfinite(found.nearest).sum() >= _ENOUGH
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
            "splits": {
                name: {
                    "test_frames_repeated": len({copy.second for copy in found.copies}),
                    "pairs": leaks.describe(found.copies),
                    "nearest_over_random": None if np.isnan(found.ratio) else round(found.ratio, 4),
                }
                for name, found in self.splits.items()
            },
        }

    def _pairs(self, limit: int = 6) -> str:
        pairs = [f"pool {c.first} = {name} {c.second}" for name, found in self.splits.items() for c in found.copies]
        return ", ".join(pairs[:limit]) + (f", and {len(pairs) - limit} more pairs" if len(pairs) > limit else "")


def check_leaks(dataset: Dataset, tolerance: float, progress: OnProgress = silent) -> LeakCheck:
    """Compare the pool with every test split; computed once for a data set.

    Args:
        dataset: with its test splits.
        tolerance: Å; see :mod:`mlpbench.datasets.fingerprint`.
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
        frames = sorted({copy.first for found in splits.values() for copy in found.copies})
        dataset.cache[key] = LeakCheck(tolerance, splits, np.array(frames, dtype=np.int64))
    check: LeakCheck = dataset.cache[key]
    return check


class _Counted:
    """Adds up frames done since the last call."""

    def __init__(self, progress: OnProgress, stage: str, total: int) -> None:
        self.progress, self.stage, self.total, self.done = progress, stage, total, 0

    def __call__(self, frames: int) -> None:
        self.done += frames
        self.progress(self.stage, self.done, self.total)
