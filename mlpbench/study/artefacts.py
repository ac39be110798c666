"""What each result was made from, and whether it still holds. Nothing else decides what is stale.

``wanted`` says what every task result and every score of a trial is to be made from, ``found`` reads from the trial's
folder what they were made from, and ``difference`` compares the two. Inputs are plain JSON:

=========== ==================================================================================================
artefact    inputs
=========== ==================================================================================================
train       frames (train, valid, baseline), architecture, training, budget, labels, init seed, dtype, adapter
            version, environment lock; of a training that does not start from scratch: kind, weights
predict     potential, frames of every split
forgetting  potential, the start's weights
physics     potential, frames, options, the structures in the reference files
md          potential, start frames, options less those that only its scores read
speed       potential, frames, options, device, threads, the environments of the engines asked for
score:NAME  the task's result, the scorer's version, the options it reads, frames, reference files' content
=========== ==================================================================================================

The hardware of ``speed`` is recorded and not compared: a login node must not measure again what a GPU node measured.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlpbench import files
from mlpbench.backends.engines import Place, places_of
from mlpbench.evaluators import SCORERS
from mlpbench.files import digest
from mlpbench.protocol import (
    CHECKPOINT,
    FORGETTING,
    HELLO,
    PREDICTIONS,
    TASKS,
    ProtocolError,
    Result,
    Task,
    read_json,
    write_json,
)
from mlpbench.records import load_record
from mlpbench.references.own import pending
from mlpbench.study.difference import (
    AFTER,
    GONE,
    NEW,
    SCORE,
    Found,
    Inputs,
    Made,
    Verdict,
    difference,
    reference_digests,
    score_inputs,
)
from mlpbench.study.trial import Trial

INPUTS = "inputs.json"  # in a trial's folder: of every finished task its inputs, and the digests of its files
State = Literal["cached", "to score", "partly done", "to resume", "new"]
EVALUATIONS = ("physics", "md", "speed")


# --- wanted ---------------------------------------------------------------------------------------------------------


def wanted(trial: Trial) -> dict[str, Inputs]:
    """Artefact -> what it is to be made from, in the order in which they are made. Reads no result."""
    made: dict[str, Inputs] = {"train": trial.identity, "predict": _predict_inputs(trial)}
    frames, references = split_digests(trial), reference_digests(trial.dataset.references)
    config, tests = trial.config, [name for name in trial.split.files if name not in ("train", "valid")]
    for task, options in evaluation_options(trial).items():
        own = {
            "physics": tests[0] if tests else "valid",
            "md": options.get("start_split"),
            "speed": options.get("split"),
        }
        inputs: Inputs = {
            "potential": trial.key,
            "frames": {own[task]: frames.get(str(own[task]), "")},
            "options": run_options(task, options),
        }
        if task == "physics":
            inputs["reference structures"] = {name: part["structures"] for name, part in references.items()}
        if task == "speed":
            inputs |= {"device": config.device, "threads": config.threads}
            if options["engines"]:
                inputs["engines"] = {name: place.lock for name, place in _engine_places(trial, options).items()}
        made[task] = inputs
    if config.start.kind == "potential":
        made["forgetting"] = {"potential": trial.key, "start": trial.origin.weights}
    for scorer in SCORERS.values():
        if scorer.task in made and scorer.applies(references):
            options = evaluation_options(trial).get(scorer.task, {})
            made[SCORE + scorer.name] = score_inputs(scorer, digest(made[scorer.task]), options, frames, references)
    return made


def _predict_inputs(trial: Trial) -> Inputs:
    # Not the batch size: batched and single predictions are the same.
    return {"potential": trial.key, "frames": split_digests(trial), "stress": stress_splits(trial)}


def tasks_of(trial: Trial) -> list[Task]:
    """Training and all evaluations, in order, each keyed by what it is to be made from."""
    inputs = wanted(trial)
    splits = [name for name in trial.split.files if name != "train"]
    predict = {"splits": splits, "stress": stress_splits(trial), "batch_size": trial.config.evaluation.batch_size}
    tasks = [Task("train", key=trial.key), Task("predict", key=digest(inputs["predict"]), options=predict)]
    if "forgetting" in inputs:
        told = {"frames": [str(path) for path in trial.origin.tests], "batch_size": predict["batch_size"]}
        tasks.append(Task("forgetting", key=digest(inputs["forgetting"]), options=told))
    references = {name: str(path) for name, path in trial.dataset.references.items()}
    for name, options in evaluation_options(trial).items():
        places: dict[str, Any] = {"references": references}
        if name == "speed" and options["engines"]:
            places["engine_places"] = {key: place.to_dict() for key, place in _engine_places(trial, options).items()}
        tasks.append(Task(name, key=digest(inputs[name]), options={**options, **places}))
    return tasks


def _engine_places(trial: Trial, options: dict[str, Any]) -> dict[str, Place]:
    return places_of(tuple(options["engines"]), trial.config.backend, options["engine_command"])


def stress_splits(trial: Trial) -> list[str]:
    """Splits that have frames with a stress label, which is then predicted too."""
    parts = {"valid": trial.dataset.valid or trial.dataset.pool, **trial.dataset.tests}
    return [name for name in trial.split.files if name in parts and np.isfinite(parts[name].stress).all(axis=1).any()]


def evaluation_options(trial: Trial) -> dict[str, dict[str, Any]]:
    """Options of the evaluations asked for, with what they leave to the data set: the split they start from, and the
    reference method.
    """
    config, dataset = trial.config, trial.dataset
    tests = [name for name in trial.split.files if name not in ("train", "valid")]
    own = config.dataset.in_distribution or (tests[0] if tests else "valid")
    options_by_task: dict[str, dict[str, Any]] = {}
    for name in EVALUATIONS:
        node = getattr(config.evaluation, name)
        if node is None:
            continue
        options = node.model_dump()
        method = dataset.info.get("reference_method")
        if name == "speed":
            options["split"] = options["split"] or own
            options["reference"] = _with_method(options["reference"], "method", method)
            options["engine_command"] = config.engine.lammps.command if "lammps" in (options["engines"] or []) else None
        if name == "md":
            options["start_split"] = options["start_split"] or own
            options["own_trajectory"] = _with_method(options["own_trajectory"], "reference", method)
        options_by_task[name] = options
    return options_by_task


def _with_method(node: dict[str, Any] | None, name: str, method: Any) -> dict[str, Any] | None:
    """``node`` with the data set's reference method where it names none; None where neither has one."""
    if not node:
        return None
    chosen = node.get(name) or method
    return {**node, name: chosen} if chosen else None


