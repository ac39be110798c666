"""Scores and the record: what a trial's tasks left is scored, put together with where it comes from, and written.

A trial is scored when it has run, and again from its stored arrays when a formula or a reference file changed.
"""

from __future__ import annotations

import contextlib
import math
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlpbench.backends.environment import Environment
from mlpbench.converging import convergence
from mlpbench.datasets.dataset import extension_digests
from mlpbench.devices import hardware
from mlpbench.evaluators import SCORERS, Context, Row, Scorer
from mlpbench.evaluators.training import SOLVED, Verdict, at_rest, learnt, trivial_loss
from mlpbench.frames import Frames
from mlpbench.protocol import (
    EVENTS,
    HELLO,
    WEIGHTS,
    ProtocolError,
    Result,
    Status,
    read_events,
    read_json,
    write_json,
)
from mlpbench.records import RECORD, Record, command, core, load_curve, load_record, now, write_curve
from mlpbench.study.artefacts import evaluation_options, found, split_digests, wanted
from mlpbench.study.difference import SCORE, Found, Inputs, reference_digests, score_inputs
from mlpbench.study.trial import Trial

_BOUNDS = ("lower", "upper")
LOG = "scoring.log"  # tracebacks of formulas that failed


@dataclass
class Scores:
    """What scoring came to.

    Attributes:
        rows: of all scorers that succeeded.
        inputs: ``score:NAME`` -> what its rows were made from.
        problems: one sentence for each scorer that failed, or whose value is not a number.
    """

    rows: list[Row] = field(default_factory=list)
    inputs: dict[str, Inputs] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, scorer: Scorer, directory: Path, result: Result, context: Context) -> bool:
        """Score one result; a fault of the formulas becomes a sentence, and its traceback goes to ``scoring.log``."""
        values = {**result.values, "peak_memory_mb": result.peak_device_memory_mb or result.peak_memory_mb}
        try:
            rows, lost = finite_rows(scorer(directory, values, context))
        except Exception as error:
            with open(directory / LOG, "a", encoding="utf-8") as log:
                log.write(f"{now()} {scorer.name}\n{traceback.format_exc()}\n")
            self.problems.append(f"{scorer.name}: {type(error).__name__}: {error}")
            return False
        self.rows += rows
        if lost:
            self.problems.append(f"{scorer.name}: not a finite number: {', '.join(lost)}")
        return not lost


# --- a trial that has run -------------------------------------------------------------------------------------------


def write_record(
    trial: Trial,
    environment: Environment,
    results: dict[str, Result],
    status: Status,
    reason: str,
    started: str,
    *,
    ran: bool = True,
) -> dict[str, Any]:
    """Score, assemble and write the record; returns it as read back.

    Args:
        trial: whose.
        environment: that its worker ran in.
        results: task -> result, also of evaluations that an earlier command asked for (see :func:`kept_results`).
        status: of the trial so far; a score that cannot be made turns ``done`` into ``failed``.
        reason: why it is not done.
        started: time, of this run.
        ran: a worker did something for it.
    """
    here = found(trial.directory)
    curve = training_curve(trial.directory / EVENTS)
    training = _training_of(trial, results.get("train"), curve)
    scores = _score(trial, here, results, training, curve)
    if scores.problems and status == "done":
        status, reason = "failed", f"scoring {'; '.join(scores.problems)}"
    inputs = wanted(trial)
    kept = {name: here.made[name].inputs or {} for name in results if name not in inputs and name in here.made}
    record = Record(
        trial=trial.name,
        key=trial.key,
        study=trial.config.study,
        status=status,
        reason=reason,
        started=started,
        finished=now(),
        identifiers=trial.identifiers,
        config=_config(trial, here.record, kept),
        ladder=trial.ladder,
        labels={label: float(trial.training[WEIGHTS[label]]) for label in trial.labels},
        split=_split(trial),
        training=training,
        tasks={name: _task(result, inputs) for name, result in results.items()},
        metrics=scores.rows,
        inputs={**{name: inputs[name] for name in results if name in inputs}, **kept, **scores.inputs},
        provenance=_provenance(trial, environment, ran),
    )
    write_curve(trial.directory, curve)
    record.write(trial.directory)
    return load_record(trial.directory)


