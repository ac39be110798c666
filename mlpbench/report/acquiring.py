"""Acquisitions of a study: the series of rounds, labels against random's at equal error, the price, the calibration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.acquisition import Manifest, manifest_path, read_manifest
from mlpbench.acquisition.manifest import FOLDER, SECONDS
from mlpbench.statistics.committee import force_errors, rank_correlation
from mlpbench.statistics.paired import Comparison, compare, pair
from mlpbench.study.rows import display_name, line_name
from mlpbench.study.settings import RANDOM, given_name
from mlpbench.study.study import Study, remembered, rows_of, select

Line = tuple[str, str, str]  # architecture, size, start
Errors = dict[int, dict[int, float]]  # repetition -> training frames -> error
TAIL = "force_p95"


@dataclass(frozen=True)
class Series:
    """The rounds of one acquisition with one architecture.

    Attributes:
        line: architecture, size, start.
        name: of the line, as without acquisitions.
        kind: of the acquisition.
        trials: repetition -> training frames -> trial; the first round, and rounds that happened to choose what random
            would have, are random's trials.
    """

    line: Line
    name: str
    kind: str
    trials: Mapping[int, Mapping[int, str]]

    @property
    def title(self) -> str:
        """The acquisition in words."""
        return title(self.kind)


def title(kind: str) -> str:
    """An acquisition in words, e.g. ``committee + farthest``."""
    return kind.replace("_", " + ")


@remembered
def series_of(study: Study, dataset: str) -> list[Series]:
    """All series of a data set, of each line random first; empty where it has no rounds but random ones."""
    done = select(study.table, dataset=dataset, status="done").dropna(subset=["repetition"])
    lines: dict[Line, dict[str, dict[int, dict[int, str]]]] = {}
    for row in rows_of(done):
        line = (str(row["architecture"]), str(row["size"]), str(row["start"]))
        own = lines.setdefault(line, {}).setdefault(str(row["acquisition"]), {})
        own.setdefault(int(row["repetition"]), {})[int(row["n_train"])] = str(row["trial"])
    several = done.groupby("architecture")["size"].nunique().max() > 1 if len(done) else False
    result = []
    for line, kinds in lines.items():
        if RANDOM not in kinds or len(kinds) < 2:
            continue
        name = line_name(display_name(line[0], study.records), line[1] if several else "", line[2], RANDOM)
        random = kinds[RANDOM]
        for kind in sorted(kinds, key=lambda kind: (kind != RANDOM, kind)):
            trials = kinds[kind] if kind == RANDOM else _with_shared(study, kind, kinds[kind], random)
            result.append(Series(line, name, kind, trials))
    return result


def _with_shared(
    study: Study, kind: str, own: Mapping[int, Mapping[int, str]], random: Mapping[int, Mapping[int, str]]
) -> dict[int, dict[int, str]]:
    """The series with the trials that it shares with random's: those whose training frames are the same."""
    result = {}
    for repetition, trials in own.items():
        config = study.record[next(iter(trials.values()))]["config"]["acquisition"]
        shared = {n: t for n, t in random.get(repetition, {}).items() if n == config["start"]}
        for n, trial in random.get(repetition, {}).items():
            if n not in trials and n > config["start"] and any(
                one.train == _indices(study, trial) for one in manifests(study, kind, repetition) if len(one.train) == n
            ):  # fmt: skip
                shared[n] = trial
        result[repetition] = dict(sorted({**shared, **trials}.items()))
    return result


@remembered
def _indices(study: Study, trial: str) -> list[int]:
    path = study.root / str(study.record[trial]["split"].get("directory")) / "manifest.json"
    if not path.is_file():
        return []
    indices = json.loads(path.read_text(encoding="utf-8"))["splits"]["train"]["indices"]
    return list(indices or [])


