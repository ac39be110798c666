"""Physical quantities of each candidate beside the reference method's."""

from __future__ import annotations

import math

import numpy as np

from mlpbench.evaluators.physics import ARRAYS
from mlpbench.evaluators.properties import NAME, both, imaginary_text, reference_values
from mlpbench.numbers import number
from mlpbench.quantities import QUANTITIES, Quantity, Value
from mlpbench.report.facts import references_of
from mlpbench.report.section import Block, Bullets, Cell, Column, Section, Table
from mlpbench.report.sections.physics import first_trials
from mlpbench.statistics.intervals import interval
from mlpbench.study.study import Study, select

CHAPTERS = {"properties": 63}
ERROR = "_error"


def properties_section(study: Study) -> Section | None:
    """A table of quantities × candidates for each data set, and the imaginary modes by name."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        entries = _entries(study, dataset)
        if entries:
            blocks.append(_table(study, dataset, entries))
            blocks += _imaginary(study, dataset)
    if not blocks:
        return None
    finding = (
        "Computed from energies, forces and stresses on the same structures, by the same formulas, for each "
        "potential and for the reference method."
    )
    return Section("properties", "Physical quantities beside the reference", finding, blocks)


def _entries(study: Study, dataset: str) -> list[tuple[str, Quantity]]:
    """(split, quantity) in the order of the registry: what a potential or the reference has."""
    part = select(study.values, dataset=dataset)
    there = set(zip(part["split"], part["metric"], strict=True))
    splits = sorted({str(split) for split, metric in there if str(metric).removesuffix(ERROR) in QUANTITIES})
    if not splits and not _expected(study, dataset):
        return []
    for split, name in _expected(study, dataset):  # also what no potential has
        there.add((split, name + ERROR))
        splits = sorted({*splits, split})
    return [(s, q) for q in QUANTITIES.values() for s in splits if (s, q.name + ERROR) in there]


def _expected(study: Study, dataset: str) -> dict[tuple[str, str], Value]:
    """(split, quantity) -> the reference's value, where a trial was probed and the file still lies in its place."""
    for trial in first_trials(study, dataset).values():
        reference = references_of(study, trial).get(NAME)
        if reference is not None and both(study.root / trial / ARRAYS, reference):
            sets = reference_values(reference)
            return {(name.partition(":")[2], q): value for name, found in sets.items() for q, value in found.items()}
    return {}


def _table(study: Study, dataset: str, entries: list[tuple[str, Quantity]]) -> Table:
    n_train = study.largest(dataset)
    candidates = list(study.lines(dataset))
    columns = [Column("Quantity", numeric=False), Column("Unit", numeric=False), Column("Reference")]
    columns += [Column(candidate, note="value, error in brackets; below, its interval") for candidate in candidates]
    rows = []
    for split, quantity in entries:
        title = quantity.symbol + (f", {split.replace('_', ' ')}" if split else "")
        cells = [_cell(study, dataset, split, quantity, candidate, n_train) for candidate in candidates]
        reference = _reference(study, dataset, split, quantity)
        rows.append([Cell(title, note=quantity.description), Cell(quantity.unit or "–"), reference, *cells])
    caption = (
        f"{dataset}, {n_train} training frames: value and, in brackets, its error (potential less reference); of "
        "arrays (bands, paths) the error alone. Means over repetitions, 95 % intervals of the error by Student's t "
        "where there are two or more; a dash: the potential does not have it (no minimum in the range, no stress)."
    )
    return Table(f"properties-{dataset}", caption, columns, rows)


def _values(study: Study, dataset: str, split: str, name: str, candidate: str, n_train: int) -> list[float]:
    part = select(study.part(dataset, name, split), candidate=candidate, n_train=n_train)
    return [float(value) for value in part["value"].dropna()]


def _cell(study: Study, dataset: str, split: str, quantity: Quantity, candidate: str, n_train: int) -> Cell:
    errors = _values(study, dataset, split, quantity.name + ERROR, candidate, n_train)
    if not errors:
        return Cell("–", note="not there: no minimum in the range, or no stress")
    mean = float(np.mean(errors))
    ends = interval(errors, scale="linear")
    detail = f"{ends.lower:+.3g} to {ends.upper:+.3g}" if math.isfinite(ends.lower) else ""
    note = f"{len(errors)} repetitions" if len(errors) > 1 else "one repetition; no interval"
    if quantity.kind != "scalar":
        return Cell(number(mean), mean, detail.replace("+", ""), note=note)
    own = float(np.mean(_values(study, dataset, split, quantity.name, candidate, n_train)))
    return Cell(f"{own:.4g} ({mean:+.2g})", own, detail, note=note)


def _reference(study: Study, dataset: str, split: str, quantity: Quantity) -> Cell:
    """The reference's value: a potential's own less its error, as recorded."""
    if quantity.kind != "scalar":
        return Cell("–", note="an array")
    own = study.part(dataset, quantity.name, split).set_index("trial")["value"]
    error = study.part(dataset, quantity.name + ERROR, split).set_index("trial")["value"]
    values = (own - error).dropna()
    value = _expected(study, dataset).get((split, quantity.name)) if values.empty else values.iloc[0]
    return Cell("–") if value is None else Cell(f"{float(value):.4g}", float(value))


def _imaginary(study: Study, dataset: str) -> list[Block]:
    """Which modes are imaginary, candidate by candidate."""
    said = []
    for candidate, trial in first_trials(study, dataset).items():
        reference = references_of(study, trial).get(NAME)
        if reference is None:
            continue
        for name, (ours, theirs) in both(study.root / trial / ARRAYS, reference).items():
            text = imaginary_text(name, ours, theirs)
            if text:
                said.append(f"{candidate}: imaginary phonons, {text}")
    return [Bullets(said, role="warning")] if said else []
