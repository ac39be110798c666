"""Learning curves: error = a·N^(−b), with a floor c only where the data support it.

Fitted to the logarithm of the error with one shift for each repetition (a hard split is hard at every size,
since subsets are nested), so that the exponent rests on differences within repetitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.optimize import least_squares

from mlpbench.statistics.intervals import joint_quantile

Float = npt.NDArray[np.float64]

SAME_STEPS = 1.05  # mean optimiser steps at two training sizes that differ by less than this factor are the same
BENT = 0.05  # of the F test for curvature: a fit that the points contradict at this level is not extrapolated
FLOOR_LEVEL = 0.01  # of the F test for a floor; a floor that is not there makes every extrapolation worthless


class NotFitted(ValueError):
    """A learning curve was asked of errors that are no function of the labels alone."""


class UnequalSteps(NotFitted):
    """Trainings with more frames also took more optimiser steps: the errors measure both."""

    def __init__(self, fewest: float, most: float) -> None:
        super().__init__(
            f"trainings took from {fewest:g} to {most:g} optimiser steps at different numbers of frames: no learning "
            "curve is fitted"
        )


class NotAtRest(NotFitted):
    """A learning curve was asked of trainings that had not come to rest; :attr:`sizes` are theirs."""

    def __init__(self, sizes: Sequence[float]) -> None:
        self.sizes = tuple(sizes)
        words = ", ".join(f"{size:g}" for size in self.sizes)
        super().__init__(f"trainings with {words} frames had not come to rest: no learning curve is fitted")


@dataclass(frozen=True)
class LearningCurve:
    """A fitted learning curve, error = a·N^(−b) + c, in the unit of the errors.

    Attributes:
        a: prefactor, the unit of the error.
        b: exponent.
        c: floor, the unit of the error; 0 where the data support none.
        b_lower: lower end of the exponent's interval; NaN where there are no degrees of freedom.
        b_upper: upper end.
        df: residual degrees of freedom of the exponent.
        sizes: distinct training sizes, ascending.
        repetitions: number of repetitions.
        residual: standard deviation about the curve within a repetition, relative.
        between: standard deviation of the repetitions' shifts, relative.
        floor_p: p of the F test of a floor against none; NaN where there are fewer than four sizes.
        curvature: second derivative of ln error by ln N, from a quadratic term: above 0 the curve flattens.
        curvature_p: p of the F test of that term against a straight line; NaN with two sizes, or too few trials.
        noise: error of the labels themselves, the unit of the error: no potential can be seen to be better; 0: unknown.
        note: what limits the fit, for a reader; empty if nothing.
        confidence: of the intervals.
        center: ln N about which the parameters are held.
        covariance: (p, p) of (ln a·N_center^(−b), b[, ln c]), from the residual.
    """

    a: float
    b: float
    c: float
    b_lower: float
    b_upper: float
    df: float
    sizes: tuple[float, ...]
    repetitions: int
    residual: float
    between: float
    floor_p: float
    curvature: float
    curvature_p: float
    noise: float
    note: str
    confidence: float
    center: float
    covariance: Float

    @property
    def bends(self) -> bool:
        """Whether the points contradict the fitted law (lack of fit at 5 %): then it is not extrapolated."""
        return self.c == 0 and self.curvature_p < BENT

    def predict(self, n: npt.ArrayLike) -> Float:
        """Error at ``n`` training frames, the mean (geometric) over repetitions."""
        return np.asarray(self.a * np.asarray(n, dtype=np.float64) ** -self.b + self.c)

    def band(self, n: npt.ArrayLike) -> tuple[Float, Float]:
        """Lower and upper end of the curve's interval at ``n`` training frames (pointwise, of the mean)."""
        n = np.asarray(n, dtype=np.float64)
        half = self.half_width(np.log(n))
        return self.predict(n) * np.exp(-half), self.predict(n) * np.exp(half)

    def half_width(self, log_n: Float) -> Float:
        """Half the width of the curve's interval at ln N, on the logarithm of the error.

        The level rests on the repetitions (R − 1 degrees of freedom), the slope on the differences within them.
        """
        jacobian = _jacobian(self._parameters(), log_n - self.center)
        within = np.einsum("...i,ij,...j->...", jacobian, self.covariance, jacobian)
        level = np.minimum(within, self.covariance[0, 0])
        if not self.df > 0:
            return np.full_like(within, np.nan)
        if not (within.any() or self.between):  # exact data
            return np.zeros_like(within)
        df_level = self.repetitions - 1.0 if self.repetitions > 1 else self.df
        first, second = level + self.between**2 / self.repetitions, within - level
        return np.asarray(joint_quantile(first, df_level, second, self.df, self.confidence) * np.sqrt(first + second))

    def _parameters(self) -> Float:
        level = np.log(self.a) - self.b * self.center
        return np.array([level, self.b, *([np.log(self.c)] if self.c > 0 else [])])


