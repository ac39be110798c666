"""A trial's record: what its tasks left is scored, put together with where it comes from, and written."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

from mlpbench import evaluators, provenance
from mlpbench.backends.environment import Environment
from mlpbench.converging import convergence
from mlpbench.devices import hardware
from mlpbench.evaluators import Context, Row, cost
from mlpbench.evaluators.convergence import at_rest, trivial_loss
from mlpbench.frames import Frames
from mlpbench.plan import Trial
from mlpbench.protocol import EVENTS, HELLO, ProtocolError, Result, Status, read_events, read_json
from mlpbench.records import Record, load_record, write_curve

_BOUNDS = ("lower", "upper")


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
    """Score, assemble and write the record; returns it as read back. ``ran``: a worker did something for it."""
    curve = training_curve(trial.directory / EVENTS)
    training = _training(trial, results.get("train"), curve)
    try:
        rows = _score(trial, results, training)
    except (OSError, KeyError, ValueError) as error:
        rows = []
        if status == "done":
            status, reason = "failed", f"scoring: {type(error).__name__}: {error}"
    rows, lost = finite_rows(rows)
    if lost and status == "done":
        status, reason = "failed", f"scoring: not a finite number: {', '.join(lost)}"
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
        inputs={},
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
    write_curve(trial.directory, curve)
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
    context = context_of(trial, training)
    curve = training_curve(trial.directory / EVENTS)
    rows = cost.rows(training, curve, trial.config.threads) if "train" in done else []
    for name, result in done.items():
        values = {**result.values, "peak_memory_mb": result.peak_device_memory_mb or result.peak_memory_mb}
        rows += evaluators.score(name, trial.directory, values, context)
    return rows


def context_of(trial: Trial, training: dict[str, Any]) -> Context:
    """What scores need beside the results of tasks: reference frames and files, and the cost of the training."""
    return Context(
        frames={name: Frames.load(path) for name, path in trial.split.files.items() if name != "train"},
        in_distribution=trial.config.dataset.in_distribution,
        references=dict(trial.dataset.references),
        info=dict(trial.dataset.info),
        training={**training, "n_labels": trial.config.dataset.n_train + trial.config.dataset.n_valid},
    )


def _training(trial: Trial, result: Result | None, curve: list[dict[str, Any]]) -> dict[str, Any]:
    """Outcome and cost of the training, and whether it came to rest; empty if it did not finish."""
    if result is None or result.status != "done":
        return {}
    trivial = trivial_loss(Frames.load(trial.split.files["valid"]), trial.config.training.model_dump(), trial.labels)
    rest = at_rest(curve, trivial)
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
        "ladder": trial.ladder,
        **convergence(trial.directory),
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


def resolved_config(trial: Trial) -> dict[str, Any]:
    """The trial's configuration as plain JSON, without the backends it does not use."""
    plain = trial.config.model_dump(mode="json")
    backend = trial.config.architecture.backend
    plain["backend"] = {backend: plain["backend"][backend]}
    return plain
