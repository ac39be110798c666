"""Means over repetitions with their intervals, and which differences between candidates are real.

The statistics are those of :mod:`mlpbench.statistics`; here they are asked about the candidates of a study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlpbench.statistics.intervals import MeanInterval
from mlpbench.statistics.paired import Comparison as Pairwise
from mlpbench.statistics.paired import compare, pair
from mlpbench.study.means import means_of
from mlpbench.study.study import Study, remembered

Verdict = Literal["best", "tie", "undecided", "worse", "unknown"]
POWER_AT = (3, 5, 10)  # repetitions at which the power of a comparison is said
MOST_POWERS = 500  # pairs


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        value: geometric mean over repetitions (arithmetic for numbers that can be negative, such as R²).
        low: lower end of the interval; NaN where there is none.
        high: upper end, likewise.
        n: repetitions.
        basis: what the interval covers: other repetitions, or other test frames for the same single training.
    """

    value: float
    low: float
    high: float
    n: int
    basis: Literal["repetitions", "frames", "none"]


def geometric(values: Iterable[float]) -> float:
    """The mean that the page gives of errors, times and sizes: geometric; arithmetic where a value is not positive."""
    known = np.array([float(value) for value in values if value == value], dtype=np.float64)
    if len(known) == 0 or (known == known[0]).all():
        return float(known[0]) if len(known) else math.nan
    return float(np.exp(np.log(known).mean())) if (known > 0).all() else float(known.mean())


Ends = npt.NDArray[np.float64]  # (R, 2), lower and upper end over test frames
Cells = dict[tuple[str, int], Estimate]


@remembered
def cells(study: Study, dataset: str, name: str, split: str) -> Cells:
    """(candidate, n_train) -> mean of a metric over repetitions, by n_train and then by value; see :func:`means_of`."""
    rows = study.part(dataset, name, split)[["candidate", "n_train", "repetition", "value", "lower", "upper"]]
    rows = rows.dropna(subset=["value"])
    places: Any = rows.groupby(["candidate", "n_train"]).indices
    ends = rows[["lower", "upper"]].to_numpy(dtype=float)
    estimates = {key: _estimate(mean, ends[places[key]]) for key, mean in means_of(rows, name).items()}
    return dict(sorted(estimates.items(), key=lambda item: (item[0][1], item[1].value)))


def _estimate(mean: MeanInterval, ends: Ends) -> Estimate:
    if math.isfinite(mean.lower):
        return Estimate(mean.value, mean.lower, mean.upper, mean.n, "repetitions")
    if mean.n == 1 and np.isfinite(ends[:, 0]).all():
        return Estimate(mean.value, float(ends[0, 0]), float(ends[0, 1]), 1, "frames")
    return Estimate(mean.value, math.nan, math.nan, mean.n, "none")


@dataclass(frozen=True)
class Against:
    """One candidate against the best: the ratio of its error to the best one's, paired by repetition."""

    candidate: str
    verdict: Verdict
    ratio: float
    low: float
    high: float
    n: int
    further: int | None = 0


@remembered
def comparisons(study: Study, dataset: str, name: str, split: str) -> dict[int, list[Pairwise]]:
    """n_train -> every pair of the chosen candidates; one Holm correction over all of them.

    The variance of a pair's ratio is pooled over the training sizes. Errors must be positive.
    """
    rows = study.part(dataset, name, split)
    rows = rows[rows["candidate"].isin(study.lines(dataset)) & (rows["value"] > 0)]
    pairs, sizes = [], []
    for n_train, part in rows.groupby("n_train"):
        errors = {str(c): dict(zip(p["repetition"], p["value"], strict=True)) for c, p in part.groupby("candidate")}
        for first, second in [(a, b) for a in sorted(errors) for b in sorted(errors) if a < b]:
            pairs.append(pair(first, errors[first], second, errors[second], family=f"{first}|{second}"))
            sizes.append(int(str(n_train)))
    by_size: dict[int, list[Pairwise]] = {}
    at = POWER_AT if len(pairs) <= MOST_POWERS else ()  # one integral for each pair and number of repetitions
    for n, result in zip(sizes, compare(pairs, margin=study.margin, at=at) if pairs else [], strict=True):
        by_size.setdefault(n, []).append(result)
    return by_size


@remembered
def against_best(study: Study, dataset: str, name: str, split: str, n_train: int) -> list[Against]:
    """Each chosen candidate against the one with the lowest mean at this n_train; the best first, then by
    mean.
    """
    table = {c: entry for (c, n), entry in cells(study, dataset, name, split).items() if n == n_train}
    order = [c for c in table if c in study.lines(dataset)]
    if not order:
        return []
    best = order[0]
    results = {}
    for result in comparisons(study, dataset, name, split).get(n_train, []):
        if best in (result.first, result.second):
            results[result.second if result.first == best else result.first] = _turned(result, best)
    first = Against(best, "best", 1.0, 1.0, 1.0, table[best].n)
    return [first, *(results[c] for c in order[1:] if c in results)]


def _turned(result: Pairwise, best: str) -> Against:
    """A comparison as the ratio of the other one to the best."""
    invert: Callable[[float], float] = (lambda x: 1 / x) if result.first == best else (lambda x: x)
    other = result.second if result.first == best else result.first
    ends = sorted([invert(result.lower), invert(result.upper)])
    # A better one that is not the lowest mean: repetitions that only one of them has. Then the pairs decide.
    verdict: Verdict = "worse" if result.verdict == "better" and result.winner == best else "undecided"
    if result.verdict in ("tie", "unknown"):
        verdict = "tie" if result.verdict == "tie" else "unknown"
    return Against(other, verdict, invert(result.ratio), ends[0], ends[1], result.n, result.further)
