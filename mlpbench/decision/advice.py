"""Why an answer may be wrong, and ready commands that would settle it: repetitions, data, or a missing evaluation."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from mlpbench.config import conf_dirs
from mlpbench.config.overrides import overrides_of
from mlpbench.decision.evidence import CLEAR, View
from mlpbench.decision.model import Advice, Assessment, Constraint, percent
from mlpbench.errors import UserError
from mlpbench.metrics import metric as find_metric
from mlpbench.records import usable
from mlpbench.statistics.curves import NotFitted, fit_learning_curve
from mlpbench.statistics.extrapolation import frames_needed
from mlpbench.statistics.paired import compare, pair
from mlpbench.study.means import LABELS, worst_end
from mlpbench.study.settings import given_name

POSSIBLE = 0.05  # a candidate is out of the question below this chance
_AXES = ("repetition", "dataset.n_train", "size", "architecture")  # what one command may run several values of
_FIRST = ("dataset", "architecture", "size", "dataset.n_train")
_SEEDS = ("split_seed", "init_seed")
_MOST = 6  # consecutive repetitions that are listed; more are a range
Overrides = dict[str, str]
Grid = dict[str, tuple[str, ...]]


def find_doubts(
    view: View, candidates: list[Assessment], chosen: Assessment | None, constraints: Sequence[Constraint], goal: str
) -> tuple[list[str], list[Advice]]:
    """Why the answer may be wrong, and the further trials that would settle it, cheapest first."""
    doubts: list[str] = []
    advice: list[Advice] = []
    sign = 1 if worst_end(goal) == "max" else -1
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
        doubts.append(f"{one.label} has {chance} of meeting the constraints")
        if any(c.frames for c in one.checks if c.further != 0):
            doubts[-1] += ": the test frames are too few to decide, however many the repetitions"
        elif any(f is None for f in further):
            doubts[-1] += ", and is too close to a limit for 100 further repetitions to decide"
        elif max((f or 0 for f in further), default=0) > 0:
            count = max(f or 0 for f in further)
            why = f"shows whether {one.label} meets the constraints"
            advice.append(more_repetitions(view, one, count, why))
    if chosen is not None:
        second = next((c for c in candidates if c.verdict == "passes" and c.objective == c.objective), None)
        close = _close(view, chosen, second, goal) if second is not None else None
        if close is not None and second is not None:
            doubts.append(close[0])
            advice += [
                more_repetitions(view, c, close[1], f"tells whether it or {other.label} is better")
                for c, other in ((chosen, second), (second, chosen))
                if close[1]
            ]
    else:
        unknown = any(c.verdict == "unknown" for c in candidates)
        doubts.append(f"no candidate {'is known to meet' if unknown else 'meets'} all constraints")
        for constraint in constraints:
            if constraint.kind == "max" and find_metric(constraint.metric).group == "accuracy":
                advice += more_data(view, constraint, candidates)
    return doubts, sorted(_unique(advice), key=lambda a: (a.hours != a.hours, a.hours + a.label_hours))


def _unique(advice: list[Advice]) -> list[Advice]:
    return list({a.command: a for a in advice}.values())


def _close(view: View, chosen: Assessment, second: Assessment, goal: str) -> tuple[str, int] | None:
    """A doubt, and further repetitions, if the runner-up's objective may be equal to the chosen one's."""
    rows = view.rows(goal, None, worst_end(goal))
    if goal == LABELS or not bool((rows["value"] > 0).all()):
        return None
    errors: dict[str, dict[int, float]] = {}
    for one in (chosen, second):
        part = rows[rows["label"] == one.label]
        errors[one.label] = dict(zip(part["repetition"].astype(int), part["value"].astype(float), strict=True))
    comparison = compare([pair(chosen.label, errors[chosen.label], second.label, errors[second.label])])[0]
    if comparison.verdict in ("better", "tie") or comparison.n == 0:
        return None
    if comparison.verdict == "unknown":
        return f"one repetition does not show whether {chosen.label} and {second.label} differ in {goal} by chance", 2
    text = f"{goal} of {chosen.label} and {second.label} is undecided"
    span = f"(ratio {comparison.ratio:.3g}, 95 % interval {comparison.lower:.3g} to {comparison.upper:.3g})"
    return f"{text} {span}", comparison.further or 0


def more_repetitions(view: View, one: Assessment, count: int, why: str) -> Advice:
    """``count`` further repetitions of a candidate, numbered after those it has."""
    known = [int(view.study.record[trial]["identifiers"]["repetition"]) for trial in one.candidate.trials]
    first = max(known, default=-1) + 1
    overrides = _overrides(view, view.example(one.candidate))
    commands = run_commands(view.study.name, [(overrides, r) for r in range(first, first + count)])
    return Advice("\n".join(commands), why, count * one.trial_seconds / 3600)


def _overrides(view: View, trial: str, *without: str) -> Overrides:
    """What makes a trial, its repetition apart; by name where its data set or architecture is not in ``conf``."""
    record = view.study.record[trial]
    try:
        return overrides_of(record["config"], without=(*without, *_SEEDS))
    except (UserError, KeyError):
        names = {"dataset": given_name(record)}
        names |= {key: str(record["identifiers"][key]) for key in ("architecture", "size")}
        frames = {"dataset.n_train": str(record["identifiers"]["n_train"])}
        return names | frames | dict(view.study.setting[trial].overrides)


def measuring(view: View, name: str) -> str:
    """Commands that would measure metric ``name`` on the finished trials of ``view``; empty: no evaluation does."""
    evaluation = _evaluation(name)
    if evaluation is None:
        return ""
    records = [view.study.record[trial] for one in view.candidates for trial in one.trials]
    trials = []
    for record in [r for r in records if usable(r)] or records:
        overrides = _overrides(view, record["trial"], "evaluation") | {"evaluation": evaluation}
        trials.append((overrides, int(record["identifiers"]["repetition"])))
    return "\n".join(run_commands(view.study.name, trials))


# Metrics that need a part of an evaluation which an option may leave out.
_PARTS = {"own_trajectory": "own_trajectory", "death": "own_trajectory", "speedup": "reference",
          "reference_seconds": "reference", "breakeven": "reference", "nve": "nve"}  # fmt: skip


def _evaluation(name: str) -> str | None:
    """The option of ``conf/evaluation`` that measures a metric; None for what every trial measures, or none can."""
    group = find_metric(name).group
    part = next((part for start, part in _PARTS.items() if name.startswith(start)), None)
    files = {path.stem: path for folder in reversed(conf_dirs()) for path in (folder / "evaluation").glob("*.yaml")}
    options = {name: yaml.safe_load(path.read_text(encoding="utf-8")) or {} for name, path in files.items()}
    able = [
        option for option, content in options.items()
        if content.get(group) is not None and (part is None or content[group].get(part) is not None)
    ]  # fmt: skip
    # The leanest that does: the fewest parts besides the one that is wanted.
    return min(able, key=lambda n: (sum(v is not None for v in options[n].values()), n), default=None)


def _steps(view: View, trials: pd.Series) -> npt.NDArray[np.float64]:
    """(T,) optimiser steps of the trials; NaN for those that have converged, where they no longer matter."""
    table = view.study.trials.set_index("trial").loc[trials]
    return table["steps"].mask(table["converged"].eq(True)).to_numpy(dtype=float)  # more would change nothing


def more_data(view: View, constraint: Constraint, candidates: Sequence[Assessment]) -> list[Advice]:
    """For each line that fails an error limit: the training set that its learning curve says would do."""
    rows = view.rows(constraint.metric, constraint.split, constraint.kind)
    rows = rows[rows["value"] > 0]
    advice = []
    for name in dict.fromkeys(one.candidate.name for one in candidates):
        part = rows[rows["candidate"] == name]
        if part["n_train"].nunique() < 2:
            continue
        try:
            curve = fit_learning_curve(
                part["n_train"].to_numpy(dtype=float), part["value"].to_numpy(), part["repetition"].to_numpy(),
                at_rest=part["at_rest"].eq(True).to_numpy(), steps=_steps(view, part["trial"]),
            )  # fmt: skip
        except NotFitted:
            continue  # it says how far the optimisation got, not what more data would do
        need = frames_needed(curve, constraint.limit)
        largest = max((c for c in candidates if c.candidate.name == name), key=lambda c: c.candidate.n_train)
        if not need.reachable or need.n <= largest.candidate.n_train:
            continue
        frames = int(np.ceil(need.n / 10) * 10)
        why = (
            f"{name} would reach {constraint} with about {need.n:.0f} training frames "
            f"({need.note or f'95 % interval {need.lower:.0f} to {need.upper:.0f}'}), by its learning curve"
        )
        advice.append(_with_frames(view, largest, frames, why))
    return advice


def _with_frames(view: View, largest: Assessment, frames: int, why: str) -> Advice:
    """Three repetitions of a candidate with more training frames, and what labels that are missing would cost."""
    config = view.config(largest.candidate)
    overrides = {**_overrides(view, view.example(largest.candidate)), "dataset.n_train": str(frames)}
    hours = 3 * largest.trial_seconds * frames / largest.candidate.n_train / 3600
    valid, pool = int(config["dataset"]["n_valid"]), view.study.pool(view.dataset)
    lacking = max(frames + valid - pool, 0) if pool is not None else 0
    if lacking:
        why += f"; {lacking} more frames must be labelled first (the pool has {pool}, {valid} for validation)"
    price = view.study.label_seconds(view.dataset)
    commands = run_commands(view.study.name, [(overrides, repetition) for repetition in range(3)])
    return Advice("\n".join(commands), why, hours, lacking * price / 3600 if price else 0.0)


def run_commands(study: str, trials: Sequence[tuple[Overrides, int]]) -> list[str]:
    """The fewest commands, found by merging, that run exactly these trials.

    Args:
        study: its name.
        trials: overrides and repetition of each.
    """
    grids: list[Grid] = []
    for overrides, repetition in trials:
        grid: Grid = {key: (value,) for key, value in {**overrides, "repetition": str(repetition)}.items()}
        if grid not in grids:
            grids.append(grid)
    for axis in _AXES:
        merged: dict[tuple[Any, ...], Grid] = {}
        for grid in grids:
            rest = tuple((key, value) for key, value in sorted(grid.items()) if key != axis)
            known = merged.setdefault(rest, grid)
            if known is not grid:
                merged[rest] = {**grid, axis: tuple(dict.fromkeys([*known[axis], *grid[axis]]))}
        grids = list(merged.values())
    return [_text(study, grid) for grid in grids]


def _text(study: str, grid: Grid) -> str:
    ordered = [key for key in _FIRST if key in grid]
    ordered += [key for key in grid if key not in (*_FIRST, "repetition")] + ["repetition"]
    several = any(len(values) > 1 for values in grid.values())
    parts = [f"{key}={_listed(key, grid[key])}" for key in ordered]
    words = ["mlpbench", "run", *(["-m"] if several else []), f"study={study}", *parts]
    return " ".join(shlex.quote(word) for word in words)


def _listed(key: str, values: tuple[str, ...]) -> str:
    if key not in ("repetition", "dataset.n_train"):
        return ",".join(sorted(values))
    numbers = sorted({int(value) for value in values})
    if key == "repetition" and len(numbers) > _MOST and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"range({numbers[0]},{numbers[-1] + 1})"
    return ",".join(str(number) for number in numbers)
