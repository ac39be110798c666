"""Whether a training had come to rest when it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LAST_PART = 0.10  # the training must have settled before this last part of it
SETTLED = 0.02  # settled: the first epoch whose loss is within this fraction of the best
FLAT_PART = 0.20  # over this last part ...
FLAT_GAIN = 0.05  # ... the best validation loss may fall by this fraction at the most


def converged(curve: Sequence[dict[str, Any]]) -> tuple[bool, str]:
    """Judge a training curve.

    Converged means: a loss within 2 % of the best (1 % in the error, since the loss is a square) was reached before the
    last 10 % of epochs, and over the last 20 % of epochs the best validation loss so far fell by at most 5 %. The plain
    best epoch would not do: on the smooth curve of averaged weights it is the last one, by gains of no account.

    Args:
        curve: one entry an epoch with ``epoch`` and ``valid_loss``, in order.

    Returns:
        The verdict and, where it is negative, the reason.
    """
    loss = np.array([point["valid_loss"] for point in curve if point.get("valid_loss") is not None], dtype=float)
    if len(loss) < 10:
        return False, f"only {len(loss)} epochs: too few to tell"
    if not np.isfinite(loss).all():
        return False, "the validation loss is not finite"
    settled = int(np.argmax(loss <= (1 + SETTLED) * loss.min())) + 1
    if settled > (1 - LAST_PART) * len(loss):
        return False, f"settled only at epoch {settled} of {len(loss)}, among the last 10 %: still improving"
    before = loss[: int(np.ceil((1 - FLAT_PART) * len(loss)))].min()
    gain = 1 - loss.min() / before
    if gain > FLAT_GAIN:
        return False, f"the validation loss still fell by {100 * gain:.0f} % over the last 20 % of epochs"
    return True, ""
