"""Paired comparisons of settings on the same repetitions: better, a tie, or undecided; power, and what
would decide.

Everything is in log-ratios d = ln(error A / error B) of one repetition: the same split for both, so that
what makes a split hard cancels.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.special import gammaincinv, ndtr, stdtrit

from mlpbench.statistics.intervals import ENOUGH, Variance, matrix, pooled_variance, worth_pooling

Float = npt.NDArray[np.float64]

MARGIN = 0.05
MOST_REPETITIONS = 100
LEAST_REPETITIONS = 3  # for a verdict: two agree by chance, and a borrowed variance does not know what these two share
WANTED_POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """A against B.

    Attributes:
        first: name of A.
        second: name of B.
        ratio: geometric mean of error A / error B; under 1: A has the smaller error.
        lower: lower end of its Holm-corrected 95 % interval.
        upper: upper end.
        p: two-sided p of ratio 1, Holm-adjusted.
        n: repetitions that both have.
        verdict: ``better`` (A or B, see :attr:`winner`), ``tie``, ``undecided`` (also with fewer than
            :data:`LEAST_REPETITIONS`, whatever the interval), or ``unknown`` (fewer than two common repetitions and no
            variance to borrow).
        winner: the better one's name, or empty.
        within_margin: the whole interval lies inside the margin: if also ``better``, by a difference too
            small to matter.
        further: further repetitions that would decide with a power of 80 % if the difference is what it
            seems; 0 if decided, None if more than 100 would be needed.
        power: repetitions -> chance (at least) to find a true difference of ``effect`` with them.
        effect: relative difference that :attr:`power` is for.
    """

    first: str
    second: str
    ratio: float
    lower: float
    upper: float
    p: float
    n: int
    verdict: str
    winner: str
    within_margin: bool
    further: int | None
    power: dict[int, float]
    effect: float

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.verdict == "unknown":
            return f"{self.first} and {self.second}: no repetitions in common, nothing can be said"
        span = f"error ratio {self.ratio:.3g}, 95 % interval {self.lower:.3g} to {self.upper:.3g}, n = {self.n}"
        if self.verdict == "better":
            loser = self.second if self.winner == self.first else self.first
            small = ", though by less than the margin" if self.within_margin else ""
            return f"{self.winner} is better than {loser}{small} ({span})"
        if self.verdict == "tie":
            return f"{self.first} and {self.second} tie ({span})"
        more = "more than 100" if self.further is None else f"about {self.further}"
        return f"{self.first} against {self.second} is undecided: {more} further repetitions would decide ({span})"


def holm(p: npt.ArrayLike, level: float = 0.05) -> tuple[Float, Float]:
    """Holm's step-down correction (Scand. J. Statist. 6, 65 (1979)).

    Args:
        p: (m,) two-sided p values; NaN takes no part.
        level: family-wise error.

    Returns:
        Adjusted p (m,), and for each the level α at which its interval says the same as the procedure:
        level/(m − i) for the i-th smallest, and once one is not rejected, that one's level for all that
        follow.
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted, levels = np.full(len(values), np.nan), np.full(len(values), level)
    order = [int(i) for i in np.argsort(values) if np.isfinite(values[i])]
    largest, current, stopped = 0.0, level, False
    for step, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - step) * values[i]))
        adjusted[i] = largest
        if not stopped:
            current = level / (len(order) - step)
            stopped = bool(values[i] > current)
        levels[i] = current
    return adjusted, levels


def power(effect: float, sd: float, repetitions: int, *, df: float | None = None, level: float = 0.05) -> float:
    """Chance that a two-sided paired t test finds a relative difference.

    For known ``sd``: noncentral t with noncentrality |ln(1 + effect)|·√R / sd, integrated over the χ² of
    the variance (SciPy's own is slow, and not finite for large noncentralities).

    Args:
        effect: relative difference of the errors, 0.1 for 10 %.
        sd: standard deviation of the log-ratio of one repetition.
        repetitions: R.
        df: degrees of freedom of the variance; None: R − 1.
        level: of the test.
    """
    df = repetitions - 1 if df is None else df
    if df <= 0:
        return 0.0
    if sd <= 0:
        return float(effect != 0)
    return float(_power(abs(np.log1p(effect)) * np.sqrt(repetitions) / np.array([sd]), df, level)[0])


