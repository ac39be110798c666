"""Force errors element by element: where a potential is weak."""

from __future__ import annotations

import math

import numpy as np

from mlpbench.report import facts
from mlpbench.report.drawing import canvas, legend, looks
from mlpbench.report.estimates import cells, chosen
from mlpbench.report.numbers import interval, number
from mlpbench.report.section import Block, Cell, Column, Figure, Panel, Section, Table
from mlpbench.report.study import Study, select

ORDER = 50
PREFIX = "force_mae_"


def build(study: Study) -> Section | None:
    """A figure and a table for each data set with per-element errors."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        split = study.in_distribution(dataset)
        rows = select(study.values, dataset=dataset, split=split)
        elements = sorted({m.removeprefix(PREFIX) for m in rows["metric"] if m.startswith(PREFIX)})
        if split is not None and elements:
            blocks += _blocks(study, dataset, split, elements, int(rows["n_train"].max()))
    return Section("elements", "Force error by element", "", blocks) if blocks else None


def _blocks(study: Study, dataset: str, split: str, elements: list[str], n_train: int) -> list[Block]:
    tables = {e: select(cells(study, dataset, PREFIX + e, split), n_train=n_train).set_index("candidate") for e in elements}
    names = [c for c in chosen(study, dataset) if any(c in t.index for t in tables.values())]
    style = looks(study)
    width = 0.8 / max(len(names), 1)
    with canvas(5.2, 3.0) as (figure, axes):
        for index, candidate in enumerate(names):
            look, shift = style[candidate], width * (index - (len(names) - 1) / 2)
            known = [(i, tables[e].loc[candidate]) for i, e in enumerate(elements) if candidate in tables[e].index]
            x = [i + shift for i, _ in known]
            axes.plot(x, [r["value"] for _, r in known], linestyle="", marker=look.marker, color=look.color, label=candidate,
                      markersize=6)  # fmt: skip
            ends = [(at, r["low"], r["high"]) for at, (_, r) in zip(x, known, strict=True) if math.isfinite(r["low"])]
            axes.vlines(*np.array(ends).reshape(-1, 3).T, color=look.color, linewidth=1.3)
        axes.set_ylim(bottom=0)
        axes.set_xticks(range(len(elements)), elements)
        axes.set_ylabel("F MAE (meV/Å)")
        axes.grid(visible=False, axis="x")
        legend(axes, 4 if max(map(len, names), default=0) < 9 else 2)
    words = f"on {facts.split_words(study, dataset, split)}, {n_train} training frames; mean over repetitions, 95 % interval."
    rows = [
        [Cell(c), *(_cell(tables[e], c) for e in elements)] for c in names
    ]
    columns = [Column("Candidate", numeric=False), *(Column(f"F MAE on {e}", "meV/Å") for e in elements)]
    return [
        Figure(f"Force error by element {words}", [Panel(f"elements-{dataset}", figure,
               f"Force MAE on {', '.join(elements)} for {', '.join(names)}; numbers in the table below.")]),
        Table(f"elements-{dataset}", f"Force error by element, {dataset}, {words}", columns, rows),
    ]  # fmt: skip


def _cell(table, candidate: str) -> Cell:  # type: ignore[no-untyped-def]
    if candidate not in table.index:
        return Cell("–")
    row = table.loc[candidate]
    return Cell(number(row["value"], row["low"], row["high"]), float(row["value"]), interval(row["low"], row["high"]))
