"""The batches, steps and learning rates that the trainings of all packages share."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from mlpbench.worker.common_training import Batches, IntervalSampler, Steps, learning_rate
from mlpbench.worker.training import check_labels
from tests.support import ethanol_frames

BUDGET = {"epochs": None, "steps": None, "seconds": None, "interval": None}


@pytest.mark.parametrize("n_train", [25, 50, 400])
def test_the_same_steps_at_every_training_size(n_train: int) -> None:
    steps = Steps.of({**BUDGET, "steps": 1000, "interval": 50}, 5, n_train)
    assert (steps.total, steps.intervals, steps.limit) == (1000, 20, "steps")


def test_epochs_are_passes_and_grow_with_the_labels() -> None:
    few, many = (Steps.of({**BUDGET, "epochs": 10}, 8, n) for n in (20, 81))
    assert (few.total, few.interval, few.limit) == (30, 3, "epochs")  # 3 batches: 8, 8 and 4 frames
    assert (many.total, many.interval) == (110, 11)
    assert many.passes(110) == 10


def test_the_total_ends_with_a_validation() -> None:
    assert Steps.of({**BUDGET, "steps": 101, "interval": 50}, 5, 20).total == 150
    assert Steps.of({**BUDGET, "steps": 7, "interval": 50}, 5, 20).total == 7
    assert Steps.of({**BUDGET, "steps": 100, "epochs": 3, "interval": 2}, 5, 20).limit == "epochs"


def test_a_budget_without_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="no limit"):
        Steps.of(BUDGET, 5, 20)


def test_every_pass_holds_every_frame_once_in_an_order_of_its_own() -> None:
    batches = Batches(23, 5, seed=3)
    passes = [[frame for batch in batches.between(5 * p, 5 * p + 5) for frame in batch] for p in range(3)]
    assert all(sorted(frames) == list(range(23)) for frames in passes)
    assert passes[0] != passes[1] != passes[2]
    assert [len(batches.at(step)) for step in range(5)] == [5, 5, 5, 5, 3]


def test_a_resumed_training_goes_on_with_the_right_batch() -> None:
    straight = list(Batches(23, 5, seed=3).between(0, 40))
    sampler = IntervalSampler(23, 5, interval=8, seed=3)
    sampler.set_epoch(3)
    assert list(sampler) == straight[24:32]
    early = iter(sampler)
    sampler.set_epoch(4)  # Lightning's order of the calls on resuming
    assert list(early) == straight[32:40]
    assert Batches(23, 5, seed=4).at(0) != straight[0]


def test_cosine_and_linear_end_with_the_budget() -> None:
    steps = Steps.of({**BUDGET, "steps": 100, "interval": 10}, 5, 20)
    for schedule, half in (("cosine", 0.5), ("linear", 0.5)):
        training = {"schedule": schedule, "lr": 0.01, "lr_min": 0.0, "warmup_steps": 0}
        rates = [learning_rate(training, steps, step, 0.0) for step in range(101)]
        assert rates[0] == 0.01
        assert rates[50] == pytest.approx(half * 0.01)
        assert rates[100] == pytest.approx(0.0, abs=1e-12)
        assert all(a >= b for a, b in pairwise(rates))


def test_with_a_budget_of_seconds_time_decides() -> None:
    steps = Steps.of({**BUDGET, "seconds": 60.0, "interval": 10}, 5, 20)
    training = {"schedule": "linear", "lr": 1.0, "lr_min": 0.1, "warmup_steps": 0}
    assert learning_rate(training, steps, 12345, 30.0) == pytest.approx(0.55)
    assert learning_rate(training, steps, 12345, 90.0) == pytest.approx(0.1)


def test_warm_up_rises_over_its_steps() -> None:
    steps = Steps.of({**BUDGET, "steps": 1000, "interval": 10}, 5, 20)
    training = {"schedule": "linear", "lr": 1.0, "lr_min": 0.0, "warmup_steps": 10}
    rates = [learning_rate(training, steps, step, 0.0) for step in range(12)]
    assert np.allclose(rates[:10], (np.arange(10) + 1) / 10 * (1 - np.arange(10) / 1000))
    assert rates[11] == pytest.approx(1 - 11 / 1000)


def test_a_schedule_of_the_package_is_not_ours() -> None:
    steps = Steps.of({**BUDGET, "steps": 10}, 5, 20)
    with pytest.raises(ValueError, match="plateau"):
        learning_rate({"schedule": "plateau", "lr": 1.0, "lr_min": 0.0}, steps, 0, 0.0)


@pytest.mark.parametrize("label", ["energy", "forces", "stress"])
def test_a_missing_label_is_named_with_its_frame(label: str) -> None:
    frames = replace(ethanol_frames("pool_500K", 4), stress=np.zeros((4, 6)), pbc=np.ones((4, 3), dtype=bool))
    check_labels(["energy", "forces", "stress"], train=frames)
    values = getattr(frames, label).copy()
    values[{"energy": 2, "forces": 2 * 9 + 8, "stress": 2}[label]] = np.nan
    with pytest.raises(ValueError, match=f"uses {label}, but 1 of 4 valid frames have none, the first is frame 2"):
        check_labels([label], train=frames, valid=replace(frames, **{label: values}))
    check_labels([other for other in ("energy", "forces", "stress") if other != label], valid=frames)


def test_stress_of_an_open_frame_is_refused() -> None:
    frames = replace(ethanol_frames("pool_500K", 2), stress=np.zeros((2, 6)))
    with pytest.raises(ValueError, match="train frame 0 is not periodic"):
        check_labels(["stress"], train=frames)
