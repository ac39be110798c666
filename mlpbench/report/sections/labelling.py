"""Which frames to label next: acquisitions against random subsets, what they cost, and what their disagreement told."""

from __future__ import annotations

import math

import numpy as np

from mlpbench.metrics import metric
from mlpbench.numbers import interval, listing, number, plural, seconds
from mlpbench.report import acquiring, chosen, facts, helping
from mlpbench.report.acquiring import Gain, Series, Told
from mlpbench.report.drawing import DASHES, MARKERS, PAIRS, Look, canvas, legend, logarithmic, series
from mlpbench.report.estimates import Estimate, geometric
from mlpbench.report.section import Block, Cell, Column, Figure, Mark, Panel, Section, Table, Text, ratio_cell
from mlpbench.statistics.intervals import intervals
from mlpbench.statistics.paired import LEAST_REPETITIONS
from mlpbench.study.study import Study

CHAPTERS = {"labelling": 33}
MARKS: dict[str, Mark] = {"worse": "bad"}
CANDIDATES = "candidates"


def labelling_section(study: Study) -> Section | None:
    """For each data set with rounds of an acquisition beside random ones."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        explored = chosen.explorations(study).get(dataset)
        if explored:
            blocks.append(chosen.exploration_table(study, dataset, explored))
            finding = finding or _explored_words(dataset, explored)
        shown = chosen.pictures(study, dataset)
        pictures = [chosen.pictures_figure(dataset, shown)] if shown else []
        gains = acquiring.gains(study, dataset)
        if not gains:
            blocks += pictures
            continue
        finding = finding or _finding(study, dataset, gains)
        every = acquiring.series_of(study, dataset)
        blocks += [_figure(study, dataset, [s for s in every if s.line == line]) for line in _lines(every)]
        blocks += [_multipliers(study, dataset, gains), *_composition(study, every), _prices(study, dataset)]
        matrix, durations = helping.helps(study, dataset), helping.lasting(study, dataset)
        blocks += [helping.matrix_table(study, dataset, matrix)] if matrix else []
        blocks += [helping.lasting_table(dataset, durations)] if durations else []
        blocks += pictures
        told = acquiring.calibration(study, dataset)
        blocks += [_calibration(dataset, told), Text(_calibration_words(told), "note")] if told else []
    return Section("labelling", "Which frames to label next", finding, blocks) if blocks else None


def _explored_words(dataset: str, explored: list[chosen.Found]) -> str:
    """What an exploration labelled, of what it found."""
    labelled = sum(one.labelled or 0 for one in explored)
    found = sum(one.manifest.counts["frames"] for one in explored)
    lost = sum(one.manifest.counts["collapsed"] for one in explored)
    return (
        f"Exploration of {dataset}: {plural(labelled, 'label')} in {plural(len(explored), 'round')}, of {found} frames "
        f"that the potentials' own dynamics made, {lost} of them after a collapse and thrown away."
    )


def _lines(every: list[Series]) -> list[acquiring.Line]:
    return list(dict.fromkeys(one.line for one in every))


def _error(name: str, split: str) -> str:
    return f"{metric(name).symbol} on {split}"


def _finding(study: Study, dataset: str, gains: list[Gain]) -> str:
    """The verdicts in distribution, and where else a gain is shown."""
    first = gains[0].metric, study.in_distribution(dataset)
    inside = [gain for gain in gains if (gain.metric, gain.split) == first]
    said = []
    for gain in inside:
        value, low, high = gain.multiplier
        ends = f" ({interval(low, high)})" if gain.needed.n >= LEAST_REPETITIONS else ""
        said.append(f"{_name(gain, gains)} {number(value, low, high)}{ends}, {gain.verdict}")
    parts = [f"Labels that random needs over those that a choice needs, at equal {_error(*map(str, first))}: "
             f"{'; '.join(said)}."]  # fmt: skip
    others = [gain for gain in gains if gain not in inside and gain.verdict in ("gain", "worse")]
    for verdict in ("gain", "worse"):
        named = [f"{_name(g, gains)} ({_error(g.metric, g.split)})" for g in others if g.verdict == verdict]
        if named:
            parts.append(f"{verdict.capitalize()} elsewhere: {listing(named)}.")
    return " ".join(parts) if others else f"{parts[0]} In the other errors neither a gain nor a loss is shown."


def _name(gain: Gain, gains: list[Gain]) -> str:
    several = len({one.series.line for one in gains}) > 1
    return f"{gain.series.name}, {gain.series.title}" if several else gain.series.title


def _look(index: int) -> Look:
    return Look(PAIRS[index % len(PAIRS)][0], MARKERS[index % len(MARKERS)], DASHES[index % len(DASHES)])


def _figure(study: Study, dataset: str, lines: list[Series]) -> Figure:
    """Errors against labels, one panel for each error, one curve for each acquisition."""
    panels = []
    for name, split in acquiring.measures(study, dataset):
        entry = metric(name)
        with canvas(4.4, 3.3) as (figure, axes):
            for index, one in enumerate(lines):
                means = _means(acquiring.errors_of(study, one, name, split))
                series(axes, list(means), list(means.values()), _look(index), one.title, line=1.3)
            logarithmic(axes, "xy")
            axes.set_xlabel("training frames")
            axes.set_ylabel(f"{entry.symbol} on {split} ({entry.unit})")
            legend(axes, 2)
        alt = f"{_error(name, split)} against training frames for {', '.join(one.title for one in lines)}."
        where = "in distribution" if split == study.in_distribution(dataset) else "out of distribution"
        panels.append(Panel(f"labelling-{dataset}-{lines[0].name}-{name}-{split}", figure, alt, f"{split}: {where}"))
    n = max(len(one.trials) for one in lines)
    caption = (
        f"Errors of {lines[0].name} on {dataset} against the number of training frames, by how these were chosen: "
        f"geometric mean over {plural(n, 'repetition')} with 95 % interval. All begin with the same random frames."
    )
    return Figure(caption, panels)


def _means(errors: acquiring.Errors) -> dict[int, Estimate]:
    """Training frames -> mean over repetitions; the variance is pooled over the rounds of the curve."""
    sizes = sorted({n for curve in errors.values() for n in curve})
    columns = [np.array([curve.get(n, math.nan) for curve in errors.values()]) for n in sizes]
    means = intervals(columns, groups=["one"] * len(columns)) if columns else []
    return {
        n: Estimate(mean.value, mean.lower, mean.upper, mean.n, "repetitions" if mean.n > 1 else "none")
        for n, mean in zip(sizes, means, strict=True)
    }


def _multipliers(study: Study, dataset: str, gains: list[Gain]) -> Table:
    several = len({gain.series.line for gain in gains}) > 1
    rows = []
    for gain in gains:
        value, low, high = gain.multiplier
        ratio, unit = gain.ratio, metric(gain.metric).unit
        rows.append([
            *([Cell(gain.series.name)] if several else []), Cell(gain.series.title),
            Cell(f"{_error(gain.metric, gain.split)}, {unit}"),
            Cell(str(gain.labels), gain.labels), Cell(number(gain.errors[0]), gain.errors[0]),
            Cell(number(gain.errors[1]), gain.errors[1]), _ratio(ratio.ratio, ratio.lower, ratio.upper, ratio.n),
            _ratio(value, low, high, gain.needed.n),
            Cell(gain.verdict, mark=MARKS.get(gain.verdict, ""), detail=f"n = {gain.needed.n}"),
        ])  # fmt: skip
    columns = [
        *([Column("Candidate", numeric=False)] if several else []),
        Column("Acquisition", numeric=False),
        Column("Error", numeric=False),
        Column("Labels", "frames", "training frames at which both errors are given: the most that both have"),
        Column("Random", "", "error of random's training there, geometric mean over repetitions"),
        Column("Acquisition's error", "", "likewise"),
        Column("Error ratio", "", "acquisition over random there, paired by repetition"),
        Column(
            "Label multiplier", "", "labels that random needs over those that the acquisition needs, for the lowest "
            "error that both reach, on lines through the logarithms; above 1: fewer labels than random",
        ),
        Column("Verdict", "", "by the multiplier; n: repetitions", numeric=False),
    ]  # fmt: skip
    caption = (
        f"Acquisitions on {dataset} against random subsets, paired by repetition; 95 % intervals, Holm-corrected over "
        f"the {len(gains)} rows of each column."
    )
    words = (
        "gain: the whole interval of the multiplier is above 1; worse: below 1; no gain: random needs at most "
        f"{study.margin_words} more labels; undecided: none of these, or fewer than three repetitions. An error "
        "that is lower at equal labels is no verdict."
    )
    return Table(f"labelling-{dataset}", caption, columns, rows, headers=3 if several else 2, legend=words)


def _ratio(value: float, low: float, high: float, n: int) -> Cell:
    """A ratio with its interval, which says nothing with fewer repetitions than a verdict takes."""
    if n < LEAST_REPETITIONS or not math.isfinite(low):
        return Cell(number(value), value)
    ends = [f"{end:.2g}" for end in (low, high)]
    if any((float(text) - 1) * (end - 1) <= 0 for text, end in zip(ends, (low, high), strict=True)):
        return ratio_cell(value, low, high)  # with the digits that keep each end on its side of 1
    return Cell(f"{value:.2g}", value, "–".join(ends))


def _composition(study: Study, every: list[Series]) -> list[Block]:
    """Of a pool of several files: how much of each an acquisition chose, beside what there was."""
    rows: dict[str, dict[str, tuple[float, float]]] = {}
    names: dict[str, str] = {}
    for one in every:
        shares = acquiring.composition(study, one)
        if shares and one.title not in rows:
            rows[one.title] = shares
            names = acquiring.group_names(study.record[next(iter(next(iter(one.trials.values())).values()))]["config"])
    if not rows:
        return []
    groups = sorted({g for shares in rows.values() for g in shares})
    there = next(iter(rows.values()))
    said = [
        f"{way}: {listing([f'{100 * shares[g][0]:.0f} % {names.get(g, f"group {g}")}' for g in groups if g in shares])}"
        for way, shares in rows.items()
    ]
    pool = listing([f"{100 * there[g][1]:.0f} % {names.get(g, f'group {g}')}" for g in groups if g in there])
    return [Text(f"What was chosen, of candidates that were {pool}: {'; '.join(said)}.")]


def _prices(study: Study, dataset: str) -> Table:
    rows = []
    label = study.label_seconds(dataset)
    for price in acquiring.prices(study, dataset):
        above = price.pays_above
        rows.append([
            Cell(price.series.name), Cell(price.series.title), Cell(f"{price.trainings:g}", price.trainings),
            Cell(seconds(price.training_seconds), price.training_seconds),
            Cell(seconds(price.choosing_seconds), price.choosing_seconds),
            Cell(f"{price.saved:.0f}" if price.verdict == "gain" else "none shown", price.saved),
            Cell("–" if above is None else seconds(above), above),
        ])  # fmt: skip
    columns = [
        Column("Candidate", numeric=False),
        Column("Acquisition", numeric=False),
        Column("Trainings", "", "of earlier rounds and of further members of committees, beside the last training"),
        Column("Training", "s", "their time, mean over repetitions"),
        Column("Choosing", "s", "predicting the candidates and choosing among them"),
        Column("Labels saved", "frames", "that random would need more for the same error in distribution"),
        Column("Pays above", "s a label", "time and labels saved come out even at this price of one label"),
    ]
    known = "" if label is None else f" One label of this data set takes {seconds(label)}."
    caption = (
        f"What the choice costs on {dataset}, and from which price of a label on it pays, by the gain in "
        f"{_error(study.headline(dataset), str(study.in_distribution(dataset)))}.{known} Times were taken on "
        f"{listing(facts.machines(study.table))}."
    )
    return Table(f"labelling-price-{dataset}", caption, columns, rows, headers=2)


def _calibration(dataset: str, told: list[Told]) -> Table:
    rows = []
    for one in told:
        ranks = [rank for rank in one.rank if rank == rank]
        mean = float(np.mean(ranks)) if ranks else math.nan
        rows.append([
            Cell(one.series.name), Cell(one.series.title), Cell(one.frames), Cell(str(one.labels), one.labels),
            Cell(f"{mean:.2f}" if ranks else "–", mean, interval(min(ranks), max(ranks)) if len(ranks) > 1 else ""),
            Cell(number(1e3 * one.error), 1e3 * one.error),
            Cell(number(1e3 * one.disagreement), 1e3 * one.disagreement),
            Cell(number(one.disagreement / one.error), one.disagreement / one.error),
            Cell("–" if math.isnan(one.chosen) else number(one.chosen), None if math.isnan(one.chosen) else one.chosen),
        ])  # fmt: skip
    columns = [
        Column("Candidate", numeric=False),
        Column("Acquisition", numeric=False),
        Column("Frames", numeric=False),
        Column("Labels", "frames", "training frames of the committee"),
        Column("Rank correlation", "", "Spearman's ρ of disagreement and true force error over frames; mean over "
               "repetitions, in small print their range"),
        Column("Error", "meV/Å", "root mean square of the committee's mean force"),
        Column("Disagreement", "meV/Å", "root mean square of the members' standard deviation"),
        Column("Disagreement / error"),
        Column("Chosen / all", "", "error on the frames that were chosen over that on all candidates"),
    ]  # fmt: skip
    caption = (
        f"What disagreement says of the true error, {dataset}: on the candidates before each choice, and on the test "
        "splits by the same committees."
    )
    return Table(f"labelling-calibration-{dataset}", caption, columns, rows, headers=4)


def _calibration_words(told: list[Told]) -> str:
    """How good a guide disagreement was, and whether it falls where the error grows."""
    inside = [rank for one in told if one.frames == CANDIDATES for rank in one.rank if rank == rank]
    better = [one.chosen for one in told if one.frames == CANDIDATES]
    falls = []
    for one in told:
        later = [
            other for other in told
            if (other.series.kind, other.series.line, other.frames) == (one.series.kind, one.series.line, one.frames)
            and other.labels > one.labels
        ]  # fmt: skip
        if later and later[0].error > one.error and later[0].disagreement < one.disagreement:
            falls.append(f"{one.series.title} on {one.frames} from {one.labels} to {later[0].labels} labels")
    parts = [
        f"On the candidates ρ lies between {min(inside):.2f} and {max(inside):.2f}; the frames chosen have "
        f"{number(geometric(better))} times the error of all candidates."
    ] if inside else []  # fmt: skip
    parts.append(
        f"Disagreement fell while the error grew: {listing(falls)}." if falls else
        "From one round to the next, disagreement never fell while the error grew."
    )  # fmt: skip
    return " ".join(parts)
