"""Carry out one trial: launch what is outstanding, score it, and write its record."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mlpbench.backends.environment import Environment
from mlpbench.backends.launcher import launch
from mlpbench.devices import hardware, resolve_device
from mlpbench.errors import UserError
from mlpbench.evaluators import SCORERS
from mlpbench.files import digest, locked, told
from mlpbench.frames import Float, Frames
from mlpbench.protocol import CHECKPOINT, EVENTS, PREDICTIONS, TASKS, Request, Result, Status, Task, read_events
from mlpbench.records import now
from mlpbench.scoring import context_of, kept_results, with_options, write_record
from mlpbench.study.artefacts import Status as Standing
from mlpbench.study.artefacts import evaluation_options, examine, found, tasks_of, write_inputs
from mlpbench.study.trial import Trial

OnEvent = Callable[[dict[str, Any]], None]
DAMAGED = "checkpoint.damaged"  # a checkpoint that no training can go on from, set aside


def run_trial(trial: Trial, on_event: OnEvent | None = None, *, wait: bool = False) -> dict[str, Any]:
    """Do what is outstanding of a trial and return its record; an unchanged, finished trial costs nothing.

    A failure inside the trial becomes its status and reason. KeyboardInterrupt is raised again once the trial's
    record says ``interrupted``.

    Args:
        trial: what to run.
        on_event: called with each progress event of the worker.
        wait: for another process that is running the same trial; False: refuse.

    Raises:
        UserError: the trial's folder is held by another process or cannot be written, or the device is not there.
        KeyboardInterrupt: the user stopped it.
        ValueError: the trial was planned without an environment.
    """
    environment = trial.environment
    if environment is None:
        raise ValueError(f"{trial.name} was planned without an environment")
    standing = examine(trial)
    if standing.state == "cached" and standing.found.record is not None:
        return standing.found.record
    with _held(trial, wait), told():
        standing = examine(trial)  # another process may have finished it meanwhile
        if standing.state == "cached" and standing.found.record is not None:
            return standing.found.record
        started = now()
        if trial.skip is not None:
            return write_record(trial, environment, {}, "skipped", trial.skip, started)
        return _carry_out(trial, environment, standing, started, on_event)


@contextmanager
def _held(trial: Trial, wait: bool) -> Iterator[None]:
    busy = f"another process is running the trial {trial.name}"
    with locked(trial.directory / ".lock", wait=wait, busy=busy):
        yield


def _carry_out(
    trial: Trial, environment: Environment, standing: Standing, started: str, on_event: OnEvent | None
) -> dict[str, Any]:
    todo = standing.outstanding
    _prepare(trial, standing)
    results: dict[str, Result] = {}
    try:
        if todo:
            results = _launched(trial, environment, todo, on_event)
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


def _launched(trial: Trial, environment: Environment, todo: list[Task], on_event: OnEvent | None) -> dict[str, Result]:
    """The worker's results. A training that fails on the checkpoint it was to go on from starts over, once."""
    request = make_request(trial, environment, todo)
    before = _epochs(trial.directory)
    resumes = todo[0].name == "train" and before > 0 and _has_checkpoint(trial.directory)
    results = launch(request, environment, timeout=trial.config.timeout, on_event=on_event)
    train = results.get("train")
    if resumes and train is not None and train.status == "failed" and _epochs(trial.directory) == before:
        _begin_anew(trial, f"the training could not go on from its checkpoint ({train.reason})")
        results = launch(request, environment, timeout=trial.config.timeout, on_event=on_event)
    write_inputs(trial, results.values())
    return results


def _epochs(directory: Path) -> int:
    return sum(event.get("event") == "epoch" for event in read_events(directory / EVENTS))


def _has_checkpoint(directory: Path) -> bool:
    checkpoints = directory / CHECKPOINT
    return checkpoints.is_dir() and any(checkpoints.iterdir())


