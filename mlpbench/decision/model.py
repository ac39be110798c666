"""What a decision is made of: constraints, what each candidate shows, and the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mlpbench.errors import UserError


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
        UserError: not of that form, or the limit is no number.
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
    """One constraint held against one candidate.

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
class Candidate:
    """One setting and how it fared.

    Attributes:
        label: readable, e.g. ``mace tiny, N = 200``.
        values: dataset, architecture, size, n_train and swept settings.
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
        unconverged: trials whose training had not converged.
        trial_seconds: mean training time of one trial; NaN where it is not recorded.
    """

    label: str
    values: dict[str, object]
    repetitions: tuple[int, ...]
    failed: int
    verdict: Verdict
    reason: str
    checks: tuple[Check, ...]
    objective: float
    objective_lower: float
    objective_upper: float
    probability: float
    unconverged: int
    trial_seconds: float


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
        candidates: all settings, the chosen first, then those that pass, by the objective.
        thin: the evidence does not carry the answer.
        doubts: why it is thin, one sentence each.
        advice: cheapest first: further trials that would settle it.
        missing: metrics the study lacks -> commands that would measure them, a line each; empty: no evaluation does.
        notes: caveats (unconverged trials, several machines, which split was taken).
    """

    study: str
    dataset: str
    split: str | None
    constraints: tuple[Constraint, ...]
    objective: str
    unit: str
    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    thin: bool
    doubts: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
