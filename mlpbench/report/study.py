"""A study as the report reads it: its tables and records, and what they say about splits, candidates and
hardware.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlpbench import protocol
from mlpbench.frames import Float, Frames
from mlpbench.records import load_curve
from mlpbench.statistics.paired import MARGIN
from mlpbench.statistics.repetitions import independent_repetitions

NAMES = {
    "schnet": "SchNet",
    "painn": "PaiNN",
    "nequip": "NequIP",
    "mace": "MACE",
    "toy": "Toy pair potential",
}
SEEDS = ("split_seed", "init_seed")  # where they are swept, they make repetitions and no settings
SPEED_COLUMNS = ("device", "device_name", "cpu", "threads")


def remembered[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Keeps what ``function(study, *hashable arguments)`` returned with the study: sections ask the same
    questions.
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        study: Any = args[0]
        key = (function.__module__, function.__name__, args[1:], tuple(sorted(kwargs.items())))
        if key not in study.memory:
            study.memory[key] = function(*args, **kwargs)
        found: R = study.memory[key]
        return found

    return wrapper


@dataclass
class Study:
    """The results of one study.

    Attributes:
        name: of the study.
        root: its folder, ``results/<study>``.
        trials: one row for each trial (see ``mlpbench.tables``).
        metrics: long table of metric values, one row for each trial, split and metric.
        records: the content of each ``record.json``; those that were loaded have neither ``metrics``, which are in the
            table, nor ``curve``, see :meth:`curve`.
        margin: relative difference that does not matter: of a tie.
    """

    name: str
    root: Path
    trials: pd.DataFrame
    metrics: pd.DataFrame
    records: list[dict[str, Any]]
    margin: float = MARGIN

    @property
    def margin_words(self) -> str:
        """The margin as a reader wants it, e.g. ``5 %``."""
        return f"{100 * self.margin:g} %"

    def __post_init__(self) -> None:
        self.counted: set[str] = set()  # trials that are repetitions of each other
        if len(self.trials):
            self.counted = set(self.trials["trial"][independent_repetitions(self.trials).notna()])
        self._number_repetitions()
        self.memory: dict[tuple[Any, ...], Any] = {}
        self._predictions: dict[str, dict[str, Float]] = {}
        self._frames: dict[tuple[str, str], Frames | None] = {}

    def _number_repetitions(self) -> None:
        """Where seeds were swept, each combination of them is a repetition of its own."""
        seeds = {
            str(r["trial"]): (r["identifiers"]["repetition"], *(str(r.get("swept", {}).get(s, "")) for s in SEEDS))
            for r in self.records
        }
        self.seeds_swept = any(found[1:] != ("", "") for found in seeds.values())
        if self.seeds_swept:
            place = {found: index for index, found in enumerate(sorted(set(seeds.values())))}
            number = {trial: place[found] for trial, found in seeds.items()}
            self.trials = self.trials.assign(repetition=self.trials["trial"].map(number))
            self.metrics = self.metrics.assign(repetition=self.metrics["trial"].map(number))

    @cached_property
    def record(self) -> dict[str, dict[str, Any]]:
        """Trial name -> record."""
        return {str(record["trial"]): record for record in self.records}

    @cached_property
    def configs(self) -> dict[str, dict[str, Any]]:
        """Trial -> resolved configuration, of records that hold one."""
        return {name: record["config"] for name, record in self.record.items() if record.get("config")}

    def curve(self, trial: str) -> list[dict[str, Any]]:
        """The training curve of a trial, one entry an epoch; empty where it has none."""
        record = self.record.get(trial, {})
        return list(record["curve"]) if "curve" in record else load_curve(self.root / trial)

    @cached_property
    def settings(self) -> list[str]:
        """Swept settings that take more than one value, each a column of ``trials``; repetitions are none."""
        known = {"dataset", "architecture", "size", "backend", "n_train", "dataset.n_train", "repetition", *SEEDS}
        swept = sorted({key for record in self.records for key in record.get("swept", {})} - known)
        present = [key for key in swept if key in self.trials]
        return [key for key in present if self.trials[key].astype(str).nunique() > 1]

    @cached_property
    def table(self) -> pd.DataFrame:
        """``trials`` with ``candidate``: what one chooses between (architecture, size, settings), as a
        reader's label.
        """
        table = self.trials.copy()
        with_size = table.groupby("architecture")["size"].nunique().max() > 1 if len(table) else False
        varied = self._varied
        table["candidate"] = [self._label(row, with_size, varied) for row in rows_of(table)]
        return table

    @cached_property
    def _varied(self) -> set[tuple[str, str, str]]:
        """(architecture, size, setting) in which the setting takes several values: only those belong into a
        label.
        """
        return {
            (str(a), str(s), key)
            for (a, s), part in self.trials.groupby(["architecture", "size"])
            for key in self.settings
            if part[key].astype(str).nunique() > 1
        }

    def _label(self, row: dict[str, Any], with_size: bool, varied: set[tuple[str, str, str]]) -> str:
        name = NAMES.get(row["architecture"], row["architecture"])
        parts = [f"{name} {row['size']}" if with_size else name]
        place = (str(row["architecture"]), str(row["size"]))
        parts += [f"{k.rpartition('.')[2]}={_short(row[k])}" for k in self.settings if (*place, k) in varied]
        return ", ".join(parts)

    @cached_property
    def values(self) -> pd.DataFrame:
        """``metrics`` with each trial's ``candidate`` and ``converged``; only trials that are done."""
        known = [name for name in ("converged", "at_rest") if name in self.table]
        done = self.table.loc[self.table["status"] == "done", ["trial", "candidate", *known]]
        return self.metrics.merge(done, on="trial", how="inner")

    @cached_property
    def _parts(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """``values`` cut up once: filtering a long table again and again is what takes time in a large study."""
        values = self.values
        if len(self.counted) < len(self.trials):
            values = values[values["trial"].isin(self.counted)]
        groups = values.groupby(["dataset", "metric", "split"], dropna=False)
        return {(str(d), str(m), str(s)): part for (d, m, s), part in groups}

    def part(self, dataset: str, metric: str, split: str) -> pd.DataFrame:
        """The rows of ``values`` of one data set, metric and split; empty where there are none.

        Of trials with crossed seeds only those that count as repetitions (see
        :func:`mlpbench.statistics.repetitions.independent_repetitions`).
        """
        return self._parts.get((dataset, metric, split), self.values.iloc[:0])

    @cached_property
    def metric_names(self) -> list[str]:
        """Names of the metrics the study has, sorted."""
        return sorted(str(name) for name in self.metrics["metric"].unique())

    def metrics_of(self, dataset: str, split: str | None = None) -> set[str]:
        """Names of the metrics that finished trials have on a data set (on one of its splits)."""
        return {m for d, m, s in self._parts if d == dataset and split in (None, s)}

    def splits_of(self, dataset: str) -> set[str]:
        """Splits on which finished trials of a data set have an error."""
        return {s for d, m, s in self._parts if d == dataset and m in ("force_mae", "energy_mae")}

    def largest(self, dataset: str) -> int:
        """The largest number of training frames that a finished trial of the data set had."""
        return max((int(p["n_train"].max()) for (d, _, _), p in self._parts.items() if d == dataset), default=0)

    @cached_property
    def datasets(self) -> list[str]:
        """Names of the data sets, sorted."""
        return sorted(self.trials["dataset"].astype(str).unique())

    @remembered
    def in_distribution(self, dataset: str) -> str | None:
        """The split the headline is about: the one the records name, else the first that is no ``train`` or
        ``valid``.
        """
        present = self.splits_of(dataset)
        for record in self._of(dataset):
            named = (record.get("split") or {}).get("in_distribution")
            if named in present:
                return str(named)
        tests = sorted((s for s in present if s not in ("train", "valid", "")), key=natural)
        return tests[0] if tests else ("valid" if "valid" in present else None)

    def test_splits(self, dataset: str) -> list[str]:
        """The test splits with an error, the one in distribution first, then in natural order (300K before
        1000K).
        """
        first = self.in_distribution(dataset)
        rest = sorted(self.splits_of(dataset) - {first, "train", "valid"}, key=natural)
        return [first, *rest] if first is not None else rest

    def _of(self, dataset: str) -> list[dict[str, Any]]:
        return [r for r in self.records if (r.get("identifiers") or {}).get("dataset") == dataset]

    def config(self, dataset: str | None = None) -> list[dict[str, Any]]:
        """The resolved configurations of the trials (of one data set)."""
        records = self.records if dataset is None else self._of(dataset)
        return [record.get("config") or {} for record in records]

    def label_noise(self, dataset: str, name: str) -> float:
        """Error of the labels themselves in a metric, as the data set states it; 0 where it does not."""
        stated = [(config.get("dataset") or {}).get("label_noise") or {} for config in self.config(dataset)]
        return next((float(noise[name]) for noise in stated if name in noise), 0.0)

    def label_seconds(self, dataset: str) -> float | None:
        """What one label costs, s: as configured, else as the file's headers say; None if neither does."""
        stated = [(config.get("dataset") or {}).get("label_seconds") for config in self.config(dataset)]
        return next((float(value) for value in [*stated, *self.split_info(dataset, "label_seconds")] if value), None)

    def split_info(self, dataset: str, key: str) -> list[Any]:
        """What the splits of each trial say of ``key`` (see :class:`mlpbench.datasets.dataset.Dataset`, ``info``)."""
        return [((record.get("split") or {}).get("info") or {}).get(key) for record in self._of(dataset)]

    def predictions(self, trial: str) -> dict[str, Float]:
        """``<split>.energy`` (F,) eV without baseline and ``<split>.forces`` (A, 3) eV/Å; empty where there
        is no file.
        """
        if trial not in self._predictions:
            path = self.root / trial / protocol.PREDICTIONS
            found: dict[str, Float] = {}
            if path.exists():
                with np.load(path, allow_pickle=False) as arrays:
                    found = {name: arrays[name] for name in arrays.files}
            self._predictions[trial] = found
        return self._predictions[trial]

    def frames(self, trial: str, split: str) -> Frames | None:
        """The reference frames of a trial's split; None where they no longer lie in the study's folder."""
        directory = (self.record.get(trial, {}).get("split") or {}).get("directory")
        if directory is None:
            return None
        key = (str(directory), split)
        if key not in self._frames:
            path = self.root / key[0] / f"{split}.npz"
            self._frames[key] = Frames.load(path) if path.exists() else None
        return self._frames[key]

    def errors(self, trial: str, split: str) -> Errors | None:
        """Reference and prediction of one trial on one split; None where either is missing."""
        predicted, frames = self.predictions(trial), self.frames(trial, split)
        if frames is None or f"{split}.energy" not in predicted:
            return None
        return Errors(frames, predicted[f"{split}.energy"], predicted.get(f"{split}.forces"))


@dataclass(frozen=True)
class Errors:
    """One trial's predictions beside the reference; energies without baseline, eV; forces (A, 3) eV/Å or
    None.
    """

    frames: Frames
    energy: Float
    forces: Float | None

    @property
    def per_atom(self) -> Float:
        """(F,) eV/atom, prediction minus reference."""
        return (self.energy - self.frames.target_energy) / self.frames.n_atoms

    @property
    def force(self) -> Float | None:
        """(A, 3) eV/Å, prediction minus reference; None where the data or the potential have no forces."""
        return None if self.forces is None or not self.frames.has_forces else self.forces - self.frames.forces


def natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key that puts ``test_300K`` before ``test_1000K``."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple((0, float(part), "") if index % 2 else (1, 0.0, part) for index, part in enumerate(parts))


def select(table: pd.DataFrame, **equal: Any) -> pd.DataFrame:
    """The rows of ``table`` in which each named column has the given value."""
    mask = np.ones(len(table), dtype=bool)
    for column, value in equal.items():
        mask &= (table[column] == value).to_numpy()
    return table[mask]


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One dictionary for each row."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def unique(values: Sequence[Any]) -> list[Any]:
    """The distinct values that are not missing, in order of first appearance."""
    return list(dict.fromkeys(v for v in values if v is not None and v == v and v != ""))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
