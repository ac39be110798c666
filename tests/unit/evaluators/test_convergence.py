"""When a training is at rest, and when it is converged: adversarial curves do not pass."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlpbench.evaluators.training import SOLVED, Rung, agreement, at_rest, trivial_loss
from mlpbench.frames import Frames
from mlpbench.protocol import Result
from mlpbench.scoring import training_facts
from tests.support import ethanol_frames

N = 40
FRACTION = (np.arange(N) + 1) / N
COSINE = 0.01 * (0.5 + 0.5 * np.cos(np.pi * FRACTION)) + 1e-6
HEALTHY = 0.1 + 0.9 * np.exp(-8 * FRACTION) + 0.01 * (1 - FRACTION)  # errors; the trivial predictor's is 1


def curve(error: np.ndarray, lr: np.ndarray = COSINE) -> list[dict]:
    return [
        {"epoch": i + 1, "valid_loss": float(e) ** 2, "lr": float(r)}
        for i, (e, r) in enumerate(zip(error, lr, strict=True))
    ]


def test_a_training_that_ended_flat_under_a_finished_schedule_is_at_rest() -> None:
    assert at_rest(curve(HEALTHY), 1.0).passed


ADVERSARIES = {
    "vanishing rate": (np.full(N, 0.995), COSINE * 1e-5, "times that of predicting"),
    "diverging": (HEALTHY * np.exp(5 * np.maximum(0, FRACTION - 0.3)), COSINE, "times the lowest"),
    "oscillating": (HEALTHY * np.where(np.arange(N) % 2, 1.0, 10.0), COSINE, "factor of"),
    "oscillating, ending high": (HEALTHY * np.where(np.arange(N) % 2, 10.0, 1.0), COSINE, "times the lowest"),
    "plateau at the full rate": (0.2 + 0.8 * np.exp(-20 * FRACTION), np.full(N, 0.01), "not yet a tenth"),
    "still falling": (np.exp(-3 * FRACTION), COSINE, "still fell"),
    "not a number at the end": (np.append(HEALTHY[:-1], np.nan), COSINE, "not finite"),
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_adversaries_are_not_at_rest(name: str) -> None:
    error, lr, reason = ADVERSARIES[name]
    points = curve(error, lr)
    for point in points:
        if not math.isfinite(point["valid_loss"]):
            point["valid_loss"] = None  # as a record holds it
    verdict = at_rest(points, 1.0)
    assert verdict.passed is False
    assert reason in verdict.reason


def test_too_few_validations() -> None:
    assert "only 5" in at_rest(curve(HEALTHY)[-5:], 1.0).reason


def test_the_trivial_loss_is_that_of_no_forces_and_the_baseline() -> None:
    frames = ethanol_frames("test_500K", 5)
    training = {"energy_weight": 2.0, "force_weight": 3.0, "stress_weight": 0.0}
    energy = np.mean(((frames.energy + 4209.0) / 9) ** 2)
    assert trivial_loss(frames, training, ["energy", "forces"]) == pytest.approx(
        2 * energy + 3 * np.mean(frames.forces**2)
    )
    assert trivial_loss(frames, training, ["forces"]) == pytest.approx(3 * np.mean(frames.forces**2))
    assert isinstance(frames, Frames)


def rungs(*errors: float, rest: bool = True) -> list[Rung]:
    return [Rung(f"t{i}", 500 * 2**i, error, rest) for i, error in enumerate(errors)]


def test_converged_needs_two_trainings_that_agree() -> None:
    assert agreement(rungs(0.1), 0.02).passed is None
    assert agreement(rungs(0.2, 0.1, 0.099), 0.02).passed is True
    falling = agreement(rungs(0.1, 0.09), 0.02)
    assert falling.passed is False
    assert "10.0 % lower" in falling.reason
    rising = agreement(rungs(0.1, 0.12), 0.02)
    assert rising.passed is False
    assert "20.0 % higher" in rising.reason


def test_trainings_that_are_not_at_rest_prove_nothing() -> None:
    assert "did not come to rest" in agreement(rungs(0.1, 0.1, rest=False), 0.02).reason


def test_a_model_that_is_solved_at_once_is_converged_if_it_has_learnt() -> None:
    values = {"stopped_by": SOLVED, "steps": None, "epochs": 1, "best_valid_loss": 0.25}
    result = Result("train", "", "done", wall_seconds=3.0, values=values)
    point = {"epoch": 1, "step": 0, "seconds": 2.0, "valid_loss": 0.25, "lr": None}
    facts = training_facts(result, [point], trivial=1.0)
    assert (facts["at_rest"], facts["converged"], facts["rest_reason"]) == (True, True, "")
    assert "solved at once" in facts["convergence_reason"]
    assert facts["wall_seconds"] == 3.0
    no_better = training_facts(result, [{**point, "valid_loss": 0.9}], trivial=1.0)  # 0.95 of the trivial error
    assert no_better["at_rest"] is False
    assert "0.95 times" in no_better["rest_reason"]
    stepped = training_facts(Result("train", "", "done", values={"stopped_by": "steps"}), [point], trivial=1.0)
    assert stepped["at_rest"] is False
    assert "converged" not in stepped
