"""Records as rows: trials, metrics and timed paths; and the names and orders that every table and figure shares."""

from __future__ import annotations

import math
import os
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from mlpbench.backends.registry import ArchitectureInfo, BackendConfig
from mlpbench.config import load_backends
from mlpbench.evaluators import speed
from mlpbench.metrics import MAIN_ERRORS
from mlpbench.records import usable
from mlpbench.statistics.variance import independent_repetitions
from mlpbench.study.candidates import candidate_label
from mlpbench.study.settings import (
    PLACE,
    RANDOM,
    SCRATCH,
    ZERO_SHOT,
    Setting,
    acquisition_of,
    climbing,
    data_names,
    is_member,
    ladder_of,
    named,
    settings_of,
    start_of,
)


def display_name(architecture: str, records: Iterable[Mapping[str, Any]] = ()) -> str:
    """An architecture as its authors write it, e.g. ``MACE`` for ``mace``.

    As its backend declares it here, else as one of ``records`` holds it (its package may be installed elsewhere only),
    else the name itself.
    """
    return str(_declared(architecture, records).get("title") or architecture)


def family(architecture: str, records: Iterable[Mapping[str, Any]] = ()) -> str:
    """The kind of model that an architecture is, e.g. ``equivariant``, found as its name is; empty if not declared."""
    return str(_declared(architecture, records).get("family") or "")


