"""What the core and a worker say to each other, through files in the trial's folder.

The core writes ``request.json`` and starts the worker in the backend's own environment. The worker carries out the
tasks in order, appends progress to ``events.jsonl``, and after each task writes ``tasks/<name>.json`` by atomic
rename. Arrays go to ``.npz``. Nothing is pickled, except a backend's own checkpoint, which only that backend reads.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

VERSION = 1

Status = Literal["done", "skipped", "failed", "timeout", "out_of_memory", "interrupted"]
STATUSES: tuple[Status, ...] = get_args(Status)

# Where things lie inside a trial's folder.
REQUEST = "request.json"
EVENTS = "events.jsonl"
LOG = "worker.log"
TASKS = "tasks"
HELLO = "tasks/hello.json"  # what the worker found: versions, device, threads
CHECKPOINT = "checkpoint"  # folder; its content is the adapter's business
NATIVE = "native"  # folder: the package's own configuration and inputs
PREDICTIONS = "predictions.npz"
FORGETTING = "forgetting.npz"

# Label -> the setting in ``training`` that weighs its term of the loss.
WEIGHTS = {"energy": "energy_weight", "forces": "force_weight", "stress": "stress_weight"}


class ProtocolError(Exception):
    """A request or a result that cannot be read, or is of another protocol version."""


@dataclass(frozen=True)
class Task:
    """One thing a worker is asked to do.

    Attributes:
        name: ``train``, ``predict``, ``verify`` ...; see :data:`mlpbench.worker.tasks.TASKS`.
        key: hash of all that determines its result; a finished task with this key is not asked for again.
        options: the task's own settings (units in the names).
    """

    name: str
    key: str = ""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """All a worker needs for the tasks of one trial.

    Attributes:
        adapter: ``module:Class`` of the backend's adapter.
        directory: the trial's folder, absolute; everything the worker writes lies below it.
        architecture: name, cutoff (Å), the preset's hyperparameters, and ``native`` overrides.
        training: batch_size, lr, loss weights ... (see ``mlpbench.config.Training``).
        budget: epochs, steps, seconds, interval (in steps), patience (in intervals); each a number or None.
        seed: initialisation of the weights and order of the batches.
        device: ``cpu`` or ``cuda`` or ``cuda:N``; resolved, never ``auto``.
        dtype: ``float32`` or ``float64``, of the weights and the forward pass.
        threads: threads of the numerical libraries on the CPU.
        frames: split name -> absolute path of an ``.npz`` of :class:`mlpbench.frames.Frames`; has ``train``, ``valid``.
        labels: which labels the training uses: ``energy``, ``forces``, ``stress``.
        tasks: in the order in which they are carried out.
        capabilities: what the backend declares of itself: ``labels`` that it can train on, whether it is ``periodic``.
        start: what the training starts from; empty: from scratch. Else ``kind`` (``zero_shot``: nothing is trained),
            ``freeze`` and ``weights`` (for the record: a digest), and either ``directory``, the folder of a finished
            trial of the same architecture and hyperparameters, with its name ``trial``; or ``file``, a foundation
            model's weights, with their ``sha256``, the model's name ``foundation``, ``options`` of the package, and
            ``trust``, whether the file may be a pickle that runs code.
    """

    adapter: str
    directory: str
    architecture: dict[str, Any]
    training: dict[str, Any]
    budget: dict[str, Any]
    seed: int
    device: str
    dtype: str
    threads: int
    frames: dict[str, str]
    labels: list[str]
    tasks: list[Task]
    capabilities: dict[str, Any] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def write(self, path: Path) -> None:
        """Write as JSON, atomically; for its owner alone, since options may hold what came from the environment."""
        write_json(path, asdict(self), mode=0o600)

    @classmethod
    def read(cls, path: Path) -> Request:
        """Read what :meth:`write` wrote.

        Raises:
            ProtocolError: not JSON, or of another protocol version.
        """
        data = read_json(path)
        if data.get("version") != VERSION:
            raise ProtocolError(
                f"{path}: protocol version {data.get('version')}, but this worker speaks version {VERSION}"
            )
        try:
            return cls(**{**data, "tasks": [Task(**task) for task in data["tasks"]]})
        except (TypeError, KeyError) as error:
            raise ProtocolError(f"{path}: not a request: {error}") from error


@dataclass(frozen=True)
class Result:
    """What came of one task.

    Attributes:
        task: the task's name.
        key: the key it was asked for with.
        status: one of :data:`STATUSES`.
        reason: why it is not ``done``, in words a person can act on; empty when done.
        wall_seconds: time the task took.
        peak_memory_mb: largest resident memory of the worker process so far (MB, 10⁶ bytes).
        peak_device_memory_mb: largest memory allocated on the device during the task; None on a CPU.
        values: the task's own findings, JSON (units in the names).
    """

    task: str
    key: str
    status: Status
    reason: str = ""
    wall_seconds: float = 0.0
    peak_memory_mb: float = 0.0
    peak_device_memory_mb: float | None = None
    values: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def write(self, directory: Path) -> None:
        """Write to ``<directory>/tasks/<task>.json``, atomically."""
        write_json(directory / TASKS / f"{self.task}.json", asdict(self))

    @classmethod
    def read(cls, directory: Path, task: str) -> Result:
        """Read the result of ``task`` from the trial's folder.

        Raises:
            FileNotFoundError: the task has no result.
            ProtocolError: not JSON, of another version, or with an unknown status.
        """
        path = directory / TASKS / f"{task}.json"
        data = read_json(path)
        if data.get("version") != VERSION:
            raise ProtocolError(f"{path}: protocol version {data.get('version')}, expected {VERSION}")
        if data.get("status") not in STATUSES:
            raise ProtocolError(f"{path}: status {data.get('status')!r} is none of {', '.join(STATUSES)}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ProtocolError(f"{path}: not a result: {error}") from error


class EventLog:
    """Progress as one JSON object a line, flushed at once, so that the core can follow it while the worker runs.

    An epoch's event, one for each interval that ends with a validation, has ``epoch`` (its number, from 1), ``step``
    (optimiser steps so far), ``passes`` (over the training set), ``seconds`` (training time so far),
    ``train_loss, valid_loss`` (mlpbench's common loss, eV² based), ``valid_energy_mae`` (eV/atom),
    ``valid_force_mae`` (eV/Å) and ``lr``; a value that is not known is None.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            with open(path, "a", encoding="utf-8") as stream:
                stream.write("\n")  # a worker was killed in mid-line; what follows must not hang on its half event

    def write(self, event: str, **values: Any) -> None:
        """Append one event with the time (seconds since 1970) at which it happened."""
        line = json.dumps({"event": event, "time": time.time(), **values}, default=float)
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def epoch(
        self,
        epoch: int,
        step: int,
        seconds: float,
        *,
        passes: float | None = None,
        train_loss: float | None = None,
        valid_loss: float | None = None,
        valid_energy_mae: float | None = None,
        valid_force_mae: float | None = None,
        lr: float | None = None,
    ) -> None:
        """One finished interval of a training, counted from 1."""
        self.write(
            "epoch", epoch=epoch, step=step, passes=passes, seconds=seconds, train_loss=train_loss,
            valid_loss=valid_loss, valid_energy_mae=valid_energy_mae, valid_force_mae=valid_force_mae, lr=lr,
        )  # fmt: skip


def read_events(path: Path, start: int = 0) -> Iterator[dict[str, Any]]:
    """The events in ``path`` from byte ``start``; a last line still being written is left for the next time."""
    if not path.exists():
        return
    with open(path, "rb") as stream:
        stream.seek(start)
        for line in stream:
            if not line.endswith(b"\n"):
                return
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a worker killed in mid-line leaves half an event; a full disk may leave bytes of no meaning
            if isinstance(event, dict):
                yield event


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; it becomes ``path`` by atomic rename, and vanishes on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, data: Any, mode: int | None = None) -> None:
    """Write ``data`` to ``path`` by atomic rename, so that a reader never sees half a file. NaN is refused."""
    text = json.dumps(data, indent=2, allow_nan=False, default=_plain) + "\n"
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
        if mode is not None:
            part.chmod(mode)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FileNotFoundError: no such file.
        ProtocolError: not a JSON object.
    """
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:  # not UTF-8, or not JSON
        raise ProtocolError(f"{path}: not JSON ({error})") from error
    if not isinstance(data, dict):
        raise ProtocolError(f"{path}: a JSON object was expected, found {type(data).__name__}")
    return data


def _plain(value: Any) -> Any:
    """numpy scalars and arrays, and paths, as JSON knows them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
