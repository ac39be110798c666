"""What a fitted law says beyond its points: frames for a target error and their price, and cost against size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log

import numpy as np
from scipy import stats

from mlpbench.statistics.curves import LearningCurve

EXTRAPOLATION = 10.0  # times the largest training size, or below the smallest: farther out a fitted line is a guess


@dataclass(frozen=True)
class Needed:
    """Training frames to reach a target error.

    Attributes:
        n: training frames; NaN if not reachable.
        lower: lower end of the interval (Fieller's: all N at which the target lies in the curve's band); NaN where
            there is no interval.
        upper: upper end; infinite where the curve may never reach the target; NaN likewise.
        reason: why no number of frames is given; empty if one is.
        note: what the number lacks: ``no interval`` and why; empty if nothing.
    """

    n: float
    lower: float
    upper: float
    reason: str
    note: str = ""

    @property
    def reachable(self) -> bool:
        """Whether the fit may be asked for it."""
        return not self.reason


def frames_needed(curve: LearningCurve, target: float, *, extrapolation: float = EXTRAPOLATION) -> Needed:
    """Training frames at which the curve reaches ``target``, with interval, or why that cannot be said.

    Args:
        curve: a fitted learning curve.
        target: error, in the unit of the curve.
        extrapolation: how many times the largest training size, and down to which part of the smallest, may be asked
            about; 1 where the curve bends.

    Raises:
        ValueError: a target that is not positive.
    """
    if target <= 0:
        raise ValueError("a target error must be positive")
    nan = float("nan")
    if not curve.b > 0:
        return Needed(nan, nan, nan, "not reachable by extrapolation: the error does not fall with more data")
    if target <= curve.c:
        return Needed(nan, nan, nan, f"not reachable by extrapolation: the floor is {curve.c:.3g}")
    if target <= curve.noise:
        return Needed(nan, nan, nan, f"not reachable: the labels themselves are off by {curve.noise:.3g}")
    log_n = float((np.log(curve.a) - np.log(target - curve.c)) / curve.b)
    lower, upper = _needed_interval(curve, target, log_n)
    allowed = 1.0 if curve.bends else extrapolation
    reason = _too_far(curve, float(np.exp(log_n)), allowed)
    inside = curve.sizes[0] <= np.exp(log_n) <= curve.sizes[-1]
    if not reason and curve.b_lower <= 0 and not inside:
        reason = "not reachable by extrapolation: the exponent's interval includes 0"
    if reason:
        return Needed(nan, lower, upper, reason)
    note = "" if np.isfinite(curve.b_lower) else "no interval: that takes a third training size or a second repetition"
    return Needed(float(np.exp(log_n)), lower, upper, "", note)


def _too_far(curve: LearningCurve, n: float, allowed: float) -> str:
    """Why ``n`` frames lie too far from those that were tried; empty if they do not."""
    smallest, largest, slack = curve.sizes[0], curve.sizes[-1], 1 + 1e-9
    bent = f" (p = {curve.curvature_p:.1g}: one exponent does not describe the curve)" if curve.bends else ""
    factor = f"{allowed:g} times " if allowed != 1 else ""
    if n > largest * allowed * slack:
        return f"not reachable by extrapolation: more than {factor}the largest training set{bent}"
    if n * allowed * slack < smallest:
        part = f"a {allowed:g}th of " if allowed != 1 else ""
        return f"reached with fewer frames than {part}the smallest training set, where nothing was tried{bent}"
    return ""


def _needed_interval(curve: LearningCurve, target: float, log_n: float) -> tuple[float, float]:
    grid = np.linspace(log_n - 14, log_n + 14, 4001)
    half = curve.half_width(grid)
    inside = np.abs(np.log(curve.predict(np.exp(grid))) - np.log(target)) <= half
    if not np.isfinite(half).all() or not inside.any():
        return float("nan"), float("nan")
    middle = len(grid) // 2
    below, above = np.flatnonzero(~inside[:middle]), np.flatnonzero(~inside[middle:])
    lower = float(np.exp(grid[below[-1]])) if len(below) else 0.0
    upper = float(np.exp(grid[middle + above[0]])) if len(above) else float("inf")
    return lower, upper


@dataclass(frozen=True)
class DataMultiplier:
    """How many times the data the second needs where the first reaches the target.

    Attributes:
        value: N of the second over N of the first; NaN if either does not reach the target.
        lower: lower end of the interval.
        upper: upper end.
        reason: why it cannot be said; empty if it can.
    """

    value: float
    lower: float
    upper: float
    reason: str


def data_multiplier(
    first: LearningCurve, second: LearningCurve, target: float, *, extrapolation: float = EXTRAPOLATION
) -> DataMultiplier:
    """N(second) / N(first) at the ``target`` error, with an interval on its logarithm.

    By the delta method: the half-width of ln N is that of the curve over its slope there; those of the two curves
    add in squares (Zou & Donner, Statist. Med. 27, 1693 (2008)). The curves are taken as independent; on common splits
    that is the careful side.
    """
    nan = float("nan")
    needs = [frames_needed(curve, target, extrapolation=extrapolation) for curve in (first, second)]
    for name, need in zip(("first", "second"), needs, strict=True):
        if not need.reachable:
            return DataMultiplier(nan, nan, nan, f"{name}: {need.reason}")
    square = 0.0
    for curve, need in zip((first, second), needs, strict=True):
        slope = curve.b * (1 - curve.c / target)
        square += float(curve.half_width(np.log(np.array([need.n])))[0] / slope) ** 2
    half = np.sqrt(square)
    ratio = np.log(needs[1].n / needs[0].n)
    return DataMultiplier(float(np.exp(ratio)), float(np.exp(ratio - half)), float(np.exp(ratio + half)), "")


def label_hours(n_train: float, n_valid: float, seconds_per_label: float) -> float:
    """Price of the labels in hours of the reference method; validation frames are labels too."""
    return (n_train + n_valid) * seconds_per_label / 3600


@dataclass(frozen=True)
class PowerLaw:
    """A fit of t = a·N^b.

    Attributes:
        factor: a, in the unit of t.
        exponent: b.
        lower: of its 95 % interval; -inf with two points.
        upper: likewise.
        smallest: N of the first point.
        largest: N of the last point; beyond it the law is extrapolated.
        n: points.
    """

    factor: float
    exponent: float
    lower: float
    upper: float
    smallest: float
    largest: float
    n: int

    def at(self, size: float) -> float:
        """t at N = ``size``."""
        return float(self.factor * size**self.exponent)

    def reaches(self, other: PowerLaw) -> float | None:
        """N at which both laws cost the same; None if they never do between 1 and 10⁹ atoms."""
        slope = self.exponent - other.exponent
        if slope == 0:
            return None
        logarithm = (log(other.factor) - log(self.factor)) / slope
        return exp(logarithm) if 0 <= logarithm <= log(1e9) else None


def fit_power_law(sizes: Sequence[float], times: Sequence[float]) -> PowerLaw | None:
    """Fit t = a·N^b; None with fewer than two different sizes.

    Args:
        sizes: N, positive.
        times: t, positive, one for each.
    """
    x, y = np.log(np.asarray(sizes, dtype=float)), np.log(np.asarray(times, dtype=float))
    if len(np.unique(x)) < 2:
        return None
    line = stats.linregress(x, y)
    half = float(stats.t.ppf(0.975, len(x) - 2) * line.stderr) if len(x) > 2 else inf
    slope = float(line.slope)
    return PowerLaw(
        float(np.exp(line.intercept)), slope, slope - half, slope + half, float(min(sizes)), float(max(sizes)), len(x)
    )
