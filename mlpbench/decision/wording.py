"""A decision in words, for the terminal."""

from __future__ import annotations

from mlpbench.decision.evidence import unit
from mlpbench.decision.model import Advice, Candidate, Check, Decision


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


def _other(candidate: Candidate) -> str:
    return f"{candidate.label}: {candidate.reason or candidate.verdict}"


def _cost(advice: Advice) -> str:
    labels = f", {_hours(advice.label_hours)} of labels" if advice.label_hours else ""
    return "" if advice.hours != advice.hours else f" (about {_hours(advice.hours)} of training{labels})"


def _how(command: str) -> str:
    if not command:
        return "No evaluation measures it on these data and this machine; it comes with every trial where it can."
    return "To measure it (nothing is trained again):\n" + "\n".join(f"  {line}" for line in command.splitlines())


def _hours(hours: float) -> str:
    if hours < 1 / 30:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.1f} h"
