"""The decision itself: hold every candidate to the constraints, order those that pass, and doubt the answer."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mlpbench.decision import advice as advising
from mlpbench.decision.doubts import find_doubts
from mlpbench.decision.evidence import LABELS, Table, check, direction, goal_worst, unit
from mlpbench.decision.model import Candidate, Check, Constraint, Decision, Verdict
from mlpbench.decision.wording import percent
from mlpbench.errors import UserError, close_match
from mlpbench.metrics import METRICS
from mlpbench.metrics import metric as find_metric
from mlpbench.statistics.repetitions import independent_repetitions
from mlpbench.statistics.settings import BASE, VALID, choose, setting_labels, swept_columns

ALIASES = {
    "cheapest": ("us_per_atom", "ms_per_md_step", "train_seconds"),
    "accurate": ("force_mae", "energy_mae"),
    "fewest_labels": (LABELS,),
}


def select(
    trials: pd.DataFrame,
    metrics: pd.DataFrame,
    constraints: Sequence[Constraint],
    objective: str = "cheapest",
    *,
    study: str | None = None,
    dataset: str | None = None,
    split: str | None = None,
    in_distribution: str | None = None,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    pool: int | None = None,
) -> Decision:
    """Choose among the settings of one data set.

    Swept settings are first chosen on validation error (see :func:`mlpbench.statistics.settings.choose`); every other
    number here is from test frames.

    Args:
        trials: one row a trial.
        metrics: long table.
        constraints: all must hold.
        objective: metric that orders those that pass, or ``labels``, ``cheapest`` (inference time; training time where
            none was measured), ``accurate``, ``fewest_labels``.
        study: its name; None: from the table.
        dataset: None: the only one.
        split: test split of the accuracy metrics; None: ``in_distribution``, or the only one, or the one with the
            largest errors.
        in_distribution: the split that the data set names as in distribution.
        configs: trial -> resolved configuration of its record, for commands that repeat all of it; None: commands
            know only what the tables hold.
        pool: labelled frames that there are for training and validation; None: not known.

    Raises:
        UserError: a metric, split or data set that is not known (with the close match), or no trials.
    """
    if trials.empty:
        raise UserError("the study has no trials", "Run some: mlpbench run -m study=NAME ...")
    name = study if study is not None else str(trials["study"].iloc[0])
    data = _one_dataset(trials, dataset)
    trials, metrics = trials[trials["dataset"] == data], metrics[metrics["dataset"] == data]
    trials = trials.assign(setting=setting_labels(trials), repetition=independent_repetitions(trials))
    crossed = trials["repetition"].isna()
    trials = trials[~crossed].astype({"repetition": int})
    for constraint in constraints:
        _known(constraint.metric, metrics)
    goal = _objective(objective, metrics)
    used, notes = _split(metrics, split, in_distribution)
    for constraint in constraints:
        _known_split(constraint.split, metrics)
    table = Table(name, trials, metrics, used, swept_columns(trials.drop(columns="setting")), configs or {}, pool)
    if crossed.any():
        notes.append(f"{crossed.sum()} trials share a seed with another of their setting and count as no repetition.")
    notes += _choose_settings(table)
    candidates = [_candidate(table, part, constraints, goal) for part in table.parts()]
    candidates, chosen = _rank(candidates, goal)
    missing = {
        metric: advising.measuring(table, metric)
        for metric in dict.fromkeys([c.metric for c in constraints] + [goal])
        if metric != LABELS and table.evidence(metric, None, goal_worst(metric)) == {}
    }
    doubts, advice = find_doubts(table, candidates, chosen, constraints, goal)
    return Decision(
        study=name, dataset=data, split=used, constraints=tuple(constraints), objective=goal, unit=unit(goal),
        chosen=chosen, candidates=tuple(candidates), thin=bool(doubts) or bool(missing), doubts=tuple(doubts),
        advice=tuple(advice), missing=missing, notes=tuple(notes + _caveats(table)),
    )  # fmt: skip


def _one_dataset(trials: pd.DataFrame, dataset: str | None) -> str:
    names = sorted(trials["dataset"].astype(str).unique())
    if dataset is None and len(names) > 1:
        raise UserError(f"the study has {len(names)} data sets: {', '.join(names)}", "Choose one: --dataset NAME")
    if dataset is not None and dataset not in names:
        raise UserError(f"the study has no data set '{dataset}'", close_match(dataset, names))
    return dataset or names[0]


def _known(name: str, metrics: pd.DataFrame) -> None:
    """Refuse a metric that is not registered; what the study has is the likelier meaning."""
    if name != LABELS:
        try:
            find_metric(name)
        except UserError as error:
            here = sorted(set(metrics["metric"]))
            likely = difflib.get_close_matches(name, here, n=1, cutoff=0.6)
            raise UserError(error.message, close_match(name, likely or [*METRICS, LABELS])) from error


def _objective(name: str, metrics: pd.DataFrame) -> str:
    if name not in ALIASES:
        if name != LABELS and name not in METRICS and name.partition("_")[0] not in {m.split("_")[0] for m in METRICS}:
            raise UserError(f"there is no metric '{name}'", close_match(name, [*METRICS, LABELS, *ALIASES]))
        _known(name, metrics)
        if direction(name) == "none":
            raise UserError(f"{name} has no better or worse", "Choose another objective, e.g. us_per_atom")
        return name
    present = set(metrics.loc[metrics["value"].notna(), "metric"]) | {LABELS}
    return next((option for option in ALIASES[name] if option in present), ALIASES[name][0])


def _split(metrics: pd.DataFrame, split: str | None, preferred: str | None) -> tuple[str | None, list[str]]:
    accuracy = metrics[metrics["metric"].isin(["force_mae", "energy_mae"]) & ~metrics["split"].isin(["train", VALID])]
    names = sorted(str(s) for s in accuracy["split"].dropna().unique())
    if split is not None:
        _known_split(split, metrics)
        return split, []
    if not names:
        return None, []
    if preferred in names:
        return preferred, []
    if len(names) == 1:
        return names[0], []
    main = accuracy[accuracy["metric"] == accuracy["metric"].max()]  # force_mae where there is one
    hardest = str(main.groupby("split")["value"].median().idxmax())
    return hardest, [f"Errors are those on {hardest}, the hardest of {len(names)} test splits; --split names another."]


def _known_split(split: str | None, metrics: pd.DataFrame) -> None:
    names = {str(s) for s in metrics["split"].dropna().unique() if s}
    if split is not None and split not in names:
        raise UserError(f"the study has no split '{split}'", close_match(split, names))


def _choose_settings(table: Table) -> list[str]:
    """Keep the settings that validation error chose; a note for each group that was tuned."""
    measured = set(table.metrics.loc[table.metrics["split"] == VALID, "metric"])
    metric = "force_mae" if "force_mae" in measured else "energy_mae"
    choices = choose(table.trials.drop(columns="setting"), table.metrics, metric)
    table.trials = table.trials[table.trials["setting"].isin([c.setting for c in choices])]
    tuned = [c for c in choices if c.tuning_settings > 1]
    notes = [
        f"{c.setting} was chosen of {c.tuning_settings} settings by {metric} on validation frames "
        f"({c.tuning_trials} trials, {c.tuning_seconds / 3600:.2g} h of training)"
        for c in tuned
    ]
    if tuned and len({c.tuning_settings for c in choices}) > 1:
        notes.append("The tuning budgets differ: an architecture that was tuned more has an advantage.")
    return notes


def _candidate(table: Table, part: pd.DataFrame, constraints: Sequence[Constraint], goal: str) -> Candidate:
    label, done = str(part["setting"].iloc[0]), part[part["status"] == "done"]
    checks = tuple(check(table.evidence(c.metric, c.split, c.kind).get(label), c) for c in constraints)
    aim = table.evidence(goal, None, goal_worst(goal)).get(label)
    chances = [c.probability for c in checks]
    verdict: Verdict = "passes" if all(c.passes for c in checks) else "fails"
    unmeasured = [c.constraint.metric for c in checks if c.n == 0]
    failing = [c for c in checks if c.n and not c.passes]
    reason = "; ".join(_failure(c) for c in failing)
    if done.empty:
        verdict, reason = "no result", _no_result(part)
    elif unmeasured and not failing:
        verdict, reason = "unknown", f"not measured: {', '.join(unmeasured)}"
    nan = float("nan")
    mean = (aim.mean.value, aim.mean.lower, aim.mean.upper) if aim else (nan, nan, nan)
    converged = done["converged"] if "converged" in done else pd.Series(dtype=object)
    seconds = done["train_seconds"].astype(float).mean() if "train_seconds" in done and len(done) else nan
    return Candidate(
        label=label, values={key: part[key].iloc[0] for key in [*BASE, *table.swept]},
        repetitions=tuple(sorted(int(r) for r in done["repetition"])), failed=len(part) - len(done), verdict=verdict,
        reason=reason, checks=checks, objective=mean[0], objective_lower=mean[1], objective_upper=mean[2],
        probability=float(np.prod(chances)), unconverged=int((converged.astype("boolean") == False).sum()),  # noqa: E712
        trial_seconds=float(seconds),
    )  # fmt: skip


def _failure(found: Check) -> str:
    text = f"{found.constraint.metric} is {found.value:.3g}, not {found.constraint}"
    if found.probability == found.probability:
        text += f" (off by {-100 * found.margin:.0f} %, chance to pass {percent(found.probability)})"
    return text


def _no_result(part: pd.DataFrame) -> str:
    first = part.iloc[0]
    reason = f", {first['reason']}" if first["reason"] else ""
    return f"none of its {len(part)} trials is done: {first['status']}{reason}"


def _rank(candidates: list[Candidate], goal: str) -> tuple[list[Candidate], Candidate | None]:
    """The chosen first, then those that pass by the objective, then the others by their chance."""
    sign = 1 if goal_worst(goal) == "max" else -1
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


def _room(one: Candidate) -> float:
    """Its smallest margin."""
    return min((c.margin for c in one.checks if c.margin == c.margin), default=0.0)


def _worse(one: Candidate, best: Candidate, goal: str) -> str:
    if one.objective != one.objective:
        return f"passes, but {goal} was not measured"
    if one.objective == best.objective:
        return f"passes, with the same {goal}{', but with less room to the limits' if one.checks else ''}"
    times = f", {one.objective / best.objective:.3g} times" if best.objective > 0 else ""
    return f"passes, but {goal} is {one.objective:.3g} {unit(goal)} against {best.objective:.3g}{times}"


def _caveats(table: Table) -> list[str]:
    done = table.trials[table.trials["status"] == "done"]
    notes = []
    unconverged = int((done["converged"].astype("boolean") == False).sum()) if "converged" in done else 0  # noqa: E712
    if unconverged:
        notes.append(
            f"{unconverged} of {len(done)} trials had not converged within their budget: this ranks what that budget "
            "gives, not what the architectures can reach."
        )
    places = [c for c in ("device", "device_name", "cpu", "threads") if c in done]
    if places and len(done[places].astype(str).drop_duplicates()) > 1:
        notes.append("The trials ran on different hardware or thread counts: their times do not compare.")
    failed = int((table.trials["status"] != "done").sum())
    if failed:
        notes.append(f"{failed} of {len(table.trials)} trials have no result.")
    return notes
