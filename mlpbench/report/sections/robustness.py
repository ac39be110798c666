"""How far to trust the order: which seed the spread comes from, and whether repetitions that disagree are wrong."""

from __future__ import annotations

import math

import numpy as np

from mlpbench.decision.model import percent
from mlpbench.metrics import metric
from mlpbench.numbers import interval, listing, number, plural
from mlpbench.report import facts
from mlpbench.report.committees import Committee, committee, committees_of, most_disagreed
from mlpbench.report.drawing import INK, canvas, legend, logarithmic, looks
from mlpbench.report.estimates import POWER_AT, cells, comparisons
from mlpbench.report.section import (
    Block,
    Cell,
    Column,
    Commands,
    Details,
    Figure,
    Panel,
    Section,
    Table,
    Text,
    ratio_cell,
)
from mlpbench.statistics.committee import Calibration, Estimated, auroc, calibration
from mlpbench.statistics.committee import rank_correlation as ranks
from mlpbench.statistics.paired import LEAST_REPETITIONS, Comparison
from mlpbench.statistics.pareto import Stability, rank_stability
from mlpbench.statistics.variance import shared_variance, variance_shares
from mlpbench.study.study import Study, select

CHAPTERS = {"robustness": 25, "uncertainty": 52}


MOST_PAIRS = 45  # in the table; of more candidates, only those against the best
ALONE = "Unknown: with one repetition of each, no difference between candidates can be told from chance."
EFFECT = 10  # per cent: the difference that the power is said for


