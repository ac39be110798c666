"""A definition of every metric and every word of art in the report."""

from __future__ import annotations

from markupsafe import Markup

from mlpbench.metrics import metric
from mlpbench.report.section import Block, Section, Text
from mlpbench.study.study import Study

ORDER = 99

WORDS = {
    "Trial": "One training of one architecture at one size and one number of frames, with its evaluation.",
    "Repetition": "The same trial with other training frames and another initialisation. Repetition k has "
    "the same frames for "
    "all architectures, so that differences are paired.",
    "95 % interval": "Where the mean over very many repetitions lies, in 95 of 100 studies like this one: "
    "Student's t on the "
    "logarithm of the error, the variance pooled over the settings that share it.",
    "Better, tie, undecided": "Better: the Holm-corrected 95 % interval of the paired error ratio excludes "
    "1. Tie: the interval lies inside the margin (±5 % unless the report says otherwise). Undecided: neither; more "
    "repetitions would tell.",
    "At rest": "The training's curve has flattened under its finished schedule, near its lowest error. One that is not "
    "at rest says how fast an architecture is optimised, not what it can reach.",
    "Converged": "At rest, and a training of another length agrees (budget=converge tests it).",
    "Budget": "The limit on training, the same for every architecture: epochs, optimiser steps or seconds.",
    "In and out of distribution": "A split in distribution comes from the same conditions as the training "
    "frames but from "
    "another trajectory; out of distribution: other temperatures, sizes or compositions.",
    "Power": "The chance that a comparison with that many repetitions finds a difference that is really there.",
    "Committee": "The repetitions of one candidate together: where they disagree, the error is likely large.",
    "Best checkpoint so far": "At any moment of a training, the epoch with the lowest validation loss until then: the "
    "potential that stopping there would have given.",
    "Parity plot": "Prediction against reference; a perfect potential lies on the diagonal.",
    "Pareto front": "The candidates that no other beats in both quantities at once.",
    "Baseline": "Reference energies of the atoms and the mean of the rest, taken off the total energy "
    "before training and put "
    "back in double precision afterwards.",
}


def build(study: Study) -> Section | None:
    """Words first, then the metrics the study has."""
    metrics = {}
    for name in study.metric_names:
        entry = metric(name)
        better = {"lower": "Lower is better.", "higher": "Higher is better.", "none": ""}[entry.direction]
        unit = f" ({entry.unit})" if entry.unit else ""
        source = f" Source: {entry.source}." if entry.source else ""
        metrics[f"{entry.symbol}{unit}"] = f"{name}: {entry.description} {better}{source}"
    blocks: list[Block] = [Text(_list(WORDS)), Text(_list(metrics))] if metrics else [Text(_list(WORDS))]
    return Section("glossary", "Glossary", "", blocks)


def _list(entries: dict[str, str]) -> Markup:
    rows = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(key, value) for key, value in entries.items())
    return Markup("<dl>{}</dl>").format(rows)
