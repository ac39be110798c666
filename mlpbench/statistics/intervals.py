"""Intervals over repetitions: what another training of the same setting would give.

Repetitions are few, so the intervals are Student's t on the logarithm of the error, with the variance
pooled over settings that share it. Matrices here are (R, K): R repetitions (rows; the same row is the same
split in every setting), K settings; NaN where a trial is missing.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.optimize import brentq
from scipy.special import stdtrit

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Variance:
    """A variance over repetitions and what it rests on.

    Attributes:
        value: of one repetition (of the logarithm: relative error squared).
        df: degrees of freedom; fewer than Σ(R − 1) where settings of one repetition go together.
        pooled: settings that it was pooled over.
    """

    value: float
    df: float
    pooled: int


@dataclass(frozen=True)
class MeanInterval:
    """The mean over repetitions with its interval, in the unit of the values.

    Attributes:
        value: geometric mean (``scale="log"``) or arithmetic mean (``"linear"``).
        lower: lower end; NaN without any repeated setting.
        upper: upper end, likewise.
        n: repetitions.
        se: standard error, on the scale (of the logarithm, or in the unit).
        df: degrees of freedom of the t distribution.
        scale: ``log`` or ``linear``.
    """

    value: float
    lower: float
    upper: float
    n: int
    se: float
    df: float
    scale: str


def matrix(columns: Sequence[npt.ArrayLike]) -> Float:
    """(R, K) from K columns of different length, the short ones filled with NaN at the end."""
    arrays = [np.asarray(column, dtype=np.float64).ravel() for column in columns]
    filled = np.full((max((len(a) for a in arrays), default=0), len(arrays)), np.nan)
    for k, array in enumerate(arrays):
        filled[: len(array), k] = array
    return filled


def scale_of(values: npt.ArrayLike) -> str:
    """``log`` if every finite value is positive, else ``linear``."""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    return "log" if len(array) and bool((array > 0).all()) else "linear"


def pooled_variance(values: npt.ArrayLike, confidence: float = 0.95) -> Variance:
    """Variance over repetitions of K settings that share it.

    The errors of one repetition go together over settings (the same split is hard for all), so that K
    settings of R repetitions tell less than K·(R − 1) degrees of freedom: with ρ the mean correlation of two
    settings, the part (1 + (K − 1)·ρ)/K of the variance rests on R − 1 of them, and only the rest on the others
    (:func:`_freedom`).

    Args:
        values: (R, K), already on the scale of the analysis (logarithms).
        confidence: of the intervals that the degrees of freedom are for.

    Returns:
        ``value`` NaN and ``df`` 0 if no setting was repeated.
    """
    array = np.atleast_2d(np.asarray(values, dtype=np.float64))
    counts = np.isfinite(array).sum(axis=0)
    array, counts = array[:, counts >= 2], counts[counts >= 2]
    k = array.shape[1]
    if k == 0:
        return Variance(np.nan, 0.0, 0)
    residual = array - np.nanmean(array, axis=0)
    total, least = float((counts - 1).sum()), float(counts.max() - 1)
    value = float(np.nansum(residual**2) / total)
    if k == 1 or value == 0:
        return Variance(value, total, k)
    present = np.isfinite(residual)
    filled = np.where(present, residual, 0.0)
    together = np.maximum(present.T.astype(float) @ present.astype(float) - 1, 1)
    covariance = filled.T @ filled / together
    between = float(covariance.sum() - np.trace(covariance)) / (k * (k - 1))
    shared = float(np.clip((value + (k - 1) * between) / k, 0.0, value))
    return Variance(value, _freedom(shared, least, value - shared, total - least, confidence), k)


def joint_quantile(
    first: npt.ArrayLike, df_first: float, second: npt.ArrayLike, df_second: float, confidence: float = 0.95
) -> Float:
    """Standard errors that an interval reaches to each side, where the variance is the sum of two estimates.

    Halfway between two answers: Satterthwaite's t (Biometrics Bull. 2, 110 (1946)), too short where the part with
    few degrees of freedom dominates (90 to 93 % at three repetitions), and √(Σ t²·V / Σ V), which never covers less
    than it says (Banerjee, Sankhyā 22, 351 (1960)), but up to 98 %. The middle covers 94 to 97 % from three
    repetitions on, however large the repetitions' share is (``tests/benchmarks/coverage.py``).

    Args:
        first: (...) variance with ``df_first`` degrees of freedom; not both zero.
        df_first: positive.
        second: (...) variance with ``df_second``.
        df_second: positive.
        confidence: of the interval.
    """
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    tail, total = (1 - confidence) / 2, one + two
    satterthwaite = -stdtrit(total**2 / (one**2 / df_first + two**2 / df_second), tail)
    careful = np.sqrt((one * stdtrit(df_first, tail) ** 2 + two * stdtrit(df_second, tail) ** 2) / total)
    return np.asarray((careful + satterthwaite) / 2)


def _freedom(first: float, df_first: float, second: float, df_second: float, confidence: float) -> float:
    """Degrees of freedom whose t quantile is :func:`joint_quantile`."""
    wanted = float(joint_quantile(first, df_first, second, df_second, confidence))
    tail, low, high = (1 - confidence) / 2, min(df_first, df_second), df_first + df_second
    if wanted >= -stdtrit(low, tail):
        return low
    return float(brentq(lambda df: -stdtrit(df, tail) - wanted, low, high))


def same_variance(values: npt.ArrayLike, level: float = 0.01) -> bool:
    """Whether K settings may share one variance: Brown–Forsythe's test (Levene's on the median) does not
    object.

    Args:
        values: (R, K) on the scale of the analysis.
        level: of the test. Low, because a wrong refusal costs most of the degrees of freedom.
    """
    array = np.atleast_2d(np.asarray(values, dtype=np.float64))
    groups = [column[np.isfinite(column)] for column in array.T]
    groups = [group for group in groups if len(group) >= 3 and np.ptp(group) > 0]
    return len(groups) < 2 or bool(stats.levene(*groups, center="median").pvalue >= level)


ENOUGH = 5  # repetitions that need no loan


def worth_pooling(values: npt.ArrayLike) -> bool:
    """Whether settings should share a variance: they may (:func:`same_variance`), and some have too few repetitions.

    With five or more, a setting's own variance costs at most 30 % of width (10 % at ten). Pooling unlike ones, which a
    test on few repetitions cannot see, called equal architectures different in 6 to 7 % of studies.

    Args:
        values: (R, K) on the scale of the analysis.
    """
    counts = np.isfinite(np.atleast_2d(np.asarray(values, dtype=np.float64))).sum(axis=0)
    return bool((counts < ENOUGH).any()) and same_variance(values)


ODD = 0.3  # level of the test that sets a group apart; high, since a noisy group that is missed covers 76 to 90 %


def grouped_variances(values: npt.ArrayLike, groups: Sequence[Hashable], confidence: float = 0.95) -> list[Variance]:
    """A variance for each of K settings, pooled over all groups whose variances do not differ.

    A group is what has a noise of its own: an architecture, over its training sizes. One group at a time, the most
    different first, is set aside if its pooled variance differs from that of the remaining ones (two-sided F test at
    :data:`ODD`); it keeps its own, and the others share theirs. Pooled over all, an architecture with three times the
    noise of three others was covered in 76 to 81 % of studies and they in 99 to 100 %; so it is 95 to 96 % and 95 to
    98 %, at intervals 2 % wider where all are alike (``python -m tests.benchmarks.coverage --only pooling``).

    Args:
        values: (R, K) on the scale of the analysis.
        groups: (K,) label of each setting's group.
        confidence: of the intervals that the degrees of freedom are for.
    """
    array = np.atleast_2d(np.asarray(values, dtype=np.float64))
    labels = np.array([list(dict.fromkeys(groups)).index(group) for group in groups])
    own = {int(g): pooled_variance(array[:, labels == g], confidence) for g in np.unique(labels)}
    left = [g for g, variance in own.items() if variance.df > 0]
    while len(left) > 1:
        p = [_differs(own[g], [own[h] for h in left if h != g]) for g in left]
        odd = int(np.argmin(p))
        if p[odd] >= ODD:
            break
        left.pop(odd)
    shared = pooled_variance(array[:, np.isin(labels, left)], confidence) if left else Variance(np.nan, 0.0, 0)
    return [own[g] if own[g].df > 0 and g not in left else shared for g in map(int, labels)]


def _differs(one: Variance, others: Sequence[Variance]) -> float:
    """Two-sided p of equal variances."""
    df = sum(variance.df for variance in others)
    rest = sum(variance.df * variance.value for variance in others) / df
    if rest == 0 or one.value == 0:
        return float(rest == one.value)
    ratio = one.value / rest
    return float(2 * min(stats.f.sf(ratio, one.df, df), stats.f.cdf(ratio, one.df, df)))


def intervals(
    columns: Sequence[npt.ArrayLike],
    *,
    groups: Sequence[Hashable] | None = None,
    pool: bool | None = None,
    scale: str | None = None,
    confidence: float = 0.95,
) -> list[MeanInterval]:
    """The mean of each of K settings over its repetitions, with a t interval.

    On the log scale the mean is the geometric one and its interval is symmetric as a ratio; for the spreads
    met in practice (under 20 %) it differs from the arithmetic mean by less than 2 %.

    Args:
        columns: K arrays of values, repetition r of each at place r (NaN: missing).
        groups: (K,) what each setting's noise belongs to, its architecture: see :func:`grouped_variances`; None: all
            settings are of one group.
        pool: share one variance; None: where :func:`worth_pooling` says so, and only for settings of too few
            repetitions.
        scale: ``log`` or ``linear``; None: ``log`` if all values are positive.
        confidence: of the intervals.

    Raises:
        ValueError: a value that is not positive on the log scale, or a setting without any value.
    """
    raw = matrix(columns)
    scale = scale or scale_of(raw)
    if not np.isfinite(raw).any(axis=0).all():
        raise ValueError("a setting has no value at all")
    if scale == "log" and bool((raw[np.isfinite(raw)] <= 0).any()):
        raise ValueError("the log scale needs positive values")
    values = np.log(raw) if scale == "log" else raw
    lent = _lent(values, groups, pool, confidence)
    n = np.isfinite(values).sum(axis=0)
    mean = np.nanmean(values, axis=0)
    square, df = np.nansum((values - mean) ** 2, axis=0), (n - 1).astype(np.float64)
    variance = np.divide(square, df, out=np.full(len(n), np.nan), where=df > 0)
    for k, one in enumerate(lent):
        if one.df > 0 and (pool or n[k] < ENOUGH):
            variance[k], df[k] = one.value, one.df
    se = np.sqrt(variance / n)
    half = -stdtrit(np.where(df > 0, df, np.nan), (1 - confidence) / 2) * se
    ends = np.stack([mean, mean - half, mean + half], axis=1)
    rows = (np.exp(ends) if scale == "log" else ends).tolist()
    return [
        MeanInterval(value, lower, upper, int(n[k]), float(se[k]), float(df[k]), scale)
        for k, (value, lower, upper) in enumerate(rows)
    ]


def _lent(values: Float, groups: Sequence[Hashable] | None, pool: bool | None, confidence: float) -> list[Variance]:
    """The variance that each setting may borrow; empty where none is lent."""
    several = groups is not None and len(set(groups)) > 1
    if pool is False or (pool is None and not (np.isfinite(values).sum(axis=0) < ENOUGH).any()):
        return []
    if several and groups is not None:
        return grouped_variances(values, groups, confidence)
    if pool is None and not same_variance(values):
        return []
    return [pooled_variance(values, confidence)] * values.shape[1]


def interval(values: npt.ArrayLike, *, scale: str | None = None, confidence: float = 0.95) -> MeanInterval:
    """:func:`intervals` for one setting with (R,) values."""
    return intervals([values], scale=scale, confidence=confidence)[0]


def probability_below(mean: MeanInterval, limit: float, extra_se: float = 0.0) -> float:
    """Probability that the true mean is at most ``limit``, from the t distribution (flat prior on its scale).

    Args:
        mean: the mean and its standard error.
        limit: in the unit of the values.
        extra_se: a further standard error on the same scale (of the test frames), added in quadrature.

    Returns:
        NaN where the standard error is not known.
    """
    if mean.scale == "log" and limit <= 0:
        return 0.0
    value, bound = (np.log(mean.value), np.log(limit)) if mean.scale == "log" else (mean.value, limit)
    se = float(np.hypot(mean.se, extra_se))
    if not np.isfinite(se):
        return float("nan")
    if se == 0:
        return float(value <= bound)
    # Satterthwaite: the standard error of the frames is known well, that of the repetitions with df.
    df = mean.df * (se / mean.se) ** 4 if mean.se > 0 else np.inf
    return float(stats.t.cdf((bound - value) / se, df))


def t_interval(values: npt.ArrayLike, *, least: int = 2, confidence: float = 0.95) -> tuple[float | None, float | None]:
    """Student's t interval of the mean of (n,) values that cannot be negative; none from fewer than ``least``."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < max(least, 2):
        return None, None
    half = -float(stdtrit(len(array) - 1, (1 - confidence) / 2) * array.std(ddof=1) / np.sqrt(len(array)))
    return max(float(array.mean()) - half, 0.0), float(array.mean()) + half
