"""How many labels another start saves, read off measured learning curves without a fitted law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mlpbench.statistics.intervals import interval


@dataclass(frozen=True)
class Multiplier:
    """How many times the labels the plain curve needs for the error that the other one has at ``n``.

    Attributes:
        n: labels of the other one.
        value: geometric mean over repetitions.
        lower: lower end of its 95 % interval; NaN where there is none.
        upper: upper end; infinite where the plain curve does not get there in some repetition.
        repetitions: that both curves have.
        beyond: of these, those in which the plain curve does not get there with its most labels: the factor is then at
            least that many times, and ``value`` and ``lower`` are of such least factors.
        below: those in which it is there with its fewest labels already: the factor is then at most that.
    """

    n: int
    value: float
    lower: float
    upper: float
    repetitions: int
    beyond: int
    below: int


def labels_for(curve: Mapping[int, float], target: float) -> tuple[float, int]:
    """Labels at which a measured curve reaches ``target``, by a straight line between logarithms.

    The curve counts as the lowest error with as many labels or fewer, so that it never rises.

    Args:
        curve: labels -> error, all positive, at least one.
        target: error.

    Returns:
        The labels, and 1 where the curve ends above the target (then its most labels), -1 where it begins below it
        (then its fewest), else 0.
    """
    n = np.array(sorted(curve), dtype=float)
    error = np.minimum.accumulate([curve[int(labels)] for labels in n])
    if target < error[-1]:
        return float(n[-1]), 1
    if target > error[0]:
        return float(n[0]), -1
    after = int(np.argmax(error <= target))
    if after == 0:
        return float(n[0]), 0
    share = np.log(error[after - 1] / target) / np.log(error[after - 1] / error[after])
    return float(np.exp(np.log(n[after - 1]) + share * np.log(n[after] / n[after - 1]))), 0


def multiplier(
    plain: Mapping[int, Mapping[int, float]], other: Mapping[int, Mapping[int, float]], n: int
) -> Multiplier:
    """The factor at ``n`` labels, paired over repetitions: both curves of one repetition have the same nested subsets.

    Args:
        plain: repetition -> labels -> error; all positive.
        other: likewise.
        n: labels of the other one.
    """
    shared = [r for r in sorted(other) if n in other[r] and plain.get(r)]
    needed = [labels_for(plain[r], other[r][n]) for r in shared]
    if not needed:
        return Multiplier(n, np.nan, np.nan, np.nan, 0, 0, 0)
    factors = np.array([labels for labels, _ in needed]) / n
    beyond, below = (sum(side == sign for _, side in needed) for sign in (1, -1))
    if np.ptp(factors) == 0 or beyond == len(needed):  # all at the end of the data: their scatter is not known
        value = lower = upper = float(factors.min())
    else:
        mean = interval(factors, scale="log")
        value, lower, upper = mean.value, mean.lower, mean.upper
    if len(needed) < 2:
        lower = upper = float("nan")
    return Multiplier(n, value, lower, float("inf") if beyond else upper, len(needed), beyond, below)
