"""Carry out one trial: launch what is outstanding, score it, and write its record."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from mlpbench import evaluators, provenance, store
from mlpbench.backends.environment import Environment
from mlpbench.backends.launcher import launch
from mlpbench.devices import hardware, resolve_device
from mlpbench.evaluators import Context, Row, cost
from mlpbench.evaluators.convergence import converged
from mlpbench.frames import Frames
from mlpbench.plan import Trial
from mlpbench.protocol import (
    CHECKPOINT,
    EVENTS,
    HELLO,
    TASKS,
    ProtocolError,
    Request,
    Result,
    Status,
    Task,
    read_events,
    read_json,
)
from mlpbench.records import Record, load_record
from mlpbench.references.own import label_trial
from mlpbench.references.timing import time_for_trial

OnEvent = Callable[[dict[str, Any]], None]


def run_trial(trial: Trial, on_event: OnEvent | None = None) -> dict[str, Any]:
    """Do what is outstanding of a trial and return its record; an unchanged, finished trial costs nothing.

    A failure inside the trial becomes its status and reason. KeyboardInterrupt is raised again once the trial's
    record says ``interrupted``.

    Args:
        trial: what to run.
        on_event: called with each progress event of the worker.

    Raises:
        UserError: the trial's folder is held by another process, or the device is not there.
        KeyboardInterrupt: the user stopped it.
        ValueError: the trial was planned without an environment.
    """
    environment = trial.environment
    if environment is None:
        raise ValueError(f"{trial.name} was planned without an environment")
    with store.locked(trial):
        todo = store.outstanding(trial)
        if store.state(trial) == "cached":
            return load_record(trial.directory)
        started = provenance.now()
        if trial.skip is not None:
            return _write(trial, environment, {}, "skipped", trial.skip, started)
        _prepare(trial, todo)
        results: dict[str, Result] = {}
        try:
            if todo:
                request = make_request(trial, environment, todo)
                results = launch(request, environment, timeout=trial.config.timeout, on_event=on_event)
        except KeyboardInterrupt:
            _write(trial, environment, _results(trial, {}), *_interrupted(), started)
            raise
        merged = _results(trial, results)
        try:
            _beside_the_reference(trial, merged, results, on_event)
        except KeyboardInterrupt:
            _write(trial, environment, merged, *_interrupted(), started)
            raise
        status, reason = _overall(trial, merged)
        return _write(trial, environment, merged, status, reason, started, ran=bool(todo))


def _beside_the_reference(
    trial: Trial, merged: dict[str, Result], fresh: dict[str, Result], on_event: OnEvent | None
) -> None:
    """What only the reference method can say: labels on the trial's own trajectory, and its time on the same frames.

    The worker has ended by now, so nothing of ours runs while the reference is timed.
    """
    done = {name: result for name, result in fresh.items() if result.status == "done"}
    backends = trial.config.backend
    asked = {task.name for task in trial.tasks}
    if "md" in asked and "md" in merged and merged["md"].status == "done":
        context = _context(trial, {})
        label_trial(
            trial.directory, merged["md"].values, context, backends, threads=trial.config.threads, on_event=on_event
        )
    if "speed" in done:
        options = next(task.options for task in trial.tasks if task.name == "speed")
        frames = Frames.load(trial.split.files[options["split"]])
        time_for_trial(trial.directory, options, frames, backends, hardware())


def make_request(trial: Trial, environment: Environment, tasks: list[Task]) -> Request:
    """The request for ``tasks`` of a trial; every path absolute, the device resolved.

    Raises:
        UserError: the device is not there.
    """
    config = trial.config
    return Request(
        adapter=config.backend_config.adapter,
        directory=str(trial.directory),
        architecture=config.architecture.model_dump(),
        training=config.training.model_dump(),
        budget=config.budget.model_dump(),
        seed=trial.init_seed,
        device=resolve_device(config.device, environment),
        dtype=config.dtype,
        threads=config.threads,
        frames={name: str(path) for name, path in trial.split.files.items()},
        labels=trial.labels,
        tasks=tasks,
    )


def resolved_config(trial: Trial) -> dict[str, Any]:
    """The trial's configuration as plain JSON, without the backends it does not use."""
    plain = trial.config.model_dump(mode="json")
    backend = trial.config.architecture.backend
    plain["backend"] = {backend: plain["backend"][backend]}
    return plain


def _prepare(trial: Trial, todo: list[Task]) -> None:
    """The resolved configuration beside the results; a training that starts anew starts with an empty curve."""
    text = yaml.safe_dump(resolved_config(trial), sort_keys=False, allow_unicode=True)
    (trial.directory / "config.yaml").write_text(text, encoding="utf-8")
    checkpoints = trial.directory / CHECKPOINT
    fresh = not checkpoints.is_dir() or not any(checkpoints.iterdir())
    if todo and todo[0].name == "train":
        shutil.rmtree(trial.directory / TASKS, ignore_errors=True)  # what an earlier checkpoint said holds no longer
    if fresh and todo and todo[0].name == "train":
        (trial.directory / EVENTS).unlink(missing_ok=True)
        shutil.rmtree(trial.directory / "native", ignore_errors=True)


def _results(trial: Trial, fresh: dict[str, Result]) -> dict[str, Result]:
    """This run's results, and the ones of earlier runs that still hold."""
    merged: dict[str, Result] = {}
    for task in trial.tasks:
        found = fresh.get(task.name) or store.finished(trial.directory, task)
        if found is not None:
            merged[task.name] = store.with_options(found, task)
            if merged[task.name] != found:
                merged[task.name].write(trial.directory)
    for name in store.others(trial):  # measured by another command, on the same potential
        merged[name] = Result.read(trial.directory, name)
    return merged


