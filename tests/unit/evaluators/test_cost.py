"""Break-even in any kind of cost, and the rows of a training's cost."""

from __future__ import annotations

import pytest

from mlpbench.evaluators.training import cost_rows, payback

TRAINING = {"wall_seconds": 100.0, "on_device": False, "peak_memory_mb": 900.0, "n_parameters": 7, "best_epoch": 2}
CURVE = [{"epoch": 1, "step": 5}, {"epoch": 2, "step": 10}, {"epoch": 3, "step": 15}]


def test_break_even_in_wall_time_core_hours_and_money() -> None:
    """250 labels of 6 s and 100 s of training; an MD step takes 4 ms in place of 6 s."""
    wall = payback(250, 6.0, 100.0, 4e-3)
    assert wall.invested == pytest.approx(1600.0)
    assert wall.steps == pytest.approx(1600.0 / 5.996)
    cores = payback(250, 6.0, 100.0, 4e-3, reference_rate=8 / 3600, training_rate=2 / 3600, step_rate=2 / 3600)
    assert cores.invested == pytest.approx((250 * 6 * 8 + 100 * 2) / 3600)
    assert cores.steps == pytest.approx((250 * 6 * 8 + 200) / (6 * 8 - 4e-3 * 2))
    free = payback(250, 6.0, 100.0, 4e-3, reference_rate=0.01, training_rate=0.0, step_rate=0.0)
    assert free.steps == pytest.approx(250.0)


def test_a_potential_that_saves_nothing_is_never_paid_back() -> None:
    assert payback(10, 1e-3, 10.0, 2e-3).steps is None


def test_cost_rows_leave_out_what_is_not_known() -> None:
    found = {row["metric"]: row["value"] for row in cost_rows(TRAINING, CURVE, threads=4)}
    assert found["train_device_seconds"] == 400.0
    assert found["best_step"] == 10
    assert "train_energy" not in found
    on_gpu = {row["metric"]: row for row in cost_rows({**TRAINING, "on_device": True, "energy_wh": 3.5}, [], threads=4)}
    assert on_gpu["train_device_seconds"]["value"] == 100.0
    assert (on_gpu["train_energy"]["value"], on_gpu["train_energy"]["unit"]) == (3.5, "Wh")
    assert "best_step" not in on_gpu