def scored_options(task: str) -> set[str]:
    """Options of ``task`` that only its scores read: another value only rescores."""
    return {name for scorer in SCORERS.values() if scorer.task == task for name in scorer.options}


def run_options(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that determine what a task computes. Null is left out: it is what an older version did not know."""
    return _without_nulls({k: v for k, v in options.items() if k not in scored_options(task)})


def _without_nulls(node: dict[str, Any]) -> dict[str, Any]:
    return {k: _without_nulls(v) if isinstance(v, dict) else v for k, v in node.items() if v is not None}


def split_digests(trial: Trial) -> dict[str, str]:
    """Split -> 16 hex digits of its frames, ``train`` left out: it is part of what identifies the potential."""
    place = ("digests", trial.split.digest)
    if place not in trial.dataset.cache:
        parts = trial.split.manifest["splits"].items()
        trial.dataset.cache[place] = {n: digest(part["sha256"])[:16] for n, part in parts if n != "train"}
    return dict(trial.dataset.cache[place])


# --- found ----------------------------------------------------------------------------------------------------------


def found(directory: Path) -> Found:
    """What lies in a trial's folder. A result whose files are missing or altered is there, and damaged."""
    try:
        record: dict[str, Any] | None = load_record(directory)
    except (FileNotFoundError, ProtocolError):
        record = None
    written = _written(directory)
    results: dict[str, Result] = {}
    made: dict[str, Made] = {}
    for path in sorted((directory / TASKS).glob("*.json")):
        if path.name == Path(HELLO).name:
            continue
        try:
            result = Result.read(directory, path.stem)
        except (FileNotFoundError, ProtocolError):
            continue  # cut short, or written by another version: it is done again
        if result.status not in ("done", "skipped"):
            continue
        results[path.stem] = result
        made[path.stem] = _made(directory, result, written.get(path.stem))
    for name, inputs in (record or {}).get("inputs", {}).items():
        if name.startswith(SCORE):
            made[name] = Made({k: v for k, v in inputs.items() if k != "result"}, stamp=str(inputs.get("result", "")))
    return Found(results, made, record)


def _written(directory: Path) -> dict[str, Any]:
    try:
        return read_json(directory / INPUTS)
    except (FileNotFoundError, ProtocolError):
        return {}


def _made(directory: Path, result: Result, entry: dict[str, Any] | None) -> Made:
    stamp = files.sha256(directory / TASKS / f"{result.task}.json")
    if entry is None or entry.get("result") != stamp:
        # The core was killed before it could write down what the worker had finished.
        return Made(None, result.key, stamp, _unreadable(directory, result))
    return Made(entry["inputs"], result.key, stamp, _damage(directory, entry["files"]))


def _damage(directory: Path, known: dict[str, dict[str, Any]]) -> str:
    """The first of a result's files that is not as it was written; size and time are looked at before the content."""
    for name, facts in known.items():
        path = directory / name
        try:
            stat = path.stat()
        except OSError:
            return f"{name} {GONE}"
        if stat.st_size != facts["size"]:
            return f"{name} is damaged: {stat.st_size} bytes, {facts['size']} were written"
        if stat.st_mtime_ns != facts["time"] and files.sha256(path) != facts["sha256"]:
            return f"{name} was altered since it was written"
    return ""


def _unreadable(directory: Path, result: Result) -> str:
    for path in files_of(directory, result):
        if path.suffix == ".npz":
            try:
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip() is not None:
                        return f"{path.name} is damaged"
            except (OSError, zipfile.BadZipFile):
                return f"{path.name} cannot be opened"
    return ""


def files_of(directory: Path, result: Result) -> list[Path]:
    """The files that a finished task left, beside its result."""
    if result.status != "done":
        return []
    if result.task == "train":
        return sorted(path for path in (directory / CHECKPOINT).rglob("*") if path.is_file())
    if result.task == "md":
        return [directory / "md" / f"{name}.npz" for name in result.values.get("runs", {})]
    arrays = {"predict": PREDICTIONS, "physics": "physics.npz", "forgetting": FORGETTING}
    return [directory / arrays[result.task]] if result.task in arrays else []


def write_inputs(trial: Trial, results: Iterable[Result]) -> None:
    """Write down what finished tasks were made from, and the digests of their files.

    Args:
        trial: which asked for them.
        results: of tasks that ended just now.
    """
    inputs, entries = wanted(trial), _written(trial.directory)
    for result in results:
        if result.status not in ("done", "skipped") or result.task not in inputs:
            continue
        known = {}
        for path in files_of(trial.directory, result):
            stat = path.stat()
            facts = {"size": stat.st_size, "time": stat.st_mtime_ns, "sha256": files.sha256(path)}
            known[str(path.relative_to(trial.directory))] = facts
        stamp = files.sha256(trial.directory / TASKS / f"{result.task}.json")
        entries[result.task] = {"inputs": inputs[result.task], "result": stamp, "files": known}
    write_json(trial.directory / INPUTS, entries)


@dataclass(frozen=True)
class Status:
    """Where a trial stands: everything that ``plan``, ``run`` and the progress line ask."""

    trial: Trial
    found: Found
    verdicts: list[Verdict]

    @cached_property
    def outstanding(self) -> list[Task]:
        """The tasks that have to be run, in order."""
        run = {verdict.artefact for verdict in self.verdicts if verdict.action == "run"}
        return [task for task in tasks_of(self.trial) if task.name in run]

    @cached_property
    def state(self) -> State:
        """What running this trial would find."""
        directory, todo = self.trial.directory, self.outstanding
        if not todo:
            return "to score" if self.reasons else "cached"
        if not any(task.name == "train" for task in todo):
            return "partly done"
        checkpoints = directory / CHECKPOINT
        return "to resume" if checkpoints.is_dir() and any(checkpoints.iterdir()) else "new"

    @cached_property
    def reasons(self) -> list[str]:
        """Why it is not cached: ``task: reason``, what follows from another reason left out."""
        record = self.found.record
        if record is None and not self.outstanding:
            return ["the record is missing, or cannot be read"]
        told = [
            f"{v.artefact}: {v.reason}"
            for v in self.verdicts
            if v.action != "keep" and v.reason not in (AFTER, NEW) and not v.reason.endswith(" is run")
        ]
        if told or record is None or self.outstanding:
            return told
        if record["status"] not in ("done", "skipped"):
            return [f"{record['status']} before: {record['reason']}"]
        return ["labels of its own trajectory is available now"] if self._pending else []

    @property
    def _pending(self) -> bool:
        """Whether labels of the own trajectory are wanted that could be had now."""
        result, options = self.found.results.get("md"), evaluation_options(self.trial).get("md")
        if result is None or result.status != "done" or options is None:
            return False
        return pending(self.trial.directory, options, self.trial.config.backend)

    @property
    def damaged(self) -> str:
        """What is wrong with the checkpoint; empty if nothing is."""
        made = self.found.made.get("train")
        return made.damage if made is not None else ""


def examine(trial: Trial) -> Status:
    """Compare what ``trial`` wants with what lies in its folder."""
    here = found(trial.directory)
    return Status(trial, here, difference(wanted(trial), here))
