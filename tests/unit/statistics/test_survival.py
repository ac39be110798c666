"""Kaplan–Meier and the restricted mean, against hand-made cases and against lifelines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

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


@pytest.mark.parametrize("alive", range(9))
def test_without_censoring_the_limits_are_clopper_and_pearsons(alive: int) -> None:
    dead = 8 - alive
    curve = kaplan_meier([*(1.0 + 0.1 * i for i in range(dead)), *[5.0] * alive], [*[True] * dead, *[False] * alive])
    exact = stats.binomtest(alive, 8).proportion_ci(method="exact")
    assert survival_interval(curve, 5.0) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_mid_p_limits_are_those_of_the_binomial() -> None:
    """The mid-P limits: half the probability of what was observed counts on either side."""
    curve = kaplan_meier([1.0, 2.0, *[5.0] * 6], [True, True, *[False] * 6])
    low, high = survival_interval(curve, 5.0, mid_p=True)
    for share, tail in ((low, stats.binom.sf(6, 8, low)), (high, stats.binom.cdf(5, 8, high))):
        assert tail + 0.5 * stats.binom.pmf(6, 8, share) == pytest.approx(0.025, abs=1e-8)


def test_a_censored_subject_counts_until_then() -> None:
    """Products of Beta(Y, 1) matched by moments: hand-made for two deaths among 5, with one censored between them."""
    curve = kaplan_meier([1.0, 2.0, 3.0, 5.0, 5.0], [True, False, True, False, False])
    mean, square = 5 / 6 * 3 / 4, 5 / 7 * 3 / 5
    total = mean * (1 - mean) / (square - mean**2) - 1
    expected = stats.beta.ppf(0.975, mean * total, (1 - mean) * total)
    assert survival_interval(curve, 4.0)[1] == pytest.approx(expected)


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
    ours, low, high = restricted_mean(curve, 4.0)
    assert ours == pytest.approx(restricted_mean_survival_time(fitted, t=4.0), abs=1e-9)
    assert low < ours < high


def test_all_survived_is_no_certainty_of_the_stable_time() -> None:
    mean, low, high = restricted_mean(kaplan_meier([5.0] * 8, [False] * 8), 5.0)
    assert (mean, high) == (5.0, 5.0)
    assert low == pytest.approx(5.0 * 0.05 ** (1 / 8), rel=1e-6)


@pytest.mark.parametrize("survival", [0.9, 0.5])
def test_the_interval_of_the_restricted_mean_covers(survival: float) -> None:
    """Eight replicas, exponential deaths; Greenwood's normal interval covered 48 and 89 %."""
    generator, rate = np.random.default_rng(0), -np.log(survival)
    inside = 0
    for _ in range(300):
        times = generator.exponential(1 / rate, 8)
        _, low, high = restricted_mean(kaplan_meier(np.minimum(times, 1.0), times < 1.0), 1.0)
        inside += low <= (1 - np.exp(-rate)) / rate <= high
    assert inside / 300 >= 0.94
