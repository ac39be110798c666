"""From a pilot study of two or more repetitions: how many are needed to decide, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mlpbench.errors import UserError, close_match
from mlpbench.statistics.intervals import Variance, matrix, pooled_variance
from mlpbench.statistics.paired import Pair, cautious_power, pair, repetitions_to_decide
from mlpbench.study.rows import setting_labels
from mlpbench.study.study import Study


@dataclass(frozen=True)
class PilotPair:
    """Two settings whose order is to be decided.

    Attributes:
        first: label of A.
        second: label of B.
        ratio: error A / error B so far.
        repetitions: in all, to decide with a power of 80 %; None if more than a hundred beyond the pilot.
        hours: training time of the repetitions still missing, both settings; NaN where it is not recorded.
    """

    first: str
    second: str
    ratio: float
    repetitions: int | None
    hours: float


@dataclass(frozen=True)
class Pilot:
    """What a pilot study says of the study to come.

    Attributes:
        metric: the error in question.
        split: test split.
        done: repetitions that the settings have in common so far.
        spread: standard deviation of a log-ratio, one repetition.
        df: degrees of freedom behind it.
        pairs: settings of the same training size, each pair, the hardest last.
        repetitions: in all, that decide every pair that 20 repetitions can decide; None if none can.
        hours: training time of all settings' missing repetitions up to that.
        power: repetitions -> chance to find a 10 % difference of one pair (at Holm's strictest level).
        effects: repetitions -> smallest relative difference that is found with a power of 80 %.
    """

    metric: str
    split: str
    done: int
    spread: float
    df: float
    pairs: tuple[PilotPair, ...]
    repetitions: int | None
    hours: float
    power: dict[int, float]
    effects: dict[int, float]

    @property
    def text(self) -> str:
        """The findings in a few lines."""
        spread = f"error ratios spread by {100 * self.spread:.1f} %"
        lines = [f"{self.metric} on {self.split}: {self.done} repetitions, {spread}"]
        for one in self.pairs:
            need = "more than 100 further" if one.repetitions is None else f"{one.repetitions}"
            cost = "" if np.isnan(one.hours) else f", {one.hours:.2g} h more"
            lines.append(f"  {one.first} / {one.second}: ratio {one.ratio:.3g}, repetitions to decide: {need}{cost}")
        for count, chance in self.power.items():
            lines.append(f"  with {count}: a 10 % difference is found with {100 * chance:.0f} %, "
                         f"one of {100 * self.effects[count]:.0f} % with 80 %")  # fmt: skip
        if self.repetitions is None:
            lines.append("  no pair is decided by 20 repetitions")
        else:
            cost = "" if np.isnan(self.hours) else f": about {self.hours:.2g} h of training beyond the pilot"
            lines.append(f"  {self.repetitions} repetitions of every setting decide what 20 could{cost}")
        return "\n".join(lines)


_PRACTICAL = 20


def plan_pilot(
    study: Study,
    metric: str | None = None,
    *,
    split: str | None = None,
    at: tuple[int, ...] = (3, 5, 10),
) -> Pilot:
    """How many repetitions decide, from those that there are.

    One pair's variance from two repetitions has one degree of freedom, so it is pooled over all pairs of settings of
    the same training size (with the degrees of freedom that their common repetitions leave).

    Args:
        study: a pilot of one data set; every setting is compared, not only those that validation error chose.
        metric: positive error; None: the study's headline.
        split: test split; None: the one in distribution.
        at: repetitions at which the power is printed.

    Raises:
        UserError: no such metric or split in the study, or fewer than two common repetitions of two settings.
    """
    dataset, margin = study.datasets[0], study.margin
    metric = metric or study.headline(dataset)
    split = split or study.in_distribution(dataset) or "test"
    trials, metrics = study.trials, study.metrics
    done = trials[(trials["status"] == "done") & trials["counts_as"].notna() & (trials["dataset"] == dataset)]
    table = done.assign(setting=setting_labels(done), repetition=done["counts_as"].astype(int))
    rows = metrics[(metrics["metric"] == metric) & (metrics["split"] == split)]
    if rows.empty:
        known = {str(s) for s in metrics.loc[metrics["metric"] == metric, "split"]} or set(metrics["metric"])
        raise UserError(f"the pilot has no {metric} on {split}", close_match(split, known))
    values = table.merge(rows[["trial", "value"]], on="trial")
    errors = {
        str(name): dict(zip(part["repetition"].astype(int), part["value"].astype(float), strict=True))
        for name, part in values.groupby("setting", sort=False)
    }
    sizes = values.groupby("setting", sort=False)["n_train"].first().to_dict()
    pairs = [pair(a, errors[a], b, errors[b]) for a, b in combinations(errors, 2) if sizes[a] == sizes[b]]
    pairs = [one for one in pairs if len(one.log_ratio) >= 2]
    if not pairs:
        raise UserError(
            "a pilot needs two settings of one training size with at least two repetitions in common",
            "Run two: mlpbench run -m study=NAME ... repetition=0,1",
        )
    variance = pooled_variance(matrix([one.log_ratio for one in pairs]))
    seconds: dict[str, float] = {}
    if "train_seconds" in values:
        times = values.groupby("setting")["train_seconds"].mean()
        seconds = {str(name): float(time) for name, time in times.items()}
    level = 0.05 / len(pairs)
    judged = [_pilot_pair(one, variance, seconds, margin, level) for one in pairs]
    judged.sort(key=lambda p: p.repetitions if p.repetitions is not None else np.inf)
    needed = [p.repetitions for p in judged if p.repetitions is not None and p.repetitions <= _PRACTICAL]
    total = max(needed) if needed else None
    hours = sum(seconds.get(k, np.nan) * max((total or 0) - len(errors[k]), 0) for k in errors) / 3600
    return Pilot(
        metric, split, min(len(one.log_ratio) for one in pairs), float(np.sqrt(variance.value)), variance.df,
        tuple(judged), total, float(hours), {r: cautious_power(0.1, variance, r, level=level) for r in at},
        {r: _smallest_effect(variance, r, level) for r in at},
    )  # fmt: skip


def _pilot_pair(one: Pair, variance: Variance, seconds: dict[str, float], margin: float, level: float) -> PilotPair:
    n, mean = len(one.log_ratio), float(one.log_ratio.mean())
    # The pooled variance is planned with, but the analysis to come will have R − 1 of its own.
    total = repetitions_to_decide(mean, Variance(variance.value, n - 1.0, 1), n, margin=margin, level=level)
    missing = np.nan if total is None else total - n
    hours = missing * (seconds.get(one.first, np.nan) + seconds.get(one.second, np.nan)) / 3600
    return PilotPair(one.first, one.second, float(np.exp(mean)), total, float(hours))


def _smallest_effect(variance: Variance, repetitions: int, level: float) -> float:
    grid = np.concatenate([np.arange(0.01, 0.5, 0.01), np.arange(0.5, 5.0, 0.1)])
    powers = (cautious_power(float(effect), variance, repetitions, level=level) for effect in grid)
    return next((float(e) for e, p in zip(grid, powers, strict=True) if p >= 0.8), float("inf"))
