"""A study's tables: as files for other programs, and for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
from pandas.api.types import infer_dtype
from pyarrow import csv

from mlpbench.errors import UserError, close_match
from mlpbench.files import locked
from mlpbench.metrics import is_linear, metric
from mlpbench.numbers import number
from mlpbench.protocol import replacing
from mlpbench.statistics.intervals import intervals
from mlpbench.study.means import worst
from mlpbench.study.rows import IDENTIFIERS, setting_labels
from mlpbench.study.study import Study

MANY = 20_000  # rows
TRIALS, METRICS, WIDE, SPEED = "trials", "metrics", "metrics_wide", "speed"
SHOWN = (
    "energy_mae", "energy_mae_total", "force_mae", "force_rmse", "stress_mae", "frequency_mae", "md_survival",
    "own_trajectory_force_mae", "us_per_atom", "speedup_vs_reference", "train_seconds", "train_peak_memory",
)  # fmt: skip
SPEEDS = ("us_per_atom", "ms_per_md_step", "ns_per_day", "prepare_seconds", "peak_memory", "timing_noise",
          "engine_overhead", "engine_energy_difference")  # fmt: skip
PATH = ["dataset", "architecture", "size", "engine", "deployment", "means", "dtype", "tf32", "ranks"]


def write(study: Study) -> None:
    """Write the study's tables into its folder as parquet and CSV, each atomically; the speed table where there is one.

    ``trials`` has one row a trial, with its settings and main errors; ``metrics`` one row a trial, split and metric;
    ``metrics_wide`` the same values with a row a trial, for a spreadsheet.
    """
    tables = {TRIALS: study.trials, METRICS: study.metrics}
    if len(study.metrics):
        tables[WIDE] = wide(study.metrics)
    if len(study.speed):
        tables[SPEED] = study.speed
    with locked(study.root / ".tables.lock"):
        for name, table in tables.items():
            _replace(study.root / f"{name}.csv", partial(write_csv, table))
            _replace(study.root / f"{name}.parquet", partial(one_type_a_column(table).to_parquet, index=False))


def wide(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row a trial, one column a split and metric, headed ``split metric (unit)``; empty where a trial has none.

    Args:
        metrics: the long table, :attr:`mlpbench.study.Study.metrics`.
    """
    names = [name for name in ("trial", *IDENTIFIERS) if name in metrics.columns]
    columns = (metrics[name].fillna("") for name in ("split", "metric", "unit"))
    heads = [
        f"{split} {name}".strip() + (f" ({unit})" if unit else "") for split, name, unit in zip(*columns, strict=True)
    ]
    values = metrics.assign(head=heads).pivot_table("value", "trial", "head", aggfunc="first", sort=False)
    first = metrics.drop_duplicates("trial")[names].set_index("trial", drop=False)
    joined: pd.DataFrame = first.join(values).reset_index(drop=True)
    return joined


