"""Learning curves: exact data give exact answers, noisy data honest intervals."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from mlpbench.statistics import curves
from mlpbench.statistics.curves import NotAtRest
from mlpbench.statistics.extrapolation import data_multiplier, frames_needed, label_hours

fit_learning_curve = partial(curves.fit_learning_curve, at_rest=True)
SLOW = pytest.mark.slow
SIZES = np.array([50.0, 100, 200, 400])


def data(rng, repetitions=3, a=400.0, b=0.5, c=0.0, shared=0.04, noise=0.03, sizes=SIZES):
    n, r = np.tile(sizes, repetitions), np.repeat(np.arange(repetitions), len(sizes))
    shift = shared * rng.standard_normal(repetitions)
    return n, (a * n**-b + c) * np.exp(shift[r] + noise * rng.standard_normal(len(n))), r


def test_exact_data():
    n, error, r = data(np.random.default_rng(0), shared=0, noise=0)
    curve = fit_learning_curve(n, error, r)
    assert (curve.a, curve.b, curve.c) == pytest.approx((400, 0.5, 0))
    assert curve.predict(900) == pytest.approx(400 / 30)


@pytest.mark.parametrize("repetitions", [3, pytest.param(5, marks=SLOW), pytest.param(10, marks=SLOW)])
def test_the_exponents_interval_covers(repetitions):
    # 100 studies: standard error 2.2 %, the lower bound two of them from 93 %.
    rng = np.random.default_rng(repetitions)
    hits = 0
    for _ in range(100):
        curve = fit_learning_curve(*data(rng, repetitions))
        hits += curve.b_lower <= 0.5 <= curve.b_upper
    assert 0.885 < hits / 100 <= 1.0


def test_shifts_of_repetitions_do_not_widen_the_exponent():
    rng = np.random.default_rng(1)
    n, error, r = data(rng, shared=0.0)
    shifted = error * np.exp(np.array([-0.5, 0.1, 0.4])[r])
    one, two = fit_learning_curve(n, error, r), fit_learning_curve(n, shifted, r)
    assert two.b_upper - two.b_lower == pytest.approx(one.b_upper - one.b_lower, rel=1e-6)
    assert two.between > 0.3
    assert frames_needed(two, 16).upper > frames_needed(one, 16).upper  # but the level is less certain


def test_a_floor_only_where_the_data_show_one():
    rng = np.random.default_rng(2)
    sizes = np.array([25.0, 50, 100, 200, 400, 800])
    floored = fit_learning_curve(*data(rng, 5, c=12.0, noise=0.02, sizes=sizes))
    assert floored.c == pytest.approx(12, rel=0.25)
    assert floored.floor_p < 0.01
    assert not frames_needed(floored, 8).reachable
    assert "floor" in frames_needed(floored, 8).reason
    claimed = sum(fit_learning_curve(*data(rng, 3)).c > 0 for _ in range(100))
    assert claimed <= 4  # at a level of 1 %


def test_frames_needed_covers_the_truth_and_refuses_to_guess():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(100):
        need = frames_needed(fit_learning_curve(*data(rng)), 400 / 30)
        hits += need.lower <= 900 <= need.upper
    assert hits >= 88
    curve = fit_learning_curve(*data(rng))
    assert "10 times" in frames_needed(curve, 400 * 100000**-0.5).reason
    flat = fit_learning_curve(*data(rng, b=0.0))
    assert not frames_needed(flat, 200).reachable
    with pytest.raises(ValueError, match="positive"):
        frames_needed(curve, 0.0)


def test_data_multiplier():
    rng = np.random.default_rng(4)
    good, poor = fit_learning_curve(*data(rng, 5)), fit_learning_curve(*data(rng, 5, a=800.0))
    found = data_multiplier(good, poor, 40.0)  # 100 and 400 frames
    assert found.lower < 4 < found.upper
    assert found.upper / found.lower < 2
    assert "second" in data_multiplier(good, poor, 10.0).reason


def test_band_holds_the_curve_and_widens_away_from_the_data():
    curve = fit_learning_curve(*data(np.random.default_rng(5)))
    low, high = curve.band([141, 4000])
    assert (low < curve.predict([141, 4000])).all()
    assert high[1] / low[1] > high[0] / low[0]


def test_one_repetition_is_noted_and_two_sizes_have_no_interval():
    rng = np.random.default_rng(6)
    n, error, r = data(rng, 1)
    assert "one repetition" in fit_learning_curve(n, error, r).note
    assert np.isnan(fit_learning_curve(n[:2], error[:2], r[:2]).b_lower)
    with pytest.raises(ValueError, match="two training sizes"):
        fit_learning_curve([50, 50], [1, 2], [0, 1])


def test_trainings_that_had_not_come_to_rest_have_no_curve():
    n, error, r = data(np.random.default_rng(0))
    with pytest.raises(NotAtRest, match="100, 400 frames") as caught:
        curves.fit_learning_curve(n, error, r, at_rest=~np.isin(n, (100, 400)))
    assert caught.value.sizes == (100.0, 400.0)


def test_two_sizes_of_one_repetition_give_the_estimate_and_say_that_the_interval_is_missing():
    curve = fit_learning_curve([50, 200], [100.0, 50.0], [0, 0])
    assert "without an interval" in curve.note
    need = frames_needed(curve, 25.0)
    assert need.n == pytest.approx(800)
    assert need.reachable
    assert np.isnan(need.lower)
    assert "no interval" in need.note


def test_extrapolation_is_refused_downwards_as_upwards():
    curve = fit_learning_curve(*data(np.random.default_rng(0), shared=0, noise=1e-4))
    assert frames_needed(curve, 400 * 6.0**-0.5).n == pytest.approx(6, rel=0.01)
    below = frames_needed(curve, 400 * 4.0**-0.5)
    assert not below.reachable
    assert "fewer frames than a 10th of the smallest" in below.reason


def test_a_curve_that_bends_says_so_and_is_not_extrapolated():
    """log error with a quadratic term; a straight one is called bent in 5 % of studies."""
    rng = np.random.default_rng(1)
    n, error, r = data(rng, 3, noise=0.02)
    bent = fit_learning_curve(n, error * np.exp(0.15 * np.log(n / 141) ** 2), r, floor=False)
    assert bent.bends
    assert bent.curvature == pytest.approx(0.3, abs=0.1)
    assert "flattens (lack of fit, p = " in bent.note
    assert "largest training set (p =" in frames_needed(bent, float(bent.predict(500.0))).reason
    assert frames_needed(bent, float(bent.predict(300.0))).reachable
    called = np.mean([fit_learning_curve(*data(rng, 3), floor=False).bends for _ in range(300)])
    assert 0.01 < called < 0.09


def test_no_potential_is_better_than_its_labels():
    curve = fit_learning_curve(*data(np.random.default_rng(2)), noise=20.0)
    assert "labels themselves are off by 20" in frames_needed(curve, 18.0).reason
    assert frames_needed(curve, 21.0).reachable


def test_missing_trials_are_left_out():
    n, error, r = data(np.random.default_rng(7), 5)
    error[[3, 8]] = np.nan
    curve = fit_learning_curve(n, error, r)
    assert curve.b_lower < 0.5 < curve.b_upper


def test_validation_frames_are_labels_too():
    assert label_hours(200, 50, 36) == 2.5
