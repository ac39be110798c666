"""What the tables say about each candidate and metric: a mean over repetitions, and the chance to keep a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from mlpbench.decision.commands import Overrides, overrides_of_trial
from mlpbench.decision.model import Check, Constraint
from mlpbench.metrics import metric as find_metric
from mlpbench.statistics.intervals import MeanInterval, intervals, probability_below

Float = npt.NDArray[np.float64]
LABELS = "labels"  # training and validation frames: a column of the trials, not a metric
CLEAR = 0.95
_MOST = 100


@dataclass(frozen=True)
class Evidence:
    """One candidate's values of one metric.

    Attributes:
        mean: over repetitions.
        frame_se: standard error from the test frames (or timing repeats, or MD replicas) of one trial, on the scale of
            the mean; 0 where the table has no interval.
        shared: the frames are the same in all repetitions, so that more repetitions do not reduce their part.
        replicas: MD replicas in all repetitions together, for a share such as survival; 0 otherwise.
    """

    mean: MeanInterval
    frame_se: float
    shared: bool
    replicas: float = 0.0


def direction(name: str) -> str:
    """``lower`` or ``higher``, which is better."""
    return "lower" if name == LABELS else str(find_metric(name).direction)


def goal_worst(name: str) -> str:
    """``max`` or ``min``: which of several values of a metric is its worst."""
    return "min" if direction(name) == "higher" else "max"


def unit(name: str) -> str:
    """Unit of a metric or of ``labels``."""
    return "frames" if name == LABELS else find_metric(name).unit


def by_trial(trials: pd.DataFrame, metrics: pd.DataFrame, name: str, split: str | None, worst: str) -> pd.DataFrame:
    """One row a trial: ``setting, repetition, value, lower, upper, n``, and ``architecture, size, at_rest`` if known.

    Args:
        trials: with ``setting``; only trials that are done.
        metrics: long table.
        name: metric, or ``labels``.
        split: rows of this split if the metric has any there; else the worst of its splits.
        worst: ``max`` or ``min``, which value is the worst.
    """
    if name == LABELS:
        table = trials[["trial", "setting", "repetition"]].copy()
        labels = (trials["n_train"] + trials["n_valid"]).astype(float)
        return table.assign(value=labels, lower=np.nan, upper=np.nan, n=1)
    rows = metrics[(metrics["metric"] == name) & metrics["value"].notna()]
    here = rows[rows["split"] == split]
    if len(here) or find_metric(name).group == "accuracy":
        rows = here
    rows = rows[~rows["split"].isin(["train", "valid"])] if split not in ("train", "valid") else rows
    rows = rows.sort_values("value", ascending=worst == "min").drop_duplicates("trial")
    columns = ["trial", "value", "lower", "upper", "n"]
    known = [name for name in ("architecture", "size", "at_rest") if name in trials]
    return trials[["trial", "setting", "repetition", *known]].merge(rows[columns], on="trial")


def gather(rows: pd.DataFrame, name: str) -> dict[str, Evidence]:
    """Setting -> :class:`Evidence`, from :func:`by_trial`'s rows; the variance is pooled where it may be."""
    if rows.empty:
        return {}
    wide = rows.pivot_table(index="repetition", columns="setting", values="value", sort=False)
    share = name.endswith("survival")
    linear = share or name.endswith("_r2") or not bool((rows["value"] > 0).all())
    groups = list(wide)
    if "architecture" in rows:  # what makes an architecture noisy makes it so at every training size
        of = dict(zip(rows["setting"], rows["architecture"] + " " + rows.get("size", ""), strict=True))
        groups = [of[key] for key in wide]
    means = intervals([wide[key].to_numpy() for key in wide], groups=groups, scale="linear" if linear else "log")
    shared = name != LABELS and find_metric(name).group == "accuracy"
    found = {}
    for key, mean in zip(wide.columns, means, strict=True):
        part = rows[rows["setting"] == key]
        ends = part[["lower", "upper"]].to_numpy(dtype=float)
        if not linear:
            ends = np.log(np.where(ends > 0, ends, np.nan))
        width = ends[:, 1] - ends[:, 0]
        se = float(np.nanmean(width) / (2 * stats.norm.isf(0.025))) if np.isfinite(width).any() else 0.0
        replicas = float(part["n"].astype(float).sum()) if share else 0.0
        found[str(key)] = Evidence(mean, se, shared, replicas)
    return found


