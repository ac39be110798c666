"""What lies in a trial's folder, and whether it still holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from mlpbench.errors import UserError
from mlpbench.plan import AFTERWARDS, Trial
from mlpbench.protocol import CHECKPOINT, HELLO, TASKS, ProtocolError, Result, Task
from mlpbench.records import RECORD, load_record
from mlpbench.references.own import pending

State = Literal["cached", "to score", "partly done", "to resume", "new"]


def finished(directory: Path, task: Task) -> Result | None:
    """The result of ``task`` if it is there, ``done`` or ``skipped``, and was made for the same key."""
    try:
        result = Result.read(directory, task.name)
    except (FileNotFoundError, ProtocolError):
        return None  # never run, or written by another version: it is done again
    return result if result.key == task.key and result.status in ("done", "skipped") else None


def with_options(result: Result, task: Task) -> Result:
    """``result`` with the options that only scores read as ``task`` has them now (see :data:`AFTERWARDS`)."""
    names = AFTERWARDS.get(task.name, ())
    if "options" not in result.values:
        return result
    wanted = {name: value for name, value in task.options.items() if name in names}
    options = {name: value for name, value in result.values["options"].items() if name not in names}
    return replace(result, values={**result.values, "options": {**options, **wanted}})


def to_score(trial: Trial) -> bool:
    """Whether nothing is to be run, but the scores in the record are not those asked for, or could not be made."""
    if not (trial.directory / RECORD).is_file() or outstanding(trial):
        return False
    try:
        if load_record(trial.directory)["status"] not in ("done", "skipped"):
            return True  # every task is done: it was the scoring, or a label, that failed or was interrupted
    except ProtocolError:
        return True  # cut short, or of another version: everything it is made of is there
    for task in trial.tasks:
        result = finished(trial.directory, task)
        if result is None or result.status != "done":
            continue
        if with_options(result, task) != result:
            return True
        if task.name == "md" and pending(trial.directory, task.options, trial.config.backend):
            return True
    return False


def others(trial: Trial) -> list[str]:
    """Finished evaluations in the trial's folder that this command did not ask for; they are kept in its record.

    The folder belongs to one trained potential (its name holds the trial's key), so they are of the same potential.
    """
    asked = {task.name for task in trial.tasks}
    found = []
    for path in sorted((trial.directory / TASKS).glob("*.json")):
        if path.stem in asked or path.name == Path(HELLO).name:
            continue
        try:
            if Result.read(trial.directory, path.stem).status == "done":
                found.append(path.stem)
        except ProtocolError:
            continue  # of another version: it would have to be measured again
    return found


def outstanding(trial: Trial) -> list[Task]:
    """The tasks that still have to be done, in order. A trial whose training is not done starts there."""
    if finished(trial.directory, trial.tasks[0]) is None:
        return list(trial.tasks)
    return [task for task in trial.tasks if finished(trial.directory, task) is None]


def state(trial: Trial) -> State:
    """What running this trial would find."""
    todo = outstanding(trial)
    if not todo and (trial.directory / RECORD).is_file():
        return "to score" if to_score(trial) else "cached"
    if len(todo) < len(trial.tasks):
        return "partly done"
    checkpoints = trial.directory / CHECKPOINT
    return "to resume" if checkpoints.is_dir() and any(checkpoints.iterdir()) else "new"


@contextmanager
def locked(trial: Trial) -> Iterator[None]:
    """Hold the trial's folder for one process.

    Raises:
        UserError: another process holds it.
    """
    trial.directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(trial.directory / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"another process is running the trial {trial.name}", "Wait for it, or end it, then run this again."
        ) from error
    try:
        yield
    finally:
        lock.release()
