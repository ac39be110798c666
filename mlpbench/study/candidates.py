"""Candidates: of the settings tried on one data set, which the validation error chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlpbench.study.settings import PLACE, Setting


@dataclass(frozen=True)
class Tried:
    """A setting that was tried at one training size.

    Attributes:
        label: of the setting.
        valid_error: geometric mean over the repetitions that the settings have in common; NaN where there is none.
        trials: trials spent on it, shorter budgets of a ladder included.
        done: of those that count, how many are done.
    """

    label: str
    valid_error: float
    trials: int
    done: int


@dataclass(frozen=True)
class Candidate:
    """The setting of a line that validation error chose at one number of training frames.

    Attributes:
        dataset: name.
        architecture: name, as in ``conf/architecture``.
        size: of the architecture.
        start: of the training: ``scratch``, or the study of the potential that it is fine-tuned from.
        acquisition: how the training frames were chosen: ``random``, or the name of an acquisition.
        n_train: training frames.
        setting: the chosen one.
        name: of its line, as in tables and figures, e.g. ``MACE``, ``MACE small`` or ``MACE (from pretrain)``.
        trials: of the setting at this training size, whatever became of them; of a ladder of budgets the longest.
        settings: every setting that was tried at this training size, the chosen one included.
        tuning_seconds: their training time in all; NaN where it is not recorded.
    """

    dataset: str
    architecture: str
    size: str
    start: str
    acquisition: str
    n_train: int
    setting: Setting
    name: str
    trials: tuple[str, ...]
    settings: tuple[Tried, ...]
    tuning_seconds: float

    @property
    def tried(self) -> int:
        """How many settings were tried."""
        return len(self.settings)

    @property
    def tuning_trials(self) -> int:
        """Trials spent on them."""
        return sum(one.trials for one in self.settings)

    @property
    def valid_error(self) -> float:
        """By which it was chosen; NaN where no trial has one."""
        return next(one.valid_error for one in self.settings if one.label == self.setting.label)

    @property
    def label(self) -> str:
        """Readable and unique within a data set, e.g. ``MACE, N = 200, lr=0.01``."""
        return candidate_label(self.name, self.n_train, self.setting.label)


def candidate_label(name: str, n_train: int, setting: str) -> str:
    """Line, training frames, and what its setting differs in."""
    return f"{name}, N = {n_train}{', ' if setting else ''}{setting}"


def choose(trials: pd.DataFrame, settings: Mapping[str, Setting], valid: Mapping[str, float]) -> list[Candidate]:
    """For each line and training size the setting with the lowest validation error; test frames have no say.

    The error is the geometric mean over the repetitions that all settings with results have in common (all of a
    setting's own, if there are none in common), so that no setting profits from an easy split. Where no trial has a
    validation error, the setting with the most finished trials is taken, the first of them.

    Args:
        trials: one row a trial: ``trial``, :data:`PLACE`, ``name``, ``setting`` (label), ``status``, ``counts_as``
            (missing: does not count), ``train_seconds``, ``superseded``.
        settings: trial -> setting.
        valid: trial -> validation error, smaller is better.
    """
    columns = ["trial", *PLACE, "name", "setting", "status", "counts_as", "train_seconds", "superseded"]
    rows = trials[columns].assign(error=trials["trial"].map(valid))
    rows.loc[rows["status"] != "done", "error"] = np.nan
    candidates = []
    for _, part in rows.groupby(list(PLACE), sort=False):
        current = part[~part["superseded"]]
        labels = list(dict.fromkeys(current["setting"]))
        best, errors = _best(current, labels)
        spent, done = part["setting"].value_counts(), current.loc[current["status"] == "done", "setting"].value_counts()
        tried = [Tried(name, errors.get(name, np.nan), int(spent[name]), int(done.get(name, 0))) for name in labels]
        mine = current[current["setting"] == best]
        head = mine.iloc[0]
        candidates.append(
            Candidate(
                head["dataset"], head["architecture"], head["size"], head["start"], head["acquisition"],
                int(head["n_train"]),
                settings[head["trial"]], head["name"], tuple(mine["trial"]), tuple(tried),
                float(part["train_seconds"].astype(float).sum(min_count=1)),
            )
        )  # fmt: skip
    return candidates


def _best(rows: pd.DataFrame, labels: Sequence[str]) -> tuple[str, dict[str, float]]:
    """The label to take, and the error of each that has one."""
    scored = rows[rows["error"].gt(0) & rows["counts_as"].notna()]
    if scored.empty:
        done = rows.loc[rows["status"] == "done", "setting"].value_counts()
        return max(labels, key=lambda label: done.get(label, 0)), {}
    if len(labels) == 1:
        return labels[0], {labels[0]: float(np.exp(np.log(scored["error"].to_numpy(dtype=float)).mean()))}
    wide = scored.pivot_table(index="counts_as", columns="setting", values="error", sort=False)
    common = wide.dropna()
    means = np.exp(np.nanmean(np.log((common if len(common) else wide).to_numpy(dtype=float)), axis=0))
    errors = {str(name): float(error) for name, error in zip(wide.columns, means, strict=True)}
    return min(errors, key=lambda name: errors[name]), errors