def _overall(trial: Trial, results: dict[str, Result]) -> tuple[Status, str]:
    """The trial's status: that of the first task that is neither done nor skipped."""
    for task in trial.tasks:
        result = results.get(task.name)
        if result is None:
            return "failed", f"{task.name}: left no result"
        if result.status == "skipped" and task.name in ("train", "predict"):
            return "skipped", f"{task.name}: {result.reason}"
        if result.status not in ("done", "skipped"):
            return result.status, f"{task.name}: {result.reason}"
    return "done", ""


def _interrupted() -> tuple[Status, str]:
    return "interrupted", "interrupted by the user; run the same command again to go on"


def _write(
    trial: Trial,
    environment: Environment,
    results: dict[str, Result],
    status: Status,
    reason: str,
    started: str,
    *,
    ran: bool = True,
) -> dict[str, Any]:
    """Score, assemble and write the record; returns it as read back. ``ran``: a worker did something for it."""
    curve = training_curve(trial.directory / EVENTS)
    training = _training(results.get("train"), curve)
    try:
        rows = _score(trial, results, training)
    except (OSError, KeyError, ValueError) as error:
        rows = []
        if status == "done":
            status, reason = "failed", f"scoring: {type(error).__name__}: {error}"
    record = Record(
        trial=trial.name,
        key=trial.key,
        study=trial.config.study,
        status=status,
        reason=reason,
        started=started,
        finished=provenance.now(),
        identifiers=trial.identifiers,
        swept=trial.swept,
        config=resolved_config(trial),
        split=_split(trial),
        training=training,
        curve=curve,
        tasks={
            name: {
                "status": r.status, "reason": r.reason, "wall_seconds": r.wall_seconds, "key": r.key,
                "peak_memory_mb": r.peak_memory_mb, "peak_device_memory_mb": r.peak_device_memory_mb,
                "values": r.values if name != "train" else {},
            }
            for name, r in results.items()
        },
        metrics=rows,
        provenance=_provenance(trial, environment, ran),
    )  # fmt: skip
    record.write(trial.directory)
    return load_record(trial.directory)


def _provenance(trial: Trial, environment: Environment, ran: bool) -> dict[str, Any]:
    """Where the results come from. Those that are only scored anew keep what their record says already."""
    if not ran:
        with contextlib.suppress(FileNotFoundError, ProtocolError):
            kept: dict[str, Any] = load_record(trial.directory)["provenance"]
            return kept
    hello = _hello(trial.directory)
    return {
        **provenance.core(),
        "command": provenance.command(),
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


def _score(trial: Trial, results: dict[str, Result], training: dict[str, Any]) -> list[Row]:
    """Rows of every finished task, and what the training cost."""
    done = {name: r for name, r in results.items() if r.status == "done"}
    if not done:
        return []
    context = _context(trial, training)
    curve = training_curve(trial.directory / EVENTS)
    rows = cost.rows(training, curve, trial.config.threads) if "train" in done else []
    for name, result in done.items():
        values = {**result.values, "peak_memory_mb": result.peak_device_memory_mb or result.peak_memory_mb}
        rows += evaluators.score(name, trial.directory, values, context)
    return rows


def _context(trial: Trial, training: dict[str, Any]) -> Context:
    return Context(
        frames={name: Frames.load(path) for name, path in trial.split.files.items() if name != "train"},
        in_distribution=trial.config.dataset.in_distribution,
        references=dict(trial.dataset.references),
        info=dict(trial.dataset.info),
        training={**training, "n_labels": trial.config.dataset.n_train + trial.config.dataset.n_valid},
    )


def _training(result: Result | None, curve: list[dict[str, Any]]) -> dict[str, Any]:
    """Outcome, cost and convergence of the training; empty if it did not finish."""
    if result is None or result.status != "done":
        return {}
    verdict, reason = converged(curve)
    # Time over all sessions of a resumed training: the curve carries it on, the task's own clock does not.
    seconds = max([result.wall_seconds, *(point["seconds"] for point in curve[-1:])])
    return {
        **result.values,
        "wall_seconds": seconds,
        "peak_memory_mb": result.peak_memory_mb,
        "on_device": result.peak_device_memory_mb is not None,
        "peak_device_memory_mb": result.peak_device_memory_mb,
        "converged": verdict,
        "convergence_reason": reason,
    }


def training_curve(path: Path) -> list[dict[str, Any]]:
    """Epochs in order; of an epoch done twice (before and after an interruption) the later one."""
    epochs = {event["epoch"]: event for event in read_events(path) if event.get("event") == "epoch"}
    return [{k: v for k, v in epochs[e].items() if k not in ("event", "time")} for e in sorted(epochs)]


def _split(trial: Trial) -> dict[str, Any]:
    manifest = trial.split.manifest
    return {
        "directory": str(trial.split.directory.relative_to(trial.study_root)),
        "digest": trial.split.digest,
        "split_seed": trial.split_seed,
        "in_distribution": trial.config.dataset.in_distribution,
        "counts": {name: part["frames"] for name, part in manifest["splits"].items()},
        "baseline": manifest.get("baseline", {}),
        "leak": manifest.get("leak_check", {}),
        "warnings": list(trial.split.warnings),
        "info": trial.dataset.info,
    }


def _hello(directory: Path) -> dict[str, Any]:
    try:
        return read_json(directory / HELLO)
    except (FileNotFoundError, ProtocolError):
        return {}  # the worker never got as far as saying hello; the record's status tells why
