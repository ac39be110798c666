"""The block bootstrap against data whose truth is known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mlpbench.statistics.bootstrap import (
    autocorrelation_time,
    block_indices,
    block_interval,
    one_minus_ratio,
    percentile,
    r_squared,
    ratio,
    root_mean,
)


def autoregression(rng, n, rho, runs=1):
    noise = rng.standard_normal((runs, n)) * np.sqrt(1 - rho**2)
    series = np.empty((runs, n))
    series[:, 0] = rng.standard_normal(runs)
    for i in range(1, n):
        series[:, i] = rho * series[:, i - 1] + noise[:, i]
    return series


def test_values_are_those_of_the_whole_sample():
    rng = np.random.default_rng(1)
    errors, group = rng.normal(size=200), np.zeros(200, int)
    reference = rng.normal(size=200) * 4
    assert block_interval(np.abs(errors), group).value == pytest.approx(np.abs(errors).mean())
    assert block_interval(errors**2, group, root_mean).value == pytest.approx(np.sqrt(np.mean(errors**2)))
    both = np.column_stack([errors, reference])
    expected = 1 - (errors**2).sum() / ((reference - reference.mean()) ** 2).sum()
    assert block_interval(both, group, r_squared).value == pytest.approx(expected)
    sums = np.column_stack([errors**2, reference**2])
    assert block_interval(sums, group, one_minus_ratio).value == pytest.approx(
        1 - (errors**2).sum() / (reference**2).sum()
    )
    counts = np.column_stack([np.abs(errors) * 3, np.full(200, 3)])
    assert block_interval(counts, group, ratio).value == pytest.approx(np.abs(errors).mean())
    matrix = rng.normal(size=(200, 6))
    assert block_interval(matrix, group, percentile(95)).value == pytest.approx(np.percentile(matrix, 95))


def test_interval_is_reproducible_and_holds_the_value():
    values = np.random.default_rng(2).exponential(size=100)
    first, second = (block_interval(values, np.zeros(100, int), seed=5) for _ in range(2))
    assert first == second
    assert first.lower < first.value < first.upper
    assert block_interval(values, np.zeros(100, int), seed=6) != first


def test_autocorrelation_time_of_a_known_process():
    rng = np.random.default_rng(3)
    times = [autocorrelation_time(run, np.zeros(4000, int)) for run in autoregression(rng, 4000, 0.8, 20)]
    assert np.mean(times) == pytest.approx(9.0, rel=0.15)  # (1 + ρ) / (1 − ρ)
    white = [autocorrelation_time(run, np.zeros(4000, int)) for run in rng.standard_normal((20, 4000))]
    assert np.mean(white) == pytest.approx(1.0, abs=0.15)


def test_an_offset_between_trajectories_lengthens_the_correlation():
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(20), 10)
    values = rng.normal(size=200) * 0.1 + rng.normal(size=20)[group]
    assert autocorrelation_time(values, group) > 6
    assert autocorrelation_time(rng.normal(size=200), np.arange(200)) == 1.0


@pytest.mark.parametrize(("rho", "runs"), [(0.0, 1), (0.8, 1), (0.8, 4)])
def test_coverage_of_the_mean(rho, runs):
    # 200 studies: the standard error of a coverage of 95 % is 1.5 %, so 90 % is 3.2 standard errors away.
    # Correlated frames are few independent ones (200 / 9), where every block bootstrap falls a little short.
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(runs), 200 // runs)
    hits = 0
    for _ in range(200):
        values = autoregression(rng, 200 // runs, rho, runs).ravel()
        found = block_interval(values, group, n_resamples=400)
        hits += found.lower <= 0 <= found.upper
    assert hits / 200 > (0.90 if rho == 0 else 0.85)
    assert hits / 200 < 0.99


def test_single_frames_of_a_correlated_trajectory_would_cover_far_less():
    rng = np.random.default_rng(5)
    hits = 0
    for values in autoregression(rng, 200, 0.8, 200):
        found = block_interval(values, np.zeros(200, int), n_resamples=400, block_length=1)
        hits += found.lower <= 0 <= found.upper
    assert hits / 200 < 0.65


def test_blocks_stay_within_a_trajectory_and_draw_each_frame_alike():
    group = np.repeat([0, 1, 2], [50, 3, 47])
    indices = block_indices(group, 8, 4000, np.random.default_rng(0))
    assert indices.shape == (4000, 100)
    steps = np.diff(indices, axis=1) == 1
    assert steps.mean() > 0.75  # of the steps within blocks of eight, all but the wrapped ones
    draws = np.bincount(indices.ravel(), minlength=100) / 4000
    assert draws[group == 0].mean() == pytest.approx(1, abs=0.06)
    assert draws[group == 1].mean() == pytest.approx(1, abs=0.1)


def test_too_little_to_resample():
    one = block_interval([2.0], [0])
    assert one.value == 2.0
    assert np.isnan(one.lower)
    with pytest.raises(ValueError, match="finite"):
        block_interval([1.0, np.nan], [0, 0])
    with pytest.raises(ValueError, match="belong together"):
        block_interval([1.0, 2.0], [0])


def test_a_trial_of_twenty_metrics_takes_less_than_a_second():
    values = np.random.default_rng(0).exponential(size=(80, 200))
    start = time.process_time()
    for row in values:
        block_interval(row, np.zeros(200, int))
    assert time.process_time() - start < 1.0
