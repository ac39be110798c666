"""Labels that a start saves, on curves whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.statistics.multiplier import labels_for, multiplier

SIZES = (10, 25, 50, 100, 200)


def law(factor: float, exponent: float = 0.5) -> dict[int, float]:
    """An error that falls as a power of the labels: a start that is worth ``factor`` labels shifts it."""
    return {n: 100.0 * (factor * n) ** -exponent for n in SIZES}


def test_a_power_law_that_is_shifted_by_a_factor_gives_the_factor() -> None:
    plain, other = {r: law(1.0 + 0.01 * r) for r in range(3)}, {r: law(3.0) for r in range(3)}
    for n in (10, 25, 50):
        found = multiplier(plain, other, n)
        assert found.value == pytest.approx(3 / np.prod([1.0, 1.01, 1.02]) ** (1 / 3))
        assert found.lower < found.value < found.upper
        assert found.lower > 1
        assert (found.repetitions, found.beyond, found.below) == (3, 0, 0)


def test_beyond_the_data_the_factor_is_a_least_one() -> None:
    plain, other = {r: law(1.0) for r in range(3)}, {r: law(30.0) for r in range(3)}
    found = multiplier(plain, other, 10)
    assert (found.value, found.lower, found.upper, found.beyond) == (20, 20, np.inf, 3)
    plain[2] = {n: error for n, error in plain[2].items() if n <= 50}  # of one repetition the larger sizes are missing
    assert multiplier(plain, other, 10).value == 5
    worse = multiplier(plain, {r: law(0.5) for r in range(3)}, 10)
    assert worse.below == 3
    assert worse.value == 1


def test_paired_over_the_repetitions_that_both_have() -> None:
    plain, other = {0: law(1.0), 1: law(1.0)}, {1: law(2.0), 2: law(9.0)}
    found = multiplier(plain, other, 50)
    assert found.repetitions == 1
    assert found.value == pytest.approx(2)
    assert np.isnan(found.lower)
    assert multiplier(plain, {5: law(2.0)}, 50).repetitions == 0


def test_a_curve_that_rises_again_counts_as_its_lowest_error_so_far() -> None:
    assert labels_for({10: 100.0, 50: 50.0, 100: 60.0}, 55.0)[0] < 50
    assert labels_for({10: 100.0, 50: 50.0, 100: 60.0}, 49.0) == (100.0, 1)
    assert labels_for({10: 100.0, 50: 50.0}, 100.0) == (10.0, 0)
    assert labels_for({10: 100.0, 50: 50.0}, 101.0) == (10.0, -1)
    assert labels_for({10: 100.0, 1000: 1.0}, 10.0)[0] == pytest.approx(100.0)
