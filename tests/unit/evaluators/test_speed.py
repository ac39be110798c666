"""Speed scores on made-up timings with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlpbench.evaluators import Context
from mlpbench.evaluators.speed import REFERENCE, differ, median_interval, noise_floor, score
from mlpbench.protocol import write_json


def timings(**changes: object) -> dict:
    return {
        "n_atoms": 9.0, "latency": [2e-3] * 5, "latency_again": [2e-3] * 5, "timestep_fs": 0.5, "md": [4e-3] * 5,
        "batched": [{"batch_size": n, "seconds_per_frame": [t] * 5} for n, t in ((1, 2e-3), (8, 5e-4))],
        "scaling": [{"n_atoms": 9, "seconds": [2e-3]}, {"n_atoms": 18, "seconds": [9.0], "stopped": "too long"}],
        **changes,
    }  # fmt: skip


def rows(directory: Path, context: Context | None = None, **changes: object) -> dict[str, dict]:
    found = score(directory, timings(**changes), context or Context(frames={}))
    return {row["metric"]: row for row in found}


def reference(directory: Path, *seconds: float) -> Context:
    write_json(directory / REFERENCE, {"status": "done", "seconds": seconds})
    return Context(frames={}, training={"n_labels": 250, "wall_seconds": 100.0})


def test_units(tmp_path: Path) -> None:
    found = rows(tmp_path)
    assert found["ms_per_call"]["value"] == pytest.approx(2.0)
    assert found["us_per_atom"]["value"] == pytest.approx(2000 / 9)
    assert found["throughput"]["value"] == pytest.approx(2000)  # the faster batch size
    assert found["ns_per_day"]["value"] == pytest.approx(86400 / 4e-3 * 0.5e-6)
    assert found["max_atoms"]["value"] == 9  # the one that took too long does not count
    assert "speedup_vs_reference" not in found
    assert rows(tmp_path, peak_memory_mb=912.5)["peak_memory"]["value"] == 912.5


def test_against_the_reference(tmp_path: Path) -> None:
    found = rows(tmp_path, reference(tmp_path, 5.0, 6.0, 8.0))
    assert found["speedup_vs_reference"]["value"] == pytest.approx(3000)
    assert found["speedup_vs_reference"]["lower"] == pytest.approx(2500)
    assert found["speedup_vs_reference"]["upper"] == pytest.approx(4000)
    assert found["breakeven_steps"]["value"] == pytest.approx((250 * 6.0 + 100) / (6.0 - 4e-3))


def test_a_potential_slower_than_its_reference_never_breaks_even(tmp_path: Path) -> None:
    found = rows(tmp_path, reference(tmp_path, 1e-3))
    assert found["speedup_vs_reference"]["value"] == pytest.approx(0.5)
    assert "breakeven_steps" not in found


def test_noise_floor_holds_what_a_a_differs_by() -> None:
    """In 95 of 100 A/A studies the mean log-ratio lies inside the floor."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(2000):
        first, second = np.exp(rng.normal(0, 0.05, (2, 7)))
        floor = np.log1p(noise_floor(list(first), list(second)) / 100)
        inside += abs(np.log(first / second).mean()) <= floor
    assert 0.93 < inside / 2000 < 0.97


def test_median_interval_covers() -> None:
    rng = np.random.default_rng(1)
    covered = [low <= 0 <= high for _, low, high in (median_interval(rng.normal(size=15)) for _ in range(1000))]
    assert np.mean(covered) > 0.94


def test_the_same_is_seldom_called_different_and_a_tenth_is_found() -> None:
    """A/A with the noise of a shared machine: at most 5 %; a difference of 10 % is found in most runs of 5 blocks."""
    rng = np.random.default_rng(2)

    def run(factor: float, noise: float) -> tuple[list[float], list[float]]:
        first, second = factor * np.exp(rng.normal(0, noise, (2, 5)))
        return list(first), list(second)

    assert np.mean([differ(run(1.0, 0.05), run(1.0, 0.05)) for _ in range(1000)]) <= 0.05
    assert np.mean([differ(run(1.0, 0.02), run(1.1, 0.02)) for _ in range(1000)]) > 0.9
    assert differ(([1.0] * 3, [1.0] * 3), ([2.0] * 3, [2.0] * 3))
    assert not differ(([1.0] * 3, [1.0] * 3), ([1.0] * 3, [1.0] * 3))
