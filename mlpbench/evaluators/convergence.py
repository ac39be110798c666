"""Whether a training had come to rest when it ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

LAST_PART = 0.10  # the best epoch must not lie in this last part of the training
FLAT_PART = 0.20  # over this last part ...
FLAT_GAIN = 0.05  # ... the best validation loss may fall by this fraction at the most


def converged(curve: Sequence[dict[str, Any]]) -> tuple[bool, str]:
    """Judge a training curve.

    Converged means: the best epoch is not among the last 10 % of epochs, and over the last 20 % of epochs the best
    validation loss so far fell by at most 5 % (about 2.5 % in the error, since the loss is a square).

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
    best = int(np.argmin(loss)) + 1
    if best > (1 - LAST_PART) * len(loss):
        return False, f"best epoch {best} of {len(loss)} is among the last 10 %: still improving"
    before = loss[: int(np.ceil((1 - FLAT_PART) * len(loss)))].min()
    gain = 1 - loss.min() / before
    if gain > FLAT_GAIN:
        return False, f"the validation loss still fell by {100 * gain:.0f} % over the last 20 % of epochs"
    return True, ""
