"""One self-describing record for each trial: what it was, what came of it, and where it ran."""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlpbench.protocol import ProtocolError, Status, parse_json, read_json, read_text, write_json

FORMAT = 1
RECORD = "record.json"
_CURVE, _CURVE_END = '\n  "curve": [\n', "\n  ]"  # as write_json lays it out; an empty list stands on one line


@dataclass(frozen=True)
class Record:
    """The content of ``record.json``.

    Attributes:
        trial: the trial's folder name inside the study.
        key: hash of all that determines its result.
        study: name of the study.
        status: ``done`` only if training and every task asked for are done or skipped with a reason.
        reason: why it is not done; empty otherwise.
        started: ISO 8601, UTC, of the run that wrote this record.
        finished: likewise.
        identifiers: dataset, architecture, size, backend, n_train, n_valid, repetition.
        swept: every other setting that was given on the command line or by the sweep.
        config: the resolved configuration, except other backends.
        split: directory (relative to the study), digest, split_seed, counts, in_distribution, baseline, leak.
        training: the worker's :class:`~mlpbench.worker.adapter.TrainOutcome`, wall_seconds, peak memory, convergence.
        curve: one entry an epoch (see :class:`mlpbench.protocol.EventLog`).
        tasks: task name -> status, reason, wall_seconds, peak_memory_mb, key, values.
        metrics: rows of split, metric, value, unit, lower, upper, n.
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
    swept: dict[str, Any]
    config: dict[str, Any]
    split: dict[str, Any]
    training: dict[str, Any]
    curve: list[dict[str, Any]]
    tasks: dict[str, dict[str, Any]]
    metrics: list[dict[str, Any]]
    provenance: dict[str, Any]
    format: int = field(default=FORMAT)

    def write(self, directory: Path) -> None:
        """Write to ``directory/record.json`` by atomic rename."""
        write_json(directory / RECORD, asdict(self))


def load_record(directory: Path) -> dict[str, Any]:
    """The record in a trial's folder, as JSON.

    Raises:
        FileNotFoundError: there is none.
        ProtocolError: not JSON, or of a format this version does not know.
    """
    return _known(read_json(directory / RECORD), directory)


def load_all(study_root: Path) -> list[dict[str, Any]]:
    """Every record of a study without its training curve, in the order of the trials' names.

    Curves are most of a record, and few readers want any: :func:`load_curve` reads one. What many records have in
    common (the data set's configuration, the versions of an environment) is held once: leave it as it is.

    Raises:
        ProtocolError: one of them cannot be read; the message names the file.
    """
    return list(iterate(study_root))


def iterate(study_root: Path) -> Iterator[dict[str, Any]]:
    """As :func:`load_all`, one by one."""
    memory: dict[bytes, Any] = {}
    for path in sorted(study_root.glob(f"*/{RECORD}")):
        text = read_text(path)
        # JSON has no newline inside a string, so that indentation tells where the list starts and ends.
        start = text.find(_CURVE)
        end = text.find(_CURVE_END, start)
        if 0 <= start < end:
            text = text[: start + len(_CURVE)] + text[end:]
        record = _known(parse_json(text, path), path.parent)
        record.pop("curve", None)
        for part in record.values():
            if isinstance(part, dict):
                for key, value in part.items():
                    if isinstance(value, dict | list):
                        part[key] = memory.setdefault(marshal.dumps(value), value)
        yield record


def load_curve(directory: Path) -> list[dict[str, Any]]:
    """The training curve of the trial in ``directory``; empty where it has no record."""
    try:
        return list(load_record(directory)["curve"])
    except FileNotFoundError:
        return []


def _known(record: dict[str, Any], directory: Path) -> dict[str, Any]:
    if record.get("format") != FORMAT:
        raise ProtocolError(f"{directory / RECORD}: format {record.get('format')}, this version reads format {FORMAT}")
    return record
