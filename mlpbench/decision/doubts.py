"""Why an answer may be wrong, and the cheapest further trials that would settle it."""

from __future__ import annotations

from collections.abc import Sequence

from mlpbench.decision import advice as advising
from mlpbench.decision.evidence import CLEAR, LABELS, Table, goal_worst
from mlpbench.decision.model import Advice, Candidate, Constraint
from mlpbench.decision.wording import percent
from mlpbench.metrics import metric as find_metric
from mlpbench.statistics.paired import compare, pair

POSSIBLE = 0.05  # a candidate is out of the question below this chance


def find_doubts(
    table: Table, candidates: list[Candidate], chosen: Candidate | None, constraints: Sequence[Constraint], goal: str
) -> tuple[list[str], list[Advice]]:
    """Why the answer may be wrong, and the further trials that would settle it, cheapest first."""
    doubts: list[str] = []
    advice: list[Advice] = []
    sign = 1 if goal_worst(goal) == "max" else -1
    for one in candidates:
        ahead = chosen is None or one is chosen or sign * one.objective < sign * chosen.objective
        if not ahead or one.verdict in ("no result", "unknown"):
            continue
        known = one.probability == one.probability
        if known and (one.probability < POSSIBLE or one.probability >= CLEAR):
            continue
        if not known and one is not chosen and one.verdict == "fails":
            continue  # a single training that fails is no reason to hope
        further = [c.further for c in one.checks]
        chance = f"a chance of {percent(one.probability)}" if known else "an unknown chance (too few repetitions)"
        doubts.append(f"{one.label} has {chance} to keep the constraints")
        if any(c.frames for c in one.checks if c.further != 0):
            doubts[-1] += ": the test frames are too few to tell, however many the repetitions"
        elif any(f is None for f in further):
            doubts[-1] += ", and is too close to a limit for 100 further repetitions to tell"
        elif max((f or 0 for f in further), default=0) > 0:
            count = max(f or 0 for f in further)
            why = f"tells whether {one.label} keeps the constraints"
            advice.append(advising.more_repetitions(table, one, count, why))
    if chosen is not None:
        second = next((c for c in candidates if c.verdict == "passes" and c.objective == c.objective), None)
        found = _close(table, chosen, second, goal) if second is not None else None
        if found is not None and second is not None:
            doubts.append(found[0])
            advice += [
                advising.more_repetitions(table, c, found[1], f"tells it and {other.label} apart")
                for c, other in ((chosen, second), (second, chosen))
                if found[1]
            ]
    else:
        unknown = any(c.verdict == "unknown" for c in candidates)
        doubts.append(f"no candidate {'is known to keep' if unknown else 'keeps'} all constraints")
        for constraint in constraints:
            if constraint.kind == "max" and find_metric(constraint.metric).group == "accuracy":
                rows = table.rows(constraint.metric, constraint.split, constraint.kind)
                advice += advising.more_data(table, constraint, candidates, rows)
    return doubts, sorted(_unique(advice), key=lambda a: (a.hours != a.hours, a.hours + a.label_hours))


def _unique(advice: list[Advice]) -> list[Advice]:
    return list({a.command: a for a in advice}.values())


def _close(table: Table, chosen: Candidate, second: Candidate, goal: str) -> tuple[str, int] | None:
    """A doubt, and further repetitions, if the runner-up's objective cannot be told from the chosen one's."""
    rows = table.rows(goal, None, goal_worst(goal))
    if goal == LABELS or not bool((rows["value"] > 0).all()):
        return None
    errors: dict[str, dict[int, float]] = {}
    for one in (chosen, second):
        part = rows[rows["setting"] == one.label]
        errors[one.label] = dict(zip(part["repetition"].astype(int), part["value"].astype(float), strict=True))
    found = compare([pair(chosen.label, errors[chosen.label], second.label, errors[second.label])])[0]
    if found.verdict in ("better", "tie") or found.n == 0:
        return None
    if found.verdict == "unknown":
        return f"one repetition does not tell whether {chosen.label} and {second.label} differ in {goal} by chance", 2
    text = f"{goal} of {chosen.label} and {second.label} is undecided"
    span = f"(ratio {found.ratio:.3g}, 95 % interval {found.lower:.3g} to {found.upper:.3g})"
    return f"{text} {span}", found.further or 0
