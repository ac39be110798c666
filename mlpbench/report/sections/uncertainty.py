"""Repetitions as a committee: does their disagreement tell where they are wrong?"""

from __future__ import annotations

import numpy as np

from mlpbench.numbers import interval, listing, number
from mlpbench.report.committees import Committee, committee, committees_of, most_disagreed
from mlpbench.report.drawing import INK, canvas, legend, logarithmic, looks
from mlpbench.report.estimates import cells
from mlpbench.report.section import Block, Cell, Column, Commands, Details, Figure, Panel, Section, Table
from mlpbench.statistics.committee import Calibration, Estimated, auroc, calibration
from mlpbench.statistics.committee import rank_correlation as ranks
from mlpbench.study.study import Study

ORDER = 52
LISTED = 10  # frames


def build(study: Study) -> Section | None:
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
        sure = [c for c, found in curves.items() if found.scale > 1.2]
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


def _cell(found: Estimated) -> Cell:
    return Cell(number(found.value, found.lower, found.upper), found.value, interval(found.lower, found.upper))


def _table(study: Study, dataset: str, inside: list[Committee], curves: dict[str, Calibration]) -> Table:
    splits = study.test_splits(dataset)
    scales = {c: found.scale for c, found in curves.items()}
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
        for candidate, found in curves.items():
            look = style[candidate]
            axes.plot(found.nominal, found.observed, color=look.color, linestyle=look.dash, marker=look.marker,
                      markersize=3.5, label=candidate)  # fmt: skip
        axes.set_xlabel("share of truths that should lie inside")
        axes.set_ylabel("share that does")
        legend(axes)
    with canvas() as (sizes, axes):
        ends = np.array([[found.bins.min(), found.bins.max()] for found in curves.values()])
        line = 1e3 * np.array([ends[:, 0].min(), ends[:, 1].max()])
        axes.plot(line, line, color=INK, linewidth=0.7)
        for candidate, found in curves.items():
            look = style[candidate]
            x, y = 1e3 * found.bins.T
            axes.plot(x, y, color=look.color, linestyle=look.dash, marker=look.marker, label=candidate)
        logarithmic(axes, "xy")
        axes.set_xlabel("root mean square spread (meV/Å)")
        axes.set_ylabel("root mean square error (meV/Å)")
        legend(axes)
    said = listing([f"{c} {found.scale:.2f}" for c, found in curves.items()])
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
    found = most_disagreed(study, dataset, best, study.test_splits(dataset), LISTED)
    unit = found[0].committee.unit
    columns = [
        Column("Split", numeric=False),
        Column("Frame", "", "index in the split's file, from 0"),
        Column("Disagreement", unit, "root mean square spread of the members over the frame's components"),
        Column("True error", unit, "of the members' mean, likewise"),
    ]
    rows = [
        [Cell(one.committee.split), Cell(str(one.frame), one.frame),
         Cell(number(1e3 * one.disagreement), 1e3 * one.disagreement), Cell(number(1e3 * one.error), 1e3 * one.error)]
        for one in found
    ]  # fmt: skip
    caption = (
        f"The {len(rows)} frames of all test splits on which the {len(found[0].committee.members)} repetitions of "
        f"{best} ({found[0].committee.n_train} training frames) disagree most: what to label next, "
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