@remembered
def manifests(study: Study, kind: str, repetition: int | None = None) -> list[Manifest]:
    """The manifests of an acquisition (of one repetition) that lie in the study's folder, by training frames."""
    paths: list[Path] = sorted((study.root / FOLDER).glob("*.json"))
    read = [read_manifest(path) for path in paths if not path.name.endswith(SECONDS)]
    mine = [m for m in read if m is not None and m.kind == kind and repetition in (None, m.repetition)]
    return sorted(mine, key=lambda one: (len(one.train), one.repetition))


def errors_of(study: Study, series: Series, name: str, split: str) -> Errors:
    """The errors of a series in one metric on one split; trials without one are left out."""
    return {
        repetition: {n: e for n, t in trials.items() if (e := study.scores[t].get((name, split), math.nan)) > 0}
        for repetition, trials in series.trials.items()
    }


# --- labels against random's ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gain:
    """One acquisition against random, in one error.

    Attributes:
        series: of the acquisition.
        metric: name of the error.
        split: on which it is measured.
        labels: training frames at which both are compared: the most that both have.
        errors: geometric mean error there of random, and of the acquisition.
        ratio: the acquisition's error over random's there, paired by repetition.
        needed: labels that the acquisition needs over those that random needs, for the lowest error that both reach.
        margin: relative difference that does not matter.
    """

    series: Series
    metric: str
    split: str
    labels: int
    errors: tuple[float, float]
    ratio: Comparison
    needed: Comparison
    margin: float

    @property
    def multiplier(self) -> tuple[float, float, float]:
        """Labels that random needs over those that the acquisition needs, with the ends of its interval."""
        return 1 / self.needed.ratio, 1 / self.needed.upper, 1 / self.needed.lower

    @property
    def verdict(self) -> str:
        """``gain``, ``worse``, ``no gain`` (at most the margin), or ``undecided``."""
        if self.needed.verdict == "better":
            return "gain" if self.needed.ratio < 1 else "worse"
        bounded = self.needed.verdict == "tie" or (self.needed.n >= 3 and self.multiplier[2] < 1 + self.margin)
        return "no gain" if bounded else "undecided"


def measures(study: Study, dataset: str) -> list[tuple[str, str]]:
    """The errors that gains are measured in: metric and split. The main one in distribution and on each other split,
    and the 95th percentile of the force errors in distribution.
    """
    name, splits = study.headline(dataset), study.test_splits(dataset)
    tail = [(TAIL, split) for split in splits[:1] if TAIL in study.metrics_of(dataset, split)]
    known = [split for split in splits if name in study.metrics_of(dataset, split)]  # not where forces lack labels
    return [*((name, split) for split in known), *tail]


def labels_needed(random: Mapping[int, float], other: Mapping[int, float]) -> tuple[float, float]:
    """Labels that random and another acquisition need for the lowest error that both reach, in one repetition.

    That error is the one that the worse of the two has with its most labels; the other first reaches it on straight
    lines through the logarithms of its errors and labels.

    Args:
        random: training frames -> error.
        other: likewise; both begin with the same training frames.
    """
    ends = random[max(random)], other[max(other)]
    if ends[0] >= ends[1]:
        return float(max(random)), _first_reached(other, ends[0])
    return _first_reached(random, ends[1]), float(max(other))


def _first_reached(curve: Mapping[int, float], error: float) -> float:
    points = sorted(curve.items())
    if points[0][1] <= error:
        return float(points[0][0])
    for (n0, e0), (n1, e1) in pairwise(points):
        if e1 <= error:
            share = math.log(e0 / error) / math.log(e0 / e1)
            return float(math.exp(math.log(n0) + share * math.log(n1 / n0)))
    raise ValueError("the curve ends above this error")