def kept_results(trial: Trial, here: Found) -> dict[str, Result]:
    """Finished evaluations of the same potential on the same frames that this command does not ask for: a command that
    asks for less leaves standing what a larger one measured. What no longer holds is left out.
    """
    asked, frames = wanted(trial), split_digests(trial)
    kept = {}
    for name, result in here.results.items():
        made = here.made[name]
        if name in asked or result.status != "done" or made.inputs is None or made.damage:
            continue
        same = all(frames.get(split) == value for split, value in (made.inputs.get("frames") or {}).items())
        if made.inputs.get("potential") == trial.key and same:
            kept[name] = result
    return kept


def _score(
    trial: Trial, here: Found, results: dict[str, Result], training: dict[str, Any], curve: list[dict[str, Any]]
) -> Scores:
    """Scores of every finished task. Of a task that this command did not ask for, with the options it was scored with
    before; if that fails, its scores are left out and the trial stands.
    """
    scores = Scores()
    done = {name: result for name, result in results.items() if result.status == "done"}
    if not done:
        return scores
    context = context_of(trial, training, curve)
    frames, references = split_digests(trial), reference_digests(trial.dataset.references)
    options, asked = evaluation_options(trial), wanted(trial)
    for scorer in SCORERS.values():
        result, name = done.get(scorer.task), SCORE + scorer.name
        if result is None or not scorer.applies(references):
            continue
        before = here.made.get(name)
        given = options.get(scorer.task) or ((before.inputs or {}).get("options") if before is not None else None) or {}
        problems = len(scores.problems)
        good = scores.add(scorer, trial.directory, with_options(result, scorer, given), context)
        if good:
            inputs = score_inputs(scorer, result.key, given, frames, references)
            scores.inputs[name] = {**inputs, "result": _stamp(here, scorer.task)}
        elif scorer.task not in asked:
            del scores.problems[problems:]
    return scores


def _stamp(here: Found, task: str) -> str:
    return here.made[task].stamp if task in here.made else ""


def with_options(result: Result, scorer: Scorer, options: dict[str, Any]) -> Result:
    """``result`` whose values hold the options of the scorer as they are asked for now."""
    if not scorer.options:
        return result
    before = {k: v for k, v in result.values.get("options", {}).items() if k not in scorer.options}
    now = {name: options[name] for name in scorer.options if name in options}
    values = {**result.values, "options": {**before, **now}}
    return Result(**{**vars(result), "values": values})


def context_of(trial: Trial, training: dict[str, Any], curve: Sequence[dict[str, Any]] = ()) -> Context:
    """What scores need beside the results of tasks: reference frames and files, and the cost of the training."""
    labels = trial.config.dataset.n_train + trial.config.dataset.n_valid
    return Context(
        frames={name: Frames.load(path) for name, path in trial.split.files.items() if name != "train"},
        in_distribution=trial.config.dataset.in_distribution,
        references=dict(trial.dataset.references),
        info=dict(trial.dataset.info),
        training={**training, "n_labels": labels, "threads": trial.config.threads},
        curve=list(curve),
    )


def _training_of(trial: Trial, result: Result | None, curve: list[dict[str, Any]]) -> dict[str, Any]:
    """Outcome and cost of the training, and whether it came to rest; empty if it did not finish."""
    if result is None or result.status != "done":
        return {}
    trivial = trivial_loss(Frames.load(trial.split.files["valid"]), trial.training, trial.labels)
    facts = {**convergence(trial.directory), **training_facts(result, curve, trivial)}
    if facts.get("start"):
        facts["start"] = {**facts["start"], **trial.origin.cost}
    return facts


