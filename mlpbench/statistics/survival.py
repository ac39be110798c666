"""Survival with censoring: Kaplan–Meier and the restricted mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from mlpbench.frames import Bool, Float


@dataclass(frozen=True)
class Curve:
    """A Kaplan–Meier estimate as a step function, S(0) = 1.

    Attributes:
        times: (K,) of the deaths, ascending.
        survival: (K,) S just after each.
        variance_sum: (K,) Greenwood's Σ d/(n·(n − d)).
        horizon: the longest time under observation: the curve says nothing behind it.
        n: subjects.
        n_deaths: of them.
    """

    times: Float
    survival: Float
    variance_sum: Float
    horizon: float
    n: int
    n_deaths: int

    def at(self, time: float) -> float:
        """S(time)."""
        index = int(np.searchsorted(self.times, time, side="right"))
        return 1.0 if index == 0 else float(self.survival[index - 1])

    def known_at(self, time: float) -> bool:
        """False where everyone left alive was censored before ``time``."""
        return time <= self.horizon or (self.n_deaths > 0 and self.survival[-1] == 0.0)


def kaplan_meier(times: Sequence[float] | Float, died: Sequence[bool] | Bool) -> Curve:
    """Product-limit estimate (Kaplan & Meier, J. Am. Stat. Assoc. 53, 457 (1958)).

    Args:
        times: (n,) of death or of censoring.
        died: (n,) True for a death.

    Raises:
        ValueError: nobody is observed.
    """
    t, d = np.asarray(times, dtype=np.float64), np.asarray(died, dtype=bool)
    if len(t) == 0:
        raise ValueError("survival of nobody")
    deaths = np.unique(t[d])
    at_risk = np.array([(t >= x).sum() for x in deaths], dtype=np.float64)
    count = np.array([(t[d] == x).sum() for x in deaths], dtype=np.float64)
    with np.errstate(divide="ignore"):
        greenwood = np.cumsum(count / (at_risk * (at_risk - count)))
    return Curve(deaths, np.cumprod(1 - count / at_risk), greenwood, float(t.max()), len(t), int(d.sum()))


def survival_interval(curve: Curve, time: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of S(time): log(−log) of Greenwood's variance; exact binomial where S is 0 or 1.

    At the borders Greenwood's variance is zero, which would claim certainty from a handful of replicas.
    """
    value = curve.at(time)
    alpha = 1 - level
    if value >= 1.0:
        return float((alpha / 2) ** (1 / curve.n)), 1.0
    if value <= 0.0:
        return 0.0, float(1 - (alpha / 2) ** (1 / curve.n))
    index = int(np.searchsorted(curve.times, time, side="right")) - 1
    width = stats.norm.ppf(1 - alpha / 2) * np.sqrt(curve.variance_sum[index]) / np.log(value)
    bounds = sorted((value ** np.exp(width), value ** np.exp(-width)))
    return float(bounds[0]), float(bounds[1])


def restricted_mean(curve: Curve, limit: float, level: float = 0.95) -> tuple[float, float, float]:
    """Mean time alive within [0, limit] and its interval: the area under the curve (Irwin 1949).

    The interval is normal, of the variance Σ (∫_{t_i}^{limit} S)²·d/(n·(n − d)), clipped to [0, limit].
    """
    inside = curve.times < limit
    edges = np.concatenate([[0.0], curve.times[inside], [limit]])
    heights = np.concatenate([[1.0], curve.survival[inside]])
    areas = heights * np.diff(edges)
    mean = float(areas.sum())
    left = areas[::-1].cumsum()[::-1][1:]  # ∫ from each death to the limit
    increments = np.diff(np.concatenate([[0.0], curve.variance_sum[inside]]))
    with np.errstate(invalid="ignore"):
        terms = np.where(left > 0, left**2 * increments, 0.0)
    half = float(stats.norm.ppf(0.5 + level / 2) * np.sqrt(terms.sum()))
    return mean, max(mean - half, 0.0), min(mean + half, limit)
