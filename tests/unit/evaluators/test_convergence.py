"""When a training counts as converged."""

from __future__ import annotations

import numpy as np

from mlpbench.evaluators.convergence import converged


def curve(loss: np.ndarray) -> list[dict]:
    return [{"epoch": i + 1, "valid_loss": float(value)} for i, value in enumerate(loss)]


def test_still_falling_is_not_converged() -> None:
    verdict, reason = converged(curve(np.exp(-np.arange(100) / 50)))
    assert not verdict
    assert "last 10 %" in reason


def test_a_plateau_is_converged() -> None:
    loss = np.exp(-np.arange(100) / 10) + 1.0
    loss[70:] = loss[70] + 1e-6
    assert converged(curve(loss)) == (True, "")


def test_gains_of_no_account_do_not_count() -> None:
    """Averaged weights creep on for ever: the best epoch is the last one, and nothing depends on it."""
    loss = np.exp(-np.arange(100) / 8) + 1.0 - 1e-4 * np.arange(100)
    assert int(np.argmin(loss)) == 99
    assert converged(curve(loss)) == (True, "")


def test_a_late_drop_with_an_early_best_epoch_is_not_converged() -> None:
    loss = np.ones(100)
    loss[85:] = 0.5
    loss[85] = 0.49
    verdict, reason = converged(curve(loss))
    assert not verdict
    assert "51 %" in reason


def test_short_and_broken_curves_are_not_converged() -> None:
    assert not converged(curve(np.ones(5)))[0]
    assert "finite" in converged(curve(np.array([1.0] * 20 + [np.nan])))[1]