def one_type_a_column(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns as text that hold values of several types, which Parquet has no column for.

    So is a setting like ``budget.steps`` where one trial has a number and another is trained until it converges.
    """
    written = table.copy(deep=False)
    for name in table.select_dtypes(object).columns:
        if infer_dtype(table[name], skipna=True) in ("mixed", "mixed-integer"):  # fast; lists are mixed to it as well
            there = table[name].notna()
            if len({type(value) for value in table[name][there]}) > 1:
                written[name] = [str(value) if known else None for value, known in zip(table[name], there, strict=True)]
    return written


def _replace(path: Path, write_to: Callable[[Path], None]) -> None:
    with replacing(path) as part:
        write_to(part)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """As pandas writes it, but each column of a long table at once as text: pandas takes ten times as long."""
    texts = [name for name in table if table[name].dtype == object]
    if len(table) < MANY or any(infer_dtype(table[name], skipna=False) != "string" for name in texts):
        table.to_csv(path, index=False)
        return
    options = csv.WriteOptions(include_header=False, quoting_style="needed")
    with path.open("wb") as file:
        file.write((",".join(table.columns) + "\n").encode())
        csv.write_csv(pyarrow.Table.from_pandas(table, preserve_index=False), file, options)


def settings_table(study: Study, split: str | None = None, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Every setting at every training size as a row, metrics as columns with their unit in the header.

    A value is the mean over the repetitions, geometric except for shares and R², as everywhere; behind it stands the
    standard deviation over them, where there are several. Of a metric with several values in a trial (temperatures,
    scans) the worst counts, as in ``mlpbench select``. Where settings were tried, the column ``chosen`` marks those
    that validation error chose.

    Args:
        study: the study.
        split: test split of the errors; None: for each data set the one in distribution.
        names: metrics to show; None: those of :data:`SHOWN` that the study has.

    Raises:
        UserError: no such split or metric in this study; has the close match.
    """
    _known_split(study, split)
    own = {dataset: split or study.in_distribution(dataset) for dataset in study.datasets}
    metrics = study.metrics
    here = (metrics["split"] == metrics["dataset"].map(own)) | ~metrics["split"].isin(_error_splits(study))
    present = set(metrics.loc[here, "metric"])
    for name in names or ():
        metric(name)
        if name not in present:
            where = f" on {split}" if split else ""
            raise UserError(f"this study has no '{name}'{where}", f"It has: {', '.join(sorted(present))}")
    shown = [name for name in (names or SHOWN) if name in present]
    trials = study.trials[~study.trials["superseded"]]
    trials = trials.assign(label=setting_labels(trials, data=True))
    done = trials.loc[(trials["status"] == "done") & trials["counts_as"].notna(), ["trial", "label"]]
    values = metrics[here & metrics["metric"].isin(shown)][["trial", "metric", "split", "value"]].dropna()
    cells = {key: worst(part, str(key[1])) for key, part in values.merge(done, on="trial").groupby(["label", "metric"])}
    rows = []
    for label, part in trials.groupby("label", sort=False):
        first = part.iloc[0]
        row: dict[str, object] = {"dataset": first["dataset"], "candidate": first["name"], "n_train": first["n_train"]}
        row |= {"setting": first["setting"], "chosen": "*" if first["chosen"] else "", "trials": _statuses(part)}
        for name in shown:
            values_of = cells.get((label, name))
            row[_head(name)] = "" if values_of is None else _mean(values_of, is_linear(name))
        rows.append(row)
    table = pd.DataFrame(rows)
    drop = [] if table["setting"].any() else ["setting"]
    drop += [] if study.tuned else ["chosen"]
    return table.drop(columns=[*drop, *(["dataset"] if len(study.datasets) == 1 else [])])


def _known_split(study: Study, split: str | None) -> None:
    splits = sorted({s for dataset in study.datasets for s in study.splits_of(dataset)} - {"train"})
    if split is not None and split not in splits:
        raise UserError(f"no split '{split}' in this study", close_match(split, splits))


def _error_splits(study: Study) -> list[str]:
    """Splits of frames with labels; a metric's other splits (temperatures, scans) are no choice of test frames."""
    accuracy = [name for name in study.metric_names if metric(name).group == "accuracy"]
    return sorted({str(s) for s in study.metrics.loc[study.metrics["metric"].isin(accuracy), "split"]} - {""})


def _head(name: str) -> str:
    unit = metric(name).unit
    return f"{name} / {unit}" if unit else name


def _statuses(part: pd.DataFrame) -> str:
    counts = part["status"].value_counts()
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _mean(rows: pd.DataFrame, linear: bool) -> str:
    """Mean and standard deviation over repetitions."""
    values = rows["value"].to_numpy(dtype=float)
    mean = intervals([values], scale="linear" if linear else None)[0]
    if len(values) < 2:
        return number(mean.value)
    spread = float(np.log(values).std(ddof=1) * mean.value) if mean.scale == "log" else float(values.std(ddof=1))
    low, high = mean.value - spread, mean.value + spread
    return f"{number(mean.value, low, high)} ± {number(spread, low, high)}" if spread > 0 else number(mean.value)


def speeds(table: pd.DataFrame) -> pd.DataFrame:
    """Paths of each potential as rows, speed metrics as columns; what did not run has its reason as remark.

    Args:
        table: the speed table, :attr:`mlpbench.study.Study.speed`; means over its trials.
    """
    rows = []
    for key, part in table.groupby(PATH, sort=False):
        row: dict[str, object] = dict(zip(PATH, key, strict=True))
        for name in SPEEDS:
            values = part.loc[part["metric"] == name, ["value"]].astype({"value": float})
            if len(values):
                row[_head(name)] = _mean(values, linear=False)
        said = [*part["reason"], *(f"busy machine: {notice}" for notice in part["notice"] if notice)]
        rows.append({**row, "remark": next((str(text) for text in said if text), "")})
    wide = pd.DataFrame(rows)
    return wide[[*(c for c in wide.columns if c != "remark"), "remark"]].fillna("")
