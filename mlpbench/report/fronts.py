"""Fitted learning curves and Pareto fronts: what is reached with how many labels, and at which cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlpbench.metrics import error_word, metric
from mlpbench.numbers import interval, listing, number
from mlpbench.report import facts
from mlpbench.report.drawing import INK, canvas, legend, logarithmic, looks, point
from mlpbench.report.estimates import Estimate, cells
from mlpbench.report.section import Block, Bullets, Cell, Column, Commands, Panel, Table
from mlpbench.statistics.curves import LearningCurve, NotAtRest, NotFitted, fit_learning_curve
from mlpbench.statistics.extrapolation import (
    EXTRAPOLATION,
    DataMultiplier,
    Needed,
    data_multiplier,
    frames_needed,
    label_hours,
)
from mlpbench.statistics.pareto import front_probability
from mlpbench.study.study import Study, remembered, select


@remembered
def curves(study: Study, dataset: str, name: str, split: str) -> dict[str, LearningCurve]:
    """Candidate -> fitted curve, for chosen candidates with at least two training sizes, all at rest."""
    return {c: fit for c, fit in _fits(study, dataset, name, split).items() if isinstance(fit, LearningCurve)}


@remembered
def _fits(study: Study, dataset: str, name: str, split: str) -> dict[str, LearningCurve | NotFitted]:
    rows = study.part(dataset, name, split)
    rows = rows.assign(steps=rows["trial"].map(study.trials.set_index("trial")["steps"]).astype(float))
    noise = study.label_noise(dataset, name)
    fits: dict[str, LearningCurve | NotFitted] = {}
    for candidate in study.lines(dataset):
        part = select(rows[rows["value"] > 0], candidate=candidate)
        if part["n_train"].nunique() > 1:
            rest = part["at_rest"].map(facts.rested).to_numpy(dtype=bool)
            steps = part["steps"].mask(part["converged"].map(facts.rested).astype(bool))  # more would change nothing
            try:
                fits[candidate] = fit_learning_curve(
                    part["n_train"], part["value"], part["repetition"], at_rest=rest, steps=steps, noise=noise
                )
            except NotFitted as error:
                fits[candidate] = error
    return fits


def unfitted(study: Study, dataset: str, split: str) -> list[Block]:
    """What each curve that is drawn without a fit lacks, and the command that adds it."""
    fits = _fits(study, dataset, study.headline(dataset), split)
    missing = {c: error for c, error in fits.items() if isinstance(error, NotFitted)}
    if not missing:
        return []
    restless = any(isinstance(error, NotAtRest) for error in missing.values())
    command = longer(study, dataset, list(missing), restless)
    label = "This adds the missing fits" + (", if it lets the trainings come to rest:" if restless else ":")
    return [Bullets([f"{c}: {error}." for c, error in missing.items()], "note"), Commands([command], label)]


def longer(study: Study, dataset: str, candidates: list[str], restless: bool) -> str:
    """The command that trains ``candidates`` at equal steps at all sizes; twice as long where they are ``restless``."""
    lines = select(study.table, dataset=dataset)
    names = lines["candidate"].isin(candidates)
    longest = int(lines.loc[names, "steps"].max()) if lines.loc[names, "steps"].notna().any() else 0
    wanted = f"budget.steps={2 * longest if restless else longest}" if longest else "budget=converge"
    sizes = ",".join(str(n) for n in facts.train_sizes(study, dataset))
    repetitions = ",".join(str(r) for r in sorted(study.trials["repetition"].astype(int).unique()))
    overrides = (f"dataset.n_train={sizes}", f"repetition={repetitions}", "budget=default", wanted)
    return facts.run_again(study, dataset, *overrides, only=candidates)


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


def _multiplier(multiplier: DataMultiplier | None) -> Cell:
    if multiplier is None:
        return Cell("1", 1.0)
    if multiplier.reason:
        return Cell("–", note=multiplier.reason)
    text = number(multiplier.value, multiplier.lower, multiplier.upper)
    return Cell(text, multiplier.value, interval(multiplier.lower, multiplier.upper))


SPEED = ("ms_per_md_step", "us_per_atom")  # the first that the study has


@dataclass(frozen=True)
class Option:
    """One thing that can be taken: a candidate at one number of training frames.

    Attributes:
        candidate: its label.
        n_train: training frames.
        mean: error, in the main metric's unit.
        errors: (R,) error of each repetition.
        costs: ``train`` s, ``labels`` frames, ``speed`` in the unit of its metric: (R,) each, empty if unknown.
        rested: all its trainings came to rest.
    """

    candidate: str
    n_train: int
    mean: Estimate
    errors: tuple[float, ...]
    costs: dict[str, tuple[float, ...]]
    rested: bool

    @property
    def label(self) -> str:
        """Candidate and training frames."""
        return f"{self.candidate}, {self.n_train} frames"

    def cost(self, kind: str) -> float:
        """Geometric mean of a cost; NaN where it is not known."""
        return math.exp(float(np.log(self.costs[kind]).mean())) if self.costs[kind] else math.nan


@remembered
def options(study: Study, dataset: str) -> list[Option]:
    """Every chosen candidate at every n_train that has an error on the split in distribution."""
    split, speed = study.in_distribution(dataset), speed_metric(study)
    if split is None:
        return []
    done = select(study.table, dataset=dataset, status="done")
    one_machine = len(facts.machines(done)) == 1
    errors = dict(study.part(dataset, study.headline(dataset), split).set_index("trial")["value"])
    choices = []
    for (candidate, n_train), mean in cells(study, dataset, study.headline(dataset), split).items():
        if candidate not in study.lines(dataset):
            continue
        part = select(done, candidate=candidate, n_train=n_train)
        times = part["train_seconds"].astype(float).dropna() if one_machine else pd.Series(dtype=float)
        costs = {
            "train": tuple(float(t) for t in times if t > 0),
            "labels": (float(n_train + part["n_valid"].iloc[0]),) * len(part),
            "speed": _speed(study, part["trial"].tolist(), speed) if one_machine else (),
        }
        known = tuple(float(errors[t]) for t in part["trial"] if errors.get(t, 0) > 0)
        choices.append(Option(candidate, n_train, mean, known, costs, len(facts.unrested(part)) == 0))
    return choices


def speed_metric(study: Study) -> str | None:
    """The metric by which the study knows how fast a potential is; None where it was not timed."""
    present = set(study.metric_names)
    return next((name for name in SPEED if name in present), None)


def _speed(study: Study, trials: list[str], name: str | None) -> tuple[float, ...]:
    """One value for each trial; of several system sizes the mean over them."""
    if name is None:
        return ()
    rows = study.metrics[study.metrics["trial"].isin(trials) & (study.metrics["metric"] == name)]
    return tuple(float(v) for v in rows.groupby("trial")["value"].mean() if v > 0)


def front(choices: list[Option], kind: str) -> dict[str, float]:
    """Label -> chance to be on the front of error against a cost, for the options whose means are on it.

    In the order of the cost; both smaller is better.
    """
    known = [o for o in choices if o.costs[kind] and o.errors]
    if not known:
        return {}
    columns = [[o.errors for o in known], [o.costs[kind] for o in known]]
    result = front_probability(columns, groups=[o.candidate for o in known])
    on = [
        (o.cost(kind), o.label, float(p))
        for o, p, keep in zip(known, result.probability, result.on_front, strict=True)
        if keep
    ]
    return {label: probability for _, label, probability in sorted(on)}


COSTS = {"train": ("training time", "s"), "labels": ("labels", "frames")}


def cost_kinds(study: Study, dataset: str) -> list[str]:
    """The costs in which the study's options differ, inference first."""
    choices = options(study, dataset)
    # Geometric means of as many labels differ in their last digit.
    return [k for k in ("speed", "train", "labels") if len({f"{o.cost(k):.9g}" for o in choices if o.costs[k]}) > 1]


