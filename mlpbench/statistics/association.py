"""Whether one number of a potential goes with another, over many potentials: Spearman's ρ with a cluster bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Float = npt.NDArray[np.float64]

FEWEST = 8  # potentials, below which no correlation is given
FEWEST_CLUSTERS = 5  # below, single potentials are drawn instead of whole clusters
RESAMPLES = 2000


@dataclass(frozen=True)
class Association:
    """Spearman's ρ of two numbers over potentials.

    Attributes:
        value: ρ, −1 to 1; NaN with fewer than :data:`FEWEST` potentials, or where one number is the same in all.
        lower: lower end of the 95 % interval.
        upper: upper end.
        n: potentials.
        clusters: architectures that were drawn as wholes; 0 where single potentials were.
    """

    value: float
    lower: float
    upper: float
    n: int
    clusters: int

    @property
    def decided(self) -> bool:
        """Whether the interval excludes 0."""
        return self.lower > 0 or self.upper < 0


def spearman(
    first: Sequence[float] | Float, second: Sequence[float] | Float, cluster: Sequence[str], *, seed: int = 0
) -> Association:
    """Spearman's rank correlation (Am. J. Psychol. 15, 72 (1904)) with an interval from a cluster bootstrap.

    Potentials of one architecture are alike, so whole architectures are drawn with replacement (Field & Welsh, J. R.
    Stat. Soc. B 69, 369 (2007)); ties share their mean rank; resamples in which a number is constant are left out.

    Args:
        first: (n,) one number of each potential; where either number is not finite the potential is left out.
        second: (n,) the other.
        cluster: (n,) what each belongs to.
        seed: of the bootstrap.
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    x, y, names = x[known], y[known], np.asarray(cluster)[known]
    value = _rho(x, y) if len(x) >= FEWEST else math.nan
    clusters = len(set(names.tolist()))
    clusters = clusters if clusters >= FEWEST_CLUSTERS else 0
    if not math.isfinite(value):
        return Association(math.nan, math.nan, math.nan, len(x), clusters)
    generator = np.random.default_rng(seed)
    size = clusters or len(x)
    times = generator.multinomial(size, np.full(size, 1 / size), RESAMPLES)  # how often each is drawn
    if clusters:
        times = times[:, np.unique(names, return_inverse=True)[1]]
    values = _resampled(x, y, times.astype(np.float64))
    lower, upper = np.quantile(values[np.isfinite(values)], [0.025, 0.975])
    return Association(value, float(lower), float(upper), len(x), clusters)


def _resampled(x: Float, y: Float, times: Float) -> Float:
    """(B,) ρ of resamples in which potential i occurs ``times[b, i]`` times; NaN where a number is constant."""
    a, b = _ranks(x, times), _ranks(y, times)
    total = times.sum(axis=1, keepdims=True)
    a, b = (r - (times * r).sum(axis=1, keepdims=True) / total for r in (a, b))
    spread = np.sqrt((times * a * a).sum(axis=1) * (times * b * b).sum(axis=1))
    known = spread > 1e-9
    return np.where(known, (times * a * b).sum(axis=1) / np.where(known, spread, 1.0), np.nan)


def _ranks(values: Float, times: Float) -> Float:
    """(B, n) mean ranks of (n,) values that occur (B, n) ``times``; ties share theirs."""
    _, group = np.unique(values, return_inverse=True)
    count = np.zeros((len(times), int(group.max()) + 1))
    np.add.at(count.T, group, times.T)
    return np.asarray((np.cumsum(count, axis=1) - count / 2 + 0.5)[:, group])


def _rho(x: Float, y: Float) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])
