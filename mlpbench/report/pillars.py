"""The four pillars of an answer: accuracy, labels, stability in MD, and speed beside the reference method.

Each is one card on the first screen: the best candidate with its number, whether that is beyond doubt, what the
runner-up would cost in its place; or, where it was not measured, the command that measures it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import fisher_exact

from mlpbench.metrics import metric
from mlpbench.numbers import WIDE, interval, listing, number, plural, ratio_text, seconds
from mlpbench.report import facts
from mlpbench.report.dynamics import Replicas, collect
from mlpbench.report.estimates import Against, Estimate, against_best, cells
from mlpbench.report.fronts import curves, longer, target_error
from mlpbench.report.section import Card
from mlpbench.report.timings import speedup, timed, told_apart, unlike, ways
from mlpbench.statistics.extrapolation import DataMultiplier, data_multiplier, frames_needed, label_hours
from mlpbench.statistics.paired import LEAST_REPETITIONS, holm
from mlpbench.study.study import Study, select

SURE = 0.05  # level at which a difference is beyond doubt
FEW = 3  # training sizes that a learning curve wants


@dataclass(frozen=True)
class Pillar:
    """What one pillar says.

    Attributes:
        card: as it is shown.
        best: the best candidate; empty where nothing was measured.
        certain: whether it is the best beyond doubt.
    """

    card: Card
    best: str = ""
    certain: bool = False


@dataclass(frozen=True)
class Answer:
    """The pillars of one data set, and the largest number of training frames that has errors."""

    n_train: int
    accuracy: Pillar
    labels: Pillar
    stability: Pillar
    speed: Pillar

    @property
    def pillars(self) -> tuple[Pillar, ...]:
        """In the order of the page."""
        return self.accuracy, self.labels, self.stability, self.speed


def answer(study: Study, dataset: str) -> Answer | None:
    """The pillars of one data set; None where no trial has finished."""
    name, split = study.headline(dataset), study.in_distribution(dataset)
    table = cells(study, dataset, name, split) if split else {}
    sizes = [n for candidate, n in table if candidate in study.lines(dataset)]
    if not sizes or split is None:
        return None
    n_train = max(sizes)
    return Answer(
        n_train,
        accuracy(study, dataset, split, n_train),
        labels(study, dataset, split),
        stability(study, dataset),
        speed(study, dataset),
    )


def sentence(study: Study, dataset: str, answer: Answer) -> str:
    """What a colleague would say aloud: whom to take, and what is given up."""
    best = answer.accuracy.best
    several = len(study.lines(dataset)) > 1
    certain = "is the most accurate" if answer.accuracy.certain else "has the lowest error, though not beyond doubt"
    parts = [f"With {plural(answer.n_train, 'training frame')} of {dataset}, {best} {certain}"]
    if not several:
        parts = [f"Only {best} was trained on {dataset}: there is nothing to compare it with"]
    open_ones = []
    for pillar, verb, noun in (
        (answer.stability, "stays stable longest in MD", "stability in MD"), (answer.speed, "is the fastest", "speed"),
    ):  # fmt: skip
        if pillar.certain:
            parts.append(verb if pillar.best == best else f"{pillar.best} {verb}")
        elif pillar.best and several:
            open_ones.append(noun)
    missing = [word for word, one in (("stability", answer.stability), ("speed", answer.speed)) if not one.best]
    text = listing(parts) + "."
    if open_ones:
        text += f" No candidate is singled out beyond doubt by {listing(open_ones)}."
    return text + (f" {listing(missing).capitalize()} not measured yet." if missing else "")


def accuracy(study: Study, dataset: str, split: str, n_train: int) -> Pillar:
    """The lowest error in distribution, the others against it, and how it grows out of distribution."""
    name = study.headline(dataset)
    compared = against_best(study, dataset, name, split, n_train)
    first, entry = cells(study, dataset, name, split)[compared[0].candidate, n_train], metric(name)
    best = compared[0].candidate
    over = plural(first.n, "repetition") if first.basis == "repetitions" else "1 repetition, over test frames"
    ends = interval(first.low, first.high)
    lines = [f"{entry.symbol} on {split}" + (f", 95 % interval {ends} ({over})" if ends else f" ({over})")]
    lines += _further_splits(study, dataset, split, best, n_train)
    doubt, certain = _doubt(compared, study.margin_words)
    return Pillar(
        Card(
            "Accuracy", f"{best}: {number(first.value, first.low, first.high)} {entry.unit}", lines, doubt,
            _instead(compared), mark="best" if certain else "undecided",
        ),
        best, certain,
    )  # fmt: skip


def _further_splits(study: Study, dataset: str, split: str, best: str, n_train: int) -> list[str]:
    name = study.headline(dataset)
    base = cells(study, dataset, name, split)[best, n_train].value
    ratios = []
    for other in study.test_splits(dataset):
        mean = cells(study, dataset, name, other).get((best, n_train))
        if other != split and mean is not None and base > 0:
            ratios.append(f"{mean.value / base:.2g} times as large on {other}")
    return [f"Out of distribution {listing(ratios)}"] if ratios else []


def _doubt(compared: Sequence[Against], margin: str) -> tuple[str, bool]:
    """Whether the first is the best beyond doubt, in words."""
    others = compared[1:]
    if not others:
        return "the only candidate", False
    open_ones = [other.candidate for other in others if other.verdict in ("undecided", "unknown")]
    ties = [other.candidate for other in others if other.verdict == "tie"]
    if open_ones:
        more = [other.further for other in others if other.verdict == "undecided" and other.further]
        if all(other.n < 2 for other in others):
            hint = "; one repetition decides nothing"
        elif more:
            hint = f"; about {plural(max(more), 'further repetition')} would decide"
        else:
            hint = ""
        return f"not beyond doubt: {listing(open_ones)} may be as good{hint}", False
    if ties:
        return f"a tie within {margin} with {listing(ties)}; better than the others beyond doubt", False
    return "beyond doubt (95 %, corrected for all comparisons)", True


def _instead(compared: Sequence[Against]) -> str:
    if len(compared) < 2:
        return ""
    other = compared[1]
    if math.isfinite(other.low):
        ratio, ends = ratio_text(other.ratio, other.low, other.high)
        return f"{other.candidate} instead: {ratio} times the error ({ends})"
    return f"{other.candidate} instead: {number(other.ratio)} times the error (interval unknown)"


def _of_this_length(study: Study, dataset: str) -> list[str]:
    """That the curve may be one of the optimisation, unless all trainings have converged."""
    done = select(study.table, dataset=dataset, status="done")
    if (done["converged"] == True).all():  # noqa: E712  # None and NaN: not tested
        return []
    return ["for trainings of this length; that longer ones agree was not shown"]


def labels(study: Study, dataset: str, split: str) -> Pillar:
    """The fewest frames to a common error, their price, and the data multiplier of the runner-up."""
    name = study.headline(dataset)
    fitted, target = curves(study, dataset, name, split), target_error(study, dataset, name, split)
    sizes = facts.train_sizes(study, dataset)
    if not fitted or target is None:
        if len(sizes) < FEW:
            why = f"Needs {FEW} training sizes; there {'is' if len(sizes) == 1 else 'are'} {len(sizes)}."
            command = _more_sizes(study, dataset, sizes)
        else:
            why = (
                "The trainings are not at rest, or took more steps with more labels: their curve would measure "
                "optimiser steps, not labels."
            )
            restless = not facts.unrested(select(study.table, dataset=dataset)).empty
            command = longer(study, dataset, list(study.lines(dataset)), restless)
        return Pillar(Card("Labels needed", "not measured", [why], commands=[command]))
    needs = {c: frames_needed(curve, target) for c, curve in fitted.items()}
    order = sorted(needs, key=lambda c: needs[c].n if needs[c].reachable else math.inf)
    best, need, unit = order[0], needs[order[0]], metric(name).unit
    if not need.reachable:
        lines = [f"{target:g} {unit}: {need.reason}", *_of_this_length(study, dataset)]
        return Pillar(Card("Labels needed", "not known", lines))
    known = math.isfinite(need.lower) and math.isfinite(need.upper)
    ends = f"95 % interval {interval(need.lower, need.upper)}" if known else need.note or "its interval is not known"
    lines = [f"training frames to {target:g} {unit}, {ends}"]
    price = study.label_seconds(dataset)
    if price:
        valid = float(study.trials.loc[study.trials["dataset"] == dataset, "n_valid"].max())
        hours = label_hours(need.n, valid, price)
        lines.append(f"with validation {seconds(3600 * hours)} of labelling at {seconds(price)} a frame")
    doubt, certain, instead = "the only curve", False, ""
    if len(order) > 1:
        ratio = data_multiplier(fitted[best], fitted[order[1]], target)
        few = min(fitted[c].repetitions for c in order[:2]) < LEAST_REPETITIONS
        certain = bool(ratio.value and math.isfinite(ratio.lower) and ratio.lower > 1 and not few)
        doubt = "beyond doubt" if certain else f"not beyond doubt: {order[1]} may need no more"
        instead = f"{order[1]} instead: {ratio.reason or _times(ratio)}"
    lines += _of_this_length(study, dataset)
    bent = [c for c, curve in fitted.items() if curve.bends]
    if bent:
        lines.append(f"the curve of {listing(bent)} bends: a power law does not describe it well")
    return Pillar(
        Card("Labels needed", f"{best}: {number(round(need.n))} frames", lines, doubt, instead,
             mark="best" if certain else "undecided"),
        best, certain,
    )  # fmt: skip


def _times(ratio: DataMultiplier) -> str:
    """How many times the labels, with its interval where that says anything."""
    if not math.isfinite(ratio.lower):
        return f"{number(ratio.value)} times the labels (interval unknown)"
    times, span = ratio_text(ratio.value, ratio.lower, ratio.upper)
    if ratio.upper > WIDE**2 * ratio.lower:
        return f"about {times} times the labels, though these curves hardly tell"
    return f"{times} times the labels ({span})"


def _more_sizes(study: Study, dataset: str, sizes: Sequence[int]) -> str:
    largest = max(sizes)
    wanted = sorted({*sizes, largest, max(1, largest // 2), max(1, largest // 4)})
    return facts.run_again(study, dataset, f"dataset.n_train={','.join(map(str, wanted))}", "repetition=0,1,2")


def stability(study: Study, dataset: str) -> Pillar:
    """The largest share of replicas that stay sound at the highest temperature, compared by Fisher's exact test."""
    groups = collect(study, dataset)
    if not groups:
        return Pillar(
            Card("Stability in MD", "not measured", ["Trains nothing again:"],
                 commands=[facts.run_again(study, dataset, "evaluation=dev", "evaluation.speed=null")])
        )  # fmt: skip
    n_train = max(one.n_train for one in groups)
    here = [one for one in groups if one.n_train == n_train]
    condition = _telling(here)
    rows = sorted((one for one in here if one.condition == condition), key=_survival, reverse=True)
    first = rows[0]
    alive, total = _sound(first), len(first.died)
    lines = [f"replicas sound after {first.planned:g} ps at {condition}, trained on {plural(n_train, 'frame')}"]
    stopped = first.causes.count("wall_limit")
    if stopped:
        lines.append(f"{plural(stopped, 'replica')} stopped early by the clock: counted as sound until then")
    doubt, certain, instead = "the only candidate", False, ""
    if len(rows) > 1:
        values = [
            float(fisher_exact([[alive, total - alive], [_sound(one), len(one.died) - _sound(one)]]).pvalue)
            for one in rows[1:]
        ]
        adjusted, _ = holm(values)
        open_ones = [one.candidate for one, p in zip(rows[1:], adjusted, strict=True) if p > SURE]
        certain = not open_ones
        doubt = "beyond doubt" if certain else f"not beyond doubt: {listing(open_ones)} may be as stable"
        doubt += " (Fisher's exact test on replicas; of these trainings, not of others)"
        second = rows[1]
        instead = f"{second.candidate} instead: {_sound(second)} of {len(second.died)}"
    return Pillar(
        Card("Stability in MD", f"{first.candidate}: {alive} of {total}", lines, doubt, instead,
             mark="best" if certain else "undecided"),
        first.candidate, certain,
    )  # fmt: skip