def _begin_anew(trial: Trial, why: str) -> None:
    """Set the checkpoint aside, with its curve, and say so."""
    aside = trial.directory / DAMAGED
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(trial.directory / CHECKPOINT, aside)
    (trial.directory / CHECKPOINT).mkdir()
    (trial.directory / EVENTS).unlink(missing_ok=True)
    print(f"warning: {trial.name}: {why}; it lies in {DAMAGED} now, and the training starts over", file=sys.stderr)


def _beside_the_reference(
    trial: Trial, merged: dict[str, Result], fresh: dict[str, Result], on_event: OnEvent | None
) -> None:
    """What only the reference method can say: labels on the trial's own trajectory, and its time on the same frames.

    The worker has ended by now, so nothing of ours runs while the reference is timed.
    """
    backends, options = trial.config.backend, evaluation_options(trial)
    if "md" in options and "md" in merged and merged["md"].status == "done":
        values = with_options(merged["md"], SCORERS["md"], options["md"]).values
        from mlpbench.references.own import label_trial  # half a second, for trials with MD

        label_trial(
            trial.directory, values, context_of(trial, {}), backends, threads=trial.config.threads, on_event=on_event
        )
    if "speed" in options and "speed" in fresh and fresh["speed"].status == "done":
        frames = Frames.load(trial.split.files[options["speed"]["split"]])
        from mlpbench.references.walltimes import time_for_trial

        time_for_trial(trial.directory, options["speed"], frames, backends, hardware())


def make_request(trial: Trial, environment: Environment, tasks: list[Task], device: str | None = None) -> Request:
    """The request for ``tasks`` of a trial; every path absolute, the device (the trial's own, unless given) resolved.

    Raises:
        UserError: the device is not there.
    """
    config = trial.config
    return Request(
        adapter=config.backend_config.adapter,
        directory=str(trial.directory),
        architecture=trial.architecture,
        training=trial.training,
        budget=config.budget.model_dump(),
        seed=trial.init_seed,
        device=resolve_device(device or config.device, environment),
        dtype=config.dtype,
        threads=config.threads,
        frames={name: str(path) for name, path in trial.split.files.items()},
        labels=trial.labels,
        tasks=tasks,
        capabilities=config.backend_config.capabilities(),
        start=trial.origin.request(config.start),
    )


def predict_forces(trial: Trial, directory: Path, frames: Frames) -> Float:
    """(A, 3) eV/Å: what the potential in a finished trial's folder says of other frames.

    Args:
        trial: whose environment, device and options are used.
        directory: of the finished trial: its own, or that of a longer training of it.
        frames: with elements that it knows.

    Raises:
        UserError: it cannot predict them; has the worker's reason.
        ValueError: the trial was planned without an environment.
    """
    environment = trial.environment
    if environment is None:
        raise ValueError(f"{trial.name} was planned without an environment")
    options = {"splits": ["frames"], "batch_size": trial.config.evaluation.batch_size}
    with tempfile.TemporaryDirectory(prefix="mlpbench-") as folder:
        path = Path(folder) / "frames.npz"
        frames.save(path)
        (Path(folder) / CHECKPOINT).symlink_to(directory / CHECKPOINT)
        request = make_request(trial, environment, [Task("predict", options=options)])
        request = replace(request, directory=folder, frames={**request.frames, "frames": str(path)})
        result = launch(request, environment, timeout=trial.config.timeout)["predict"]
        if result.status != "done":
            raise UserError(f"{directory.name} cannot predict the candidates: {result.reason}")
        with np.load(Path(folder) / PREDICTIONS, allow_pickle=False) as arrays:
            return np.asarray(arrays["frames.forces"], dtype=np.float64)


_SOME = 64  # frames: enough for what the options of a package can depend on


