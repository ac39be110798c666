"""Test frames held out of a pool that brings none of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlpbench.datasets.readers.base import Notes
from mlpbench.datasets.schema import SplitConfig
from mlpbench.frames import Frames, Int


def hold_out(
    pool: Frames, headers: list[dict[str, Any]], split: SplitConfig, notes: Notes
) -> tuple[Frames, dict[str, Frames], str]:
    """The pool without its test frames, the test splits, and the strategy that was used.

    Args:
        pool: all frames in the order of the file (time order in a trajectory).
        headers: what each frame's header says.
        split: the settings.
        notes: receives what was chosen.
    """
    strategy = "random" if split.strategy == "auto" else split.strategy
    order = np.random.default_rng(split.seed).permutation(len(pool))
    n_test = max(1, round(split.test_fraction * len(pool)))
    test: Int = np.sort(order[:n_test])
    rest = np.setdiff1d(np.arange(len(pool)), test)
    notes.add(f"{len(test)} of {len(pool)} frames held out as split 'test' ({strategy})")
    return pool.select(rest), {"test": pool.select(test)}, strategy