@remembered
def gains(study: Study, dataset: str) -> list[Gain]:
    """Each acquisition against random in each of :func:`measures`; Holm-corrected over all of them."""
    every = series_of(study, dataset)
    random = {one.line: one for one in every if one.kind == RANDOM}
    asked, ratios, needed = [], [], []
    for one in every:
        if one.kind == RANDOM:
            continue
        for name, split in measures(study, dataset):
            mine, base = (errors_of(study, s, name, split) for s in (one, random[one.line]))
            common = [r for r in mine if r in base and len(mine[r]) > 1 and len(base[r]) > 1]
            at = [set(mine[r]) & set(base[r]) for r in common]
            shared = set.intersection(*at) if at else set()
            if not shared:
                continue
            labels, family = max(shared), f"{one.line} {name} {split}"
            pairs = {r: labels_needed(base[r], mine[r]) for r in common}
            ratios.append(pair(one.kind, {r: mine[r][labels] for r in common}, RANDOM,
                               {r: base[r][labels] for r in common}, family))  # fmt: skip
            needed.append(pair(one.kind, {r: p[1] for r, p in pairs.items()}, RANDOM,
                               {r: p[0] for r, p in pairs.items()}, family))  # fmt: skip
            means = tuple(float(np.exp(np.mean([np.log(c[r][labels]) for r in common]))) for c in (base, mine))
            asked.append((one, name, split, labels, (means[0], means[1])))
    compared = zip(asked, compare(ratios, margin=study.margin), compare(needed, margin=study.margin), strict=True)
    return [Gain(*what, ratio, more, study.margin) for what, ratio, more in compared]


# --- the price ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Price:
    """What a series cost beside its last training, and from which price of a label on it pays.

    Attributes:
        series: of the acquisition.
        trainings: of earlier rounds and further members, mean over repetitions.
        training_seconds: of these.
        choosing_seconds: predicting the candidates and choosing.
        saved: labels that random would need more, from the gain in distribution; not positive: none.
        verdict: of that gain.
    """

    series: Series
    trainings: float
    training_seconds: float
    choosing_seconds: float
    saved: float
    verdict: str

    @property
    def pays_above(self) -> float | None:
        """Seconds that a label must cost for the choice to pay; None where no gain is shown."""
        seconds = self.training_seconds + self.choosing_seconds
        return seconds / self.saved if self.verdict == "gain" and self.saved > 0 else None


def prices(study: Study, dataset: str) -> list[Price]:
    """The price of each series, with the gain in distribution in the main error."""
    result = []
    wanted = (study.headline(dataset), study.in_distribution(dataset))
    for gain in gains(study, dataset):
        if (gain.metric, gain.split) != wanted:
            continue
        costs = [_cost(study, gain.series, repetition) for repetition in gain.series.trials]
        count, seconds, choosing = (float(np.mean(column)) for column in zip(*costs, strict=True))
        saved = (gain.multiplier[0] - 1) * gain.labels
        result.append(Price(gain.series, count, seconds, choosing, saved, gain.verdict))
    return result


def _cost(study: Study, series: Series, repetition: int) -> tuple[int, float, float]:
    """Trainings beside the last, their seconds, and those of predicting and choosing, in one repetition."""
    trials = list(series.trials[repetition].values())
    members = members_of(study, series)
    others = [*trials[:-1], *(m for trial in trials[:-1] for m in members.get(trial, []))]
    seconds = sum(float(study.record[t]["training"].get("wall_seconds") or 0) for t in others)
    name = given_name(study.record[trials[-1]])
    choosing = 0.0
    for one in manifests(study, series.kind, repetition):
        if not one.potentials or one.potentials[0]["trial"] in trials:
            place = manifest_path(study.root, name, series.kind, len(one.train), repetition, one.key)
            path = place.with_name(place.name + SECONDS)
            choosing += sum(json.loads(path.read_text(encoding="utf-8")).values()) if path.is_file() else 0.0
    return len(others), seconds, choosing


# --- committees and their calibration -------------------------------------------------------------------------------


def members_of(study: Study, series: Series) -> dict[str, list[str]]:
    """Trial of a round -> the further members of its committee; empty for acquisitions without one."""
    asking = [m for m in manifests(study, series.kind) if len(m.potentials) > 1]
    groups = [[potential["trial"] for potential in one.potentials] for one in asking]
    return {group[0]: [t for t in group[1:] if t in study.record] for group in groups}