def require_options(standings: Iterable[Standing]) -> None:
    """Let each package look at the options of its own that trials still to be trained give it, and at weights that were
    brought by hand.

    An architecture and a set of options are looked at once, whatever numbers are swept. What cannot be found out before
    the training (the adapter does not say, or the package fails on the data) is left to the training.

    Raises:
        UserError: the package has no such option, with the close match; or the option would change what is compared;
            or weights are of another architecture, lack an element of the data, or cannot be read.
    """
    seen: set[str] = set()
    for standing in standings:
        trial, environment = standing.trial, standing.trial.environment
        outstanding = any(task.name == "train" for task in standing.outstanding)
        if environment is None or trial.skip is not None or not outstanding:
            continue
        brought, config = trial.config.start.file, trial.config
        options = f"See conf/architecture/{config.architecture.name}.yaml: native."
        asked = {
            "check_options": (trial.architecture["native"], options),
            "check_start": (brought, "Give the weights that belong to this architecture: mlpbench foundation list."),
        }
        for task, (reason, hint) in asked.items():
            question = digest([task, environment.lock, config.backend_config.adapter, _names(trial.architecture),
                               _names(trial.training), trial.labels, str(brought), trial.dataset.name])  # fmt: skip
            if not reason or question in seen:
                continue
            seen.add(question)
            refused = _refused(trial, environment, task)
            if refused:
                raise UserError(refused, hint)


def _names(node: Any) -> Any:
    """``node`` without its numbers."""
    if isinstance(node, dict):
        return {key: _names(value) for key, value in node.items()}
    return None if isinstance(node, int | float) and not isinstance(node, bool) else node


def _of_every_element(frames: Frames) -> list[int]:
    """Numbers of a few frames that hold every element between them."""
    firsts = [int(np.argmax(frames.numbers == z)) for z in np.unique(frames.numbers)]
    return sorted({int(frames.frame_of_atom[atom]) for atom in firsts})


def _refused(trial: Trial, environment: Environment, task: str) -> str | None:
    """What the trial's adapter says against its options or its start, asked in its environment; None: nothing."""
    with tempfile.TemporaryDirectory(prefix="mlpbench-") as folder:
        frames = Path(folder) / "frames.npz"
        pool = trial.dataset.pool
        some = pool.select(slice(_SOME)) if task == "check_options" else pool.select(_of_every_element(pool))
        some.with_baseline(np.zeros(len(some))).save(frames)
        request = make_request(trial, environment, [Task(task)], device="cpu")
        request = replace(request, directory=folder, frames={"train": str(frames), "valid": str(frames)})
        result = launch(request, environment)[task]
        refused: str | None = result.values.get("refused")
        return refused or (result.reason if task == "check_start" and result.status == "failed" else None)


def _prepare(trial: Trial, standing: Standing) -> None:
    """The resolved configuration beside the results; a training that starts over starts with an empty curve."""
    text = yaml.safe_dump(trial.resolved_config, sort_keys=False, allow_unicode=True)
    (trial.directory / "config.yaml").write_text(text, encoding="utf-8")
    todo = standing.outstanding
    if not todo or todo[0].name != "train":
        return
    if standing.damaged and _has_checkpoint(trial.directory):
        _begin_anew(trial, standing.damaged)
    shutil.rmtree(trial.directory / TASKS, ignore_errors=True)  # what an earlier checkpoint said holds no longer
    if not _has_checkpoint(trial.directory):
        (trial.directory / EVENTS).unlink(missing_ok=True)
        shutil.rmtree(trial.directory / "native", ignore_errors=True)


def _results(trial: Trial, fresh: dict[str, Result]) -> dict[str, Result]:
    """This run's results, the ones of earlier runs that still hold, and what other commands measured."""
    here = found(trial.directory)
    keys = {task.name: task.key for task in tasks_of(trial)}
    merged = {name: fresh[name] for name in keys if name in fresh}
    merged |= {
        name: here.results[name]
        for name, key in keys.items()
        if name not in merged and name in here.results and here.results[name].key == key
    }
    return merged | kept_results(trial, here)


def _overall(trial: Trial, results: dict[str, Result]) -> tuple[Status, str]:
    """The trial's status: that of the first task that is neither done nor skipped."""
    for task in tasks_of(trial):
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
