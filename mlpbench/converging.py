"""``budget=converge``: a training is repeated with twice the optimiser steps until that no longer changes its error.

Each repetition is a trial of its own, cached and resumed like any other. The evidence lies beside the longest one's
record, in ``convergence.json``, and its verdict stands in the record's ``training``. The longest one counts, so of it
alone more is measured than its accuracy (physics, MD, speed).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlpbench.evaluators.training import Rung, Verdict, agreement
from mlpbench.protocol import read_json, write_json
from mlpbench.records import RECORD, load_record
from mlpbench.study.artefacts import Status
from mlpbench.study.trial import Trial

EVIDENCE = "convergence.json"


def converge(
    trial: Trial, carry_out: Callable[[Trial], dict[str, Any]], longer: Callable[[int], Trial]
) -> dict[str, Any]:
    """Run ``trial``, and while its budget says so and the error still changes, the same with twice the steps.

    Args:
        trial: the shortest training.
        carry_out: runs a trial and returns its record.
        longer: plans the trial with another number of optimiser steps.

    Returns:
        The record of the longest training that was run: ``training`` says whether it ``converged``. Where it failed,
        its record says why.
    """
    settings = trial.converges
    if settings is None:
        return carry_out(trial)
    rungs: list[Rung] = []
    while True:
        accuracy = trial.for_accuracy()
        record = carry_out(accuracy)
        if record["status"] != "done":
            return record
        rungs.append(rung_of(record))
        note(trial.directory, rungs, settings.margin)
        steps = 2 * int(trial.config.budget.steps or 0)
        if agreement(rungs, settings.margin).passed or steps > settings.max_steps:
            break
        trial = longer(steps)
    asked = trial.config.evaluation != accuracy.config.evaluation
    return carry_out(trial) if asked else load_record(trial.directory)


def reached(standing: Status, examine: Callable[[Trial], Status]) -> tuple[Status, int | None]:
    """How far a trial's series of trainings has come: its first unfinished training, or the last one.

    Args:
        standing: of the shortest training.
        examine: says where a trial stands.

    Returns:
        That training, and the most steps that it may be followed up to; None if no longer one can follow.
    """
    trial, settings = standing.trial, standing.trial.converges
    if settings is None:
        return standing, None
    rungs: list[Rung] = []
    while True:
        steps = 2 * int(trial.config.budget.steps or 0)
        last = steps > settings.max_steps
        accuracy = examine(trial.for_accuracy())
        if accuracy.state != "cached":
            return (examine(trial), None) if last else (accuracy, settings.max_steps)
        rungs.append(rung_of(load_record(trial.directory)))
        if last or agreement(rungs, settings.margin).passed:
            return examine(trial), None
        trial = trial.with_steps(steps)


def note(directory: Path, rungs: list[Rung], margin: float) -> None:
    """Write the evidence beside a record, and the verdict into it."""
    write_json(directory / EVIDENCE, {"margin": margin, "rungs": [asdict(rung) for rung in rungs]})
    record = load_record(directory)
    record["training"] |= convergence(directory)
    write_json(directory / RECORD, record)


def convergence(directory: Path) -> dict[str, Any]:
    """What the evidence in a trial's folder says: ``converged`` (None: not tested), its reason, and the ``rungs``."""
    try:
        evidence: Mapping[str, Any] = read_json(directory / EVIDENCE)
    except FileNotFoundError:
        evidence = {"margin": math.nan, "rungs": []}
    rungs = [Rung(**rung) for rung in evidence["rungs"]]
    verdict: Verdict = agreement(rungs, evidence["margin"])
    return {"converged": verdict.passed, "convergence_reason": verdict.reason, "rungs": evidence["rungs"]}


def rung_of(record: Mapping[str, Any]) -> Rung:
    """A finished trial's record as one training of a series."""
    training = record["training"]
    return Rung(record["trial"], training["steps"], math.sqrt(training["best_valid_loss"]), bool(training["at_rest"]))
