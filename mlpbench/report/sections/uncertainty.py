"""Repetitions as a committee: does their disagreement tell where they are wrong?"""

from __future__ import annotations

import numpy as np

from mlpbench.report.estimates import chosen
from mlpbench.report.numbers import interval, listing, number
from mlpbench.report.section import Block, Cell, Column, Section, Table
from mlpbench.report.study import Errors, Study, select
from mlpbench.statistics.committee import Estimated, FrameErrors, auroc, calibration, energy_errors, force_errors
from mlpbench.statistics.committee import rank_correlation as ranks

ORDER = 52


def build(study: Study) -> Section | None:
    """A table for each data set with candidates of at least two finished repetitions and their predictions."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        rows = {c: found for c in chosen(study, dataset) if (found := _row(study, dataset, c))}
        if rows:
            blocks.append(_table(study, dataset, list(rows.values())))
            scales = {c: row[3].value for c, row in rows.items()}
            sure = [c for c, scale in scales.items() if isinstance(scale, float) and scale > 1.2]
            finding = finding or (f"Overconfident as committees: {listing(sure)}." if sure else "")
    return Section("uncertainty", "Committee of the repetitions", finding, blocks) if blocks else None


def _members(study: Study, dataset: str, candidate: str, split: str) -> list[Errors]:
    """Predictions of each repetition at the largest n_train, where all are about the same frames."""
    place = {"dataset": dataset, "candidate": candidate, "n_train": study.largest(dataset), "status": "done"}
    found = [study.errors(trial, split) for trial in select(study.table, **place)["trial"]]
    members = [errors for errors in found if errors is not None]
    same = [m for m in members if np.array_equal(m.frames.energy, members[0].frames.energy)]
    return same if len(same) == len(members) > 1 else []


def _frame_errors(members: list[Errors]) -> FrameErrors:
    frames = members[0].frames
    forces = [m.forces for m in members if m.force is not None and m.forces is not None]
    if len(forces) == len(members):
        return force_errors(np.stack(forces), frames.forces, frames.frame_of_atom)
    # Baselines differ between splits of the training frames: compare what was predicted in all.
    total = np.stack([m.energy + m.frames.baseline for m in members])
    return energy_errors(total, frames.energy, frames.n_atoms)


def _row(study: Study, dataset: str, candidate: str) -> list[Cell] | None:
    splits = study.test_splits(dataset)
    members = {split: _members(study, dataset, candidate, split) for split in splits}
    inside = members[splits[0]] if splits else []
    if not inside:
        return None
    errors = {split: _frame_errors(found) for split, found in members.items() if found}
    forces = [m.forces for m in inside if m.force is not None and m.forces is not None]
    scale: float | None = None
    if len(forces) == len(inside):
        scale = calibration(np.stack(forces), inside[0].frames.forces).scale
    first = errors[splits[0]]
    cells = [Cell(candidate), Cell(str(len(inside)), len(inside)), _cell(ranks(first, inside[0].frames.group))]
    cells.append(Cell(number(scale), scale) if scale is not None else Cell("–"))
    for split in splits[1:]:
        found = errors.get(split)
        cells.append(_cell(auroc(first.disagreement, found.disagreement)) if found else Cell("–"))
    return cells


def _cell(found: Estimated) -> Cell:
    return Cell(number(found.value, found.lower, found.upper), found.value, interval(found.lower, found.upper))


def _table(study: Study, dataset: str, rows: list[list[Cell]]) -> Table:
    splits = study.test_splits(dataset)
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
        f"frames: whether "
        f"disagreement on the forces of {splits[0]} frames tells their error (ρ: 1 perfectly, 0 not at "
        f"all), whether its "
        "size is right, and whether it sets other splits apart (0.5: not at all, 1: perfectly). 95 % "
        "intervals over frames."
    )
    return Table(f"committee-{dataset}", caption, columns, rows)