def _power(shift: Float, df: float, level: float) -> Float:
    """(n,) powers for (n,) noncentralities."""
    critical = -stdtrit(df, level / 2) * _chi(df)
    return np.asarray((ndtr(shift[:, None] - critical) + ndtr(-shift[:, None] - critical)).mean(axis=1))


@lru_cache(maxsize=1000)
def _chi(df: float) -> Float:
    """(100,) quantiles of √(χ²/df), evenly spaced; scipy.special has them fifty times faster than scipy.stats."""
    return np.asarray(np.sqrt(2 * gammaincinv(df / 2, (np.arange(100) + 0.5) / 100) / df))


def cautious_power(
    effect: float, variance: Variance, repetitions: int, *, df: float | None = None, level: float = 0.05
) -> float:
    """:func:`power` for a variance that is itself an estimate, as it is printed.

    Power at the estimate promises too much on average when there are few degrees of freedom, since a
    variance that came out small promises everything. So the variance is taken at its upper 65 % confidence
    limit, ν·s²/χ²_ν(0.35).
    """
    if not variance.df > 0:
        return float("nan")
    sd = float(np.sqrt(variance.df * variance.value / stats.chi2.ppf(0.35, variance.df)))
    return power(effect, sd, repetitions, df=df, level=level)


def repetitions_to_decide(
    difference: float, variance: Variance, n: int, *, margin: float = MARGIN, level: float = 0.05
) -> int | None:
    """Repetitions in all that would decide with a power of 80 %, if the true log-ratio were ``difference``.

    Args:
        difference: log-ratio as it seems now.
        variance: of one repetition's log-ratio.
        n: repetitions so far.
        margin: of a tie, relative.
        level: of the test (after Holm's correction).

    Returns:
        More than ``n`` and at most ``n`` + 100; None if that does not do.
    """
    if not variance.df > 0:
        return None
    sd, per_repetition = float(np.sqrt(variance.value)), variance.df / max(n - 1, 1)

    def decides(total: int) -> bool:
        """Whether this many repetitions decide with the wanted power."""
        df = per_repetition * (total - 1)
        chance = power(float(np.expm1(abs(difference))), sd, total, df=df, level=level)
        return max(chance, _tie_power(difference, sd, total, df, margin, level)) >= WANTED_POWER

    totals = range(max(n + 1, 2), n + MOST_REPETITIONS + 1)
    first = bisect_left(totals, True, key=decides)  # the power grows with the repetitions
    return totals[first] if first < len(totals) else None


def _tie_power(difference: float, sd: float, repetitions: int, df: float, margin: float, level: float) -> float:
    """Chance that the whole interval lies inside ±margin (its half-width taken as expected)."""
    if sd <= 0:
        return float(abs(difference) < np.log1p(margin))
    se = sd / np.sqrt(repetitions)
    bound = np.log1p(margin) + stdtrit(df, level / 2) * se
    if bound <= 0:
        return 0.0
    return float(ndtr((bound - difference) / se) - ndtr((-bound - difference) / se))


@dataclass(frozen=True)
class Pair:
    """Two settings' errors on common repetitions.

    Attributes:
        first: name of A.
        second: name of B.
        log_ratio: (R,) ln(A/B) of each common repetition.
        family: pairs of one family may share their variance (the same two architectures at several training
            sizes).
    """

    first: str
    second: str
    log_ratio: Float
    family: str = ""


def pair(first: str, a: Mapping[int, float], second: str, b: Mapping[int, float], family: str = "") -> Pair:
    """A :class:`Pair` from errors by repetition; repetitions that only one has are left out.

    Raises:
        ValueError: an error that is not positive (the log-ratio needs positive values).
    """
    common = sorted(set(a) & set(b))
    values = np.array([[a[r], b[r]] for r in common], dtype=np.float64).reshape(-1, 2)
    values = values[np.isfinite(values).all(axis=1)]
    if (values <= 0).any():
        raise ValueError(f"{first} against {second}: a log-ratio needs positive values")
    return Pair(first, second, np.log(values[:, 0] / values[:, 1]), family)


