"""One self-describing record for each trial: what it was, what came of it, and where it came from."""

from __future__ import annotations

import marshal
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import mlpbench
from mlpbench.errors import UserError
from mlpbench.protocol import ProtocolError, Status, read_json, write_json

FORMAT = 2
RECORD = "record.json"
_NEEDED = ("trial", "status", "identifiers", "config", "split", "training", "tasks", "metrics", "provenance")
CURVE = "curve.json"  # the training curve, by columns; most of a long training's bytes, and few readers want it


@dataclass(frozen=True)
class Record:
    """The content of ``record.json``.

    Attributes:
        trial: the trial's folder name inside the study.
        key: hash of all that determines the trained potential.
        study: name of the study.
        status: ``done`` only if training and every task asked for are done or skipped with a reason.
        reason: why it is not done; empty otherwise.
        started: ISO 8601, UTC, of the run that wrote this record.
        finished: likewise.
        identifiers: dataset, frames (digest of its content), data (digest of these and of the labels trained on),
            architecture, size, backend, n_train, n_valid, repetition.
        config: the resolved configuration, except other backends.
        ladder: digest of all but the number of optimiser steps; trainings that share it differ in their length alone.
        labels: what entered the loss, and the weight of each in 1/eV², (Å/eV)², (Å³/eV)².
        split: directory (relative to the study), digest, extensions (digest of each that was drawn from), split_seed,
            counts, in_distribution, baseline, leak.
        training: the worker's :class:`~mlpbench.worker.adapter.TrainOutcome`, wall_seconds, peak memory, convergence.
        tasks: task name -> status, reason, wall_seconds, peak_memory_mb, key, values.
        metrics: rows of split, metric, value, unit, lower, upper, n, and the scorer that made it.
        inputs: artefact -> what it was made from (see :mod:`mlpbench.study.artefacts`).
        provenance: versions, commit, command, environment, hardware.
    """

    trial: str
    key: str
    study: str
    status: Status
    reason: str
    started: str
    finished: str
    identifiers: dict[str, Any]
    config: dict[str, Any]
    ladder: str
    labels: dict[str, float]
    split: dict[str, Any]
    training: dict[str, Any]
    tasks: dict[str, dict[str, Any]]
    metrics: list[dict[str, Any]]
    inputs: dict[str, dict[str, Any]]
    provenance: dict[str, Any]
    format: int = field(default=FORMAT)

    def write(self, directory: Path) -> None:
        """Write to ``directory/record.json`` by atomic rename."""
        write_json(directory / RECORD, asdict(self))


def load_record(directory: Path) -> dict[str, Any]:
    """The record in a trial's folder, as JSON.

    Raises:
        FileNotFoundError: there is none.
        ProtocolError: not JSON, of a format this version does not know, or without a part that every record has.
    """
    record = read_json(directory / RECORD)
    if record.get("format") != FORMAT:
        raise ProtocolError(f"{directory / RECORD}: format {record.get('format')}, this version reads format {FORMAT}")
    lacking = [key for key in _NEEDED if key not in record]
    if lacking:
        raise ProtocolError(f"{directory / RECORD}: lacks {', '.join(lacking)}")
    return record


def usable(record: Mapping[str, Any]) -> bool:
    """Whether the potential is trained and its errors are known, whatever became of evaluations that came after."""
    if record["status"] in ("done", "skipped"):
        return bool(record["status"] == "done")
    done = {name for name, task in record["tasks"].items() if task["status"] == "done"}
    return {"train", "predict"} <= done and "accuracy: " not in record["reason"]  # of a score that could not be made


def load_all(study_root: Path) -> list[dict[str, Any]]:
    """Every record of a study, in the order of the trials' names; without training curves (see :func:`load_curve`).

    What many records have in common (the data set's configuration, the versions of an environment) is held once:
    leave it as it is. A record that cannot be read is named on standard error, once, and left out.

    Raises:
        UserError: there are records, and none of them can be read.
    """
    return list(iterate(study_root))


def iterate(study_root: Path) -> Iterator[dict[str, Any]]:
    """As :func:`load_all`, one by one."""
    memory: dict[bytes, Any] = {}
    problems: list[str] = []
    readable = False
    for path in sorted(study_root.glob(f"*/{RECORD}")):
        try:
            record = load_record(path.parent)
        except (ProtocolError, OSError) as error:
            problems.append(str(error))
            _warn_once(f"{error}; this trial is left out (mlpbench run rewrites its record)")
            continue
        for part in record.values():
            if isinstance(part, dict):
                for key, value in part.items():
                    if isinstance(value, dict | list):
                        part[key] = memory.setdefault(marshal.dumps(value), value)
        readable = True
        yield record
    if problems and not readable:
        raise UserError(f"no record in {study_root} can be read: {problems[0]}", "mlpbench run rewrites them.")


_warned: set[str] = set()


def _warn_once(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        print(f"warning: {text}", file=sys.stderr, flush=True)


def write_curve(directory: Path, curve: Sequence[dict[str, Any]]) -> None:
    """Write a training curve to ``directory/curve.json``.

    Args:
        directory: the trial's folder.
        curve: one entry a validation, in order (see :class:`mlpbench.protocol.EventLog`).
    """
    names = list(dict.fromkeys(name for point in curve for name in point))
    write_json(directory / CURVE, {name: [point.get(name) for point in curve] for name in names})


def load_curve(directory: Path) -> list[dict[str, Any]]:
    """The training curve of the trial in ``directory``, one entry a validation; empty where there is none."""
    try:
        columns = read_json(directory / CURVE)
    except (FileNotFoundError, ProtocolError):
        return []  # never trained, or the file is damaged: the next run rewrites it from the events
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


CORE_PACKAGES = ("hydra-core", "numpy", "scipy", "pandas", "ase")


def now() -> str:
    """The time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command() -> str:
    """The command line of this process as a user would type it, without what looks like a secret."""
    program = Path(sys.argv[0]).name.split()  # "mlpbench run" while Hydra has the arguments
    words = [scrubbed(word) for word in sys.argv[1:] if word != "hydra.mode=MULTIRUN"]
    return shlex.join([*program, *words])


_SECRET = r"(?:token|secret|passw(?:or)?d|credential|api_?key|private_?key|access_?key)"


def scrubbed(text: str) -> str:
    """``text`` as a record may hold it: ``***`` for passwords in addresses and values of keys that name a secret, the
    variable's name for the value of an environment variable that names one.
    """
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search(_SECRET, name, re.IGNORECASE):
            text = text.replace(value, f"${name}")
    text = re.sub(r"(://[^/@\s:]+):[^/@\s]+@", r"\1:***@", text)
    return re.sub(rf"([\w.]*{_SECRET}\w*\s*[=:]\s*)(?!\$)[^\s,&}}]+", r"\1***", text, flags=re.IGNORECASE)


@cache
def core() -> dict[str, Any]:
    """mlpbench's version, its commit and whether the checkout was changed (None: not a checkout), Python, packages."""
    commit, dirty = _git()
    return {
        "mlpbench": mlpbench.__version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in CORE_PACKAGES},
    }


def _git() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout this package runs from."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None, None  # installed from a wheel: the version says it all
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None  # no git on this machine
    return head.stdout.strip(), bool(status.stdout.strip())
