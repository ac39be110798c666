"""Carry out one trial: launch what is outstanding, score it, and write its record."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import yaml

from mlpbench import provenance, store
from mlpbench.backends.environment import Environment
from mlpbench.backends.launcher import launch
from mlpbench.devices import hardware, resolve_device
from mlpbench.frames import Frames
from mlpbench.plan import Trial
from mlpbench.protocol import CHECKPOINT, EVENTS, TASKS, Request, Result, Status, Task
from mlpbench.recording import context_of, resolved_config, write_record
from mlpbench.records import load_record
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
            return write_record(trial, environment, {}, "skipped", trial.skip, started)
        _prepare(trial, todo)
        results: dict[str, Result] = {}
        try:
            if todo:
                request = make_request(trial, environment, todo)
                results = launch(request, environment, timeout=trial.config.timeout, on_event=on_event)
        except KeyboardInterrupt:
            write_record(trial, environment, _results(trial, {}), *_interrupted(), started)
            raise
        merged = _results(trial, results)
        try:
            _beside_the_reference(trial, merged, results, on_event)
        except KeyboardInterrupt:
            write_record(trial, environment, merged, *_interrupted(), started)
            raise
        status, reason = _overall(trial, merged)
        return write_record(trial, environment, merged, status, reason, started, ran=bool(todo))


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
        context = context_of(trial, {})
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