def fit_learning_curve(
    n_train: npt.ArrayLike,
    error: npt.ArrayLike,
    repetition: npt.ArrayLike,
    *,
    at_rest: npt.ArrayLike,
    steps: npt.ArrayLike | None = None,
    floor: bool | None = None,
    noise: float = 0.0,
    confidence: float = 0.95,
) -> LearningCurve:
    """Fit one architecture's errors.

    Args:
        n_train: (T,) training frames of each trial.
        error: (T,) positive.
        repetition: (T,) label of each trial's repetition.
        at_rest: (T,) or one for all: whether the training had come to rest. Errors of trainings that had not are about
            optimisation, and a law through them about how that grew with N.
        steps: (T,) optimiser steps of each trial, which must be the same at every size within 5 %; NaN: not known, or
            the training has converged, so that more would change nothing. None: not asked.
        floor: fit a floor c; None: where an F test at 1 % and the AICc both ask for it and there are at
            least four sizes.
        noise: error of the labels themselves where the data set states it, in the unit of the errors.
        confidence: of the intervals.

    Raises:
        NotAtRest: a trial that had not come to rest.
        UnequalSteps: the means of the steps differ between sizes.
        ValueError: an error or a size that is not positive, or fewer than two sizes.
    """
    rested = np.broadcast_to(np.asarray(at_rest, dtype=bool), np.shape(n_train))
    if not rested.all():
        raise NotAtRest(sorted({float(size) for size in np.asarray(n_train, dtype=np.float64)[~rested]}))
    n, values = np.asarray(n_train, dtype=np.float64), np.asarray(error, dtype=np.float64)
    if steps is not None:
        _same_steps(n, np.broadcast_to(np.asarray(steps, dtype=np.float64), n.shape))
    labels = np.unique(np.asarray(repetition), return_inverse=True)[1]
    usable = np.isfinite(values) & np.isfinite(n)
    n, values, labels = n[usable], values[usable], labels[usable]
    sizes = np.unique(n)
    if len(sizes) < 2:
        raise ValueError("a learning curve needs at least two training sizes")
    if (values <= 0).any() or (n <= 0).any():
        raise ValueError("errors and training sizes must be positive")
    labels = np.unique(labels, return_inverse=True)[1]
    center = float(np.log(n).mean())
    x, y, shifts = np.log(n) - center, np.log(values), _shifts(labels)
    plain = _fit(x, y, shifts, None)
    curve = replace(_curve(plain, x, y, labels, sizes, center, confidence), noise=noise)
    curve = _with_curvature(curve, plain, x, y, shifts)
    if floor is False or (floor is None and len(sizes) < 4):
        return curve
    start = np.log(0.5 * values.min())
    bent = _fit(x, y, shifts, start)
    p = _floor_test(plain, bent, len(y))
    wanted = floor is True or (p < FLOOR_LEVEL and _aicc(bent, len(y)) < _aicc(plain, len(y)))
    if wanted and bent.df > 0:
        floored = _curve(bent, x, y, labels, sizes, center, confidence)
        curve = replace(floored, noise=noise, curvature=curve.curvature, curvature_p=curve.curvature_p)
    return replace(curve, floor_p=p)


def _same_steps(n: Float, steps: Float) -> None:
    known = np.isfinite(steps)
    means = [float(steps[known & (n == size)].mean()) for size in np.unique(n[known])]
    if means and max(means) > SAME_STEPS * min(means):
        raise UnequalSteps(min(means), max(means))


def _with_curvature(curve: LearningCurve, plain: _Fit, x: Float, y: Float, shifts: Float) -> LearningCurve:
    """The curve with the F test of a quadratic term in ln N, and a note where it says that the line does not fit."""
    if len(curve.sizes) < 3:
        return curve
    design = np.hstack([plain.jacobian, (x**2)[:, None]])
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    square, df = float(((y - design @ solution) ** 2).sum()), len(y) - design.shape[1]
    if df <= 0 or square <= 0:
        return replace(curve, curvature=2 * float(solution[-1]))
    p = float(stats.f.sf(max(plain.square - square, 0.0) / (square / df), 1, df))
    curve = replace(curve, curvature=2 * float(solution[-1]), curvature_p=p)
    if not curve.bends:
        return curve
    how = "flattens" if curve.curvature > 0 else "steepens"
    said = f"the curve {how} (lack of fit, p = {p:.1g}): one exponent does not describe it"
    return replace(curve, note="; ".join(text for text in (said, curve.note) if text))


@dataclass(frozen=True)
class _Fit:
    parameters: Float  # (p,) level, b[, ln c]
    shifts: Float  # (R,) of the repetitions, zero on average
    jacobian: Float  # (T, p + R − 1)
    square: float
    df: int


def _shifts(labels: npt.NDArray[np.int64]) -> Float:
    """(T, R − 1) design of the repetitions' shifts, which sum to zero."""
    count = int(labels.max()) + 1
    coding = np.vstack([np.eye(count - 1), -np.ones((1, count - 1))])
    return np.asarray(coding[labels], dtype=np.float64)


def _model(parameters: Float, x: Float) -> Float:
    """ln(e^level·e^(−b·x) + c)."""
    line = parameters[0] - parameters[1] * x
    return np.asarray(line if len(parameters) == 2 else np.logaddexp(line, parameters[2]))


