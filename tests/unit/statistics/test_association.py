"""Spearman's ρ over potentials and its cluster bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from mlpbench.statistics.association import _resampled, spearman


def test_the_value_is_scipys_ties_included() -> None:
    generator = np.random.default_rng(1)
    x = generator.integers(0, 6, 40).astype(float)
    y = x + generator.normal(0, 3, 40)
    found = spearman(x, y, ["a"] * 40)
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert (found.n, found.clusters) == (40, 0)
    assert found.lower < found.value < found.upper


def test_what_is_not_known_is_left_out_and_little_is_refused() -> None:
    x = [*range(10), math.nan]
    found = spearman(x, [*range(10), 3.0], [str(i % 5) for i in range(11)])
    assert found.value == pytest.approx(1)
    assert (found.n, found.clusters) == (10, 5)
    assert math.isnan(spearman(x[:7], x[:7], ["a"] * 7).value)
    assert math.isnan(spearman([1.0] * 20, list(range(20)), ["a"] * 20).value)


def test_clusters_widen_the_interval_where_architectures_are_alike() -> None:
    """Six architectures with ten potentials each that differ little: there are six facts, not sixty."""
    generator = np.random.default_rng(2)
    place = np.repeat(generator.normal(size=6), 10)
    other = np.repeat(generator.normal(size=6), 10)
    x, y = place + 0.05 * generator.normal(size=60), other + 0.05 * generator.normal(size=60)
    names = [f"a{i // 10}" for i in range(60)]
    clustered, single = spearman(x, y, names), spearman(x, y, ["one"] * 60)
    assert clustered.value == single.value
    assert clustered.upper - clustered.lower > 2 * (single.upper - single.lower)


def test_the_interval_covers_the_true_value() -> None:
    """Independent potentials: about 95 of 100 intervals hold 0; a strong relation excludes it."""
    generator = np.random.default_rng(3)
    held = 0
    for trial in range(40):
        x, y = generator.normal(size=(2, 50))
        found = spearman(x, y, ["a"] * 50, seed=trial)
        held += not found.decided
    assert held >= 34
    x = generator.normal(size=50)
    assert spearman(x, x + 0.5 * generator.normal(size=50), ["a"] * 50).decided


def test_resamples_are_those_drawn_one_by_one() -> None:
    generator = np.random.default_rng(4)
    x, y = generator.integers(0, 5, (2, 12)).astype(float)
    times = generator.multinomial(12, np.full(12, 1 / 12), 30).astype(float)
    by_hand = [stats.spearmanr(np.repeat(x, t.astype(int)), np.repeat(y, t.astype(int))).statistic for t in times]
    np.testing.assert_allclose(_resampled(x, y, times), by_hand)