@dataclass(frozen=True)
class Told:
    """Disagreement against the true error on some frames, means over repetitions.

    Attributes:
        series: of the acquisition.
        labels: training frames of the committee.
        frames: the split, or ``candidates``.
        rank: Spearman's ρ over frames, of each repetition.
        error: root mean square error of the committee's mean, eV/Å.
        disagreement: root mean square disagreement, eV/Å.
        chosen: error on what was chosen over that on all candidates; NaN on splits.
    """

    series: Series
    labels: int
    frames: str
    rank: tuple[float, ...]
    error: float
    disagreement: float
    chosen: float


@remembered
def calibration(study: Study, dataset: str) -> list[Told]:
    """What the disagreement of each committee said of the error: on its candidates, and on the test splits."""
    told = []
    for series in series_of(study, dataset):
        rounds: dict[tuple[int, str], list[tuple[float, float, float, float]]] = {}
        for one in _of_line(study, series):
            facts, labels = one.facts, len(one.train) - len(one.chosen)
            if facts.get("rank_correlation") is None:
                continue
            rank = facts["rank_correlation"][0]
            numbers = (math.nan if rank is None else rank, facts["error_rms"], facts["disagreement_rms"],
                      facts["error_rms_chosen"] / facts["error_rms"])  # fmt: skip
            rounds.setdefault((labels, "candidates"), []).append(numbers)
            trials = [potential["trial"] for potential in one.potentials]
            for split in study.test_splits(dataset):
                on_split = _on_split(study, trials, split)
                if on_split is not None:
                    rounds.setdefault((labels, split), []).append(on_split)
        for (labels, frames), values in sorted(rounds.items(), key=lambda item: (item[0][1] != "candidates", item[0])):
            rank, error, spread, chosen = zip(*values, strict=True)
            told.append(Told(series, labels, frames, rank, _rms(error), _rms(spread), float(np.mean(chosen))))
    return told


def _of_line(study: Study, series: Series) -> list[Manifest]:
    """The series' manifests whose potentials are of its architecture, size and start."""
    mine = {t for trials in series.trials.values() for t in trials.values()}
    return [m for m in manifests(study, series.kind) if m.potentials and m.potentials[0]["trial"] in mine]


def _rms(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _on_split(study: Study, trials: Sequence[str], split: str) -> tuple[float, float, float, float] | None:
    """ρ, error and disagreement (eV/Å) of a committee on a test split; None where predictions are gone."""
    members = [study.errors(trial, split) for trial in trials if trial in study.record]
    forces = [one.forces for one in members if one is not None and one.forces is not None]
    if len(forces) < len(trials) or members[0] is None or not members[0].frames.has_forces:
        return None
    frames = members[0].frames
    errors = force_errors(np.stack(forces), frames.forces, frames.frame_of_atom)
    rank = rank_correlation(errors, frames.group, n_resamples=10)
    return rank.value, _rms(errors.error.tolist()), _rms(errors.disagreement.tolist()), math.nan


def composition(study: Study, series: Series) -> dict[str, tuple[float, float]]:
    """File (or group) of the pool -> its share of what the series chose, and of the candidates at the first choice."""
    mine = manifests(study, series.kind)
    first = min((len(one.train) - len(one.chosen) for one in mine), default=0)
    chosen: dict[str, int] = {}
    there: dict[str, int] = {}
    for one in mine:
        for group, count in one.facts.get("chosen", {}).items():
            chosen[group] = chosen.get(group, 0) + count
        if len(one.train) - len(one.chosen) == first:
            for group, count in one.facts.get("groups", {}).items():
                there[group] = there.get(group, 0) + count
    if len(there) < 2 or not chosen:
        return {}
    return {g: (chosen.get(g, 0) / sum(chosen.values()), n / sum(there.values())) for g, n in there.items()}


def group_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Number of a group -> the file it stands for, where groups are files."""
    data = config.get("dataset") or {}
    paths = data.get("path")
    if data.get("group_key") or not isinstance(paths, list):
        return {}
    return {str(number): Path(path).stem for number, path in enumerate(paths)}
