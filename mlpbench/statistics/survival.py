"""Survival with censoring: Kaplan–Meier, its limits for few subjects, and the restricted mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Curve:
    """A Kaplan–Meier estimate as a step function, S(0) = 1.

    Attributes:
        times: (K,) of the deaths, ascending.
        survival: (K,) S just after each.
        horizon: the longest time under observation: the curve says nothing behind it.
        observed: (n,) time of death or of censoring of each subject, ascending.
        died: (n,) True for a death, in the same order.
    """

    times: Float
    survival: Float
    horizon: float
    observed: Float
    died: Bool

    @property
    def n(self) -> int:
        """Subjects."""
        return len(self.observed)

    @property
    def n_deaths(self) -> int:
        """Deaths among them."""
        return int(self.died.sum())

    def at(self, time: float) -> float:
        """S(time)."""
        index = int(np.searchsorted(self.times, time, side="right"))
        return 1.0 if index == 0 else float(self.survival[index - 1])

    def known_at(self, time: float) -> bool:
        """False where everyone left alive was censored before ``time``."""
        return time <= self.horizon or (self.n_deaths > 0 and self.survival[-1] == 0.0)


def kaplan_meier(times: Sequence[float] | Float, died: Sequence[bool] | Bool) -> Curve:
    """Product-limit estimate (Kaplan & Meier, J. Am. Stat. Assoc. 53, 457 (1958)), by :func:`scipy.stats.ecdf`.

    Args:
        times: (n,) of death or of censoring.
        died: (n,) True for a death.

    Raises:
        ValueError: nobody is observed.
    """
    t, d = np.asarray(times, dtype=np.float64), np.asarray(died, dtype=bool)
    if len(t) == 0:
        raise ValueError("survival of nobody")
    order = np.lexsort((~d, t))
    t, d = t[order], d[order]
    estimate = stats.ecdf(stats.CensoredData.right_censored(t, ~d)).sf
    fell = np.isin(estimate.quantiles, t[d])
    survival = np.asarray(estimate.probabilities, dtype=np.float64)[fell]
    return Curve(np.asarray(estimate.quantiles, dtype=np.float64)[fell], survival, float(t[-1]), t, d)


def survival_interval(curve: Curve, time: float, level: float = 0.95, *, mid_p: bool = False) -> tuple[float, float]:
    """Limits of S(time) by the beta product method (Fay, Brittain & Proschan, Biostatistics 14, 723 (2013)).

    The survival at each death among Y at risk, relative to that before it, is distributed as the largest of Y uniform
    numbers, Beta(Y, 1). S(time) lies between its value at the last death up to ``time`` and at the next one: the upper
    limit is a quantile of the product up to the one, the lower limit up to the other. Products are matched to a beta
    distribution by their first two moments. Without censoring before ``time`` it is Clopper and Pearson's interval;
    from a handful of subjects neither 0 nor 1 is ever certain: of n without a death, S is at least (α/2)^(1/n).

    Args:
        curve: the estimate.
        time: in its unit.
        level: of the interval.
        mid_p: quantiles of an even mixture of the two products (Fay & Brittain, Statist. Med. 35, 2726 (2016)):
            shorter, and right on average over times rather than never too short.
    """
    known = int(np.searchsorted(curve.observed, time, side="right"))
    at_risk = curve.n - np.flatnonzero(curve.died[:known])
    alive = curve.n - known + int(np.sum(~curve.died[:known] & (curve.observed[:known] >= time)))
    tail = (1 - level) / 2
    last = _beta(at_risk) if len(at_risk) else None
    following = _beta(np.append(at_risk, alive)) if alive else None
    if mid_p:
        return _mixture_quantile(following, last, tail), _mixture_quantile(following, last, 1 - tail)
    lower = 0.0 if following is None else float(betaincinv(*following, tail))
    return lower, 1.0 if last is None else float(betaincinv(*last, 1 - tail))


def _beta(at_risk: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Parameters of the beta distribution with mean and variance of ∏ Beta(Y, 1) over ``at_risk``."""
    mean, square = float(np.prod(at_risk / (at_risk + 1.0))), float(np.prod(at_risk / (at_risk + 2.0)))
    total = mean * (1 - mean) / (square - mean**2) - 1
    return mean * total, (1 - mean) * total


def _mixture_quantile(low: tuple[float, float] | None, high: tuple[float, float] | None, q: float) -> float:
    """Quantile of half ``low`` (None: 0) and half ``high`` (None: 1)."""
    if low is None and q <= 0.5:
        return 0.0
    if high is None and q >= 0.5:
        return 1.0

    def excess(x: float) -> float:
        """Distribution function of the mixture at ``x``, less ``q``."""
        below = 1.0 if low is None else float(betainc(*low, x))
        return 0.5 * (below + (0.0 if high is None else float(betainc(*high, x)))) - q

    return float(brentq(excess, 0.0, 1.0, xtol=1e-10))


def restricted_mean(curve: Curve, limit: float, level: float = 0.95) -> tuple[float, float, float]:
    """Mean time alive within [0, limit] and its interval: the area under the curve (Irwin, J. Hyg. 47, 188 (1949)).

    The interval is the area under the pointwise mid-P limits of :func:`survival_interval`. It holds the truth at least
    as often as they do: the estimates at different times go together, and if they did wholly, it would be exact (97 to
    99.8 % in ``python -m tests.benchmarks.coverage --only survival``). Where nobody died, its lower end is
    limit·α^(1/n). Greenwood's normal interval, which most packages give, is [limit, limit] then, and covers 48 to 95 %
    of the time for 8 to 32 subjects.
    """
    times = np.unique(curve.observed[curve.observed < limit])
    edges = np.concatenate([[0.0], times, [limit]])
    middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    limits = np.array([survival_interval(curve, time, level, mid_p=True) for time in middles])
    mean = float(sum(curve.at(time) * width for time, width in zip(middles, widths, strict=True)))
    return mean, float(limits[:, 0] @ widths), float(limits[:, 1] @ widths)