def robustness_section(study: Study) -> Section | None:
    """For each data set with two candidates: the pairs, the stability of the order, the sources of the spread."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        split = study.in_distribution(dataset)
        errors = _errors(study, dataset, split) if split else {}
        if len(errors) < 2 or split is None:
            continue
        if max(len(own) for own in errors.values()) < 2:
            finding = finding or ALONE
            continue
        pairs = comparisons(study, dataset, study.headline(dataset), split).get(study.largest(dataset), [])
        if pairs:
            blocks.append(_pairs(study, dataset, split, pairs, errors))
        stability = _stability(errors)
        if stability is not None:
            table = _left_out(study, dataset, stability)
            turned = any(stability.changed.values())
            blocks.append(table if turned else Details("What was left out, and the order then", [table]))
            finding = finding or _finding(stability, pairs)
        blocks.append(Text(_sources(study, dataset, split)))
    return Section("robustness", "How firm is the ranking?", finding, blocks) if blocks or finding else None


def _errors(study: Study, dataset: str, split: str) -> dict[str, dict[int, float]]:
    """Candidate -> repetition -> error at the largest training size; candidates that have one."""
    rows = select(study.part(dataset, study.headline(dataset), split), n_train=study.largest(dataset))
    rows = rows[rows["candidate"].isin(study.lines(dataset)) & (rows["value"] > 0)]
    return {
        str(c): dict(zip(part["repetition"].astype(int), part["value"].astype(float), strict=True))
        for c, part in rows.groupby("candidate", sort=False)
    }


def _pairs(
    study: Study, dataset: str, split: str, pairs: list[Comparison], errors: dict[str, dict[int, float]]
) -> Table:
    means = {c: float(np.mean(np.log(list(own.values())))) for c, own in errors.items()}
    if len(pairs) > MOST_PAIRS:
        best = min(means, key=lambda c: means[c])
        pairs = [p for p in pairs if best in (p.first, p.second)]
    columns = [
        Column("Pair", "", "the one with the smaller mean error first", numeric=False),
        Column("Error ratio", "", "second over first, paired by repetition, with its Holm-corrected 95 % interval"),
        Column("p", "", "two-sided, of equal errors, Holm-adjusted"),
        Column("Verdict", numeric=False),
        Column("Repetitions"),
        Column("Further", "repetitions", "that would decide, with a power of 80 %, if the ratio is what it seems"),
        *(
            Column(f"Power at {r}", "repetitions", f"chance to find a true difference of {EFFECT} % with {r}")
            for r in POWER_AT
            if pairs[0].power or pairs[0].verdict == "unknown"
        ),
    ]
    powers = len(columns) - 6
    rows = [_pair(p, powers) for p in sorted(pairs, key=lambda p: -abs(math.log(p.ratio)) if p.ratio > 0 else 0.0)]
    entry = metric(study.headline(dataset))
    caption = (
        f"Every pair of candidates by {entry.symbol} on {facts.split_words(study, dataset, split)}, "
        f"{study.largest(dataset)} training frames. Better: the interval excludes 1; a tie: it lies "
        f"inside ±{study.margin_words}. Power is said for a true difference of {EFFECT} %, with the variance taken at "
        "its upper 65 % limit."
    )
    if any(p.verdict == "undecided" and not p.lower <= 1 <= p.upper for p in pairs):
        caption += (
            f" An interval that excludes 1 is still undecided with fewer than {LEAST_REPETITIONS} common repetitions: "
            "two agree by chance too often."
        )
    return Table(f"pairs-{dataset}", caption, columns, rows)


def _pair(p: Comparison, powers: int) -> list[Cell]:
    swap = p.ratio <= 1
    first, second = (p.first, p.second) if swap else (p.second, p.first)
    value, ends = (1 / p.ratio, (1 / p.upper, 1 / p.lower)) if swap else (p.ratio, (p.lower, p.upper))
    words = {"better": f"{p.winner} better", "unknown": "cannot be told"}.get(p.verdict, p.verdict)
    further = "more than 100" if p.further is None else str(p.further)
    return [
        Cell(f"{first} / {second}"),
        ratio_cell(value, *ends),
        Cell(f"{p.p:.2g}", p.p) if math.isfinite(p.p) else Cell("–"),
        Cell(words, mark="" if p.verdict in ("better", "tie") else "warn"),
        Cell(str(p.n), p.n),
        Cell(further, math.inf if p.further is None else p.further) if p.verdict == "undecided" else Cell("–"),
        *(_power(p.power.get(r)) for r in POWER_AT[:powers]),
    ]


def _power(chance: float | None) -> Cell:
    return Cell("–") if chance is None or not math.isfinite(chance) else Cell(percent(chance), chance)


def _stability(errors: dict[str, dict[int, float]]) -> Stability | None:
    if not set.intersection(*(set(own) for own in errors.values())):
        return None
    stability = rank_stability(errors)
    return stability if stability.without else None


def _left_out(study: Study, dataset: str, stability: Stability) -> Table:
    columns = [
        Column("Left out", numeric=False),
        Column("Order then", "", "best first", numeric=False),
        Column("Pairs that turned", "", "against the order with everything in"),
    ]
    rows = [
        [Cell(name), Cell(" < ".join(order)), Cell(str(stability.changed[name]), stability.changed[name])]
        for name, order in stability.without.items()
    ]
    caption = (
        f"Rank stability on {dataset}, {study.largest(dataset)} training frames: the order by mean error over common "
        f"repetitions is {' < '.join(stability.order)}, and what it is without any one candidate or repetition. "
        f"Smallest Kendall τ with the full order: {stability.worst_tau:.2f}."
    )
    return Table(f"stability-{dataset}", caption, columns, rows)


def _finding(stability: Stability, pairs: list[Comparison]) -> str:
    """Who stays first when one is left out, and how many pairs are decided: an order may stand by chance alone."""
    first, count = stability.order[0], sum(name != stability.order[0] for name in stability.without)
    stays = round(stability.first_share * count) if count else 0
    turned = [name for name, pairs in stability.changed.items() if pairs]
    whole = "nor do the others change places"
    if turned:
        whole = f"those below it change places without {listing(turned)}"
    undecided = sum(p.verdict not in ("better", "tie") for p in pairs)
    if not pairs:
        decided = ""
    elif undecided:
        decided = f" {undecided} of {plural(len(pairs), 'pair')} {'is' if undecided == 1 else 'are'} undecided."
    else:
        decided = " Every pair is decided."
    if stays == count:
        return f"{first} has the lowest mean whichever one candidate or repetition is left out; {whole}.{decided}"
    return (
        f"{first} has the lowest mean in {stays} of {count} cases in which one candidate or repetition is left "
        f"out.{decided}"
    )


def _sources(study: Study, dataset: str, split: str) -> str:
    """The share of the variance from the split seed and from the initialisation seed, as far as the design tells it."""
    rows = select(study.values, dataset=dataset, metric=study.headline(dataset), split=split)  # crossed seeds too
    rows = rows[rows["candidate"].isin(study.lines(dataset)) & (rows["value"] > 0)]
    rows = rows.merge(study.trials[["trial", "split_seed", "init_seed"]], on="trial")
    setting = rows["candidate"] + "|" + rows["n_train"].astype(str)
    shares = variance_shares(np.log(rows["value"].to_numpy()), rows["split_seed"], rows["init_seed"], setting)
    if shares.design != "not identifiable":
        rest = f", {percent(shares.residual)} from neither alone" if math.isfinite(shares.residual) else ""
        which = "neither surely more than the other" if shares.dominant == "unclear" else f"{shares.dominant} dominates"
        return (
            f"Where the spread between trials comes from ({shares.design} design, {plural(len(rows), 'trial')}, one "
            f"trial's error spreads by {100 * math.sqrt(shares.total):.1f} %): {percent(shares.split)} of the variance "
            f"from the split seed, {percent(shares.initialisation)} from the initialisation seed{rest}; {which}."
        )
    wide = rows.pivot_table(index=["n_train", "candidate"], columns="repetition", values="value", sort=False)
    common = shared_variance([np.log(part.dropna(axis=1).to_numpy()) for _, part in wide.groupby(level=0)])
    if not math.isfinite(common.share):
        return "Where the spread comes from cannot be told: that takes two candidates with two common repetitions."
    span = f"95 % interval {percent(common.lower)} to {percent(common.upper)}"
    return (
        f"Where the spread between repetitions comes from: {percent(common.share)} of the variance ({span}; training "
        "sizes taken as independent) is common to all candidates, and so from the split that they share; the rest is "
        "initialisation, and how each candidate takes to a split. One trial's error spreads by "
        f"{100 * math.sqrt(max(common.total, 0.0)):.1f} %. To hold the two seeds apart, cross them: mlpbench run -m "
        "split_seed=0,1,2 init_seed=0,1,2 ..."
    )


LISTED = 10  # frames


def uncertainty_section(study: Study) -> Section | None:
    """A table and a figure for each data set with candidates of at least two finished repetitions and predictions."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        names = committees_of(study, dataset)
        inside = [c for n in names if (c := committee(study, dataset, n, study.test_splits(dataset)[0]))]
        if not inside:
            continue
        known = [(c.candidate, c.forces, c.members[0].frames.forces) for c in inside]
        curves = {name: calibration(forces, truth) for name, forces, truth in known if forces is not None}
        blocks.append(_table(study, dataset, inside, curves))
        if curves:
            blocks.append(_figure(study, dataset, inside[0].split, curves))
        blocks.append(_uncertain(study, dataset, names))
        sure = [c for c, curve in curves.items() if curve.scale > 1.2]
        finding = finding or (f"Overconfident as committees: {listing(sure)}." if sure else "")
    return Section("uncertainty", "Committee of the repetitions", finding, blocks) if blocks else None


