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

from mlpbench.metrics import error_word, metric
from mlpbench.numbers import interval, listing, number
from mlpbench.report import facts
from mlpbench.report.section import Block, Bullets, Cell, Column, Commands, Table
from mlpbench.statistics.curves import LearningCurve, NotAtRest, NotFitted, fit_learning_curve
from mlpbench.statistics.extrapolation import (
    EXTRAPOLATION,
    DataMultiplier,
    Needed,
    data_multiplier,
    frames_needed,
    label_hours,
)
from mlpbench.statistics.intervals import MeanInterval
from mlpbench.statistics.paired import Comparison as Pairwise
from mlpbench.statistics.paired import compare, pair
from mlpbench.study.means import means_of
from mlpbench.study.study import Study, remembered, select

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
    found = {key: _estimate(mean, ends[places[key]]) for key, mean in means_of(rows, name).items()}
    return dict(sorted(found.items(), key=lambda item: (item[0][1], item[1].value)))


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
    found: dict[int, list[Pairwise]] = {}
    at = POWER_AT if len(pairs) <= MOST_POWERS else ()  # one integral for each pair and number of repetitions
    for n, result in zip(sizes, compare(pairs, margin=study.margin, at=at) if pairs else [], strict=True):
        found.setdefault(n, []).append(result)
    return found


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
    found = {}
    for result in comparisons(study, dataset, name, split).get(n_train, []):
        if best in (result.first, result.second):
            found[result.second if result.first == best else result.first] = _turned(result, best)
    first = Against(best, "best", 1.0, 1.0, 1.0, table[best].n)
    return [first, *(found[c] for c in order[1:] if c in found)]


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


@remembered
def curves(study: Study, dataset: str, name: str, split: str) -> dict[str, LearningCurve]:
    """Candidate -> fitted curve, for chosen candidates with at least two training sizes, all at rest."""
    return {c: fit for c, fit in _fits(study, dataset, name, split).items() if isinstance(fit, LearningCurve)}


@remembered
def _fits(study: Study, dataset: str, name: str, split: str) -> dict[str, LearningCurve | NotFitted]:
    rows = study.part(dataset, name, split)
    rows = rows.assign(steps=rows["trial"].map(study.trials.set_index("trial")["steps"]).astype(float))
    noise = study.label_noise(dataset, name)
    found: dict[str, LearningCurve | NotFitted] = {}
    for candidate in study.lines(dataset):
        part = select(rows[rows["value"] > 0], candidate=candidate)
        if part["n_train"].nunique() > 1:
            rest = part["at_rest"].map(facts.rested).to_numpy(dtype=bool)
            steps = None if part["converged"].map(facts.rested).all() else part["steps"]
            try:
                found[candidate] = fit_learning_curve(
                    part["n_train"], part["value"], part["repetition"], at_rest=rest, steps=steps, noise=noise
                )
            except NotFitted as error:
                found[candidate] = error
    return found


def unfitted(study: Study, dataset: str, split: str) -> list[Block]:
    """What each curve that is drawn without a fit lacks, and the command that adds it."""
    fits = _fits(study, dataset, study.headline(dataset), split)
    missing = {c: error for c, error in fits.items() if isinstance(error, NotFitted)}
    if not missing:
        return []
    lines = select(study.table, dataset=dataset)
    names = lines["candidate"].isin(missing)
    longest = int(lines.loc[names, "steps"].max()) if lines.loc[names, "steps"].notna().any() else 0
    restless = any(isinstance(error, NotAtRest) for error in missing.values())
    wanted = f"budget.steps={2 * longest if restless else longest}" if longest else "budget=converge"
    sizes = ",".join(str(n) for n in facts.train_sizes(study, dataset))
    repetitions = ",".join(str(r) for r in sorted(study.trials["repetition"].astype(int).unique()))
    overrides = (f"dataset.n_train={sizes}", f"repetition={repetitions}", "budget=default", wanted)
    command = facts.run_again(study, dataset, *overrides, only=list(missing))
    label = "This adds the missing fits" + (", if it lets the trainings come to rest:" if restless else ":")
    return [Bullets([f"{c}: {error}." for c, error in missing.items()], "note"), Commands([command], label)]


_ROUND = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0)  # times a power of ten


