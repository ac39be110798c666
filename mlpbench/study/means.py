"""Means over repetitions: the one place where the numbers of tables, decisions and figures come from."""

from __future__ import annotations

import pandas as pd

from mlpbench.metrics import is_linear, metric
from mlpbench.statistics.intervals import MeanInterval, intervals
from mlpbench.study.study import Study, remembered

LABELS = "labels"  # training and validation frames: a column of the trials, not a metric
Means = dict[tuple[str, int], MeanInterval]  # (name of the line, training frames) -> mean


def direction(name: str) -> str:
    """``lower`` or ``higher``, which is better (``none``: neither)."""
    return "lower" if name == LABELS else str(metric(name).direction)


def worst_end(name: str) -> str:
    """``max`` or ``min``: which of several values of a metric is its worst."""
    return "min" if direction(name) == "higher" else "max"


def worst(rows: pd.DataFrame, name: str, end: str | None = None) -> pd.DataFrame:
    """One row for each trial: of several values (temperatures, scans) the worst.

    Args:
        rows: of one metric, with ``trial`` and ``value``.
        name: of the metric.
        end: ``max`` or ``min``; None: what is worse for this metric.
    """
    ascending = (end or worst_end(name)) == "min"
    return rows.sort_values("value", ascending=ascending, kind="stable").drop_duplicates("trial")


@remembered
def rows_by_trial(study: Study, dataset: str, name: str, split: str | None, end: str) -> pd.DataFrame:
    """One row for each finished trial of a candidate.

    Its columns are ``trial, candidate, n_train, repetition, at_rest, value, lower, upper, n``.

    Args:
        study: the study.
        dataset: one of it.
        name: metric, or ``labels``.
        split: rows of this split if the metric has any there; an error must have; of another metric the worst of its
            splits counts otherwise.
        end: ``max`` or ``min``, which value is the worst.
    """
    columns = ["trial", "candidate", "n_train", "repetition", "at_rest", "value", "lower", "upper", "n"]
    if name == LABELS:
        table = study.table[(study.table["dataset"] == dataset) & (study.table["status"] == "done")]
        table = table.dropna(subset=["repetition"])
        labels = (table["n_train"] + table["n_valid"]).astype(float)
        return table.assign(value=labels, lower=float("nan"), upper=float("nan"), n=1)[columns]
    here = study.part(dataset, name, split) if split is not None else study.values.iloc[:0]
    if here.empty and metric(name).group != "accuracy":
        parts = [study.part(dataset, name, other) for other in study.splits_with(dataset, name)]
        here = pd.concat(parts) if parts else here
    return worst(here.dropna(subset=["value"]), name, end)[columns]


def means_of(rows: pd.DataFrame, name: str) -> Means:
    """(line, n_train) -> mean over repetitions, in the order of the rows.

    The variance over repetitions is pooled over training sizes and lines where they may share it: three repetitions
    alone say little about it.

    Args:
        rows: ``candidate, n_train, repetition, value``, one a trial.
        name: of the metric; see :func:`mlpbench.metrics.is_linear`.
    """
    rows = rows.dropna(subset=["value"])
    if rows.empty:
        return {}
    wide = rows.pivot_table(index="repetition", columns=["candidate", "n_train"], values="value", sort=False)
    keys = [(str(key[0]), int(str(key[1]))) for key in wide.columns.tolist()]
    columns, scale = [wide[key].to_numpy() for key in wide], "linear" if is_linear(name) else None
    means = intervals(columns, groups=[line for line, _ in keys], scale=scale)
    return dict(zip(keys, means, strict=True))