def _row(study: Study, dataset: str, one: Committee, scale: float | None) -> list[Cell]:
    row = [Cell(one.candidate), Cell(str(len(one.members)), len(one.members))]
    row.append(_cell(ranks(one.errors, one.members[0].frames.group)))
    row.append(Cell(number(scale), scale) if scale is not None else Cell("–"))
    for split in study.test_splits(dataset)[1:]:
        other = committee(study, dataset, one.candidate, split)
        row.append(_cell(auroc(one.errors.disagreement, other.errors.disagreement)) if other else Cell("–"))
    return row


def _cell(estimated: Estimated) -> Cell:
    return Cell(
        number(estimated.value, estimated.lower, estimated.upper),
        estimated.value,
        interval(estimated.lower, estimated.upper),
    )


def _table(study: Study, dataset: str, inside: list[Committee], curves: dict[str, Calibration]) -> Table:
    splits = study.test_splits(dataset)
    scales = {c: curve.scale for c, curve in curves.items()}
    columns = [
        Column("Candidate", numeric=False),
        Column("Members", "", "repetitions that make up the committee"),
        Column("Rank correlation", "", "Spearman's ρ of a frame's disagreement with its true error"),
        Column(
            "Error / spread",
            "",
            "root mean square of error over spread of the force components; above 1: overconfident",
        ),
        *(Column(f"Detects {s}", "AUROC", f"chance that a {s} frame has the larger disagreement") for s in splits[1:]),
    ]
    caption = (
        f"The repetitions of each candidate as a committee, {dataset}, {study.largest(dataset)} training "
        f"frames: whether disagreement on {_quantity(inside[0])} of {splits[0]} frames tells their error (ρ: 1 "
        "perfectly, 0 not at all), whether its size is right, and whether it sets other splits apart (0.5: not at "
        "all, 1: perfectly; under 0.5: it is surer there). 95 % intervals over frames."
    )
    rows = [_row(study, dataset, one, scales.get(one.candidate)) for one in inside]
    return Table(f"committee-{dataset}", caption, columns, rows)


