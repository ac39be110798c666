"""The answer: one sentence, a card for each pillar, and what limits it; what is read if nothing else is."""

from __future__ import annotations

import numpy as np

from mlpbench.metrics import MAIN_ERRORS, metric
from mlpbench.numbers import listing, number, plural, seconds
from mlpbench.report import facts
from mlpbench.report.drawing import canvas, logarithmic, looks
from mlpbench.report.estimates import cells
from mlpbench.report.fronts import first_front, front_panel
from mlpbench.report.pillars import answer, sentence
from mlpbench.report.section import Block, Bullets, Cards, Figure, Panel, Section, Text
from mlpbench.study.settings import SCRATCH
from mlpbench.study.study import Study, select

CHAPTERS = {"answer": 10}


def answer_section(study: Study) -> Section | None:
    """A sentence and four cards for each data set, then what limits the answer."""
    top: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        given = answer(study, dataset)
        if given is None:
            said = f"On {dataset} no trial has finished: there is nothing to compare yet ({facts.statuses(study)})."
        else:
            said = sentence(study, dataset, given)
        if finding:
            top.append(Text(said, role="lead"))
        finding = finding or said
        if given is not None:
            top.append(Cards([pillar.card for pillar in given.pillars]))
    limits = _limits(study)
    blocks: list[Block] = [Bullets(limits, role="warning")] if limits else []
    blocks.append(Text(_conditions(study), role="note"))
    dataset = study.datasets[0]
    return Section("answer", "In short", finding, blocks, _front(study) or _ranking(study, dataset), top)


def _front(study: Study) -> Figure | None:
    """Error against the cost that matters most: inference where it was timed, else training."""
    place = first_front(study)
    if place is None:
        return None
    dataset, kind = place
    numbers = "Numbers: training frames; b" if len(facts.train_sizes(study, dataset)) > 1 else "B"
    caption = (
        f"Pareto front on {study.in_distribution(dataset)}: what lies on the grey line is beaten by no other in both. "
        f"{numbers}ars: 95 % intervals; open symbols: trainings among them that are not at rest."
    )
    return Figure(caption, [front_panel(study, dataset, kind, name="answer", size=(4.8, 2.9))])


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
        f"{entry.symbol} on {facts.split_words(study, dataset, split)}, {n_train} training frames: "
        f"{facts.mean_words(study, dataset, n_train)}, 95 % interval (bar); every trial (ticks). Lower is better."
    )
    shown = [f"{c} {number(mean.value, mean.low, mean.high)}" for c, mean in means.items()]
    alt = f"{entry.symbol} in {entry.unit}, best first: {', '.join(shown)}."
    return Figure(caption, [Panel("answer", figure, alt)])


