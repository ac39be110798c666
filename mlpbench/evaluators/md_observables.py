"""Observables of a run at constant temperature against reference MD, up to collapse and over matched durations."""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlpbench.evaluators import Row
from mlpbench.evaluators.md_curves import Curves
from mlpbench.evaluators.md_deaths import Fate
from mlpbench.evaluators.md_frames import Run
from mlpbench.evaluators.md_motion import diffusion
from mlpbench.evaluators.md_rows import row
from mlpbench.evaluators.md_structure import (
    Distribution,
    adf_error,
    angle_histogram,
    distance_histogram,
    hr_error,
    largest_r,
    rdf,
    rdf_error,
)
from mlpbench.frames import Float

MIN_FRAMES = 20  # fewer say nothing about a distribution
MAX_FRAMES = 2000  # more cost time and change nothing: neighbouring frames are alike
RDF_R_MAX = 10.0  # Å, or half the cell where that is less


def observable_rows(
    split: str,
    run: Run,
    found: list[Fate],
    reference: tuple[Float, Float] | None,
    not_scored: dict[str, str],
    curves: Curves,
) -> list[Row]:
    """Rows of every observable that can be had; the reason for each other one goes into ``not_scored``.

    The first fifth of each replica is left out as equilibration.

    Args:
        split: as in the table.
        run: at constant temperature.
        found: the fate of each replica; frames behind a collapse are not used.
        reference: (T, N, 3) and (T, 3, 3) Å of reference MD, or None.
        not_scored: metric -> reason, filled here.
        curves: the distributions behind the rows, filled here.
    """
    rows = _diffusion_rows(split, run, found, not_scored)
    names = ("rdf_error", "adf_error") if run.periodic else ("hr_mae", "adf_error")
    if reference is None:
        return rows + _refuse(names, "the data set has no reference MD (evaluation.md.reference_splits)", not_scored)
    positions, cells = sound_frames(run, found)
    if len(positions) < MIN_FRAMES or len(reference[0]) < MIN_FRAMES:
        few = f"{len(positions)} frames before collapse, {len(reference[0])} of the reference; {MIN_FRAMES} are needed"
        return rows + _refuse(names, few, not_scored)
    if run.periodic:
        pairs = pair_distributions(run, positions, cells, reference)
        curves.update({f"g(r) {name}": both for name, both in pairs.items()})
        error = float(np.mean([rdf_error(*both) for both in pairs.values()]))
        rows.append(row(split, "rdf_error", error, len(positions)))
    else:
        ours, theirs = distance_histogram(positions), distance_histogram(reference[0])
        curves["h(r)"] = (ours, theirs)
        rows.append(row(split, "hr_mae", hr_error(ours, theirs), len(positions)))
    try:
        angles = angle_histogram(positions, run.numbers, cells if run.periodic else None)
        expected = angle_histogram(reference[0], run.numbers, reference[1] if run.periodic else None)
    except ValueError as error_found:
        return rows + _refuse(("adf_error",), str(error_found), not_scored)
    curves["bond angles"] = (angles, expected)
    return [*rows, row(split, "adf_error", adf_error(angles, expected), len(positions))]


def sound_frames(run: Run, found: list[Fate]) -> tuple[Float, Float]:
    """(T, N, 3) and (T, 3, 3) Å of all replicas before collapse, equilibration left out, thinned evenly."""
    positions, cells = [], []
    for index, fate in enumerate(found):
        part = slice(fate.frames // 5, fate.frames)
        positions.append(run.arrays["positions"][index, part].astype(np.float64))
        cells.append(run.cells(index, fate.frames)[part])
    joined, boxes = np.concatenate(positions), np.concatenate(cells)
    every = max(1, -(-len(joined) // MAX_FRAMES))
    return joined[::every], boxes[::every]


def pair_distributions(
    run: Run, positions: Float, cells: Float, reference: tuple[Float, Float]
) -> dict[str, tuple[Distribution, Distribution]]:
    """g(r) of every pair of elements, found and reference, up to half the smallest cell."""
    r_max = min(RDF_R_MAX, *(largest_r(cell) for cell in (*cells, *reference[1])))
    bins = max(40, round(r_max / 0.05))
    curves = {}
    for a, b in combinations_with_replacement(np.unique(run.numbers), 2):
        first, second = np.flatnonzero(run.numbers == a), np.flatnonzero(run.numbers == b)
        if a == b and len(first) < 2:
            continue
        name = f"{chemical_symbols[a]}–{chemical_symbols[b]}"
        ours = rdf(positions, cells, first, second, r_max, bins)
        curves[name] = (ours, rdf(*reference, first, second, r_max, bins))
    return curves


def _diffusion_rows(split: str, run: Run, found: list[Fate], not_scored: dict[str, str]) -> list[Row]:
    if not run.periodic:
        return _refuse(("diffusion",), "a single molecule does not diffuse through anything", not_scored)
    parts = [
        run.arrays["positions"][r, fate.frames // 5 : fate.frames].astype(np.float64) for r, fate in enumerate(found)
    ]
    answer = diffusion(parts, run.interval_fs, run.masses)
    if isinstance(answer, str):
        return _refuse(("diffusion",), answer, not_scored)
    return [row(split, "diffusion", answer.value, answer.n_blocks, answer.lower, answer.upper)]


def _refuse(names: Any, reason: str, not_scored: dict[str, str]) -> list[Row]:
    not_scored.update(dict.fromkeys(names, reason))
    return []