def _telling(rows: Sequence[Replicas]) -> str:
    """The condition in which the candidates differ most; the last of those that are equal."""
    spread = {}
    for condition in dict.fromkeys(one.condition for one in rows):
        shares = [_survival(one) for one in rows if one.condition == condition]
        spread[condition] = max(shares) - min(shares)
    return max(reversed(spread), key=lambda condition: spread[condition])


def _sound(one: Replicas) -> int:
    return sum(not dead for dead in one.died)


def _survival(one: Replicas) -> float:
    return _sound(one) / len(one.died)


def speed(study: Study, dataset: str) -> Pillar:
    """The fastest way to run each candidate, beside the reference method on the same frames."""
    ran = [way for way in ways(study, dataset) if way.values]
    if not ran:
        return Pillar(
            Card("Speed beside DFT", "not measured", ["Trains nothing again:"],
                 commands=[facts.run_again(study, dataset, "evaluation=speed"), f"mlpbench dft time {study.name}"])
        )  # fmt: skip
    fastest = {way.candidate: way for way in reversed(ran)}
    order = sorted(fastest.values(), key=lambda way: way.values["us_per_atom"].value)
    first = order[0]
    took: Estimate = first.values["us_per_atom"]
    lines = [f"per atom and call, {first.run_as}, {first.precision}, {first.machine}"]
    references = timed(study, dataset)
    if references:
        reference = references[0]
        ratio = speedup(first, reference)
        lines.append(
            f"{number(ratio.value, ratio.low, ratio.high)} times as fast as {reference.name} on "
            f"{plural(reference.threads, 'thread')}{unlike(first, reference)}"
        )
    else:
        lines.append(f"the reference method was not timed: mlpbench dft time {study.name}")
    doubt, certain, instead = "the only candidate", False, ""
    if len(order) > 1:
        open_ones = [way.candidate for way in order[1:] if not told_apart(study, first, way)]
        certain = not open_ones
        doubt = "beyond the noise of the timings" if certain else f"within the noise: {listing(open_ones)}"
        second = order[1]
        times = second.values["us_per_atom"].value / took.value
        instead = f"{second.candidate} instead: {number(times)} times the time"
    if first.notice:
        lines.append(first.notice)
    return Pillar(
        Card("Speed beside DFT", f"{first.candidate}: {number(took.value, took.low, took.high)} µs", lines, doubt,
             instead, mark="best" if certain else "undecided"),
        first.candidate, certain,
    )  # fmt: skip
