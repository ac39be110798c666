"""What a decision is made of: constraints, what each candidate shows, and the answer; and the answer in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mlpbench.errors import UserError
from mlpbench.metrics import metric as find_metric
from mlpbench.numbers import duration
from mlpbench.study.candidates import Candidate
from mlpbench.study.means import LABELS


@dataclass(frozen=True)
class Constraint:
    """A limit on a metric.

    Attributes:
        metric: its name.
        limit: in the unit of the long table.
        kind: ``max`` (at most) or ``min`` (at least).
        split: test split it is asked on; None: the split of the decision (metrics of no split: their worst case).
    """

    metric: str
    limit: float
    kind: Literal["max", "min"]
    split: str | None = None

    def allows(self, value: float) -> bool:
        """Whether ``value`` keeps the limit."""
        return value <= self.limit if self.kind == "max" else value >= self.limit

    def __str__(self) -> str:
        where = f"@{self.split}" if self.split else ""
        return f"{self.metric}{where} {'≤' if self.kind == 'max' else '≥'} {self.limit:g}"


def parse_constraint(text: str, kind: Literal["max", "min"]) -> Constraint:
    """``force_mae=30`` or ``force_mae@test_1000K=80``.

    Raises:
        UserError: not of that form, or the limit is not a number.
    """
    name, separator, limit = text.partition("=")
    metric, _, split = name.strip().partition("@")
    try:
        value = float(limit)
    except ValueError:
        value = float("nan")
    if not separator or not metric or value != value:
        raise UserError(f"--{kind} {text}: a constraint is METRIC=NUMBER", f"For example: --{kind} force_mae=30")
    return Constraint(metric, value, kind, split or None)


@dataclass(frozen=True)
class Check:
    """Whether one candidate keeps one constraint.

    Attributes:
        constraint: the constraint.
        value: mean over repetitions, the metric's unit; NaN where it was not measured.
        lower: lower end of the 95 % interval over repetitions; NaN where there is none.
        upper: upper end.
        n: repetitions.
        passes: the mean keeps the limit.
        probability: that the true mean keeps it, over repetitions and test frames; NaN where nothing is known.
        margin: relative distance to the limit, positive inside.
        further: further repetitions that would make the probability clear; None if more than 100 would.
        frames: no number of repetitions would: the test frames themselves are too few to tell.
    """

    constraint: Constraint
    value: float
    lower: float
    upper: float
    n: int
    passes: bool
    probability: float
    margin: float
    further: int | None
    frames: bool = False


Verdict = Literal["chosen", "passes", "fails", "unknown", "no result"]


@dataclass(frozen=True)
class Assessment:
    """One candidate and how it fared.

    Attributes:
        candidate: the candidate of the study.
        repetitions: numbers of the repetitions that are done.
        failed: trials of it that are not done.
        verdict: ``chosen``, ``passes`` (but another is better), ``fails``, ``unknown`` (a constraint's metric is
            missing), ``no result`` (no trial is done).
        reason: why it is not chosen, or what speaks for it.
        checks: one for each constraint.
        objective: mean of the objective; NaN where it was not measured.
        objective_lower: lower end of its interval.
        objective_upper: upper end.
        probability: that it keeps all constraints, taken as independent; NaN where one is not known.
        restless: trials whose training had not come to rest.
        trial_seconds: mean training time of one trial; NaN where it is not recorded.
    """

    candidate: Candidate
    repetitions: tuple[int, ...]
    failed: int
    verdict: Verdict
    reason: str
    checks: tuple[Check, ...]
    objective: float
    objective_lower: float
    objective_upper: float
    probability: float
    restless: int
    trial_seconds: float

    @property
    def label(self) -> str:
        """Of the candidate, e.g. ``MACE, N = 200, lr=0.01``."""
        return self.candidate.label


@dataclass(frozen=True)
class Advice:
    """Further trials, and what they would settle.

    Attributes:
        command: ready ``mlpbench run`` commands, a line each.
        why: what it would settle.
        hours: estimated training time; NaN where no trial tells.
        label_hours: time for labels that must be made first, where the data set says what one takes.
    """

    command: str
    why: str
    hours: float
    label_hours: float = 0.0


@dataclass(frozen=True)
class Decision:
    """The answer to ``which one, under these constraints``.

    Attributes:
        study: its name.
        dataset: data set the answer is for.
        split: test split of the accuracy metrics.
        constraints: what was asked.
        objective: metric that orders those that pass.
        unit: of the objective.
        chosen: the best that passes, or None.
        candidates: all candidates, the chosen first, then those that pass, by the objective.
        thin: the evidence does not carry the answer.
        doubts: why it is thin, one sentence each.
        advice: cheapest first: further trials that would settle it.
        missing: metrics the study lacks -> commands that would measure them, a line each; empty: no evaluation does.
        notes: caveats (trainings that are not at rest, several machines, which split was taken).
    """

    study: str
    dataset: str
    split: str | None
    constraints: tuple[Constraint, ...]
    objective: str
    unit: str
    chosen: Assessment | None
    candidates: tuple[Assessment, ...]
    thin: bool
    doubts: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def unit(name: str) -> str:
    """Unit of a metric or of ``labels``."""
    return "frames" if name == LABELS else find_metric(name).unit


def describe(decision: Decision) -> str:
    """The answer, its evidence, why the others fell out, what is missing and what would settle it."""
    lines = [headline(decision), ""]
    if decision.chosen is not None:
        lines += [f"  {_check(check)}" for check in decision.chosen.checks]
        lines += [f"  {_objective(decision)}", ""]
    for doubt in decision.doubts:
        lines.append(f"Thin evidence: {doubt}")
    for name, command in decision.missing.items():
        lines.append(f"Not measured in this study: {name}. {_how(command)}")
    if decision.advice:
        lines += ["", "What would settle it, cheapest first:"]
        for advice in decision.advice:
            lines += [*(f"  {line}" for line in advice.command.splitlines()), f"    {advice.why}{_cost(advice)}"]
    others = [c for c in decision.candidates if c is not decision.chosen]
    if others:
        lines += ["", "The others:", *[f"  {_other(c)}" for c in others]]
    if decision.notes:
        lines += ["", *decision.notes]
    return "\n".join(lines)


def headline(decision: Decision) -> str:
    """The answer in one sentence."""
    asked = ", ".join(str(c) for c in decision.constraints) or "no constraint"
    own = all(c.split for c in decision.constraints) and bool(decision.constraints)
    where = f" on {decision.split}" if decision.split and not own else ""
    if decision.chosen is None:
        reason = "none is known to pass" if decision.missing else "none passes"
        return f"{decision.dataset}, {asked}{where}: {reason} of {len(decision.candidates)} candidates."
    one = decision.chosen
    sure = "" if one.probability != one.probability else f", chance that it really passes {percent(one.probability)}"
    sure = sure if decision.constraints else ""
    thin = "Provisional: take" if decision.thin else "Take"
    return f"{thin} {one.label} ({decision.dataset}, {asked}{where}; n = {len(one.repetitions)}{sure})."


def percent(value: float) -> str:
    """A chance as a reader wants it: no more certain than it can be; ``unknown`` for NaN."""
    if value != value:
        return "unknown"
    return "over 99 %" if value > 0.99 else "under 1 %" if value < 0.01 else f"{100 * value:.0f} %"


def _check(check: Check) -> str:
    name = check.constraint.metric
    span = "" if check.lower != check.lower else f" (95 % interval {check.lower:.3g} to {check.upper:.3g})"
    words = unit(name)
    return f"{name} {check.value:.3g}{' ' if words else ''}{words}{span}, limit {check.constraint}, margin {100 * check.margin:.0f} %"  # noqa: E501


def _objective(decision: Decision) -> str:
    one = decision.chosen
    assert one is not None
    span = ""
    if one.objective_lower == one.objective_lower and one.objective_upper > one.objective_lower:
        span = f" (95 % interval {one.objective_lower:.3g} to {one.objective_upper:.3g})"
    return f"{decision.objective} {one.objective:.3g} {decision.unit}{span}, {one.reason}"


def _other(one: Assessment) -> str:
    return f"{one.label}: {one.reason or one.verdict}"


def _cost(advice: Advice) -> str:
    labels = f", {duration(3600 * advice.label_hours)} of labels" if advice.label_hours else ""
    return "" if advice.hours != advice.hours else f" (about {duration(3600 * advice.hours)} of training{labels})"


def _how(command: str) -> str:
    if not command:
        return "No evaluation measures it on these data and this machine; it comes with every trial where it can."
    return "To measure it (nothing is trained again):\n" + "\n".join(f"  {line}" for line in command.splitlines())
