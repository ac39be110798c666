"""What a study says of each candidate and metric: a mean over repetitions, and the chance to keep a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from mlpbench.decision.model import Check, Constraint
from mlpbench.metrics import metric as find_metric
from mlpbench.records import usable
from mlpbench.statistics.intervals import MeanInterval, probability_below
from mlpbench.study.candidates import Candidate
from mlpbench.study.means import LABELS, means_of, rows_by_trial
from mlpbench.study.study import Study, remembered

Float = npt.NDArray[np.float64]
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


@remembered
def gather(study: Study, dataset: str, name: str, split: str | None, end: str) -> dict[tuple[str, int], Evidence]:
    """(line, n_train) -> what the candidate shows of a metric; see :func:`mlpbench.study.rows_by_trial`."""
    rows = rows_by_trial(study, dataset, name, split, end)
    shared = name != LABELS and find_metric(name).group == "accuracy"
    parts = {(str(line), int(str(n))): part for (line, n), part in rows.groupby(["candidate", "n_train"], sort=False)}
    result = {}
    for key, mean in means_of(rows, name).items():
        ends = parts[key][["lower", "upper"]].to_numpy(dtype=float)
        if mean.scale == "log":
            ends = np.log(np.where(ends > 0, ends, np.nan))
        width = ends[:, 1] - ends[:, 0]
        se = float(np.nanmean(width) / (2 * stats.norm.isf(0.025))) if np.isfinite(width).any() else 0.0
        replicas = float(parts[key]["n"].astype(float).sum()) if name.endswith("survival") else 0.0
        result[key] = Evidence(mean, se, shared, replicas)
    return result


@dataclass(frozen=True)
class View:
    """One data set of a study, as a decision looks at it.

    Attributes:
        study: the study.
        dataset: name.
        split: test split of the errors; None where there is none.
        candidates: those that can be taken.
    """

    study: Study
    dataset: str
    split: str | None
    candidates: tuple[Candidate, ...]

    def evidence(self, candidate: Candidate, name: str, split: str | None, end: str) -> Evidence | None:
        """What a candidate shows of a metric (on a split; None: that of the decision); None: not measured."""
        known = gather(self.study, self.dataset, name, split or self.split, end)
        return known.get((candidate.name, candidate.n_train))

    def rows(self, name: str, split: str | None, end: str) -> pd.DataFrame:
        """One row for each trial of the candidates, with ``label``; see :func:`mlpbench.study.rows_by_trial`."""
        rows = rows_by_trial(self.study, self.dataset, name, split or self.split, end)
        labels = {(one.name, one.n_train): one.label for one in self.candidates}
        keys = zip(rows["candidate"], rows["n_train"], strict=True)
        rows = rows.assign(label=[labels.get((name, int(n)), "") for name, n in keys])
        return rows[rows["label"] != ""]

    def trials(self, candidate: Candidate) -> pd.DataFrame:
        """Its rows of the trials' table, those that share a seed with another left out."""
        table = self.study.table
        return table[table["trial"].isin(candidate.trials) & table["repetition"].notna()]

    def example(self, candidate: Candidate) -> str:
        """A trial of the candidate, a finished one where there is one."""
        finished = [trial for trial in candidate.trials if usable(self.study.record[trial])]
        return (finished or candidate.trials)[0]

    def config(self, candidate: Candidate) -> Mapping[str, Any]:
        """The resolved configuration of a trial of the candidate."""
        config: Mapping[str, Any] = self.study.record[self.example(candidate)]["config"]
        return config


def probability(evidence: Evidence, constraint: Constraint) -> float:
    """Chance that the true mean keeps the limit.

    The spread over repetitions (t) and the uncertainty of the test frames add; what was measured again in each
    repetition is in the spread already, and only makes up for a spread that came out too small. A share of replicas
    without spread (all survived) has Jeffreys' Beta posterior.
    """
    mean = evidence.mean
    if evidence.replicas > 0 and not mean.se > 0:
        alive = mean.value * evidence.replicas
        below = float(stats.beta.cdf(constraint.limit, alive + 0.5, evidence.replicas - alive + 0.5))
        return below if constraint.kind == "max" else 1 - below
    extra = evidence.frame_se
    if not evidence.shared:
        known = mean.se if np.isfinite(mean.se) else 0.0
        extra = float(np.sqrt(max(evidence.frame_se**2 / mean.n - known**2, 0.0)))
    below = probability_below(mean, constraint.limit, extra)
    return below if constraint.kind == "max" else 1 - below


def check(evidence: Evidence | None, constraint: Constraint) -> Check:
    """Whether a candidate keeps a constraint; ``evidence`` None: it was not measured."""
    nan = float("nan")
    if evidence is None:
        return Check(constraint, nan, nan, nan, 0, False, nan, nan, 0)
    value = evidence.mean.value
    sign = 1 if constraint.kind == "max" else -1
    margin = sign * (constraint.limit - value) / abs(constraint.limit) if constraint.limit else nan
    chance = probability(evidence, constraint)
    return Check(
        constraint, value, evidence.mean.lower, evidence.mean.upper, evidence.mean.n, constraint.allows(value), chance,
        margin,
        _further(evidence, constraint, chance), _frames_decide(evidence, constraint),
    )  # fmt: skip


def _gap(mean: MeanInterval, constraint: Constraint) -> float:
    """Distance of the mean from the limit, on the scale of the mean."""
    return abs(np.log(mean.value / constraint.limit)) if mean.scale == "log" else abs(mean.value - constraint.limit)


def _frames_decide(evidence: Evidence, constraint: Constraint) -> bool:
    """Whether the uncertainty of the test frames alone leaves it open."""
    wanted = float(stats.norm.ppf(CLEAR))
    return evidence.shared and evidence.frame_se > 0 and _gap(evidence.mean, constraint) < wanted * evidence.frame_se


def _further(evidence: Evidence, constraint: Constraint, chance: float) -> int | None:
    """Further repetitions after which the chance would be clear, if the mean stays where it is."""
    mean = evidence.mean
    if chance != chance:
        return max(3 - mean.n, 1)  # nothing is known of the spread: three are the least that tell
    if max(chance, 1 - chance) >= CLEAR:
        return 0
    sd = mean.se * np.sqrt(mean.n)
    gap = _gap(mean, constraint)
    for more in range(1, _MOST + 1):
        n = mean.n + more
        se = np.hypot(sd / np.sqrt(n), evidence.frame_se if evidence.shared else 0.0)
        df = max(mean.df, 1.0) + more
        if se == 0 or stats.t.cdf(gap / se, df) >= CLEAR:
            return more
    return None
