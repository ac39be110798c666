"""How firm the ranking is: each pair, its power, what leaving one out changes, and where the spread comes from."""

from __future__ import annotations

import math

import numpy as np

from mlpbench.decision.model import percent
from mlpbench.metrics import metric
from mlpbench.numbers import listing, plural
from mlpbench.report import facts
from mlpbench.report.estimates import POWER_AT, comparisons
from mlpbench.report.section import Block, Cell, Column, Details, Section, Table, Text, ratio_cell
from mlpbench.statistics.paired import LEAST_REPETITIONS, Comparison
from mlpbench.statistics.pareto import Stability, rank_stability
from mlpbench.statistics.variance import shared_variance, variance_shares
from mlpbench.study.study import Study, select

ORDER = 25
MOST_PAIRS = 45  # in the table; of more candidates, only those against the best
ALONE = "Unknown: with one repetition of each, no difference between candidates can be told from chance."
EFFECT = 10  # per cent: the difference that the power is said for


def build(study: Study) -> Section | None:
    """For each data set with two candidates: the pairs, the stability of the order, the sources of the spread."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        split = study.in_distribution(dataset)
        errors = _errors(study, dataset, split) if split else {}
        if len(errors) < 2 or split is None:
            continue
        if max(len(found) for found in errors.values()) < 2:
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
    means = {c: float(np.mean(np.log(list(found.values())))) for c, found in errors.items()}
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
    if not set.intersection(*(set(found) for found in errors.values())):
        return None
    found = rank_stability(errors)
    return found if found.without else None


def _left_out(study: Study, dataset: str, found: Stability) -> Table:
    columns = [
        Column("Left out", numeric=False),
        Column("Order then", "", "best first", numeric=False),
        Column("Pairs that turned", "", "against the order with everything in"),
    ]
    rows = [
        [Cell(name), Cell(" < ".join(order)), Cell(str(found.changed[name]), found.changed[name])]
        for name, order in found.without.items()
    ]
    caption = (
        f"Rank stability on {dataset}, {study.largest(dataset)} training frames: the order by mean error over common "
        f"repetitions is {' < '.join(found.order)}, and what it is without any one candidate or repetition. "
        f"Smallest Kendall τ with the full order: {found.worst_tau:.2f}."
    )
    return Table(f"stability-{dataset}", caption, columns, rows)


def _finding(found: Stability, pairs: list[Comparison]) -> str:
    """Who stays first when one is left out, and how many pairs are decided: an order may stand by chance alone."""
    first, count = found.order[0], sum(name != found.order[0] for name in found.without)
    stays = round(found.first_share * count) if count else 0
    turned = [name for name, pairs in found.changed.items() if pairs]
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
    found = variance_shares(np.log(rows["value"].to_numpy()), rows["split_seed"], rows["init_seed"], setting)
    if found.design != "not identifiable":
        rest = f", {percent(found.residual)} from neither alone" if math.isfinite(found.residual) else ""
        which = "neither surely more than the other" if found.dominant == "unclear" else f"{found.dominant} dominates"
        return (
            f"Where the spread between trials comes from ({found.design} design, {plural(len(rows), 'trial')}, one "
            f"trial's error spreads by {100 * math.sqrt(found.total):.1f} %): {percent(found.split)} of the variance "
            f"from the split seed, {percent(found.initialisation)} from the initialisation seed{rest}; {which}."
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
