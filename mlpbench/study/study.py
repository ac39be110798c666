"""A study: its trials, settings and numbers as data frames, read once, worked out on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlpbench import protocol
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Float, Frames
from mlpbench.metrics import HEADLINE, headline
from mlpbench.records import RECORD, iterate, load_curve, usable
from mlpbench.statistics.paired import MARGIN
from mlpbench.study.candidates import Candidate, choose
from mlpbench.study.difference import current
from mlpbench.study.rows import Rows, natural, speed_frame
from mlpbench.study.settings import Setting

VALID = "valid"
_NO_TEST = ("train", VALID, "")


def remembered[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Keeps what ``function(study, *hashable arguments)`` returned with the study: sections ask the same questions."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returned before, or returns now."""
        study: Any = args[0]
        key = (function.__module__, function.__name__, args[1:], tuple(sorted(kwargs.items())))
        if key not in study.memory:
            study.memory[key] = function(*args, **kwargs)
        result: R = study.memory[key]
        return result

    return wrapper


class Study:
    """The results of one study; the only thing that tables, decisions, comparisons and reports are made from.

    Attributes:
        name: of the study.
        root: its folder, ``results/<study>``.
        margin: relative difference that does not matter: of a tie.
        records: the content of each ``record.json`` without ``metrics`` and without the training curve, see
            :meth:`curve`. What many have in common is held once: leave it as it is.
    """

    def __init__(self, name: str, root: Path, records: Iterable[dict[str, Any]], margin: float = MARGIN) -> None:
        self.name, self.root, self.margin = name, root, margin
        self._rows = Rows(records)
        self.records = self._rows.records
        self.memory: dict[tuple[Any, ...], Any] = {}

    @classmethod
    def load(cls, name: str, results: Path, margin: float = MARGIN) -> Study:
        """The study ``name`` from its records as they are now; one that cannot be read is named and left out.

        Args:
            name: of the study.
            results: folder of the results.
            margin: relative difference that does not matter.

        Raises:
            UserError: there is no such study (the message has the close match), or none of its records can be read.
        """
        root = find_study(name, results)
        return cls(name, root, current(iterate(root)), margin)

    @cached_property
    def _tables(self) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Setting]]:
        return self._rows.tables()

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row for each trial; see :meth:`mlpbench.study.rows.Rows.tables`; ``chosen``: of a candidate."""
        mine = {trial for candidate in self.candidates for trial in candidate.trials}
        table = self._tables[0]
        return table.assign(chosen=table["trial"].isin(mine)) if len(table) else table

    @property
    def metrics(self) -> pd.DataFrame:
        """Long table of metric values, one row for each trial, split and metric."""
        return self._tables[1]

    @property
    def setting(self) -> dict[str, Setting]:
        """Trial -> its setting."""
        return self._tables[2]

    @cached_property
    def scores(self) -> dict[str, dict[tuple[str, str], float]]:
        """Trial -> (metric, split) -> value."""
        return self._rows.scores()

    @property
    def margin_words(self) -> str:
        """The margin as a reader wants it, e.g. ``5 %``."""
        return f"{100 * self.margin:g} %"

    @cached_property
    def record(self) -> dict[str, dict[str, Any]]:
        """Trial name -> record."""
        return {str(record["trial"]): record for record in self.records}

    def curve(self, trial: str) -> list[dict[str, Any]]:
        """The training curve of a trial, one entry for each validation; empty where it has none."""
        return load_curve(self.root / trial)

    @cached_property
    def speed(self) -> pd.DataFrame:
        """The speed table of the trials that are done; see :func:`mlpbench.study.rows.speed_frame`."""
        return speed_frame(record for record in self.records if usable(record))

    @cached_property
    def candidates(self) -> list[Candidate]:
        """The setting that validation error chose, for each data set, architecture, size and number of training frames.

        Every table, figure, decision and comparison takes these and no others.
        """
        trials = self._tables[0]
        if trials.empty:
            return []
        measured = self.metrics[self.metrics["metric"].isin(HEADLINE) & (self.metrics["split"] == VALID)]
        valid: dict[str, float] = {}
        for _, part in measured.groupby("dataset"):
            main = part[part["metric"] == headline(set(part["metric"]))].dropna(subset=["value"])
            valid |= dict(zip(main["trial"], main["value"], strict=True))
        return choose(trials[trials["member"].isna()], self.setting, valid)

    def candidates_of(self, dataset: str) -> list[Candidate]:
        """The candidates of one data set."""
        return [candidate for candidate in self.candidates if candidate.dataset == dataset]

    def lines(self, dataset: str) -> list[str]:
        """Names of the lines of a data set (architecture, and size where there are several), each once."""
        return list(dict.fromkeys(candidate.name for candidate in self.candidates_of(dataset)))

    def candidate(self, dataset: str, line: str, n_train: int) -> Candidate:
        """The candidate of a line at one number of training frames.

        Raises:
            KeyError: there is none.
        """
        return self._candidate[dataset, line, n_train]

    @cached_property
    def _candidate(self) -> dict[tuple[str, str, int], Candidate]:
        return {(one.dataset, one.name, one.n_train): one for one in self.candidates}

    @property
    def tuned(self) -> bool:
        """Whether any candidate was chosen among several settings."""
        return any(candidate.tried > 1 for candidate in self.candidates)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The trials of the candidates: ``candidate`` is the name of their line, ``repetition`` what each counts as
        (missing where it shares a seed with another).
        """
        if self.trials.empty:
            return self.trials.assign(candidate=[])
        chosen = self.trials[self.trials["chosen"]].reset_index(drop=True)
        return chosen.assign(candidate=chosen["name"], repetition=_whole(chosen["counts_as"]))

    @cached_property
    def values(self) -> pd.DataFrame:
        """The metrics of :attr:`table`'s trials that are done, with ``candidate`` and ``repetition``."""
        columns = ["trial", "candidate", "at_rest", "converged", "repetition"]
        done = self.table.loc[self.table["status"] == "done", columns] if len(self.table) else self.table[columns[:1]]
        return self.metrics.drop(columns="repetition").merge(done, on="trial", how="inner")

    @cached_property
    def _parts(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """``values`` cut up once: filtering a long table again and again is what takes time in a large study."""
        values = self.values
        if values["repetition"].isna().any():
            values = values.dropna(subset=["repetition"])
            values = values.assign(repetition=_whole(values["repetition"]))
        groups = values.groupby(["dataset", "metric", "split"], dropna=False)
        return {(str(d), str(m), str(s)): part for (d, m, s), part in groups}

    def part(self, dataset: str, metric: str, split: str) -> pd.DataFrame:
        """The rows of ``values`` of one data set, metric and split; empty where there are none.

        Of trials with crossed seeds only those that count as repetitions (see
        :func:`mlpbench.statistics.variance.independent_repetitions`).
        """
        return self._parts.get((dataset, metric, split), self.values.iloc[:0])

    @cached_property
    def metric_names(self) -> list[str]:
        """Names of the metrics the study has, sorted."""
        return sorted(str(name) for name in self.metrics["metric"].unique())

    def metrics_of(self, dataset: str, split: str | None = None) -> set[str]:
        """Names of the metrics that finished trials have on a data set (on one of its splits)."""
        return {m for d, m, s in self._parts if d == dataset and split in (None, s)}

    def splits_with(self, dataset: str, metric: str) -> list[str]:
        """Splits (or temperatures, scans) other than ``train`` and ``valid`` on which finished trials have a metric."""
        return sorted(s for d, m, s in self._parts if d == dataset and m == metric and s not in ("train", VALID))

    def headline(self, dataset: str) -> str:
        """The metric that rankings go by: the force error, or the energy error where the data have no forces."""
        return headline(self.metrics_of(dataset))

    def splits_of(self, dataset: str) -> set[str]:
        """Splits on which finished trials of a data set have an error."""
        return {s for d, m, s in self._parts if d == dataset and m in HEADLINE}

    def largest(self, dataset: str) -> int:
        """The largest number of training frames that a finished trial of the data set had."""
        return max((int(p["n_train"].max()) for (d, _, _), p in self._parts.items() if d == dataset), default=0)

    @cached_property
    def datasets(self) -> list[str]:
        """Names of the data sets, sorted."""
        return sorted(self.trials["dataset"].astype(str).unique()) if len(self.trials) else []

    @remembered
    def in_distribution(self, dataset: str) -> str | None:
        """The split the headline is about: the one the records name, else the first that is no ``train`` or ``valid``,
        the hardest of those.
        """
        present = self.splits_of(dataset)
        for record in self._of(dataset):
            named = (record.get("split") or {}).get("in_distribution")
            if named in present:
                return str(named)
        tests = sorted((s for s in present if s not in _NO_TEST), key=natural)
        return tests[0] if tests else (VALID if VALID in present else None)

    def test_splits(self, dataset: str) -> list[str]:
        """The test splits with an error, the one in distribution first, then in natural order (300K before 1000K)."""
        first = self.in_distribution(dataset)
        rest = sorted(self.splits_of(dataset) - {first, *_NO_TEST}, key=natural)
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

    def pool(self, dataset: str) -> int | None:
        """Frames that there are to train and validate with, as the manifest of a split says; None where it is gone."""
        for directory in unique([(record.get("split") or {}).get("directory") for record in self._of(dataset)]):
            path = self.root / str(directory) / "manifest.json"
            if path.is_file():
                frames = protocol.read_json(path).get("pool_frames")
                return None if frames is None else int(frames)
        return None

    def split_info(self, dataset: str, key: str) -> list[Any]:
        """What the splits of each trial say of ``key`` (see :class:`mlpbench.datasets.dataset.Dataset`, ``info``)."""
        return [((record.get("split") or {}).get("info") or {}).get(key) for record in self._of(dataset)]

    @remembered
    def predictions(self, trial: str) -> Mapping[str, Float]:
        """``<split>.energy`` (F,) eV without baseline and ``<split>.forces`` (A, 3) eV/Å; empty without a file."""
        path = self.root / trial / protocol.PREDICTIONS
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    @remembered
    def _frames(self, directory: str, split: str) -> Frames | None:
        path = self.root / directory / f"{split}.npz"
        return Frames.load(path) if path.exists() else None

    def frames(self, trial: str, split: str) -> Frames | None:
        """The reference frames of a trial's split; None where they no longer lie in the study's folder."""
        directory = (self.record.get(trial, {}).get("split") or {}).get("directory")
        return None if directory is None else self._frames(str(directory), split)

    def errors(self, trial: str, split: str) -> Errors | None:
        """Reference and prediction of one trial on one split; None where either is missing."""
        predicted, frames = self.predictions(trial), self.frames(trial, split)
        if frames is None or f"{split}.energy" not in predicted:
            return None
        return Errors(frames, predicted[f"{split}.energy"], predicted.get(f"{split}.forces"))


@dataclass(frozen=True)
class Errors:
    """One trial's predictions beside the reference; energies without baseline, eV; forces (A, 3) eV/Å or None."""

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


def load_study(name: str, results: str | Path = "results", margin: float = 0.05) -> Study:
    """The study ``name`` below ``results``: its trials, metrics and settings as data frames.

    Args:
        name: of the study.
        results: folder of the studies.
        margin: relative difference of two errors that counts as a tie.

    Raises:
        UserError: there is none, or none of its records can be read.
    """
    return Study.load(name, Path(results), margin)


def find_study(name: str, results: Path) -> Path:
    """The folder of a study.

    Raises:
        UserError: there is none of that name with a record in it.
    """
    root = results / name
    if root.is_dir() and any(root.glob(f"*/{RECORD}")):
        return root
    known = [path.parent.parent.name for path in results.glob(f"*/*/{RECORD}")] if results.is_dir() else []
    advice = close_match(name, known) if known else f"None has results there yet. Make one: mlpbench run study={name}"
    raise UserError(f"there is no study '{name}' in {results}", advice)


def select(table: pd.DataFrame, **equal: Any) -> pd.DataFrame:
    """The rows of ``table`` in which each named column has the given value."""
    mask = np.ones(len(table), dtype=bool)
    for column, value in equal.items():
        mask &= (table[column] == value).to_numpy(dtype=bool)
    return table[mask]


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One dictionary for each row."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def unique(values: Sequence[Any]) -> list[Any]:
    """The distinct values that are not missing, in order of first appearance."""
    return list(dict.fromkeys(v for v in values if v is not None and v == v and v != ""))


def _whole(numbers: pd.Series) -> pd.Series:
    """Nullable integers as plain ones where none is missing: pandas is ten times faster with these."""
    return numbers if numbers.isna().any() else numbers.astype(int)
