"""How often is "converged" wrong? On adversarial curves, and on real trainings repeated with ever more steps.

    python -m tests.benchmarks.convergence                       # adversarial curves
    python -m tests.benchmarks.convergence results/STUDY ...     # and the trainings of studies

The studies hold trainings that differ in ``budget.steps`` alone, by factors of two::

    mlpbench run -m study=ladders architecture=schnet,painn dataset.n_train=50,200 repetition=0,1 \\
        budget.steps=250,500,1000,2000,4000,8000

Each pair of lengths S and 2S that the rule calls converged is compared with the training of four times the steps, 8S:
it was wrong where the validation error falls by more than 5 %.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from mlpbench.converging import rung_of
from mlpbench.evaluators.training import Rung, agreement, at_rest
from mlpbench.records import load_all
from mlpbench.study.settings import ladder_of

MARGIN = 0.02
WRONG = 0.05
LENGTH = 40


def adversaries(length: int = 1) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Name -> (errors, learning rates) of trainings that nobody should call converged.

    Args:
        length: 1, or 2 for the same training with twice the steps; the trivial predictor's error is 1.
    """
    share = (np.arange(LENGTH) + 1) / LENGTH
    cosine = 0.01 * (0.5 + 0.5 * np.cos(np.pi * share)) + 1e-6
    constant = np.full(LENGTH, 0.01)
    healthy = 0.1 + 0.9 * np.exp(-8 * share)
    noise = np.random.default_rng(0).normal(0, 0.5, LENGTH)
    found = {
        "diverging from the middle on": (healthy * np.exp(5 * np.maximum(0, share - 0.3)), cosine),
        "diverging slowly": (healthy * (1 + share), cosine),
        "factor 10, every other validation": (healthy * np.where(np.arange(LENGTH) % 2, 1.0, 10.0), cosine),
        "factor 10, ending high": (healthy * np.where(np.arange(LENGTH) % 2, 10.0, 1.0), cosine),
        "noise of a factor 1.6": (healthy * np.exp(noise), cosine),
        "plateau at the full rate": (0.3 + 0.7 * np.exp(-20 * share), constant),
        "plateau, then the rate halves": (0.3 + 0.7 * np.exp(-20 * share), np.where(share < 0.9, 0.01, 0.005)),
        "exponential decay of the error": (np.exp(-3 * share), cosine),
        "power law": (share**-0.5 * 0.2, constant),
        "late drop": (np.where(share < 0.93, 0.5, 0.3), cosine),
        "not a number": (np.append(healthy[:-1], np.nan), cosine),
        "five validations": (healthy[:5], cosine[-5:]),
    }
    for rate in (1e-7, 1e-6, 3e-6, 1e-5):  # error falls in proportion to the rate, from the trivial predictor's
        found[f"vanishing rate {rate:g}"] = (1 - length * 1e4 * rate * share, cosine * rate / 0.01)
    return found


def curve(error: np.ndarray, rate: np.ndarray) -> list[dict[str, float | None]]:
    """A training curve as records hold it."""
    return [
        {"valid_loss": e**2 if math.isfinite(e) else None, "lr": r}
        for e, r in zip(error.tolist(), rate.tolist(), strict=True)
    ]


def judge_adversaries() -> int:
    """Print the verdicts on each; returns how many are called converged."""
    rested = passed = 0
    print(f"{'adversary':36s} {'at rest':8s} {'converged':10s} reason")
    twice = adversaries(2)
    for name, (error, rate) in adversaries().items():
        rest, longer = at_rest(curve(error, rate), 1.0), at_rest(curve(*twice[name]), 1.0)
        rungs = [
            Rung("once", 1000, float(np.nanmin(error)), bool(rest.passed)),
            Rung("twice", 2000, float(np.nanmin(twice[name][0])), bool(longer.passed)),
        ]
        verdict = agreement(rungs, MARGIN)
        rested += bool(rest.passed)
        passed += bool(verdict.passed)
        words = ["yes" if v.passed else "no" for v in (rest, verdict)]
        print(f"{name:36s} {words[0]:8s} {words[1]:10s} {rest.reason or verdict.reason}")
    print(f"\n{rested} of {len(twice)} adversaries are called at rest, {passed} converged")
    return passed


def judge_studies(roots: list[Path]) -> None:
    """Print, for real trainings, how often the rule's yes is followed by a fall of more than 5 % with 4 × the steps."""
    ladders: dict[tuple[str, str], list[dict]] = defaultdict(list)
    for root in roots:
        for record in load_all(root):
            if record["status"] == "done":
                ladders[record["identifiers"]["architecture"], str(ladder_of(record))].append(record)
    rested = called = wrong = pairs = 0
    trainings = sum(len(records) for records in ladders.values())
    print(f"\n{'architecture':14s} {'steps':>14s} {'error × 4 steps':>16s}  verdict")
    for (architecture, _), records in sorted(ladders.items()):
        rungs = {rung.steps: rung for rung in map(rung_of, records)}
        rested += sum(rung.at_rest for rung in rungs.values())
        for steps in sorted(rungs):
            if 2 * steps not in rungs or 8 * steps not in rungs:
                continue
            pairs += 1
            verdict = agreement([rungs[steps], rungs[2 * steps]], MARGIN)
            change = rungs[8 * steps].error / rungs[2 * steps].error - 1
            called += bool(verdict.passed)
            wrong += bool(verdict.passed) and change < -WRONG
            word = "converged" if verdict.passed else verdict.reason
            print(f"{architecture:14s} {steps:6d} {2 * steps:7d} {100 * change:+14.1f} %  {word}")
    print(f"\n{rested} of {trainings} trainings at rest; of {pairs} pairs {called} called converged, "
          f"{wrong} of them fall by more than 5 % with four times the steps")  # fmt: skip


def main() -> None:
    """Adversaries, then the studies named on the command line."""
    passed = judge_adversaries()
    if len(sys.argv) > 1:
        judge_studies([Path(argument) for argument in sys.argv[1:]])
    sys.exit(bool(passed))


if __name__ == "__main__":
    main()
