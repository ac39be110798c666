"""The exponent of a cost, and where two laws meet."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.statistics.extrapolation import fit_power_law


def test_an_exact_law_is_found() -> None:
    sizes = [5, 8, 14, 26]
    law = fit_power_law(sizes, [0.3 * n**2.5 for n in sizes])
    assert law is not None
    assert (law.factor, law.exponent) == pytest.approx((0.3, 2.5))
    assert law.at(100) == pytest.approx(0.3 * 1e5)
    assert (law.smallest, law.largest, law.n) == (5, 26, 4)


def test_the_interval_of_the_exponent_covers() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([5, 8, 11, 14, 20, 26])
    inside = 0
    for _ in range(1000):
        law = fit_power_law(sizes, sizes**2.0 * np.exp(rng.normal(0, 0.1, len(sizes))))
        assert law is not None
        inside += law.lower <= 2.0 <= law.upper
    assert 0.93 < inside / 1000 < 0.97


def test_too_few_points() -> None:
    assert fit_power_law([5, 5], [1.0, 2.0]) is None
    two = fit_power_law([5, 10], [1.0, 2.0])
    assert two is not None
    assert (two.exponent, two.lower, two.upper) == (pytest.approx(1.0), -np.inf, np.inf)


def test_laws_meet_where_their_costs_are_equal() -> None:
    slow, steep = fit_power_law([1, 10], [1.0, 10.0]), fit_power_law([1, 10], [1e-2, 1e1])
    assert slow is not None
    assert steep is not None
    meeting = slow.reaches(steep)
    assert meeting == pytest.approx(10.0)
    assert slow.at(meeting) == pytest.approx(steep.at(meeting))
    assert slow.reaches(slow) is None