def training_facts(result: Result, curve: list[dict[str, Any]], trivial: float) -> dict[str, Any]:
    """Outcome, cost and rest of a finished training.

    Args:
        result: of the task ``train``.
        curve: one entry a validation.
        trivial: loss of the trivial predictor on the validation frames.
    """
    solved = result.values.get("stopped_by") == SOLVED
    if result.values.get("steps") == 0 and not solved:
        rest = Verdict(True)  # nothing was trained
    else:
        rest = at_rest(curve, trivial) if not solved else learnt(curve, trivial)
    exact = {"converged": True, "convergence_reason": "solved at once: there are no steps to double"} if solved else {}
    # Time over all sessions of a resumed training: the curve carries it on, the task's own clock does not.
    seconds = max([result.wall_seconds, *(point["seconds"] for point in curve[-1:])])
    return {
        **result.values,
        "wall_seconds": seconds,
        "peak_memory_mb": result.peak_memory_mb,
        "on_device": result.peak_device_memory_mb is not None,
        "peak_device_memory_mb": result.peak_device_memory_mb,
        "at_rest": rest.passed,
        "rest_reason": rest.reason,
        "trivial_loss": trivial,
        **exact,
    }


def finite_rows(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """The rows that a table can hold, and ``metric`` or ``metric on split`` of those whose value is NaN or infinite.

    A bound that is not finite becomes None: the value stands, its interval is not known.
    """
    kept: list[Row] = []
    lost: list[str] = []
    for row in rows:
        if row["value"] is not None and not math.isfinite(row["value"]):
            lost.append(f"{row['metric']} on {row['split']}" if row["split"] else str(row["metric"]))
            continue
        bounds = {end: row[end] if row[end] is not None and math.isfinite(row[end]) else None for end in _BOUNDS}
        kept.append({**row, **bounds})
    return kept, lost


def training_curve(path: Path) -> list[dict[str, Any]]:
    """Epochs in order; of an epoch done twice (before and after an interruption) the later one. NaN becomes None."""
    epochs = {event["epoch"]: event for event in read_events(path) if event.get("event") == "epoch"}
    return [{k: _known(v) for k, v in epochs[e].items() if k not in ("event", "time")} for e in sorted(epochs)]


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _task(result: Result, inputs: dict[str, Inputs]) -> dict[str, Any]:
    return {
        "status": result.status, "reason": result.reason, "wall_seconds": result.wall_seconds, "key": result.key,
        "peak_memory_mb": result.peak_memory_mb, "peak_device_memory_mb": result.peak_device_memory_mb,
        "asked": result.task in inputs, "values": result.values if result.task != "train" else {},
    }  # fmt: skip


def _config(trial: Trial, before: dict[str, Any] | None, kept: dict[str, Inputs]) -> dict[str, Any]:
    """The resolved configuration; of evaluations that another command asked for, theirs."""
    config = dict(trial.resolved_config)
    evaluation = dict(config["evaluation"])
    for name in kept:
        if evaluation.get(name) is None and before is not None:
            evaluation[name] = before["config"]["evaluation"].get(name)
    return {**config, "evaluation": evaluation}


def _split(trial: Trial) -> dict[str, Any]:
    manifest = trial.split.manifest
    return {
        "directory": str(trial.split.directory.relative_to(trial.study_root)),
        "digest": trial.split.digest,
        "extensions": extension_digests(trial.dataset, manifest["splits"]),
        "split_seed": trial.split_seed,
        "in_distribution": trial.config.dataset.in_distribution,
        "counts": {name: part["frames"] for name, part in manifest["splits"].items()},
        "baseline": manifest.get("baseline", {}),
        "leak": manifest.get("leak_check", {}),
        "trivial_errors": manifest.get("trivial_errors", {}),  # of a predictor without geometry, split -> metric
        "warnings": list(trial.split.warnings),
        "references": {name: str(path) for name, path in trial.dataset.references.items()},
        "info": trial.dataset.info,
    }


def _provenance(trial: Trial, environment: Environment, ran: bool) -> dict[str, Any]:
    """Where the results come from. Those that are only rescored keep what their record says already."""
    if not ran:
        with contextlib.suppress(FileNotFoundError, ProtocolError):
            kept: dict[str, Any] = load_record(trial.directory)["provenance"]
            return kept
    hello = _hello(trial.directory)
    return {
        **core(),
        "command": command(),
        "init_seed": trial.init_seed,
        "backend": {
            "name": environment.name, "lock": environment.lock, "adopted": environment.adopted,
            "python": hello.get("python"), "versions": hello.get("versions", {}), "torch": hello.get("torch", {}),
        },
        "hardware": {
            **hardware(), "threads": trial.config.threads, "device": hello.get("device", trial.config.device),
            "device_name": hello.get("torch", {}).get("device_name"),
        },
    }  # fmt: skip


def _hello(directory: Path) -> dict[str, Any]:
    try:
        return read_json(directory / HELLO)
    except (FileNotFoundError, ProtocolError):
        return {}  # the worker never got as far as saying hello; the record's status tells why


# --- a trial known by its record alone ------------------------------------------------------------------------------


def rescore(study_root: Path, record: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Score a finished trial again from its stored arrays, and write its record; returns it.

    Args:
        study_root: ``results/<study>``.
        record: of the trial.
        names: scorers; the rows of all others are kept.

    Raises:
        FileNotFoundError: an array, a split or a reference file is not there.
    """
    directory = study_root / record["trial"]
    here = found(directory)
    scores = Scores(inputs=dict(record["inputs"]))
    context = _recorded_context(study_root, record, directory)
    for name in names:
        scorer = SCORERS[name]
        damage, result = here.made[scorer.task].damage, here.results[scorer.task]
        if damage:
            raise FileNotFoundError(damage)
        before = record["inputs"].get(SCORE + name, {})
        options = before.get("options") or record["config"]["evaluation"].get(scorer.task) or {}
        frames = before.get("frames") or record["inputs"].get("predict", {}).get("frames", {})
        scores.inputs.pop(SCORE + name, None)
        if scores.add(scorer, directory, with_options(result, scorer, options), context):
            references = reference_digests(context.references)
            inputs = score_inputs(scorer, result.key, options, frames, references)
            scores.inputs[SCORE + name] = {**inputs, "result": _stamp(here, scorer.task)}
    renewed = {(row["split"], row["metric"]) for row in scores.rows}  # an older row may not name its scorer
    kept = [
        row for row in record["metrics"]
        if row.get("scorer") not in names and (row["split"], row["metric"]) not in renewed
    ]  # fmt: skip
    changed = {**record, "metrics": kept + scores.rows, "inputs": scores.inputs, "finished": now()}
    if scores.problems:
        changed |= {"status": "failed", "reason": f"scoring {'; '.join(scores.problems)}"}
    elif record["status"] == "failed" and record["reason"].startswith("scoring "):
        changed |= {"status": "done", "reason": ""}
    write_json(directory / RECORD, changed)
    return changed


def _recorded_context(study_root: Path, record: dict[str, Any], directory: Path) -> Context:
    split = record["split"]
    folder = study_root / split["directory"]
    return Context(
        frames={name: Frames.load(folder / f"{name}.npz") for name in split["counts"] if name != "train"},
        in_distribution=split["in_distribution"],
        references=dict(split.get("references", {})),
        info=dict(split["info"]),
        training={
            **record["training"],
            "n_labels": record["identifiers"]["n_train"] + record["identifiers"]["n_valid"],
            "threads": record["provenance"]["hardware"].get("threads", 1),
        },
        curve=load_curve(directory),
    )
