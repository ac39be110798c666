"""Pareto fronts with the chance to be on them, and how firm a ranking is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from mlpbench.statistics.intervals import ENOUGH, grouped_variances, matrix, pooled_variance, worth_pooling

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


def pareto_front(points: npt.ArrayLike) -> Bool:
    """Which of S points no other dominates.

    A point dominates another if it is nowhere worse and somewhere better; equal points are both on the front.

    Args:
        points: (S, d), smaller is better in every column. A point with a NaN is not on the front.
    """
    return np.asarray(_fronts(np.asarray(points, dtype=np.float64)[None])[0])


def _fronts(points: Float) -> Bool:
    """(B, S) for (B, S, d)."""
    no_worse = np.ones((*points.shape[:2], points.shape[1]), dtype=bool)
    better = np.zeros_like(no_worse)
    for k in range(points.shape[2]):
        column = points[:, :, k]
        no_worse &= column[:, :, None] <= column[:, None, :]
        better |= column[:, :, None] < column[:, None, :]
    dominated = (no_worse & better).any(axis=1)
    return np.asarray(~dominated & np.isfinite(points).all(axis=2))


@dataclass(frozen=True)
class Front:
    """A Pareto front of S settings.

    Attributes:
        means: (S, d) geometric means over repetitions.
        on_front: (S,) whether the means are on the front.
        probability: (S,) chance to be on it, over what the true means may be; 0 for a setting with a missing value, NaN
            where some value of the setting was measured once and no variance is known: nothing can be said of chance.
        n: (S,) repetitions of the least repeated value of each setting.
    """

    means: Float
    on_front: Bool
    probability: Float
    n: npt.NDArray[np.int64]


def front_probability(
    values: Sequence[Sequence[npt.ArrayLike]],
    *,
    groups: Sequence[Hashable] | None = None,
    n_draws: int = 2000,
    seed: int = 0,
) -> Front:
    """The Pareto front of settings, and each one's chance to be on it.

    Parametric bootstrap over repetitions: each true log-mean is drawn from its t distribution (variance pooled where
    settings may share it), independently; what is the same in all repetitions (number of frames) stays as it is.

    Args:
        values: d columns (error, time ...), each with S arrays of positive values over repetitions; smaller is better.
        groups: (S,) architecture of each setting (:func:`mlpbench.statistics.intervals.grouped_variances`).
        n_draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: a value that is not positive.
    """
    rng = np.random.default_rng(seed)
    draws, means, repeated = [], [], []
    for column in values:
        raw = matrix(column)
        if bool((raw[np.isfinite(raw)] <= 0).any()):
            raise ValueError("a Pareto front needs positive values")
        logs = np.log(raw)
        counts = np.isfinite(logs).sum(axis=0)
        mean = np.nansum(logs, axis=0) / np.where(counts > 0, counts, np.nan)
        means.append(mean)
        draws.append(mean + _noise(logs, counts, groups, n_draws, rng))
        repeated.append(counts)
    stacked = np.stack(draws, axis=-1)
    # In pieces: the comparison of all with all needs B·S² numbers.
    step = max(1, 4_000_000 // max(stacked.shape[1] ** 2, 1))
    share = np.concatenate([_fronts(stacked[i : i + step]) for i in range(0, n_draws, step)]).mean(axis=0)
    center = np.stack(means, axis=-1)
    known = np.isfinite(center).all(axis=1)
    unsure = known & ~np.isfinite(stacked).all(axis=(0, 2))
    # Whom an unknown one could dominate cannot be told either; with every one unknown, none has a chance to state.
    probability = np.where(unsure | (known & unsure.any()), np.nan, share)
    return Front(np.exp(center), pareto_front(center), probability, np.min(repeated, axis=0))


def _noise(
    logs: Float,
    counts: npt.NDArray[np.int64],
    groups: Sequence[Hashable] | None,
    n_draws: int,
    rng: np.random.Generator,
) -> Float:
    """(n_draws, S) deviations of the true log-means; NaN where no variance is known."""
    few = bool((counts < ENOUGH).any())
    if few and groups is not None and len(set(groups)) > 1:
        lent = grouped_variances(logs, groups)
    else:
        lent = [pooled_variance(logs)] * len(counts) if worth_pooling(logs) else []
    noise = np.full((n_draws, logs.shape[1]), np.nan)
    for s, count in enumerate(counts):
        variance = lent[s] if lent and lent[s].df > 0 else pooled_variance(logs[:, [s]])
        if variance.df > 0 and count > 0:
            noise[:, s] = stats.t.rvs(variance.df, size=n_draws, random_state=rng) * np.sqrt(variance.value / count)
    return noise


@dataclass(frozen=True)
class Stability:
    """Whether a ranking survives when something is left out.

    Attributes:
        order: names, best first, by the mean of all.
        without: what was left out -> the order then, without it.
        changed: what was left out -> pairs whose order turned.
        worst_tau: smallest Kendall τ of an order with the full one (1: nothing changed).
        first_share: share of the cases in which the full order's first stays first (where it was not left out).
    """

    order: tuple[str, ...]
    without: dict[str, tuple[str, ...]]
    changed: dict[str, int]
    worst_tau: float
    first_share: float


def rank_stability(errors: Mapping[str, Mapping[int, float]]) -> Stability:
    """The order by geometric mean over *common* repetitions, and what it is without any one competitor or repetition.

    Leaving a competitor out can bring repetitions back that only it lacked; leaving out a repetition shows whether one
    lucky split makes the order.

    Args:
        errors: name -> repetition -> positive error.

    Raises:
        ValueError: fewer than two competitors, or none of the repetitions in common.
    """
    if len(errors) < 2:
        raise ValueError("a ranking needs at least two competitors")
    full = _order(errors, set())
    without: dict[str, tuple[str, ...]] = {}
    if len(errors) > 2:
        for name in errors:
            without[name] = _order({k: v for k, v in errors.items() if k != name}, set())
    repetitions = sorted(set.intersection(*(set(v) for v in errors.values())))
    if len(repetitions) > 1:
        without.update({f"repetition {r}": _order(errors, {r}) for r in repetitions})
    changed, taus, firsts = {}, [1.0], []
    for left_out, order in without.items():
        kept = [name for name in full if name in order]
        places = [order.index(name) for name in kept]
        turned = sum(a > b for i, a in enumerate(places) for b in places[i + 1 :])
        changed[left_out] = turned
        pairs = len(kept) * (len(kept) - 1) / 2
        taus.append(1 - 2 * turned / pairs if pairs else 1.0)
        if left_out != full[0]:
            firsts.append(order[0] == full[0])
    return Stability(full, without, changed, min(taus), float(np.mean(firsts)) if firsts else float("nan"))


def _order(errors: Mapping[str, Mapping[int, float]], left_out: set[int]) -> tuple[str, ...]:
    common = set.intersection(*(set(v) for v in errors.values())) - left_out
    if not common:
        raise ValueError("the competitors have no repetition in common")
    means = {name: float(np.mean([np.log(v[r]) for r in sorted(common)])) for name, v in errors.items()}
    return tuple(sorted(means, key=lambda name: means[name]))
