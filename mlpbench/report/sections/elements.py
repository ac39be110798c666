"""Force errors element by element: where a potential is weak."""

from __future__ import annotations

from mlpbench.report import facts
from mlpbench.report.drawing import canvas, legend, looks, series
from mlpbench.report.estimates import cells
from mlpbench.report.section import Block, Cell, Column, Figure, Panel, Section, Table, mean_cell
from mlpbench.study.study import Study

ORDER = 50
PREFIX = "force_mae_"


def build(study: Study) -> Section | None:
    """A figure and a table for each data set with per-element errors."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        split = study.in_distribution(dataset)
        present = study.metrics_of(dataset, split) if split is not None else set()
        elements = sorted(m.removeprefix(PREFIX) for m in present if m.startswith(PREFIX))
        if split is not None and elements:
            blocks += _blocks(study, dataset, split, elements, study.largest(dataset))
    return Section("elements", "Force error by element", "", blocks) if blocks else None


def _blocks(study: Study, dataset: str, split: str, elements: list[str], n_train: int) -> list[Block]:
    tables = {element: cells(study, dataset, PREFIX + element, split) for element in elements}
    names = [c for c in study.lines(dataset) if any((c, n_train) in table for table in tables.values())]
    style = looks(study)
    width = 0.8 / max(len(names), 1)
    with canvas(5.2, 3.0) as (figure, axes):
        for index, candidate in enumerate(names):
            shift = width * (index - (len(names) - 1) / 2)
            found = {i + shift: tables[e].get((candidate, n_train)) for i, e in enumerate(elements)}
            means = {x: mean for x, mean in found.items() if mean is not None}
            series(axes, list(means), list(means.values()), style[candidate], candidate, line=0)
        axes.set_ylim(bottom=0)
        axes.set_xticks(range(len(elements)), elements)
        axes.set_ylabel("F MAE (meV/Å)")
        axes.grid(visible=False, axis="x")
        legend(axes)
    where = facts.split_words(study, dataset, split)
    words = f"on {where}, {n_train} training frames; {facts.mean_words(study, dataset, n_train)}, 95 % interval."
    rows = [[Cell(c), *(mean_cell(tables[e].get((c, n_train))) for e in elements)] for c in names]
    columns = [Column("Candidate", numeric=False), *(Column(f"F MAE on {e}", "meV/Å") for e in elements)]
    alt = f"Force MAE on {', '.join(elements)} for {', '.join(names)}; numbers in the table below."
    return [
        Figure(f"Force error by element {words}", [Panel(f"elements-{dataset}", figure, alt)]),
        Table(f"elements-{dataset}", f"Force error by element, {dataset}, {words}", columns, rows),
    ]
