"""Whose choice helps whom, and how long simulations last against the labels they were trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlpbench.metrics import metric
from mlpbench.numbers import interval, number, plural
from mlpbench.report import acquiring
from mlpbench.report.acquiring import Series
from mlpbench.report.section import Cell, Column, Table, ratio_cell
from mlpbench.statistics.paired import LEAST_REPETITIONS, Comparison, Pair, compare, pair
from mlpbench.study.rows import display_name
from mlpbench.study.settings import RANDOM
from mlpbench.study.study import Study

BY = " by "  # in the name of an acquisition that asked another architecture's potentials
STABLE, SURVIVAL = "md_stable_time", "md_survival"


@dataclass(frozen=True)
class Help:
    """Frames that one architecture chose, trained on by one.

    Attributes:
        series: of what was trained.
        chosen_by: architecture whose potentials were asked.
        kind: the acquisition.
        metric: the error.
        split: on which it is measured.
        labels: training frames, the same for all of a matrix.
        ratio: its error over that of random frames, paired by repetition.
    """

    series: Series
    chosen_by: str
    kind: str
    metric: str
    split: str
    labels: int
    ratio: Comparison


def helps(study: Study, dataset: str) -> list[Help]:
    """Every architecture on the frames of every architecture, for acquisitions where one was trained on another's.

    All errors at the most training frames that all have; Holm-corrected over all.
    """
    every = acquiring.series_of(study, dataset)
    crossed = {one.kind.split(BY)[0] for one in every if BY in one.kind}
    mine = [one for one in every if one.kind.split(BY)[0] in crossed]
    random = {one.line: one for one in every if one.kind == RANDOM}
    sizes = [set(n) for one in mine for n in one.trials.values()]
    common = set.intersection(*sizes) if sizes else set()
    if not common:
        return []
    labels, asked, pairs = max(common), [], []
    for name, split in acquiring.measures(study, dataset):
        for one in mine:
            ours, base = (
                {r: curve[labels] for r, curve in acquiring.errors_of(study, s, name, split).items() if labels in curve}
                for s in (one, random[one.line])
            )
            if not set(ours) & set(base):
                continue
            kind, _, other = one.kind.partition(BY)
            asked.append((one, other or one.line[0], kind, name, split, labels))
            pairs.append(pair(one.kind, ours, RANDOM, base, f"{one.line} {name} {split}"))
    return [Help(*what, ratio) for what, ratio in zip(asked, compare(pairs, margin=study.margin), strict=True)]


def matrix_table(study: Study, dataset: str, found: Sequence[Help]) -> Table:
    """Rows: what was trained, and the error; columns: who chose."""
    choosers = list(dict.fromkeys(one.chosen_by for one in found))
    rows_of = dict.fromkeys((one.kind, one.series.line, one.metric, one.split) for one in found)
    rows = []
    for kind, line, name, split in rows_of:
        cells = {one.chosen_by: one for one in found if (one.kind, one.series.line, one.metric, one.split)
                 == (kind, line, name, split)}  # fmt: skip
        trained = next(iter(cells.values())).series.name
        rows.append([
            Cell(acquiring.title(kind)), Cell(trained), Cell(f"{metric(name).symbol} on {split}"),
            *(_ratio(cells[c].ratio) if c in cells else Cell("–") for c in choosers),
        ])  # fmt: skip
    note = "error over that on as many random frames"
    columns = [
        Column("Acquisition", numeric=False), Column("Trained", numeric=False), Column("Error", numeric=False),
        *(Column(f"Chosen by {display_name(c, study.records)}", "", note) for c in choosers),
    ]  # fmt: skip
    caption = (
        f"Whose choice helps whom on {dataset}: error at {found[0].labels} training frames over that on as many random "
        f"ones, by who was trained and whose potentials chose; below 1: the choice helps. Paired by repetition, 95 % "
        f"intervals, Holm-corrected over all {len(found)} ratios; without an interval: fewer than "
        f"{plural(LEAST_REPETITIONS, 'repetition')}."
    )
    return Table(f"labelling-matrix-{dataset}", caption, columns, rows, headers=3)


def _ratio(one: Comparison) -> Cell:
    if one.n < LEAST_REPETITIONS or not math.isfinite(one.lower):
        return Cell(number(one.ratio), one.ratio, f"n = {one.n}")
    ends = [f"{end:.2f}" for end in (one.lower, one.upper)]
    if any((float(text) - 1) * (end - 1) <= 0 for text, end in zip(ends, (one.lower, one.upper), strict=True)):
        return ratio_cell(one.ratio, one.lower, one.upper)  # with the digits that keep each end on its side of 1
    return Cell(f"{one.ratio:.2f}", one.ratio, "–".join(ends))


# --- molecular dynamics ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lasting:
    """How long the simulations of a series last at one number of training frames.

    Attributes:
        series: the rounds.
        split: of MD, e.g. ``md_1000K``.
        labels: training frames.
        survival: share of replicas that are sound until the end, of each repetition.
        stable_ps: mean time until a collapse, at most the planned length, of each repetition.
        ratio: of the stable time over random's at as many frames, paired; None for random itself, at frames that
            random shares, or where random was not simulated.
    """

    series: Series
    split: str
    labels: int
    survival: tuple[float, ...]
    stable_ps: tuple[float, ...]
    ratio: Comparison | None

    @property
    def verdict(self) -> str:
        """``gain``: the whole interval of the ratio is above 1; ``worse``: below; else ``undecided``; empty: none."""
        if self.ratio is None:
            return ""
        if self.ratio.n >= LEAST_REPETITIONS and self.ratio.lower > 1:
            return "gain"
        return "worse" if self.ratio.n >= LEAST_REPETITIONS and self.ratio.upper < 1 else "undecided"


def lasting(study: Study, dataset: str) -> list[Lasting]:
    """Survival against labels, of each series whose trials were simulated; Holm-corrected over all ratios."""
    every = acquiring.series_of(study, dataset)
    random = {one.line: one for one in every if one.kind == RANDOM}
    splits = sorted({split for one in every for trials in one.trials.values() for t in trials.values()
                     for name, split in study.scores[t] if name == STABLE})  # fmt: skip
    rows: list[tuple[Series, str, int, tuple[float, ...], tuple[float, ...], int | None]] = []
    pairs: list[Pair] = []
    for split in splits:
        for one in every:
            own_trials = {t for r, trials in one.trials.items() for n, t in trials.items()
                          if one.kind == RANDOM or t != random[one.line].trials.get(r, {}).get(n)}  # fmt: skip
            if not any((STABLE, split) in study.scores[trial] for trial in own_trials):
                continue  # nothing but the start that it shares with random
            sizes = sorted({n for trials in one.trials.values() for n in trials})
            for labels in sizes:
                times = _of(study, one, labels, STABLE, split)
                if not times:
                    continue
                base = _of(study, random[one.line], labels, STABLE, split)
                shared = {r for r in times if one.trials[r][labels] == random[one.line].trials.get(r, {}).get(labels)}
                place = None
                own = {r: t for r, t in times.items() if t > 0 and base.get(r, 0) > 0 and r not in shared}
                if one.kind != RANDOM and own:
                    place = len(pairs)
                    pairs.append(pair(one.kind, own, RANDOM, {r: base[r] for r in own}, f"{one.line} {split}"))
                shares = tuple(_of(study, one, labels, SURVIVAL, split).values())
                rows.append((one, split, labels, shares, tuple(times.values()), place))
    compared = compare(pairs, margin=study.margin) if pairs else []
    return [Lasting(*row[:5], None if row[5] is None else compared[row[5]]) for row in rows]


def _of(study: Study, series: Series, labels: int, name: str, split: str) -> dict[int, float]:
    """Repetition -> score of the trial with so many training frames."""
    there = {
        r: study.scores[trials[labels]].get((name, split)) for r, trials in series.trials.items() if labels in trials
    }
    return {r: value for r, value in there.items() if value is not None}


def lasting_table(dataset: str, found: Sequence[Lasting]) -> Table:
    """One row for each acquisition and number of training frames."""
    rows = []
    for one in found:
        stable, shares = float(np.mean(one.stable_ps)), 100 * np.array(one.survival)
        rows.append([
            Cell(one.series.name), Cell(one.series.title), Cell(one.split.removeprefix("md_")),
            Cell(str(one.labels), one.labels),
            Cell(f"{shares.mean():.0f}", float(shares.mean()), _range(shares, "{:.0f}")),
            Cell(f"{stable:.2f}", stable, _range(np.array(one.stable_ps), "{:.2f}")),
            Cell("–") if one.ratio is None else _ratio(one.ratio),
            Cell(one.verdict or "–", mark="bad" if one.verdict == "worse" else "", detail=f"n = {len(one.stable_ps)}"),
        ])  # fmt: skip
    columns = [
        Column("Candidate", numeric=False), Column("Acquisition", numeric=False), Column("Dynamics", numeric=False),
        Column("Labels", "frames", "training frames"),
        Column("Survival", "%", "replicas that are sound until the end; in small print the range over repetitions"),
        Column("Stable time", "ps", "mean time until a collapse, at most the planned length; likewise"),
        Column("Over random's", "", "stable time over that on as many random frames, paired by repetition"),
        Column("Verdict", "", "by that ratio; n: repetitions", numeric=False),
    ]  # fmt: skip
    caption = (
        f"Survival of molecular dynamics against labels on {dataset}. 95 % intervals of the ratios, Holm-corrected "
        f"over {sum(one.ratio is not None for one in found)}."
    )
    words = "gain: the whole interval of the ratio is above 1; worse: below 1; undecided: neither."
    return Table(f"labelling-survival-{dataset}", caption, columns, rows, headers=4, legend=words)


def _range(values: np.ndarray, form: str) -> str:
    if len(values) < 2:
        return ""
    return interval(float(form.format(values.min())), float(form.format(values.max())))
