"""A committee for nothing: the repetitions of one setting are an ensemble, and their disagreement an error estimate.

Arrays have shape (R, F): R repetitions (members), F frames; forces (R, A, 3) with A atoms of all frames in a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from mlpbench.statistics.bootstrap import block_indices

Float = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FrameErrors:
    """What a committee thinks of each frame, and how wrong it is.

    Attributes:
        disagreement: (F,) spread of the members, the unit of the predictions.
        error: (F,) error of the committee's mean, the same unit, not negative.
    """

    disagreement: Float
    error: Float


def energy_errors(predictions: npt.ArrayLike, reference: npt.ArrayLike, n_atoms: npt.ArrayLike) -> FrameErrors:
    """Energy per atom: sample standard deviation of the members, and |mean − reference|.

    Args:
        predictions: (R, F) total energies without baseline, R at least 2.
        reference: (F,) likewise.
        n_atoms: (F,) atoms of each frame.

    Raises:
        ValueError: fewer than two members, or shapes that do not belong together.
    """
    members, truth = _members(predictions, reference)
    atoms = np.asarray(n_atoms, dtype=np.float64)
    return FrameErrors(members.std(axis=0, ddof=1) / atoms, np.abs(members.mean(axis=0) - truth) / atoms)


def force_errors(predictions: npt.ArrayLike, reference: npt.ArrayLike, frame_of_atom: npt.ArrayLike) -> FrameErrors:
    """Forces: root mean square over a frame's components, of the members' spread and of the mean's error.

    Args:
        predictions: (R, A, 3), R at least 2.
        reference: (A, 3); NaN where an atom's true force is not known: it is left out.
        frame_of_atom: (A,) frame of each atom, from 0.

    Raises:
        ValueError: fewer than two members, or shapes that do not belong together.
    """
    members, truth = _members(predictions, reference)
    frames = np.asarray(frame_of_atom)
    known = np.isfinite(truth).all(axis=1)
    size = int(frames.max()) + 1
    members, truth, frames = members[:, known], truth[known], frames[known]
    count = np.maximum(np.bincount(frames, minlength=size), 1)

    def per_frame(squares: Float) -> Float:
        """(F,) root mean square over the components of a frame."""
        return np.asarray(np.sqrt(np.bincount(frames, squares.mean(axis=1), size) / count))

    return FrameErrors(per_frame(members.var(axis=0, ddof=1)), per_frame((members.mean(axis=0) - truth) ** 2))


def force_disagreement(predictions: npt.ArrayLike, frame_of_atom: npt.ArrayLike) -> Float:
    """(F,) root mean square over a frame's force components of the members' sample standard deviation.

    Args:
        predictions: (R, A, 3), R at least 2.
        frame_of_atom: (A,) frame of each atom, from 0.

    Raises:
        ValueError: fewer than two members.
    """
    members = np.asarray(predictions, dtype=np.float64)
    return force_errors(members, np.zeros(members.shape[1:]), frame_of_atom).disagreement


def _members(predictions: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Float, Float]:
    members, truth = np.asarray(predictions, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if members.shape[1:] != truth.shape:
        raise ValueError(f"predictions {members.shape} and reference {truth.shape} do not belong together")
    if len(members) < 2:
        raise ValueError("a committee needs at least two repetitions")
    return members, truth


@dataclass(frozen=True)
class Estimated:
    """A number between −1 and 1 with its 95 % interval from a block bootstrap over frames."""

    value: float
    lower: float
    upper: float


def rank_correlation(errors: FrameErrors, group: npt.ArrayLike, *, n_resamples: int = 500, seed: int = 0) -> Estimated:
    """Spearman's ρ of disagreement and error over frames; NaN where either is constant.

    Args:
        errors: of F frames.
        group: (F,) trajectory of each frame.
        n_resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    x, y = stats.rankdata(errors.disagreement), stats.rankdata(errors.error)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Estimated(np.nan, np.nan, np.nan)
    value = float(np.corrcoef(x, y)[0, 1])
    # Blocks of about the cube root of the frames: neighbours on a trajectory are as uncertain as each other.
    length = max(1, round(len(x) ** (1 / 3)))
    drawn = block_indices(np.asarray(group, dtype=np.int64), length, n_resamples, np.random.default_rng(seed))
    a, b = stats.rankdata(x[drawn], axis=1), stats.rankdata(y[drawn], axis=1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    values = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    lower, upper = np.quantile(values, [0.025, 0.975])
    return Estimated(value, float(lower), float(upper))


@dataclass(frozen=True)
class Calibration:
    """How often the truth lies where the committee says.

    Attributes:
        nominal: (q,) levels of the committee's central intervals.
        observed: (q,) fraction of values inside them; below ``nominal``: overconfident.
        scale: factor on the spread that would make its root mean square right; above 1: overconfident.
        bins: (b, 2) root mean square of the spread and of the error in bins of rising spread.
        miscalibration: mean of |observed − nominal|.
    """

    nominal: Float
    observed: Float
    scale: float
    bins: Float
    miscalibration: float


def calibration(predictions: npt.ArrayLike, reference: npt.ArrayLike, *, n_bins: int = 10) -> Calibration:
    """Calibration of the committee's mean with its spread.

    R members and the truth taken as draws of one normal distribution, the truth lies within t·s·√(1 + 1/R) of the mean
    (prediction interval, Student's t with R − 1 degrees of freedom) as often as the level says.

    Args:
        predictions: (R, ...) e.g. total energies (R, F), or forces (R, A, 3).
        reference: (...) likewise.
        n_bins: bins of equal count.

    Raises:
        ValueError: fewer than two members, or shapes that do not belong together.
    """
    members, truth = _members(predictions, reference)
    spread = (members.std(axis=0, ddof=1) * np.sqrt(1 + 1 / len(members))).ravel()
    error = np.abs(members.mean(axis=0) - truth).ravel()
    nominal = np.arange(1, 20) / 20
    ratio = error / np.maximum(spread, np.finfo(float).tiny)
    observed = np.array([np.mean(ratio <= stats.t.ppf((1 + q) / 2, len(members) - 1)) for q in nominal])
    bins = np.array([
        [np.sqrt(np.mean(spread[part] ** 2)), np.sqrt(np.mean(error[part] ** 2))]
        for part in np.array_split(np.argsort(spread), n_bins) if len(part)
    ])  # fmt: skip
    total = float(np.mean(spread**2))
    scale = float(np.sqrt(np.mean(error**2) / total)) if total > 0 else float("inf")
    return Calibration(nominal, observed, scale, bins, float(np.mean(np.abs(observed - nominal))))


def auroc(inside: npt.ArrayLike, outside: npt.ArrayLike) -> Estimated:
    """Chance that a frame from outside has the larger disagreement: area under the ROC curve.

    Mann–Whitney's U over its maximum; interval by DeLong's variance (Biometrics 44, 837 (1988)), frames taken as
    independent.

    Args:
        inside: (F,) disagreement on frames in distribution.
        outside: (G,) disagreement on frames out of distribution, e.g. at 1000 K.
    """
    x, y = np.asarray(inside, dtype=np.float64), np.asarray(outside, dtype=np.float64)
    if len(x) < 2 or len(y) < 2:
        return Estimated(np.nan, np.nan, np.nan)
    joint = stats.rankdata(np.concatenate([x, y]))
    below_y = (joint[len(x) :] - stats.rankdata(y)) / len(x)  # share of inside below each outside frame
    above_x = 1 - (joint[: len(x)] - stats.rankdata(x)) / len(y)
    value = float(below_y.mean())
    half = stats.norm.isf(0.025) * np.sqrt(below_y.var(ddof=1) / len(y) + above_x.var(ddof=1) / len(x))
    return Estimated(value, float(max(value - half, 0.0)), float(min(value + half, 1.0)))


def most_uncertain(disagreement: npt.ArrayLike, count: int) -> Int:
    """Indices of the ``count`` frames with the largest disagreement, the largest first: what to label next."""
    order = np.argsort(-np.asarray(disagreement, dtype=np.float64), kind="stable")
    return order[:count].astype(np.int64)