def compare(
    pairs: Sequence[Pair],
    *,
    margin: float = MARGIN,
    level: float = 0.05,
    effect: float = 0.1,
    at: Sequence[int] = (3, 5, 10),
) -> list[Comparison]:
    """Compare each pair; one Holm correction over all of them.

    Args:
        pairs: what is compared, all questions asked at once.
        margin: relative difference that does not matter (of a tie).
        level: family-wise error rate; 0.05 for 95 % intervals.
        effect: relative difference that the power is printed for.
        at: repetitions at which the power is printed.
    """
    variances = _variances(pairs)
    p = np.array([_p_value(one, variance) for one, variance in zip(pairs, variances, strict=True)])
    adjusted, levels = holm(p, level)
    return [
        _verdict(one, variance, float(adjusted[i]), float(levels[i]), margin, _Power(effect, at, level / len(pairs)))
        for i, (one, variance) in enumerate(zip(pairs, variances, strict=True))
    ]


def _variances(pairs: Sequence[Pair]) -> list[Variance]:
    variances: dict[int, Variance] = {}
    for family in {one.family for one in pairs}:
        members = [i for i, one in enumerate(pairs) if one.family == family]
        columns = matrix([pairs[i].log_ratio for i in members])
        if family and len(members) > 1 and worth_pooling(columns):
            shared = pooled_variance(columns)
            variances.update(dict.fromkeys([i for i in members if len(pairs[i].log_ratio) < ENOUGH], shared))
        own = [(i, k) for k, i in enumerate(members) if i not in variances]
        variances.update({i: pooled_variance(columns[:, [k]]) for i, k in own})
    return [variances[i] for i in range(len(pairs))]


def _p_value(one: Pair, variance: Variance) -> float:
    if not len(one.log_ratio) or not variance.df > 0:
        return float("nan")
    mean = abs(float(one.log_ratio.mean()))
    if variance.value == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(mean / np.sqrt(variance.value / len(one.log_ratio)), variance.df))


@dataclass(frozen=True)
class _Power:
    """What the power is printed for: at Holm's strictest level, so that the real one is at least that."""

    effect: float
    at: Sequence[int]
    level: float


def _verdict(one: Pair, variance: Variance, p: float, level: float, margin: float, wanted: _Power) -> Comparison:
    n = len(one.log_ratio)
    if not n or not variance.df > 0:
        ratio = float(np.exp(one.log_ratio.mean())) if n else float("nan")
        nan = float("nan")
        return Comparison(one.first, one.second, ratio, nan, nan, nan, n, "unknown", "", False, None, {}, wanted.effect)
    mean = float(one.log_ratio.mean())
    half = float(stats.t.isf(level / 2, variance.df) * np.sqrt(variance.value / n))
    lower, upper, bound = mean - half, mean + half, float(np.log1p(margin))
    inside = -bound < lower and upper < bound
    verdict = "better" if lower > 0 or upper < 0 else "tie" if inside else "undecided"
    if n < LEAST_REPETITIONS:
        verdict = "undecided"
    winner = (one.first if mean < 0 else one.second) if verdict == "better" else ""
    further: int | None = 0
    if verdict == "undecided":
        total = repetitions_to_decide(mean, variance, n, margin=margin, level=level)
        further = None if total is None else max(total, LEAST_REPETITIONS) - n
    scale = variance.df / max(n - 1, 1)
    chances = {r: cautious_power(wanted.effect, variance, r, df=scale * (r - 1), level=wanted.level) for r in wanted.at}
    return Comparison(
        one.first, one.second, float(np.exp(mean)), float(np.exp(lower)), float(np.exp(upper)), p, n, verdict,
        winner, inside, further, chances, wanted.effect,
    )  # fmt: skip
