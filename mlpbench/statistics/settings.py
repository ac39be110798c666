"""Settings of a study: what repetitions are repetitions of, and which swept ones are chosen on validation error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlpbench.errors import UserError, close_match

BASE = ("dataset", "architecture", "size", "n_train")
_IDENTIFIERS = {
    "trial", "study", "dataset", "architecture", "size", "backend", "n_train", "n_valid", "repetition", "split_seed",
    "init_seed",
}  # fmt: skip
VALID = "valid"


def swept_columns(trials: pd.DataFrame) -> list[str]:
    """Columns of settings that were given beyond the identifiers, whether they vary or not.

    They stand between the identifiers and ``status``; a name with a dot is one wherever it stands.
    """
    columns = list(trials.columns)
    end = columns.index("status") if "status" in columns else len(columns)
    return [name for i, name in enumerate(columns) if name not in _IDENTIFIERS and (i < end or "." in name)]


def varied_columns(trials: pd.DataFrame) -> list[str]:
    """Swept settings that take more than one value in one architecture of one size."""
    found = {name for _, name in _varied_in(trials)}
    return [name for name in swept_columns(trials) if name in found]


def _varied_in(trials: pd.DataFrame) -> set[tuple[tuple[str, ...], str]]:
    """((dataset, architecture, size), setting) in which the setting takes more than one value."""
    return {
        (tuple(str(k) for k in key), name)
        for key, part in trials.groupby(["dataset", "architecture", "size"])
        for name in swept_columns(trials)
        if part[name].astype(str).nunique() > 1
    }


def setting_labels(trials: pd.DataFrame) -> pd.Series:
    """One readable label a trial, equal for repetitions of one setting: ``mace tiny, N = 200, training.lr=0.01``."""
    varied = _varied_in(trials)
    names = [name for name in swept_columns(trials) if any(name == other for _, other in varied)]
    several = trials["dataset"].nunique() > 1

    def label(dataset: str, architecture: str, size: str, n_train: int, *values: object) -> str:
        start, place = f"{dataset}: " if several else "", (dataset, architecture, size)
        given = zip(names, values, strict=True)
        rest = "".join(f", {name}={_short(value)}" for name, value in given if (place, name) in varied)
        return f"{start}{architecture} {size}, N = {n_train}{rest}"

    columns = [trials[name].astype(str) for name in BASE[:3]] + [trials[name] for name in (BASE[3], *names)]
    return pd.Series([label(*row) for row in zip(*columns, strict=True)], index=trials.index, dtype=object)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Choice:
    """The setting of one data set, architecture, size and n_train that validation error chose.

    Attributes:
        group: dataset, architecture, size, n_train.
        setting: label of the chosen setting (see :func:`setting_labels`).
        values: swept column -> chosen value.
        valid_error: its validation error, geometric mean over repetitions.
        tuning_settings: settings tried.
        tuning_trials: trials spent on them.
        tuning_seconds: their training time in all; NaN where it is not recorded.
    """

    group: tuple[object, ...]
    setting: str
    values: dict[str, object]
    valid_error: float
    tuning_settings: int
    tuning_trials: int
    tuning_seconds: float


def choose(trials: pd.DataFrame, metrics: pd.DataFrame, metric: str = "force_mae") -> list[Choice]:
    """Choose among swept settings by the error on validation frames; test frames have no say.

    The error is the geometric mean over the repetitions that all settings of the group have in common (all of a
    setting's own, if there are none in common), so that no setting profits from an easy split.

    Args:
        trials: one row a trial.
        metrics: long table; rows with split ``valid`` are used.
        metric: whose validation error decides; smaller is better.

    Raises:
        UserError: several settings were tried, and none has this metric on validation frames.
    """
    table = trials.assign(setting=setting_labels(trials))
    valid = metrics[(metrics["metric"] == metric) & (metrics["split"] == VALID)]
    scores = table.merge(valid[["trial", "value"]].dropna(), on="trial")
    scores = scores[scores["status"] == "done"][[*BASE, "setting", "repetition", "value"]]
    scored = dict(list(scores.groupby(list(BASE), sort=False)))
    varied, found = varied_columns(trials), []
    columns = ["setting", "architecture", *varied, *(["train_seconds"] if "train_seconds" in table else [])]
    for group, part in table[list(dict.fromkeys([*BASE, *columns]))].groupby(list(BASE), sort=False):
        names = list(dict.fromkeys(part["setting"]))
        mine = scored.get(group, scores.iloc[:0])
        if len(names) > 1 and mine.empty:
            known = set(metrics.loc[metrics["split"] == VALID, "metric"])
            raise UserError(
                f"{part['architecture'].iloc[0]} was run with {len(names)} settings, but none has {metric} on "
                "validation frames to choose by", close_match(metric, known),
            )  # fmt: skip
        best, error = _best(mine) if len(mine) else (names[0], float("nan"))
        row = part[part["setting"] == best].iloc[0]
        seconds = part["train_seconds"].astype(float).sum(min_count=1) if "train_seconds" in part else np.nan
        values = {name: row[name] for name in varied}
        found.append(Choice(group, best, values, error, len(names), len(part), float(seconds)))
    return found


def _best(scores: pd.DataFrame) -> tuple[str, float]:
    wide = scores.pivot_table(index="repetition", columns="setting", values="value", sort=False)
    common = wide.dropna()
    logs = np.log((common if len(common) else wide).to_numpy(dtype=float))
    means = np.nanmean(logs, axis=0)
    best = int(np.argmin(means))
    return str(wide.columns[best]), float(np.exp(means[best]))


def chosen_trials(trials: pd.DataFrame, choices: Sequence[Choice]) -> pd.DataFrame:
    """The trials of the chosen settings, with their label in ``setting``."""
    table = trials.assign(setting=setting_labels(trials))
    return table[table["setting"].isin([choice.setting for choice in choices])]
