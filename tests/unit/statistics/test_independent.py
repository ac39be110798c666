"""Which trials count as repetitions where seeds were swept by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlpbench.statistics.intervals import interval
from mlpbench.statistics.variance import independent_repetitions

Row = tuple[str, int, int, int]
SETTING = ["dataset", "architecture", "size", "n_train"]


def table(rows: list[Row]) -> pd.DataFrame:
    common = {"dataset": "d", "size": "tiny", "backend": "b", "n_train": 50, "n_valid": 5, "status": "done"}
    return pd.DataFrame([
        {"trial": str(k), **common, "architecture": a, "repetition": r, "split_seed": s, "init_seed": i}
        for k, (a, r, s, i) in enumerate(rows)
    ])  # fmt: skip


def test_plain_repetitions_stay_what_they_are() -> None:
    plain = table([(a, r, 100 + r, 10 * k + r) for k, a in enumerate(("mace", "schnet")) for r in (0, 1, 4)])
    assert independent_repetitions(plain, SETTING).tolist() == [0, 1, 4, 0, 1, 4]


def test_of_crossed_seeds_those_count_that_share_none() -> None:
    crossed = table([(a, 0, s, i) for a in ("mace", "schnet") for s in range(3) for i in range(3)])
    found = independent_repetitions(crossed, SETTING)
    kept = crossed[found.notna()].assign(number=found)
    assert len(kept) == 6
    for _, part in kept.groupby("architecture"):
        assert part["split_seed"].is_unique
        assert part["init_seed"].is_unique
        assert part["number"].tolist() == [0, 1, 2]  # by split, so that architectures stay paired


def test_with_one_split_every_initialisation_counts() -> None:
    assert independent_repetitions(table([("mace", 0, 7, i) for i in range(4)]), SETTING).tolist() == [0, 1, 2, 3]


def test_crossed_trials_beside_plain_ones() -> None:
    plain = [(a, r, 100 + r, 200 + r) for a in ("mace", "schnet") for r in range(2)]
    crossed = [(a, 0, s, i) for a in ("mace", "schnet") for s in range(2) for i in range(2)]
    rows = table([*plain, *crossed])
    found = independent_repetitions(rows, SETTING)
    assert found.notna().sum() == 8
    wide = rows.assign(number=found).dropna(subset=["number"]).pivot(index="number", columns="architecture")
    assert (wide["split_seed", "mace"] == wide["split_seed", "schnet"]).all()


def test_taking_crossed_trials_as_independent_would_not_cover() -> None:
    rng = np.random.default_rng(0)
    hits = {"nine": 0, "three": 0}
    rows = table([("mace", 0, s, i) for s in range(3) for i in range(3)])
    kept = independent_repetitions(rows, SETTING).notna().to_numpy()
    for _ in range(300):
        splits = 0.1 * rng.standard_normal(3)
        values = np.exp(splits[rows["split_seed"]] + 0.02 * rng.standard_normal(9))
        for name, used in (("nine", values), ("three", values[kept])):
            found = interval(used)
            hits[name] += found.lower <= 1 <= found.upper
    assert hits["three"] / 300 > 0.91
    assert hits["nine"] / 300 < 0.85