@dataclass
class Table:
    """The trials of one data set, and the evidence in its metrics, computed once for each metric."""

    study: str
    trials: pd.DataFrame
    metrics: pd.DataFrame
    split: str | None
    swept: list[str]
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pool: int | None = None

    def __post_init__(self) -> None:
        self._rows: dict[tuple[str, str | None, str], pd.DataFrame] = {}
        self._evidence: dict[tuple[str, str | None, str], dict[str, Evidence]] = {}

    def parts(self) -> list[pd.DataFrame]:
        """The trials of each setting."""
        return [part for _, part in self.trials.groupby("setting", sort=False)]

    def overrides(self, setting: str) -> Overrides:
        """What makes a trial of ``setting``, but for its repetition."""
        return self.overrides_of(self._trial(setting))

    def config(self, setting: str) -> Mapping[str, Any]:
        """The resolved configuration of a trial of ``setting``; empty where it is not known."""
        return self.configs.get(str(self._trial(setting)["trial"]), {})

    def _trial(self, setting: str) -> dict[Any, Any]:
        part = self.trials[self.trials["setting"] == setting]
        known = part[part["status"] == "done"]
        return (known if len(known) else part).iloc[0].to_dict()

    def overrides_of(self, row: Mapping[Any, Any], without: tuple[str, ...] = ()) -> Overrides:
        """See :func:`mlpbench.decision.commands.overrides_of_trial`."""
        return overrides_of_trial(row, self.configs.get(str(row["trial"])), self.swept, without=without)

    def rows(self, name: str, split: str | None, worst: str) -> pd.DataFrame:
        """See :func:`by_trial`."""
        key = (name, split, worst)
        if key not in self._rows:
            done = self.trials[self.trials["status"] == "done"]
            self._rows[key] = by_trial(done, self.metrics, name, split or self.split, worst)
        return self._rows[key]

    def evidence(self, name: str, split: str | None, worst: str) -> dict[str, Evidence]:
        """See :func:`gather`."""
        key = (name, split, worst)
        if key not in self._evidence:
            self._evidence[key] = gather(self.rows(name, split, worst), name)
        return self._evidence[key]


def probability(found: Evidence, constraint: Constraint) -> float:
    """Chance that the true mean keeps the limit.

    The spread over repetitions (t) and the uncertainty of the test frames add; what was measured anew in each
    repetition is in the spread already, and only makes up for a spread that came out too small. A share of replicas
    without spread (all survived) has Jeffreys' Beta posterior.
    """
    mean = found.mean
    if found.replicas > 0 and not mean.se > 0:
        alive = mean.value * found.replicas
        below = float(stats.beta.cdf(constraint.limit, alive + 0.5, found.replicas - alive + 0.5))
        return below if constraint.kind == "max" else 1 - below
    extra = found.frame_se
    if not found.shared:
        known = mean.se if np.isfinite(mean.se) else 0.0
        extra = float(np.sqrt(max(found.frame_se**2 / mean.n - known**2, 0.0)))
    below = probability_below(mean, constraint.limit, extra)
    return below if constraint.kind == "max" else 1 - below


def check(found: Evidence | None, constraint: Constraint) -> Check:
    """Hold one candidate to one constraint; ``found`` None: it was not measured."""
    nan = float("nan")
    if found is None:
        return Check(constraint, nan, nan, nan, 0, False, nan, nan, 0)
    value = found.mean.value
    sign = 1 if constraint.kind == "max" else -1
    margin = sign * (constraint.limit - value) / abs(constraint.limit) if constraint.limit else nan
    chance = probability(found, constraint)
    return Check(
        constraint, value, found.mean.lower, found.mean.upper, found.mean.n, constraint.allows(value), chance, margin,
        _further(found, constraint, chance), _frames_decide(found, constraint),
    )  # fmt: skip


def _gap(mean: MeanInterval, constraint: Constraint) -> float:
    """Distance of the mean from the limit, on the scale of the mean."""
    return abs(np.log(mean.value / constraint.limit)) if mean.scale == "log" else abs(mean.value - constraint.limit)


def _frames_decide(found: Evidence, constraint: Constraint) -> bool:
    """Whether the uncertainty of the test frames alone leaves it open."""
    wanted = float(stats.norm.ppf(CLEAR))
    return found.shared and found.frame_se > 0 and _gap(found.mean, constraint) < wanted * found.frame_se


def _further(found: Evidence, constraint: Constraint, chance: float) -> int | None:
    """Further repetitions after which the chance would be clear, if the mean stays where it is."""
    mean = found.mean
    if chance != chance:
        return max(3 - mean.n, 1)  # nothing is known of the spread: three are the least that tell
    if max(chance, 1 - chance) >= CLEAR:
        return 0
    sd = mean.se * np.sqrt(mean.n)
    gap = _gap(mean, constraint)
    for more in range(1, _MOST + 1):
        n = mean.n + more
        se = np.hypot(sd / np.sqrt(n), found.frame_se if found.shared else 0.0)
        df = max(mean.df, 1.0) + more
        if se == 0 or stats.t.cdf(gap / se, df) >= CLEAR:
            return more
    return None