def _jacobian(parameters: Float, x: Float) -> Float:
    line = parameters[0] - parameters[1] * np.asarray(x)
    if len(parameters) == 2:
        return np.stack([np.ones_like(line), -np.asarray(x)], axis=-1)
    weight = np.exp(line - np.logaddexp(line, parameters[2]))
    return np.stack([weight, -np.asarray(x) * weight, 1 - weight], axis=-1)


def _fit(x: Float, y: Float, shifts: Float, log_floor: float | None) -> _Fit:
    linear = np.hstack([np.ones((len(x), 1)), -x[:, None], shifts])
    solution = np.linalg.lstsq(linear, y, rcond=None)[0]
    p = 2
    if log_floor is not None:
        p = 3

        def jacobian(theta: Float) -> Float:
            """Derivatives of the residuals."""
            return np.hstack([_jacobian(theta[:3], x), shifts])

        start = np.concatenate([solution[:2], [log_floor], solution[2:]])
        fitted = least_squares(lambda t: _model(t[:3], x) + shifts @ t[3:] - y, start, jac=jacobian)
        solution, linear = fitted.x, jacobian(fitted.x)
    parameters, rest = solution[:p], solution[p:]
    residual = y - _model(parameters, x) - shifts @ rest
    every = np.append(rest, -rest.sum())
    return _Fit(parameters, every, linear, float(residual @ residual), len(y) - len(solution))


def _floor_test(plain: _Fit, bent: _Fit, n: int) -> float:
    if bent.df <= 0 or bent.square <= 0:
        return float("nan")
    return float(stats.f.sf(max(plain.square - bent.square, 0.0) / (bent.square / bent.df), 1, bent.df))


def _aicc(fit: _Fit, n: int) -> float:
    """Corrected Akaike criterion of a least-squares fit (Hurvich & Tsai, Biometrika 76, 297 (1989))."""
    k = n - fit.df + 1  # the variance is a parameter too
    if n - k - 1 <= 0 or fit.square <= 0:
        return float("inf")
    return float(n * np.log(fit.square / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1))


def _curve(
    fit: _Fit, x: Float, y: Float, labels: npt.NDArray[np.int64], sizes: Float, center: float, confidence: float
) -> LearningCurve:
    p, count = len(fit.parameters), int(labels.max()) + 1
    variance = fit.square / fit.df if fit.df > 0 else np.nan
    inverse = np.linalg.pinv(fit.jacobian.T @ fit.jacobian)[:p, :p]
    covariance, df, note = variance * inverse, float(fit.df), ""
    if p == 2:
        own = _slopes_differ(x, y, labels)
        if own is not None:  # the repetitions' own slopes differ more than the scatter about them explains
            covariance[1, 1], df = own, count - 1
            note = "the slope varies between repetitions; its interval rests on their number"
    if count == 1:
        note = (
            "one repetition: the interval does not cover other splits and initialisations"
            if fit.df > 0
            else "one repetition of two sizes: an exponent without an interval"
        )
    level, b = fit.parameters[:2]
    half = stats.t.isf((1 - confidence) / 2, df) * np.sqrt(covariance[1, 1]) if df > 0 else np.nan
    per_repetition = len(y) / count
    between = np.var(fit.shifts, ddof=1) - variance / per_repetition if count > 1 and fit.df > 0 else 0.0
    return LearningCurve(
        a=float(np.exp(level + b * center)), b=float(b), c=float(np.exp(fit.parameters[2])) if p == 3 else
        0.0, b_lower=float(b - half), b_upper=float(b + half), df=df, sizes=tuple(float(s) for s in sizes),
        repetitions=count, residual=float(np.sqrt(variance)), between=float(np.sqrt(max(between, 0.0))),
        floor_p=float("nan"), curvature=float("nan"),
        curvature_p=float("nan"), noise=0.0, note=note, confidence=confidence, center=center, covariance=covariance,
    )  # fmt: skip


def _slopes_differ(x: Float, y: Float, labels: npt.NDArray[np.int64], level: float = 0.35) -> float | None:
    """Squared standard error of the mean slope from the repetitions' own, if they seem to differ.

    The level is high on purpose: a real difference that is missed costs far more coverage (down to 76 %)
    than a needless switch to the repetitions' own slopes, whose interval is always valid but wide (see the
    coverage benchmark).
    """
    slopes, spreads, square, df = [], [], 0.0, 0
    for label in range(int(labels.max()) + 1):
        here = labels == label
        if len(np.unique(x[here])) < 3:
            continue
        line, rest = np.polyfit(x[here], y[here], 1), x[here] - x[here].mean()
        slopes.append(line[0])
        spreads.append(rest @ rest)
        square += float(((y[here] - np.polyval(line, x[here])) ** 2).sum())
        df += int(here.sum()) - 2
    if len(slopes) < 3 or square <= 0:
        return None
    between = float(np.var(slopes, ddof=1))
    ratio = between / (square / df * np.mean(1 / np.array(spreads)))
    return between / len(slopes) if stats.f.sf(ratio, len(slopes) - 1, df) < level else None