def _quantity(one: Committee) -> str:
    return "the energies" if one.forces is None else "the forces"


def _figure(study: Study, dataset: str, split: str, curves: dict[str, Calibration]) -> Figure:
    style = looks(study)
    with canvas() as (levels, axes):
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.7)
        for candidate, curve in curves.items():
            look = style[candidate]
            axes.plot(curve.nominal, curve.observed, color=look.color, linestyle=look.dash, marker=look.marker,
                      markersize=3.5, label=candidate)  # fmt: skip
        axes.set_xlabel("share of truths that should lie inside")
        axes.set_ylabel("share that does")
        legend(axes)
    with canvas() as (sizes, axes):
        ends = np.array([[curve.bins.min(), curve.bins.max()] for curve in curves.values()])
        line = 1e3 * np.array([ends[:, 0].min(), ends[:, 1].max()])
        axes.plot(line, line, color=INK, linewidth=0.7)
        for candidate, curve in curves.items():
            look = style[candidate]
            x, y = 1e3 * curve.bins.T
            axes.plot(x, y, color=look.color, linestyle=look.dash, marker=look.marker, label=candidate)
        logarithmic(axes, "xy")
        axes.set_xlabel("root mean square spread (meV/Å)")
        axes.set_ylabel("root mean square error (meV/Å)")
        legend(axes)
    said = listing([f"{c} {curve.scale:.2f}" for c, curve in curves.items()])
    caption = (
        f"Calibration of the committees on the force components of {split}, {dataset}. First: how often the truth "
        "lies in the central interval that the committee's spread gives (Student's t, prediction interval), against "
        "how often it should; below the line the committee is overconfident. Second: error against spread in ten "
        "bins of rising spread; above the line the error is larger than the committee says."
    )
    panels = [
        Panel(f"calibration-{dataset}", levels, f"Observed against nominal coverage for {', '.join(curves)}."),
        Panel(f"spread-{dataset}", sizes, f"Error against spread; error over spread in all: {said}."),
    ]
    return Figure(caption, panels)


def _uncertain(study: Study, dataset: str, names: list[str]) -> Details:
    """The frames on which the most accurate candidate's committee disagrees most, and the command that exports them."""
    split = study.test_splits(dataset)[0]
    means = cells(study, dataset, study.headline(dataset), split)
    best = min(names, key=lambda c: min((m.value for (name, _), m in means.items() if name == c), default=np.inf))
    frames = most_disagreed(study, dataset, best, study.test_splits(dataset), LISTED)
    unit = frames[0].committee.unit
    columns = [
        Column("Split", numeric=False),
        Column("Frame", "", "index in the split's file, from 0"),
        Column("Disagreement", unit, "root mean square spread of the members over the frame's components"),
        Column("True error", unit, "of the members' mean, likewise"),
    ]
    rows = [
        [Cell(one.committee.split), Cell(str(one.frame), one.frame),
         Cell(number(1e3 * one.disagreement), 1e3 * one.disagreement), Cell(number(1e3 * one.error), 1e3 * one.error)]
        for one in frames
    ]  # fmt: skip
    caption = (
        f"The {len(rows)} frames of all test splits on which the {len(frames[0].committee.members)} repetitions of "
        f"{best} ({frames[0].committee.n_train} training frames) disagree most: what to label next, "
        "were they not labelled."
    )
    several = f" --dataset {dataset}" if len(study.datasets) > 1 else ""
    command = f"mlpbench committee {study.name}{several} --candidate '{best}' --top 50 --export frames.xyz"
    return Details(
        "Frames on which the committee disagrees most",
        [
            Table(f"uncertain-{dataset}", caption, columns, rows, headers=2),
            Commands([command], "More of them, and as a file for labelling:"),
        ],
    )
