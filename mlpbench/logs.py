"""Training curves for TensorBoard, Weights & Biases and MLflow, written by those packages' own writers, offline.

They are made from the events that the core gets from every worker alike, so no backend needs any of these packages.
What was trained before logging was asked for is written as well, and nothing is written twice.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from mlpbench.errors import UserError
from mlpbench.protocol import EVENTS, ProtocolError, read_events, read_json, write_json
from mlpbench.study.trial import Trial

FOLDER = "logs"  # in the study's folder: <logger>/<trial>
STATE = "logged.json"  # beside it: the last step that was written, and whether the final errors were
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}  # logger -> what pip installs
SCALARS = {  # of an epoch event -> tag and factor to the unit in it
    "train_loss": ("loss/train", 1.0), "valid_loss": ("loss/valid", 1.0), "lr": ("training/lr", 1.0),
    "valid_energy_mae": ("valid/energy_mae_meV_per_atom", 1e3), "valid_force_mae": ("valid/force_mae_meV_per_A", 1e3),
    "seconds": ("training/seconds", 1.0), "passes": ("training/passes", 1.0),
}  # fmt: skip


class Writer(Protocol):
    """One trial's curve in one package's form."""

    def scalars(self, values: Mapping[str, float], step: int, when: float) -> None:
        """``values`` by tag at an optimiser step, which happened at ``when`` (s since 1970)."""
        ...

    def close(self) -> None:
        """Write what is buffered."""
        ...


class TensorBoard:
    """Event files of ``tensorboard.summary.Writer``."""

    def __init__(self, folder: Path, trial: Trial) -> None:
        from tensorboard.summary import Writer as Events

        self.writer = Events(str(folder))

    def scalars(self, values: Mapping[str, float], step: int, when: float) -> None:
        """See :class:`Writer`."""
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, step, wall_time=when)
        self.writer.flush()

    def close(self) -> None:
        """See :class:`Writer`."""
        self.writer.close()


class Wandb:
    """An offline run of Weights & Biases; ``wandb sync`` sends it, if the user wants it to."""

    def __init__(self, folder: Path, trial: Trial) -> None:
        import wandb

        settings = wandb.Settings(mode="offline", silent=True, console="off")
        self.run = wandb.init(
            project=trial.config.study, name=trial.name, id=trial.key[:16], resume="allow", dir=str(folder),
            config=trial.resolved_config, settings=settings, reinit="create_new",
        )  # fmt: skip

    def scalars(self, values: Mapping[str, float], step: int, when: float) -> None:
        """See :class:`Writer`."""
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        """See :class:`Writer`."""
        self.run.finish()


class Mlflow:
    """A run in a local store of MLflow, one for the study: ``logs/mlflow/runs``."""

    def __init__(self, folder: Path, trial: Trial) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=(folder.parent / "runs").resolve().as_uri())
        known = self.client.get_experiment_by_name(trial.config.study)
        experiment = known.experiment_id if known is not None else self.client.create_experiment(trial.config.study)
        runs = self.client.search_runs([experiment], f"tags.key = '{trial.key}'")
        if runs and (folder / STATE).is_file():
            self.run = runs[0].info.run_id
            return
        for begun_before in runs:  # of a training that starts over
            self.client.delete_run(begun_before.info.run_id)
        self.run = self.client.create_run(experiment, tags={"key": trial.key}, run_name=trial.name).info.run_id
        for name, value in trial.identifiers.items():
            self.client.log_param(self.run, name, value)

    def scalars(self, values: Mapping[str, float], step: int, when: float) -> None:
        """See :class:`Writer`."""
        for tag, value in values.items():
            self.client.log_metric(self.run, tag, value, timestamp=int(1000 * when), step=step)

    def close(self) -> None:
        """See :class:`Writer`."""
        self.client.set_terminated(self.run)


WRITERS: dict[str, Callable[[Path, Trial], Writer]] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow}


def require_packages(loggers: Iterable[str]) -> None:
    """See that what ``logging`` names is installed beside mlpbench.

    Raises:
        UserError: it is not; names the command.
    """
    for name in sorted(set(loggers)):
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"logging={name}: the package {PACKAGES[name]} is not installed beside mlpbench",
                f"pip install 'mlpbench[{name}]', or leave logging out.",
            )


class Log:
    """One trial's curve in one logger.

    Args:
        name: of the logger.
        trial: whose curve it is.
    """

    def __init__(self, name: str, trial: Trial) -> None:
        self.name, self.trial = name, trial
        self.folder = trial.study_root / FOLDER / name / trial.name
        self.state = _state(self.folder)
        self._writer: Writer | None = None
        epochs = [event for event in read_events(trial.directory / EVENTS) if event.get("event") == "epoch"]
        if self.state["step"] > max((int(event["step"]) for event in epochs), default=0):
            shutil.rmtree(self.folder, ignore_errors=True)  # the training has started over: so does its curve
            self.state = _state(self.folder)
        for event in epochs:
            self.event(event)

    def event(self, event: dict[str, Any]) -> None:
        """Write an ``epoch`` event that is not written yet; other events are none of a curve."""
        if event.get("event") != "epoch" or int(event["step"]) <= self.state["step"]:
            return
        known = {
            tag: factor * float(event[key]) for key, (tag, factor) in SCALARS.items() if event.get(key) is not None
        }
        self._write(known, int(event["step"]), float(event.get("time", time.time())))
        self._save(step=int(event["step"]))

    def end(self, record: dict[str, Any]) -> None:
        """The errors on the test splits of a finished trial, at its last step, in the metrics' own units."""
        if record["status"] != "done" or self.state["final"] == record["finished"] or not self.state["step"]:
            return
        rows = [row for row in record["metrics"] if row["split"] and row["value"] is not None]
        self._write(
            {f"{row['split']}/{row['metric']}": float(row["value"]) for row in rows}, self.state["step"], time.time()
        )
        self._save(final=record["finished"])

    def close(self) -> None:
        """Write what is buffered."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, values: Mapping[str, float], step: int, when: float) -> None:
        if self._writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._writer = WRITERS[self.name](self.folder, self.trial)
        self._writer.scalars(values, step, when)

    def _save(self, **values: Any) -> None:
        self.state |= values
        write_json(self.folder / STATE, self.state)


def _state(folder: Path) -> dict[str, Any]:
    empty = {"step": 0, "final": ""}
    try:
        return {**empty, **read_json(folder / STATE)}
    except (FileNotFoundError, ProtocolError):
        return empty


class Logs:
    """All loggers of one trial."""

    def __init__(self, logs: list[Log]) -> None:
        self.logs = logs

    def event(self, event: dict[str, Any]) -> None:
        """See :meth:`Log.event`."""
        for log in self.logs:
            log.event(event)

    def end(self, record: dict[str, Any]) -> None:
        """See :meth:`Log.end`."""
        for log in self.logs:
            log.end(record)


@contextmanager
def curves_of(trial: Trial) -> Iterator[Logs]:
    """The loggers that the trial's configuration asks for, closed at the end; none by default."""
    with ExitStack() as closing:
        logs = []
        for name in trial.config.logging:
            logs.append(Log(name, trial))
            closing.callback(logs[-1].close)
        yield Logs(logs)
