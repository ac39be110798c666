"""Block bootstrap over the frames of a split: what one trained potential's error would be on other frames.

Frames of a trajectory are correlated, so whole stretches of it are drawn, not single frames. The spread
between repetitions is another matter: three to ten of them are too few for a bootstrap, see
:mod:`mlpbench.statistics.intervals`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Statistic = Callable[[Float], Float]

FARTHEST = 2.5  # standard errors: the quantiles of a thousand resamples are worth something up to here
MOST = 2.0  # the factor is not believed beyond this: fewer than three independent frames tell nothing
_CHUNK = 4_000_000  # numbers of a resample held at once (32 MB)


@dataclass(frozen=True)
class Interval:
    """A value with its interval, both in the unit of the statistic.

    Attributes:
        value: the statistic of all frames.
        lower: lower end; NaN where there are fewer than two frames.
        upper: upper end, likewise.
        n: frames.
        n_effective: as many independent frames would tell as much (n over the autocorrelation time).
    """

    value: float
    lower: float
    upper: float
    n: int
    n_effective: float


def mean(values: Float) -> Float:
    """Mean over frames: (..., F) -> (...). For a mean absolute error, ``values`` are absolute errors."""
    return np.asarray(values.mean(axis=-1), dtype=np.float64)


def root_mean(values: Float) -> Float:
    """Root of the mean over frames: (..., F) of squares (or of each frame's mean square) -> (...)."""
    return np.asarray(np.sqrt(values.mean(axis=-1)), dtype=np.float64)


def ratio(values: Float) -> Float:
    """Σ first column / Σ second: (..., F, 2) -> (...). Columns: (sum of errors, their number)."""
    total = values.sum(axis=-2)
    return np.asarray(total[..., 0] / total[..., 1], dtype=np.float64)


def root_ratio(values: Float) -> Float:
    """√(Σ first column / Σ second): (..., F, 2) -> (...). Columns: (sum of squared errors, their number)."""
    return np.asarray(np.sqrt(ratio(values)), dtype=np.float64)


def r_squared(values: Float) -> Float:
    """R² = 1 − Σ e² / Σ (y − ⟨y⟩)²: (..., F, 2) -> (...). Columns: (error e, reference y), a pair a frame."""
    reference = values[..., 1]
    spread = ((reference - reference.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    return np.asarray(1 - (values[..., 0] ** 2).sum(axis=-1) / spread, dtype=np.float64)


def one_minus_ratio(values: Float) -> Float:
    """1 − Σ first column / Σ second: (..., F, 2) -> (...). R² of forces: (Σ ΔF², Σ F²) of each frame."""
    return np.asarray(1 - ratio(values), dtype=np.float64)


def percentile(q: float) -> Statistic:
    """The ``q``-th percentile over frames and columns together: (..., F, k) -> (...).

    Args:
        q: 0 to 100. 100 is the maximum, whose bootstrap interval is too narrow: give it without an interval.
    """

    def statistic(values: Float) -> Float:
        """The percentile over all components of all frames."""
        # Two trailing axes: frames and their components (scalar frames come as (..., F, 1)).
        flat = values.reshape(*values.shape[:-2], -1)
        return np.asarray(np.percentile(flat, q, axis=-1), dtype=np.float64)

    return statistic


def autocorrelation_time(values: Float, group: Int) -> float:
    """Integrated autocorrelation time τ = 1 + 2 Σ ρ(t) in frames, at least 1.

    The sum ends with Geyer's initial positive sequence (Statist. Sci. 7, 473 (1992)). Deviations are from the
    mean of all trajectories, so that an offset between trajectories counts as correlation within each.

    Args:
        values: (F,) one number a frame.
        group: (F,) trajectory of each frame; frames of one trajectory are in time order.
    """
    deviation = values - values.mean()
    labels, lengths = np.unique(group, return_counts=True)
    longest = int(lengths.max())
    if longest < 2 or not np.any(deviation):
        return 1.0
    runs = [deviation[group == label] for label in labels]
    size = 2 * longest
    power = sum(np.abs(np.fft.rfft(run, size)) ** 2 for run in runs)
    covariance = np.fft.irfft(power, size)[:longest]
    # As customary, the sum at each lag is divided by all frames (biased, but never erratic at large lags); except that
    # many short trajectories would lose nearly all: there each lag is divided by its own pairs.
    rho = covariance / covariance[0]
    if len(runs) > 1:
        pairs = np.clip(lengths[:, None] - np.arange(longest), 0, None).sum(axis=0)
        rho = rho * len(deviation) / np.maximum(pairs, 1)
    even = len(rho) // 2 * 2
    couples = rho[:even].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(couples <= 0)
    end = negative[0] if len(negative) else len(couples)
    return float(np.clip(2 * couples[:end].sum() - 1, 1.0, len(deviation) / 2))


def ar_time(values: Float, group: Int) -> float:
    """Autocorrelation time (1 + φ)/(1 − φ) of a first-order autoregression, φ corrected for its bias.

    The sample autocorrelation of a short series is too small, by (1 + 3φ)/n on average (Kendall, Biometrika 41, 403
    (1954)), and so is any time summed from it: for φ = 0.9 and 50 frames, half of what it should be. 1 where φ is
    within two standard errors of zero, so that independent frames are not charged for it.

    Args:
        values: (F,) one number a frame.
        group: (F,) trajectory of each frame; frames of one trajectory are in time order.
    """
    deviation, n = values - values.mean(), len(values)
    together = group[1:] == group[:-1]
    square = float(deviation @ deviation)
    if n < 8 or square == 0 or not together.any():
        return 1.0
    phi = float((deviation[1:] * deviation[:-1])[together].mean()) / (square / n)
    if phi < 2 / np.sqrt(n):
        return 1.0
    phi = min((phi + 1 / n) / (1 - 3 / n), 1 - 2 / n)
    return float(min((1 + phi) / (1 - phi), n / 2))


def block_length_for(tau: float, n: int) -> int:
    """Block length for ``n`` frames with autocorrelation time ``tau``.

    Politis & White (Econom. Rev. 23, 53 (2004)) for the circular bootstrap, for a first-order autoregression
    of that autocorrelation time: b = (3/2 · ((τ² − 1) / 2τ)² · n)^(1/3), at most a quarter of the frames.
    """
    best = (1.5 * ((tau * tau - 1) / (2 * tau)) ** 2 * n) ** (1 / 3)
    return int(np.clip(round(best), 1, max(1, n // 4)))


def block_interval(
    values: npt.ArrayLike,
    group: npt.ArrayLike,
    statistic: Statistic = mean,
    n_resamples: int = 1000,
    block_length: int | None = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """A statistic of F frames with its block-bootstrap interval.

    Blocks lie within one trajectory (wrapped at its end; a trajectory shorter than the block is drawn whole).
    The percentile interval is expanded for the number of blocks (Hesterberg, Am. Stat. 69, 371 (2015)): with
    few blocks the plain one is too narrow. The same seed draws the same frames for every statistic.

    Args:
        values: (F,) or (F, k), what each frame contributes, e.g. its mean absolute error.
        group: (F,) trajectory of each frame; frames of one trajectory in time order.
        statistic: (B, F) -> (B,), or (B, F, k) -> (B,); :func:`mean`, :func:`root_mean`, :func:`ratio`,
            :func:`root_ratio`, :func:`r_squared`, :func:`one_minus_ratio`, :func:`percentile`.
        n_resamples: B.
        block_length: frames in a block; None: from the autocorrelation time of ``values`` (the column that
            varies slowest, or of the rows' means if there are more than three columns).
        seed: of the resampling.
        confidence: of the interval.

    Raises:
        ValueError: no frames, values that are not finite, or ``group`` of another length.
    """
    array, labels = np.asarray(values, dtype=np.float64), np.unique(np.asarray(group), return_inverse=True)[1]
    if array.ndim not in (1, 2) or len(array) == 0 or labels.shape != (len(array),):
        raise ValueError(f"values {array.shape} and group {labels.shape} do not belong together")
    if not np.isfinite(array).all():
        raise ValueError("values to resample must be finite")
    n = len(array)
    columns = array.reshape(n, -1)
    series = columns.T if columns.shape[1] <= 3 else columns.mean(axis=1)[None]
    tau = max(max(autocorrelation_time(column, labels), ar_time(column, labels)) for column in series)
    value = float(statistic(array[None])[0])
    if n < 2:
        return Interval(value, np.nan, np.nan, n, n / tau)
    length = block_length_for(tau, n) if block_length is None else block_length
    indices = _cached_indices(labels.astype(np.int64).tobytes(), length, n_resamples, seed)
    step = max(1, _CHUNK // array.size)
    resampled = np.concatenate([statistic(array[indices[i : i + step]]) for i in range(0, n_resamples, step)])
    blocks = max(n / length, 3.0)
    widen = np.sqrt(blocks / (blocks - 1))
    if block_length is None:
        widen *= _short_block_factor(tau, length, n)
    reach = float(widen * stats.t.isf((1 - confidence) / 2, blocks - 1))
    if statistic in (r_squared, one_minus_ratio):  # never above 1: what is short of it is what scales
        upper, lower = (1 - end for end in _stretched(1 - resampled, 1 - value, reach))
    else:
        lower, upper = _stretched(resampled, value, reach)
    return Interval(value, lower, upper, n, n / tau)


def _stretched(resampled: Float, value: float, reach: float) -> tuple[float, float]:
    """Ends ``reach`` standard errors from ``value``: quantiles as far as the resamples tell them, and in proportion
    beyond, on the logarithm where every resample is positive.
    """
    inner = min(reach, FARTHEST)
    tail = stats.norm.cdf(-inner)
    lower, upper = (float(end) for end in np.quantile(resampled, [tail, 1 - tail]))
    if reach <= FARTHEST:
        return lower, upper
    if resampled.min() > 0:
        return value * (lower / value) ** (reach / inner), value * (upper / value) ** (reach / inner)
    return value + (lower - value) * reach / inner, value + (upper - value) * reach / inner


def _short_block_factor(tau: float, length: int, n: int) -> float:
    """How much too small the standard error from finite blocks is, for a first-order autoregression.

    The variance of a block's mean lacks (τ² − 1) / (2τ·length) of its limit, and the sample's mean itself
    takes another τ/n (Künsch, Ann. Statist. 17, 1217 (1989)). At most :data:`MOST`.
    """
    lost = (tau * tau - 1) / (2 * tau * length) + tau / n
    return float(1 / np.sqrt(np.clip(1 - lost, 1 / MOST**2, 1.0)))


@lru_cache(maxsize=4)
def _cached_indices(group: bytes, length: int, n_resamples: int, seed: int) -> Int:
    # The metrics of one split mostly share trajectory and block length; drawing is the costly part.
    labels = np.frombuffer(group, dtype=np.int64)
    return block_indices(labels, length, n_resamples, np.random.default_rng(seed))


def block_indices(group: Int, length: int, n_resamples: int, rng: np.random.Generator) -> Int:
    """(n_resamples, F) frames drawn in blocks of ``length``, each frame equally often on average.

    Args:
        group: (F,) trajectory of each frame, any integers.
        length: frames in a block.
        n_resamples: number of resamples.
        rng: random numbers.
    """
    n = len(group)
    if length <= 1:
        return rng.integers(0, n, (n_resamples, n))
    order = np.argsort(group, kind="stable")
    _, first, inverse, sizes = np.unique(group[order], return_index=True, return_inverse=True, return_counts=True)
    size, begin = sizes[inverse], first[inverse]
    lengths = np.minimum(length, size)
    weight = 1.0 / lengths  # a short trajectory is drawn whole from each of its starts: fewer frames a draw
    cumulative = np.cumsum(weight / weight.sum())
    n_blocks = -(-n // int(lengths.min()))
    starts = np.minimum(np.searchsorted(cumulative, rng.random((n_resamples, n_blocks))), n - 1)
    end = np.cumsum(lengths[starts], axis=1)
    before = end - lengths[starts]
    used = np.clip(n - before, 0, lengths[starts])  # the last block is cut, each resample has F frames
    start = np.repeat(starts.ravel(), used.ravel())
    within = np.tile(np.arange(n), n_resamples) - np.repeat(before.ravel(), used.ravel())
    position = begin[start] + (start - begin[start] + within) % size[start]
    drawn: Int = order[position].reshape(n_resamples, n)
    return drawn
