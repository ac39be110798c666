"""The frames with the largest errors: where all potentials fail, the label may be at fault; where one does,
the potential.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mlpbench.frames import Float
from mlpbench.numbers import listing, number
from mlpbench.report.section import Block, Cell, Column, Section, Table
from mlpbench.study.study import Errors, Study, select

ORDER = 57
WORST = 10  # frames listed for each data set
TAIL = 0.05  # a frame counts as hard for a candidate when it is among its worst 5 %


def build(study: Study) -> Section | None:
    """One table for each data set whose predictions are at hand."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        rows = [row for split in study.test_splits(dataset) for row in _split(study, dataset, split)]
        if rows:
            blocks.append(_table(dataset, rows))
    if not blocks:
        return None
    return Section("outliers", "Hardest frames", "Which structures do the potentials get wrong?", blocks)


def _split(study: Study, dataset: str, split: str) -> list[dict[str, Any]]:
    """One entry for each frame: its error for each candidate, averaged over repetitions at the largest
    n_train.
    """
    done = select(study.table, dataset=dataset, status="done")
    errors: dict[str, Float] = {}
    energies: dict[str, Float] = {}
    for candidate in study.lines(dataset):
        trials = select(done, candidate=candidate, n_train=done["n_train"].max())
        found = [e for e in (study.errors(t, split) for t in trials["trial"]) if e is not None]
        if found:
            errors[candidate] = np.mean([_per_frame(e) for e in found], axis=0)
            energies[candidate] = np.mean([1e3 * np.abs(e.per_atom) for e in found], axis=0)
    if not errors:
        return []
    table = pd.DataFrame(errors)
    hard = table >= table.quantile(1 - TAIL)
    relative = table / table.median()
    return [
        {
            "split": split, "frame": int(index), "relative": float(relative.loc[index].mean()),
            "hard": [str(c) for c in table.columns if hard.loc[index, c]],
            "error": {str(c): float(table.loc[index, c]) for c in table.columns},
            "energy": float(np.mean([values[index] for values in energies.values()])),
        }
        for index in table.index
    ]  # fmt: skip


def _per_frame(errors: Errors) -> Float:
    """(F,) meV/Å, mean |ΔF| over the components of each frame; meV/atom where there are no forces."""
    force = errors.force
    if force is None:
        return 1e3 * np.abs(errors.per_atom)
    sums = np.bincount(errors.frames.frame_of_atom, np.abs(force).sum(axis=1), minlength=len(errors.frames))
    return np.asarray(1e3 * sums / (3 * errors.frames.n_atoms), dtype=np.float64)


def _table(dataset: str, rows: list[dict[str, Any]]) -> Table:
    worst = sorted(rows, key=lambda row: -row["relative"])[:WORST]
    names = list(worst[0]["error"])
    columns = [
        Column("Split", numeric=False), Column("Frame", "", "index in the split's file, from 0"),
        Column("Times the median", "", "error over the split's median error, mean over candidates"),
        *(Column(f"{name}", "meV/Å", "mean |ΔF| of the frame, mean over repetitions") for name in names),
        Column("|ΔE|", "meV/atom", "mean over candidates"),
        Column("Hard for", "", "candidates for which it is among the worst 5 % of its split", numeric=False),
    ]  # fmt: skip
    cells = [
        [Cell(r["split"]), Cell(str(r["frame"]), r["frame"]), Cell(f"{r['relative']:.1f}", r["relative"]),
         *(Cell(number(r["error"][n]), r["error"][n]) for n in names), Cell(number(r["energy"]), r["energy"]),
         Cell("all" if len(r["hard"]) == len(names) > 1 else listing(r["hard"]) or "–")]
        for r in worst
    ]  # fmt: skip
    caption = (
        f"The {len(worst)} frames of {dataset} with the largest error relative to the median of their "
        f"split, at the largest "
        "training size. A frame that is hard for all deserves a look at its label."
    )
    return Table(f"outliers-{dataset}", caption, columns, cells, headers=2)
