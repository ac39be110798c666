"""Fronts, frozen scales, rankings, the choice of settings, and the pilot."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.decision.model import percent
from mlpbench.errors import UserError
from mlpbench.pilot import plan_pilot
from mlpbench.statistics.pareto import front_probability, pareto_front, rank_stability
from mlpbench.study.rows import setting_labels
from tests.unit.decision_tables import make


def test_front():
    points = np.array([[1, 5], [2, 3], [3, 4], [4, 1], [4, 1], [np.nan, 0]])
    assert pareto_front(points).tolist() == [True, True, False, True, True, False]


def test_front_against_brute_force():
    points = np.random.default_rng(0).normal(size=(60, 3))
    brute = [not any((q <= p).all() and (q < p).any() for q in points) for p in points]
    assert pareto_front(points).tolist() == brute


def test_probability_of_the_front():
    error = [[10, 10.1, 9.9], [10.05, 9.9, 10.1], [20, 20.2, 19.9]]
    time = [[5.0, 5.01, 4.99], [5.0, 4.99, 5.01], [9.0, 9.01, 8.99]]
    found = front_probability([error, time])
    assert found.probability[2] == 0
    assert 0.4 < found.probability[0] < 0.95
    assert not found.on_front[2]
    with pytest.raises(ValueError, match="positive"):
        front_probability([[[1.0], [0.0]]])


def test_one_repetition_says_nothing_of_chance():
    """A point that was measured once lies on the front of what was measured; how surely is not known."""
    found = front_probability([[[10.0], [20.0], [9.0]], [[5.0], [6.0], [9.0]]])
    assert found.on_front.tolist() == [True, False, True]
    assert np.isnan(found.probability).all()
    assert found.n.tolist() == [1, 1, 1]
    repeated = front_probability([[[10.0, 10.1, 9.9], [20.0]], [[5.0, 5.0, 5.0], [6.0, 6.0, 6.0]]])
    assert repeated.n.tolist() == [3, 1]
    assert repeated.probability[0] == 1.0  # what repetitions of the one say of the spread is lent to the other


def test_percent_of_the_unknown():
    assert percent(float("nan")) == "unknown"


def test_rank_stability():
    errors = {"a": {0: 1.0, 1: 1.0, 2: 0.2}, "b": {0: 0.9, 1: 0.9, 2: 0.9}, "c": {0: 5.0, 1: 5.0, 2: 5.0}}
    found = rank_stability(errors)
    assert found.order == ("a", "b", "c")
    assert found.changed["repetition 2"] == 1
    assert found.changed["c"] == 0
    assert found.worst_tau == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="two competitors"):
        rank_stability({"a": {0: 1.0}})


def test_a_setting_is_chosen_on_validation_and_its_budget_told():
    study = make({"mace": 30, "schnet": 90}, sizes=(50,), lrs={"mace": (0.003, 0.01)})
    assert set(setting_labels(study.trials)) == {"MACE, N = 50, lr=0.003", "MACE, N = 50, lr=0.01", "SchNet, N = 50"}
    mace, schnet = study.candidates
    assert mace.setting.values == {"training.lr": 0.01}
    assert (mace.tried, mace.tuning_trials, mace.tuning_seconds) == (2, 6, 300.0)
    assert schnet.tried == 1
    assert np.isnan(make({"mace": 30}, lrs={"mace": (0.003, 0.01)}, validated=False).candidates[0].valid_error)


def test_pilot_of_two_repetitions():
    close = plan_pilot(make({"a": 50, "b": 48, "c": 20}, sizes=(50,), repetitions=2, noise=0.05), split="test_500K")
    assert close.done == 2
    by_name = {(p.first[0], p.second[0]): p for p in close.pairs}
    assert by_name["a", "b"].repetitions > by_name["a", "c"].repetitions
    assert by_name["a", "c"].repetitions <= 6
    assert close.repetitions >= by_name["a", "c"].repetitions
    assert close.hours == pytest.approx(3 * (close.repetitions - 2) * 50 / 3600)
    assert close.power[3] < close.power[10]
    assert close.effects[10] < close.effects[3]
    assert "repetitions" in close.text
    with pytest.raises(UserError, match="two repetitions in common"):
        plan_pilot(make({"a": 50, "b": 48}, sizes=(50,), repetitions=1), split="test_500K")
    with pytest.raises(UserError, match="Did you mean 'test_500K'"):
        plan_pilot(make({"a": 50, "b": 48}, sizes=(50,), repetitions=2), split="test_500")