def first_front(study: Study) -> tuple[str, str] | None:
    """(data set, cost) of the front on the first screen: inference where it was timed, else training; None: none."""
    dataset = study.datasets[0]
    kinds = [kind for kind in cost_kinds(study, dataset) if kind != "labels"]
    return (dataset, kinds[0]) if kinds else None


def cost_axis(study: Study, kind: str) -> tuple[str, str]:
    """A cost in words, and its unit."""
    if kind == "speed":
        entry = metric(str(speed_metric(study)))
        return entry.symbol, entry.unit
    return COSTS[kind]


CROWDED = 20  # points; above it only those on the front have a number beside them


def front_panel(
    study: Study, dataset: str, kind: str, *, name: str = "", size: tuple[float, float] = (4.5, 3.3)
) -> Panel:
    """Error against one cost, the Pareto front as a grey line; the number beside a point is its training frames.

    Args:
        study: the study.
        dataset: of it.
        kind: ``speed``, ``train`` or ``labels``.
        name: of the figure's file; by default of the front.
        size: inches.
    """
    choices = options(study, dataset)
    entry, style = metric(study.headline(dataset)), looks(study)
    shown = [o for o in choices if o.costs[kind]]
    several = len({o.n_train for o in shown}) > 1 and kind != "labels"
    on = front(choices, kind)
    best = [next(o for o in shown if o.label == label) for label in on]
    words, unit = cost_axis(study, kind)
    with canvas(*size) as (figure, axes):
        steps = [(o.cost(kind), o.mean.value) for o in best]
        axes.step([s[0] for s in steps], [s[1] for s in steps], where="post", color=INK, alpha=0.35, linewidth=3)
        for candidate in [c for c in study.lines(dataset) if any(o.candidate == c for o in shown)]:
            mine = [o for o in shown if o.candidate == candidate]
            for o in mine:
                label = candidate if o is mine[0] else ""
                numbered = len(shown) <= CROWDED or o in best
                text = str(o.n_train) if several and numbered else ""
                point(axes, o.cost(kind), o.mean, style[candidate], text, filled=o.rested, label=label)
        logarithmic(axes, "xy")
        axes.set_xlabel(f"{words} ({unit})")
        axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
        legend(axes)
    alt = f"{entry.symbol} against {words}. On the Pareto front: {listing([o.label for o in best])}."
    return Panel(name or f"pareto-{dataset}-{kind}", figure, alt, f"Error against {words}")
