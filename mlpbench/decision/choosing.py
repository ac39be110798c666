"""The decision itself: check every candidate against the constraints, order those that pass, and doubt the answer."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlpbench.decision import advice as advising
from mlpbench.decision.evidence import View, check
from mlpbench.decision.model import Assessment, Check, Constraint, Decision, Verdict, percent, unit
from mlpbench.errors import UserError, close_match
from mlpbench.metrics import HEADLINE, METRICS
from mlpbench.metrics import metric as find_metric
from mlpbench.study.candidates import Candidate
from mlpbench.study.means import LABELS, direction, worst_end
from mlpbench.study.study import Study

ALIASES = {
    "cheapest": ("us_per_atom", "ms_per_md_step", "train_seconds"),
    "accurate": HEADLINE,
    "fewest_labels": (LABELS,),
}
_PRICES = ("cost", "speed")  # groups of metrics that less training, or none, makes better


def select(
    study: Study,
    constraints: Sequence[Constraint] = (),
    objective: str | None = None,
    *,
    dataset: str | None = None,
    split: str | None = None,
) -> Decision:
    """Choose among the candidates of one data set of a study.

    A candidate is what validation error chose (:attr:`Study.candidates`); every number here is from test frames.

    Args:
        study: the study.
        constraints: all must hold.
        objective: metric that orders those that pass, or ``labels``, ``cheapest`` (inference time; training time where
            none was measured), ``accurate``, ``fewest_labels``. None: ``cheapest`` where a constraint limits an error,
            else ``accurate``.
        dataset: None: the only one.
        split: test split of the errors; None: the one in distribution (:meth:`Study.in_distribution`).

    Raises:
        UserError: a metric, split or data set that is not known (with the close match), no trials, or the fewest labels
            of anything.
    """
    if study.trials.empty:
        raise UserError("the study has no trials", "Run some: mlpbench run -m study=NAME ...")
    data = _one_dataset(study, dataset)
    for constraint in constraints:
        _known(study, constraint.metric)
    limited = any(c.metric != LABELS and find_metric(c.metric).group not in _PRICES for c in constraints)
    goal = _objective(study, objective or ("cheapest" if limited else "accurate"))
    for name in [split, *(constraint.split for constraint in constraints)]:
        _known_split(study, name)
    used = split or study.in_distribution(data)
    candidates, notes = _open_to_choice(study, data, goal, limited)
    view = View(study, data, used, tuple(candidates))
    assessed = [_assess(view, candidate, constraints, goal) for candidate in candidates]
    assessed, chosen = _rank(assessed, goal)
    missing = {
        name: advising.measuring(view, name)
        for name in dict.fromkeys([c.metric for c in constraints] + [goal])
        if name != LABELS and all(view.evidence(c, name, None, worst_end(name)) is None for c in candidates)
    }
    doubts, advice = advising.find_doubts(view, assessed, chosen, constraints, goal)
    return Decision(
        study=study.name, dataset=data, split=used, constraints=tuple(constraints), objective=goal, unit=unit(goal),
        chosen=chosen, candidates=tuple(assessed), thin=bool(doubts) or bool(missing), doubts=tuple(doubts),
        advice=tuple(advice), missing=missing, notes=tuple(notes + _tuning(view) + _caveats(view)),
    )  # fmt: skip


def _one_dataset(study: Study, dataset: str | None) -> str:
    names = study.datasets
    if dataset is None and len(names) > 1:
        raise UserError(f"the study has {len(names)} data sets: {', '.join(names)}", "Choose one: --dataset NAME")
    if dataset is not None and dataset not in names:
        raise UserError(f"the study has no data set '{dataset}'", close_match(dataset, names))
    return dataset or names[0]


def _known(study: Study, name: str) -> None:
    """Refuse a metric that is not registered; what the study has is the likelier meaning."""
    if name != LABELS:
        try:
            find_metric(name)
        except UserError as error:
            likely = difflib.get_close_matches(name, study.metric_names, n=1, cutoff=0.6)
            raise UserError(error.message, close_match(name, likely or [*METRICS, LABELS])) from error


def _objective(study: Study, name: str) -> str:
    if name not in ALIASES:
        if name != LABELS and name not in METRICS and name.partition("_")[0] not in {m.split("_")[0] for m in METRICS}:
            raise UserError(f"there is no metric '{name}'", close_match(name, [*METRICS, LABELS, *ALIASES]))
        _known(study, name)
        if direction(name) == "none":
            raise UserError(f"{name} has no better or worse", "Choose another objective, e.g. us_per_atom")
        return name
    present = {*study.metric_names, LABELS}
    return next((option for option in ALIASES[name] if option in present), ALIASES[name][0])


def _known_split(study: Study, split: str | None) -> None:
    names = {str(s) for s in study.metrics["split"].dropna().unique() if s}
    if split is not None and split not in names:
        raise UserError(f"the study has no split '{split}'", close_match(split, names))


def _open_to_choice(study: Study, dataset: str, goal: str, limited: bool) -> tuple[list[Candidate], list[str]]:
    """The candidates, and a note where some are left out.

    A price alone would be lowest for the potential that was trained least: without a limit on an error, only the
    largest training set of each line is open to choice.
    """
    candidates = study.candidates_of(dataset)
    if limited or (goal != LABELS and find_metric(goal).group not in _PRICES):
        return candidates, []
    if goal == LABELS:
        error = study.headline(dataset)
        raise UserError(
            "without a limit on an error, the fewest labels are those of the least trained potential",
            f"Say what it must reach, for example: --max {error}=30",
        )
    largest = {name: max(c.n_train for c in candidates if c.name == name) for name in study.lines(dataset)}
    kept = [c for c in candidates if c.n_train == largest[c.name]]
    note = "No constraint limits an error: of each architecture only the largest training set is considered."
    return kept, [note] if len(kept) < len(candidates) else []


def _tuning(view: View) -> list[str]:
    """A note for each candidate that was tuned, and a warning if they were tuned unequally."""
    name = view.study.headline(view.dataset)
    notes = []
    for one in view.candidates:
        if one.tried > 1 and one.valid_error != one.valid_error:
            notes.append(f"{one.label}: of its {one.tried} settings none has an error on validation frames to choose "
                         "by; the one with the most finished trials was taken.")  # fmt: skip
        elif one.tried > 1:
            spent = f", {one.tuning_seconds / 3600:.2g} h of training" if one.tuning_seconds > 0 else ""
            notes.append(f"{one.label} was chosen of {one.tried} settings by {name} on validation frames "
                         f"({one.tuning_trials} trials{spent})")  # fmt: skip
    if notes and len({one.tried for one in view.candidates}) > 1:
        notes.append("The tuning budgets differ: an architecture that was tuned more has an advantage.")
    return notes


def _assess(view: View, candidate: Candidate, constraints: Sequence[Constraint], goal: str) -> Assessment:
    part = view.trials(candidate)
    done = part[part["status"] == "done"]
    checks = tuple(check(view.evidence(candidate, c.metric, c.split, c.kind), c) for c in constraints)
    aim = view.evidence(candidate, goal, None, worst_end(goal))
    verdict: Verdict = "passes" if all(c.passes for c in checks) else "fails"
    unmeasured = [c.constraint.metric for c in checks if c.n == 0]
    failing = [c for c in checks if c.n and not c.passes]
    reason = "; ".join(_failure(c) for c in failing)
    if done.empty:
        verdict, reason = "no result", _no_result(view, candidate)
    elif unmeasured and not failing:
        verdict, reason = "unknown", f"not measured: {', '.join(unmeasured)}"
    nan = float("nan")
    seconds = done["train_seconds"].astype(float)
    return Assessment(
        candidate=candidate, repetitions=tuple(sorted(int(r) for r in done["repetition"])),
        failed=len(part) - len(done), verdict=verdict, reason=reason, checks=checks,
        objective=aim.mean.value if aim else nan, objective_lower=aim.mean.lower if aim else nan,
        objective_upper=aim.mean.upper if aim else nan, probability=float(np.prod([c.probability for c in checks])),
        restless=int((done["at_rest"].astype("boolean") == False).sum()),  # noqa: E712
        trial_seconds=float(seconds.mean()) if len(seconds) else nan,
    )  # fmt: skip


def _failure(check: Check) -> str:
    text = f"{check.constraint.metric} is {check.value:.3g}, not {check.constraint}"
    if check.probability == check.probability:
        text += f" (off by {-100 * check.margin:.0f} %, chance to pass {percent(check.probability)})"
    return text


def _no_result(view: View, candidate: Candidate) -> str:
    first = view.study.record[candidate.trials[0]]
    reason = f", {first['reason']}" if first["reason"] else ""
    return f"none of its {len(candidate.trials)} trials is done: {first['status']}{reason}"


def _rank(candidates: list[Assessment], goal: str) -> tuple[list[Assessment], Assessment | None]:
    """The chosen first, then those that pass by the objective, then the others by their chance."""
    sign = 1 if worst_end(goal) == "max" else -1
    passing = [c for c in candidates if c.verdict == "passes"]
    passing.sort(key=lambda c: (c.objective != c.objective, sign * c.objective, -round(c.probability, 3), -_room(c)))
    others = [c for c in candidates if c.verdict != "passes"]
    others.sort(key=lambda c: (c.verdict == "no result", -c.probability if c.probability == c.probability else 0.0))
    if not passing or passing[0].objective != passing[0].objective:
        return passing + others, None
    equal = sum(c.objective == passing[0].objective for c in passing)
    reason = f"the best {goal} of {len(passing)} that pass"
    if equal > 1:
        reason += f" ({equal} are equal; of these the {'surest' if passing[0].checks else 'first'})"
    best = replace(passing[0], verdict="chosen", reason=reason)
    rest = [replace(c, reason=_worse(c, best, goal)) for c in passing[1:]]
    return [best, *rest, *others], best


def _room(one: Assessment) -> float:
    """Its smallest margin."""
    return min((c.margin for c in one.checks if c.margin == c.margin), default=0.0)


def _worse(one: Assessment, best: Assessment, goal: str) -> str:
    if one.objective != one.objective:
        return f"passes, but {goal} was not measured"
    if one.objective == best.objective:
        return f"passes, with the same {goal}{', but with smaller margins to the limits' if one.checks else ''}"
    times = f", {one.objective / best.objective:.3g} times" if best.objective > 0 else ""
    return f"passes, but {goal} is {one.objective:.3g} {unit(goal)} against {best.objective:.3g}{times}"


def _caveats(view: View) -> list[str]:
    table = view.study.table
    mine = table[table["trial"].isin([trial for one in view.candidates for trial in one.trials])]
    done = mine[mine["status"] == "done"]
    notes = []
    crossed = int(mine["repetition"].isna().sum())
    if crossed:
        notes.append(f"{crossed} trials share a seed with another of their setting and count as no repetition.")
    restless = int((done["at_rest"].astype("boolean") == False).sum())  # noqa: E712
    if restless:
        notes.append(
            f"{restless} of {len(done)} trainings had not come to rest within their budget: this ranks what that "
            "budget gives, not what the architectures can reach."
        )
    if len(done[["device", "device_name", "cpu", "threads"]].astype(str).drop_duplicates()) > 1:
        notes.append("The trials ran on different hardware or thread counts: their times do not compare.")
    failed = len(mine) - len(done)
    if failed:
        notes.append(f"{failed} of {len(mine)} trials have no result.")
    return notes