def _declared(architecture: str, records: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    info = architectures().get(architecture)
    if info is not None:
        return info.model_dump()
    for record in records:
        if record["identifiers"].get("architecture") == architecture:
            nodes = ((record.get("config") or {}).get("backend") or {}).values()
            said = next((node["architectures"].get(architecture) for node in nodes if node.get("architectures")), None)
            if said:
                return dict(said)
    return {}


def place(architecture: str) -> int | None:
    """Which colour and marker an architecture has in every report; None: the first that is free."""
    info = architectures().get(architecture)
    return None if info is None else info.place


def architectures() -> dict[str, ArchitectureInfo]:
    """Every architecture that a backend declares here, by name.

    Raises:
        UserError: see :func:`backends`.
    """
    return {name: info for backend in backends().values() for name, info in backend.architectures.items()}


def backends() -> dict[str, BackendConfig]:
    """What the files in ``conf/backend`` declare, those of outside packages included, by name of the backend.

    Raises:
        UserError: such a file cannot be used.
    """
    return _backends(os.getcwd(), os.environ.get("MLPBENCH_CONF"))


@cache
def _backends(folder: str, conf: str | None) -> dict[str, BackendConfig]:
    return load_backends()


def natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key that puts ``test_300K`` before ``test_1000K``."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple((0, float(part), "") if index % 2 else (1, 0.0, part) for index, part in enumerate(parts))


Record = dict[str, Any]
IDENTIFIERS = ["dataset", "architecture", "size", "backend", "n_train", "repetition"]
VALUES = ["split", "metric", "value", "unit", "lower", "upper", "n"]
MACHINE = ["device", "device_name", "cpu", "threads"]


class Rows:
    """Takes what tables need from one record after the other; keeps the records themselves without their metrics.

    Attributes:
        records: as they were given, without ``metrics``; several contents under one name of a data set have several
            names (see :func:`~mlpbench.study.settings.data_names`).
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.records: list[Record] = []
        self._counts: list[int] = []
        self._texts: dict[str, list[Any]] = {name: [] for name in ("split", "metric", "unit", "n")}
        self._numbers = {name: array("d") for name in ("value", "lower", "upper")}
        for record in records:
            metrics = record["metrics"]
            self.records.append({key: value for key, value in record.items() if key != "metrics"})
            self._counts.append(len(metrics))
            for name, column in self._texts.items():
                column += [row[name] for row in metrics]
            for name, numbers in self._numbers.items():
                numbers.extend([math.nan if row[name] is None else row[name] for row in metrics])
        names = data_names(self.records)
        self.records = [named(record, name) for record, name in zip(self.records, names, strict=True)]

    def scores(self) -> dict[str, dict[tuple[str, str], float]]:
        """Trial -> (metric, split) -> value, of values that are known."""
        result: dict[str, dict[tuple[str, str], float]] = {}
        start = 0
        for record, count in zip(self.records, self._counts, strict=True):
            part = slice(start, start + count)
            keys = zip(self._texts["metric"][part], self._texts["split"][part], strict=True)
            values = zip(keys, self._numbers["value"][part], strict=True)
            result[record["trial"]] = {key: value for key, value in values if not math.isnan(value)}
            start += count
        return result

    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Setting]]:
        """The trials, the metrics (long), and the setting of each trial.

        Trials have, beside what :func:`_trial_row` names, a column for each key that is a setting anywhere in the
        study, ``setting`` (its label), ``name`` (of its line), ``superseded`` (a longer budget of the same ladder of
        budgets is done), ``counts_as`` (the number of the independent repetition that it is; missing where it is none)
        and each main error on each split.
        """
        settings = settings_of(self.records)
        keys = sorted({key for setting in settings for key in setting.values})
        rows = []
        for record, setting in zip(self.records, settings, strict=True):
            identity, rest = _trial_row(record)
            own = {key: _cell(setting.values[key] if key in setting.values else _lookup(record, key)) for key in keys}
            rows.append({**identity, **own, "setting": setting.label, **rest})
        trials = pd.DataFrame(rows)
        numbers = {name: np.array(column, dtype=np.float64) for name, column in self._numbers.items()}
        values = pd.DataFrame({**self._texts, **numbers}, columns=VALUES)
        if trials.empty:
            return trials, values.reindex(columns=["trial", *IDENTIFIERS, *VALUES, *keys, "setting"]), {}
        trials["name"] = _names(trials, self.records)
        trials["superseded"] = _superseded(self.records)
        trials["counts_as"] = _counts_as(trials)
        place = np.repeat(np.arange(len(trials)), self._counts)
        names = (["trial", *IDENTIFIERS], [*keys, "setting"])
        head, tail = (trials[part].take(place).reset_index(drop=True) for part in names)
        wide = _main_errors(values, place, len(trials))
        metrics = pd.concat([head, values, tail], axis=1)
        return pd.concat([trials, wide], axis=1), metrics, dict(zip(trials["trial"], settings, strict=True))


def speed_frame(records: Iterable[Record]) -> pd.DataFrame:
    """The speed table, long: one row for each trial, path (deployment, dtype, TF32) and metric; empty if none.

    A path that could not run is one row with its ``status`` and ``reason``.
    """
    rows = []
    for record in records:
        head = {"trial": record["trial"], **{key: record["identifiers"][key] for key in IDENTIFIERS}}
        machine = {name: record["provenance"]["hardware"].get(name) for name in MACHINE}
        rows += [{**head, **row, **machine} for row in speed.rows(record)]
    return pd.DataFrame(rows, columns=["trial", *IDENTIFIERS, *speed.COLUMNS, *MACHINE])


def setting_labels(trials: pd.DataFrame, data: bool = False) -> pd.Series:
    """What each trial is of, e.g. ``MACE, N = 200, lr=0.01``; with ``data`` the name of its data set in front."""
    columns = zip(trials["dataset"], trials["name"], trials["n_train"], trials["setting"], strict=True)
    labels = [f"{d}: {candidate_label(*rest)}" if data else candidate_label(*rest) for d, *rest in columns]
    return pd.Series(labels, index=trials.index, dtype=object)


def _names(trials: pd.DataFrame, records: Sequence[Record]) -> list[str]:
    """Architecture as a reader knows it, with its size where the study has several sizes of one architecture, and with
    its start where that is not scratch.
    """
    several = trials.groupby("architecture")["size"].nunique().max() > 1
    titles = {architecture: display_name(architecture, records) for architecture in trials["architecture"].unique()}
    return [
        line_name(titles[architecture], size if several else "", start, acquisition)
        for architecture, size, start, acquisition in zip(
            trials["architecture"], trials["size"], trials["start"], trials["acquisition"], strict=True
        )
    ]


def line_name(title: str, size: str, start: str, acquisition: str) -> str:
    """What a line is called: ``MACE``, ``MACE small``, ``MACE (from pretrain)``, ``MACE (pretrain as it is)``,
    ``MACE (committee)``.

    Without ``size`` it need not be said. A foundation model's size is its name.
    """
    own = start.removeprefix(f"{ZERO_SHOT} ")
    name = f"{title} {size}" if size and size != own else title
    more = [] if start == SCRATCH else [f"{own} as it is" if start.startswith(ZERO_SHOT) else f"from {start}"]
    more += [] if acquisition == RANDOM else [acquisition.replace("_", " + ")]
    return f"{name} ({', '.join(more)})" if more else name


def _superseded(records: Sequence[Record]) -> list[bool]:
    """Of a ladder of budgets only the longest finished rung counts; the longest of all where none is finished. Further
    members of a committee never count: they are no repetitions.
    """
    ladders: dict[str, list[int]] = {}
    for index, (record, climbs) in enumerate(zip(records, climbing(records), strict=True)):
        ladder = ladder_of(record)
        if climbs and ladder:
            ladders.setdefault(str(ladder), []).append(index)
    result = [is_member(record) for record in records]
    for rungs in ladders.values():
        top = max(rungs, key=lambda i: (usable(records[i]), _steps(records[i])))
        for index in rungs:
            result[index] = result[index] or index != top
    return result


def _steps(record: Record) -> float:
    budget = record["config"].get("budget") or {}
    return float(budget.get("steps") or record["training"].get("steps") or 0)


def _counts_as(trials: pd.DataFrame) -> pd.Series:
    """See :func:`independent_repetitions`; shorter rungs of a ladder are no repetitions."""
    current = trials[~trials["superseded"]]
    return independent_repetitions(current, [*PLACE, "setting"]).reindex(trials.index)


def _main_errors(values: pd.DataFrame, place: np.ndarray[Any, Any], count: int) -> pd.DataFrame:
    """One column for each main error and split, one row a trial, so that the trials' table can be read by itself."""
    main = values.assign(place=place)[values["metric"].isin(MAIN_ERRORS) & (values["split"] != "train")]
    wide = main.pivot_table(index="place", columns=["metric", "split", "unit"], values="value", aggfunc="first")
    keys: list[tuple[str, str, str]] = [(str(key[0]), str(key[1]), str(key[2])) for key in wide.columns.tolist()]
    order = sorted(keys, key=lambda key: (MAIN_ERRORS.index(key[0]), natural(key[1])))
    columns = {f"{metric}@{split} ({unit})": wide[metric, split, unit] for metric, split, unit in order}
    return pd.DataFrame(columns, index=range(count))


def _lookup(record: Record, key: str) -> Any:
    """A key's value in the configuration, for trials in whose line it is the same everywhere."""
    value: Any = record["config"]
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _cell(value: Any) -> Any:
    return str(value) if isinstance(value, dict | list) else value


def _trial_row(record: Record) -> tuple[Record, Record]:
    """Columns that name the trial, and all others that are no settings."""
    training, provenance, tasks = record["training"], record["provenance"], record["tasks"]
    hardware, backend = provenance["hardware"], provenance["backend"]
    keys = ("round", "member")
    identifiers = {key: value for key, value in record["identifiers"].items() if key not in keys}
    identifiers |= {"start": start_of(record), "acquisition": acquisition_of(record)}
    more = {key: record["identifiers"].get(key) for key in keys}
    return {"trial": record["trial"], "study": record["study"], **identifiers}, {
        **more,
        "status": "done" if usable(record) else record["status"],
        "reason": "" if usable(record) else record["reason"],
        "unfinished": record["reason"] if usable(record) else "",
        "at_rest": training.get("at_rest"),
        "rest_reason": training.get("rest_reason"),
        "converged": training.get("converged"),
        "convergence_reason": training.get("convergence_reason"),
        "epochs": training.get("epochs"),
        "steps": training.get("steps"),
        "best_epoch": training.get("best_epoch"),
        "stopped_by": training.get("stopped_by"),
        "resumed": training.get("resumed"),
        "train_seconds": training.get("wall_seconds"),
        "wall_seconds": sum(task["wall_seconds"] for task in tasks.values()) or None,
        "train_peak_memory": training.get("peak_memory_mb"),
        "train_peak_device_memory": training.get("peak_device_memory_mb"),
        "n_parameters": training.get("n_parameters"),
        "dtype": record["config"].get("dtype"),
        **{name: hardware.get(name) for name in MACHINE},
        "python": backend.get("python"),
        **{f"version_{name}": version for name, version in sorted(backend["versions"].items())},
        "environment": str(backend["lock"] or "")[:12],
        "mlpbench": provenance["mlpbench"],
        "commit": provenance["commit"],
        "split_seed": record["split"]["split_seed"],
        "init_seed": provenance["init_seed"],
        "split": record["split"]["directory"],
        "started": record["started"],
        "finished": record["finished"],
        "key": record["key"],
    }
