"""The answer in plain sentences, with its conditions and its limits: what is read if nothing else is."""

from __future__ import annotations

import math

import numpy as np

from mlpbench.metrics import metric
from mlpbench.numbers import interval, listing, number, plural, ratio_text, seconds
from mlpbench.report import facts
from mlpbench.report.drawing import canvas, logarithmic, looks
from mlpbench.report.estimates import Against, against_best, cells
from mlpbench.report.fronts import cost_kinds, front_panel
from mlpbench.report.section import Block, Bullets, Figure, Panel, Section, Text
from mlpbench.study.study import Study, select

ORDER = 10


def build(study: Study) -> Section | None:
    """One paragraph for each data set, then what limits the answer."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        sentences = _sentences(study, dataset)
        if not finding:
            finding, sentences = sentences[0], sentences[1:]
        blocks += [Text(sentence) for sentence in sentences]
    blocks.append(Text(_conditions(study), role="note"))
    limits = _limits(study)
    if limits:
        blocks.append(Bullets(limits, role="warning"))
    dataset = study.datasets[0]
    return Section("answer", "In short", finding, blocks, aside=_front(study, dataset) or _ranking(study, dataset))


def _front(study: Study, dataset: str) -> Figure | None:
    """Error against the cost that matters most: inference where it was timed, else training."""
    kinds = [kind for kind in cost_kinds(study, dataset) if kind != "labels"]
    if not kinds:
        return None
    caption = (
        f"Pareto front on {study.in_distribution(dataset)}: what lies on the grey line is beaten by no other in both. "
        "Numbers: training frames; bars: 95 % intervals; open symbols: trainings among them that did not come to rest."
    )
    return Figure(caption, [front_panel(study, dataset, kinds[0], name="answer", size=(4.8, 2.9))])


def _ranking(study: Study, dataset: str) -> Figure | None:
    """Errors at the largest training size, best first: mean, interval and every trial."""
    name, split = study.headline(dataset), study.in_distribution(dataset)
    table = cells(study, dataset, name, split) if split else {}
    table = {key: mean for key, mean in table.items() if key[0] in study.lines(dataset)}
    if not table or split is None:
        return None
    n_train = max(n for _, n in table)
    means = {c: mean for (c, n), mean in table.items() if n == n_train}
    points = select(study.part(dataset, name, split), n_train=n_train)
    entry, style = metric(name), looks(study)
    with canvas(4.6, 1.0 + 0.42 * len(means)) as (figure, axes):
        for row, (candidate, mean) in enumerate(reversed(means.items())):
            look = style[candidate]
            axes.hlines(row, mean.low, mean.high, color=look.color, linewidth=2.2)
            axes.plot([mean.value], [row], marker=look.marker, markersize=8, color=look.color, linestyle="")
            trials = select(points, candidate=candidate)["value"]
            axes.plot(trials, np.full(len(trials), row - 0.26), marker="|", color=look.color, linestyle="")
        axes.set_yticks(range(len(means)), list(reversed(means)))
        axes.set_ylim(-0.6, len(means) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0, labelsize=10)
        logarithmic(axes, "x")
        axes.set_xlabel(f"{entry.symbol} ({entry.unit})")
    caption = (
        f"{entry.symbol} on {facts.split_words(study, dataset, split)}, {n_train} training frames: mean "
        f"over repetitions, "
        "95 % interval (bar) and every trial (ticks). Further left is better."
    )
    shown = [f"{c} {number(mean.value, mean.low, mean.high)}" for c, mean in means.items()]
    alt = f"{entry.symbol} in {entry.unit}, best first: {', '.join(shown)}."
    return Figure(caption, [Panel("answer", figure, alt)])


def _sentences(study: Study, dataset: str) -> list[str]:
    name, split = study.headline(dataset), study.in_distribution(dataset)
    table = cells(study, dataset, name, split) if split else {}
    table = {key: entry for key, entry in table.items() if key[0] in study.lines(dataset)}
    if not table or split is None:
        return [f"On {dataset} no trial has finished: there is nothing to compare yet ({facts.statuses(study)})."]
    n_train = max(n for _, n in table)
    compared = against_best(study, dataset, name, split, n_train)
    first = table[compared[0].candidate, n_train]
    what = "force error" if name == "force_mae" else "energy error"
    unit = metric(name).unit
    ends = interval(first.low, first.high)
    # One repetition has no spread of its own: the interval then is that of the test frames, and says so.
    over = plural(first.n, "repetition") if first.n > 1 else "over test frames alone, 1 repetition"
    spread = f" (95 % interval {ends}, {over})" if ends else " (one repetition)"
    headline = (
        f"On {dataset} ({facts.level_of_theory(study, dataset).partition(',')[0]}), trained on {n_train} "
        f"frames "
        f"for {listing(facts.budgets(study, dataset))} on {_where(study)}, "
        f"{compared[0].candidate} has the lowest mean {what}: "
        f"{number(first.value, first.low, first.high)} {unit}{spread}."
    )
    here = [c for c, n in table if n == n_train]
    return [headline, *_others(compared, study.margin_words), *_cost(study, dataset, n_train, here)]


def _others(compared: list[Against], margin: str) -> list[str]:
    words: dict[str, list[str]] = {"worse": [], "tie": [], "undecided": [], "unknown": []}
    for other in compared[1:]:
        if math.isfinite(other.low):
            ratio, ends = ratio_text(other.ratio, other.low, other.high)
            words[other.verdict].append(f"{other.candidate} ({ratio} times its error, {ends})")
        else:
            words[other.verdict].append(f"{other.candidate} ({number(other.ratio)} times its error)")
    parts = []
    if words["tie"]:
        parts.append(f"A tie with it, to within {margin}: {listing(words['tie'])}.")
    undecided = words["undecided"] + words["unknown"]
    if undecided:
        more = [c.further for c in compared[1:] if c.verdict == "undecided" and c.further]
        hint = f"; about {plural(max(more), 'further repetition')} would" if more else ""
        parts.append(f"These repetitions cannot tell it from {listing(undecided)}{hint}.")
    if words["worse"]:
        parts.append(f"Less accurate beyond doubt (Holm-corrected 95 %): {listing(words['worse'])}.")
    return [" ".join(parts)] if parts else []


def _cost(study: Study, dataset: str, n_train: int, candidates: list[str]) -> list[str]:
    rows = select(study.table, dataset=dataset, n_train=n_train, status="done")
    rows = rows[rows["candidate"].isin(candidates)].dropna(subset=["train_seconds"])
    if rows["candidate"].nunique() < 2 or len(facts.machines(rows)) > 1:
        return []
    mean = rows.groupby("candidate")["train_seconds"].mean().sort_values()
    return [
        f"Training took from {seconds(float(mean.iloc[0]))} ({mean.index[0]}) "
        f"to {seconds(float(mean.iloc[-1]))} ({mean.index[-1]}) per trial."
    ]


def _where(study: Study) -> str:
    machines = facts.machines(study.trials)
    return machines[0] if len(machines) == 1 else f"{len(machines)} kinds of hardware"


def _conditions(study: Study) -> str:
    data = listing([f"{d}, {facts.level_of_theory(study, d)}" for d in study.datasets])
    return f"Data: {data}. Hardware: {'; '.join(facts.machines(study.trials))}. Trials: {facts.statuses(study)}."


def _limits(study: Study) -> list[str]:
    limits = []
    open_ended = facts.unrested(study.table)
    done = int((study.table["status"] == "done").sum())
    if len(open_ended):
        share = "No training" if len(open_ended) == done else f"{len(open_ended)} of {done} finished trainings"
        verb = "came to rest" if len(open_ended) == done else "had not come to rest when the budget ended"
        names = "" if len(open_ended) > done / 2 else f" ({listing(sorted(open_ended['candidate'].unique()))})"
        limits.append(
            f"{share} {verb}{names}. Among such trainings a ranking is a ranking of optimisation speed "
            "under this budget, not of what the architectures can reach."
        )
    if len(facts.budgets(study)) > 1:
        limits.append(f"Budgets differ between trials: {'; '.join(facts.budgets(study))}.")
    wrong = study.table[study.table["status"] != "done"]
    if len(wrong):
        limits.append(
            f"{plural(len(wrong), 'trial')} did not finish ({listing(sorted(wrong['candidate'].unique()))}); "
            "means are over those that did."
        )
    if study.table["repetition"].nunique() < 3:
        limits.append(
            f"Only {plural(study.table['repetition'].nunique(), 'repetition')}: "
            "most differences cannot be told from chance. Three or more are needed for a decision."
        )
    if len(facts.machines(study.trials)) > 1:
        limits.append(
            f"Times come from different hardware and are never averaged: {'; '.join(facts.machines(study.trials))}."
        )
    crossed = int(study.table["repetition"].isna().sum())
    if crossed:
        limits.append(
            f"Seeds were crossed: {crossed} of {len(study.table)} trials share a split "
            "or an initialisation with another of their setting. They tell where the spread comes from; means and "
            "intervals rest on those that share none."
        )
    if study.tuned:
        limits.append(
            "Settings were chosen on validation error and are reported on test; tried per architecture – "
            f"{listing(_tuning(study))}. One that was tuned more has an advantage."
        )
    return limits


def _tuning(study: Study) -> list[str]:
    """The tuning budget of each architecture: settings, trials and their training time."""
    found = []
    for name in dict.fromkeys(candidate.name for candidate in study.candidates):
        mine = [candidate for candidate in study.candidates if candidate.name == name]
        spent = np.nansum([candidate.tuning_seconds for candidate in mine])
        found.append(
            f"{name}: {plural(max(c.tried for c in mine), 'setting')}, "
            f"{plural(sum(c.tuning_trials for c in mine), 'trial')}, {seconds(float(spent))}"
        )
    return found