def target_error(study: Study, dataset: str, name: str, split: str) -> float | None:
    """A target that the question is fair for: the best mean below the largest training size, rounded up.

    Rounded up, so that at least one candidate reaches it within the sizes that were measured.
    """
    table = cells(study, dataset, name, split)
    largest = max((n for _, n in table), default=0)
    means = [mean.value for (c, n), mean in table.items() if n < largest and c in study.lines(dataset)]
    if not means:
        return None
    power = 10.0 ** math.floor(math.log10(min(means)))
    return next(step * power for step in _ROUND if step * power >= min(means))


def fit_table(study: Study, dataset: str, split: str) -> Table | None:
    """Exponent, frames to the target, their price and the data multiplier of each candidate; None without a fit."""
    name = study.headline(dataset)
    fitted, target = curves(study, dataset, name, split), target_error(study, dataset, name, split)
    if not fitted or target is None:
        return None
    entry, price = metric(name), study.label_seconds(dataset)
    needs = {c: frames_needed(curve, target) for c, curve in fitted.items()}
    order = sorted(fitted, key=lambda c: needs[c].n if needs[c].reachable else float("inf"))
    valid = float(select(study.trials, dataset=dataset)["n_valid"].max())
    rows = [
        [
            Cell(c),
            Cell(
                number(fitted[c].b, fitted[c].b_lower, fitted[c].b_upper),
                fitted[c].b,
                interval(fitted[c].b_lower, fitted[c].b_upper),
                mark="warn" if fitted[c].bends else "",
                note=fitted[c].note,
            ),
            _needed(needs[c]),
            *([_hours(needs[c], valid, price)] if price else []),
            _multiplier(None if c == order[0] else data_multiplier(fitted[order[0]], fitted[c], target)),
        ]
        for c in order
    ]
    columns = [
        Column("Candidate", numeric=False),
        Column("Exponent b", "", "error = a·N^(−b), one shift for each repetition, 95 % interval"),
        Column(f"Frames to {target:g} {entry.unit}", "", "training frames at which the fitted curve reaches it"),
        *(
            [Column("Price of labels", "h", "training and validation frames times the data set's time for a label")]
            if price
            else []
        ),
        Column("Data multiplier", "", f"frames it needs over those that {order[0]} needs for the same error"),
    ]
    caption = (
        f"Power laws fitted to {entry.symbol} on {facts.split_words(study, dataset, split)}: exponent, and the "
        f"training frames needed for {target:g} {entry.unit}, with 95 % intervals. Extrapolation is refused beyond "
        f"{EXTRAPOLATION:g} times the largest training size and below a {EXTRAPOLATION:g}th of the smallest."
    )
    return Table(f"learning-{dataset}", caption, columns, rows)


def finding(study: Study, dataset: str, split: str) -> str:
    """What doubling the data buys, in one sentence."""
    fitted = curves(study, dataset, study.headline(dataset), split)
    gains = sorted(((1 - 2**-curve.b, c) for c, curve in fitted.items() if curve.c == 0), reverse=True)
    if not gains:
        return ""
    what = error_word(study.headline(dataset))
    return f"Twice the training frames lower the {what} error by " + (
        listing([f"{100 * gain:.0f} % ({c})" for gain, c in gains]) + "."
    )


def _needed(need: Needed) -> Cell:
    if not need.reachable:
        if need.reason.startswith("reached"):
            return Cell("fewer than tried", 0.0, "", "warn", need.reason)
        return Cell("not reachable", math.inf, "", "warn", need.reason)
    shown = interval(need.lower, need.upper) if need.lower == need.lower else ""
    return Cell(number(round(need.n)), need.n, shown, note=need.note)


def _hours(need: Needed, valid: float, price: float) -> Cell:
    if not need.reachable:
        return Cell("–")
    hours, *ends = (label_hours(n, valid, price) for n in (need.n, need.lower, need.upper))
    if need.note:
        return Cell(number(hours), hours, note=need.note)
    return Cell(number(hours, *ends), hours, interval(*ends))


def _multiplier(found: DataMultiplier | None) -> Cell:
    if found is None:
        return Cell("1", 1.0)
    if found.reason:
        return Cell("–", note=found.reason)
    text = number(found.value, found.lower, found.upper)
    return Cell(text, found.value, interval(found.lower, found.upper))