def _conditions(study: Study) -> str:
    levels = [(d, facts.level_of_theory(study, d)) for d in study.datasets]
    data = listing([d if level == facts.UNSTATED else f"{d}, {level}" for d, level in levels])
    budgets = "; ".join(facts.budgets(study))
    rest = facts.rest_words(study.table)
    return (
        f"Data: {data}. Training: {budgets}; {rest}. Hardware: {'; '.join(facts.machines(study.trials))}. "
        f"Trials: {facts.statuses(study)}."
    )


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
    limits += _not_converged(study)
    limits += _trained_before(study)
    limits += _no_better_than_trivial(study)
    limits += _more_steps_with_more_labels(study)
    if len(facts.budgets(study)) > 1:
        limits.append(f"Budgets differ between trials: {'; '.join(facts.budgets(study))}.")
    wrong = study.table[study.table["status"] != "done"]
    if len(wrong):
        limits.append(
            f"{plural(len(wrong), 'trial')} did not finish ({listing(sorted(wrong['candidate'].unique()))}); "
            "means are over those that did."
        )
    lost = study.table[study.table["unfinished"] != ""]
    if len(lost):
        limits.append(
            f"{plural(len(lost), 'trial')} ended before every evaluation that was asked for "
            f"({listing(sorted(lost['candidate'].unique()))}); the errors count, what is missing does not."
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


def _not_converged(study: Study) -> list[str]:
    """That longer trainings may change the order; by how much they still changed the errors, where that was tried."""
    done = study.table[study.table["status"] == "done"]
    falls, reached = [], 0
    for trial, converged in zip(done["trial"], done["converged"], strict=True):
        rungs = study.record[trial]["training"].get("rungs") or []
        if len(rungs) > 1:
            falls.append(1 - rungs[-1]["error"] / rungs[-2]["error"])
            reached += facts.rested(converged)
    if not len(done) or all(facts.rested(converged) for converged in done["converged"]):
        return []
    if not falls:
        return [
            "Whether longer trainings would change the errors, and with them the order, was not tried: budget=converge "
            "repeats each with twice the steps until that no longer helps."
        ]
    verb = "was" if len(falls) == 1 else "were"
    which = f"{plural(len(falls), 'training')} that {verb} repeated with twice the steps"
    least, most = (round(100 * fall) + 0 for fall in (min(falls), max(falls)))
    if least < 0 < most:
        change = f"lowered validation errors by up to {most} % and raised them by up to {-least} %"
    else:
        verb, low, high = ("lowered", least, most) if most > 0 else ("raised", -most, -least)
        change = (
            f"{verb} validation errors by {low} to {high} %" if low != high else f"{verb} validation errors by {high} %"
        )
    return [f"{reached} of {which} had converged: the last doubling {change}. Longer trainings may change the order."]


def _trained_before(study: Study) -> list[str]:
    """That what starts from a potential had labels and steps elsewhere, where fresh weights stand beside it."""
    done = study.table[study.table["status"] == "done"]
    started = done[done["start"] != SCRATCH]
    if not len(started) or len(started) == len(done):
        return []
    starts = [study.record[trial]["training"].get("start") or {} for trial in started["trial"]]
    known = sorted({start["pretraining_labels"] for start in starts if start.get("pretraining_labels") is not None})
    most = f" ({known[0]} labels" + (f" to {known[-1]}" if known[0] != known[-1] else "") + ")" if known else ""
    return [
        f"{listing(sorted(started['candidate'].unique()))} had been trained on other data before{most}: that is "
        "neither in the training frames nor in the steps and seconds shown here. Trainings from scratch that are "
        "longer by as much may do as well."
    ]


def _no_better_than_trivial(study: Study) -> list[str]:
    """Whoever does not beat a predictor without geometry, in its main errors at its largest training size."""
    sentences = []
    for dataset in study.datasets:
        split = study.in_distribution(dataset) or ""
        for name in MAIN_ERRORS:
            bound, entry = facts.trivial(study, dataset, name, split), metric(name)
            for candidate in study.lines(dataset) if bound is not None else []:
                means = {n: mean for (c, n), mean in cells(study, dataset, name, split).items() if c == candidate}
                last = means[max(means)] if means else None
                if bound is not None and last is not None and last.value >= bound:
                    errors = f"{number(last.value)} against {number(bound)} {entry.unit}"
                    sentences.append(f"{candidate} ({entry.symbol} {errors})")
    return [f"No better than a predictor without geometry: {listing(sentences)}."] if sentences else []


def _more_steps_with_more_labels(study: Study) -> list[str]:
    """Where a candidate's trainings took more optimiser steps the more labels they had: that is no learning curve."""
    done = study.table[study.table["status"] == "done"]
    done = done[~done["converged"].map(facts.rested).astype(bool)]  # more steps would change nothing there
    steps = done.groupby(["dataset", "candidate", "n_train"])["steps"].mean().unstack("n_train")
    grown = steps.max(axis=1) > 1.05 * steps.min(axis=1)
    if not grown.any():
        return []
    names = sorted({str(candidate) for _, candidate in steps.index[grown]})
    return [
        f"More labels also meant more optimiser steps ({listing(names)}: {int(steps[grown].min().min())} to "
        f"{int(steps[grown].max().max())}), so the errors along the training frames measure both. A budget in steps "
        "(budget.steps, the default) keeps them apart."
    ]


def _tuning(study: Study) -> list[str]:
    """The tuning budget of each architecture: settings, trials and their training time."""
    sentences = []
    for name in dict.fromkeys(candidate.name for candidate in study.candidates):
        mine = [candidate for candidate in study.candidates if candidate.name == name]
        spent = np.nansum([candidate.tuning_seconds for candidate in mine])
        sentences.append(
            f"{name}: {plural(max(c.tried for c in mine), 'setting')}, "
            f"{plural(sum(c.tuning_trials for c in mine), 'trial')}, {seconds(float(spent))}"
        )
    return sentences
