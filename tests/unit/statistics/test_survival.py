"""Kaplan–Meier and the restricted mean, against hand-made cases and against lifelines."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.statistics.survival import kaplan_meier, restricted_mean, survival_interval


def test_without_censoring_it_is_the_share_alive() -> None:
    curve = kaplan_meier([1.0, 2.0, 3.0, 4.0], [True, True, True, True])
    assert curve.at(0.5) == 1.0
    assert curve.at(2.0) == pytest.approx(0.5)
    assert curve.at(10.0) == 0.0
    assert restricted_mean(curve, 4.0)[0] == pytest.approx(2.5)
    assert restricted_mean(curve, 2.0)[0] == pytest.approx(1.75)


def test_a_censored_replica_is_not_a_death() -> None:
    """One of four stopped by the clock at 1 ps: it says nothing about later times, and counts against nobody."""
    curve = kaplan_meier([1.0, 2.0, 4.0, 4.0], [False, True, False, False])
    assert curve.at(4.0) == pytest.approx(2 / 3)
    assert kaplan_meier([1.0, 1.0], [False, False]).at(1.0) == 1.0


def test_all_stopped_by_the_clock_say_nothing_about_later_times() -> None:
    curve = kaplan_meier([1.0, 1.5], [False, False])
    assert not curve.known_at(10.0)
    assert curve.known_at(1.5)
    assert kaplan_meier([1.0, 1.5], [True, True]).known_at(10.0)  # nobody is left: S stays 0
    assert not kaplan_meier([1.0, 1.5], [True, False]).known_at(10.0)


def test_perfect_survival_of_few_is_no_certainty() -> None:
    curve = kaplan_meier([5.0] * 8, [False] * 8)
    low, high = survival_interval(curve, 5.0)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 8)), 1.0)
    low, high = survival_interval(kaplan_meier([1.0] * 8, [True] * 8), 5.0)
    assert low == 0.0
    assert 0.3 < high < 0.5


def test_nobody() -> None:
    with pytest.raises(ValueError, match="nobody"):
        kaplan_meier([], [])


@pytest.mark.parametrize("seed", range(5))
def test_against_lifelines(seed: int) -> None:
    lifelines = pytest.importorskip("lifelines")
    from lifelines.utils import restricted_mean_survival_time

    generator = np.random.default_rng(seed)
    times = np.minimum(generator.exponential(3.0, 40).round(1) + 0.1, 5.0)
    died = (times < 5.0) & (generator.random(40) < 0.7)
    fitted = lifelines.KaplanMeierFitter().fit(times, died)
    curve = kaplan_meier(times, died)
    for time in (0.5, 1.0, 2.5, 4.9):
        assert curve.at(time) == pytest.approx(float(fitted.predict(time)), abs=1e-12)
        if 0 < curve.at(time) < 1:
            row = fitted.confidence_interval_survival_function_.loc[:time].iloc[-1]
            assert survival_interval(curve, time) == pytest.approx((row.iloc[0], row.iloc[1]), abs=1e-9)
    ours, low, high = restricted_mean(curve, 4.0)
    assert ours == pytest.approx(restricted_mean_survival_time(fitted, t=4.0), abs=1e-9)
    assert low < ours < high


def test_the_interval_of_the_restricted_mean_covers() -> None:
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        times = generator.exponential(3.0, 20)
        curve = kaplan_meier(np.minimum(times, 5.0), times < 5.0)
        _, low, high = restricted_mean(curve, 5.0)
        inside += low < 3.0 * (1 - np.exp(-5 / 3)) < high
    assert 0.88 < inside / 300 < 0.99
