"""Scores of physical properties: the same functions on what the potential and what the reference method say."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read

from mlpbench.evaluators import Context, Row
from mlpbench.evaluators.physics import ARRAYS
from mlpbench.frames import Frames
from mlpbench.metrics import metric_row
from mlpbench.properties import PROPERTIES, Labelled, compare, labelled_sets
from mlpbench.properties.crystal import Phonons, imaginary_modes
from mlpbench.quantities import QUANTITIES, Value

NAME = "properties"  # of the data set's reference file


def score(directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """``<quantity>`` and ``<quantity>_error`` for each that both methods have.

    The split is that of a set with a name of its own (``path:proton_transfer``: ``proton_transfer``), else empty.

    Args:
        directory: the trial's folder, with ``physics.npz``.
        values: what the task returned.
        context: ``references`` names the structures with the reference's labels.
    """
    rows: list[Row] = []
    for name, (ours, theirs) in both(directory / ARRAYS, Path(context.references[NAME])).items():
        found, expected = _values(name, ours), _values(name, theirs)
        split = name.partition(":")[2]
        for quantity, error in compare(found, expected).items():
            rows.append(metric_row(split, f"{quantity}_error", error, np.size(found[quantity])))
            if QUANTITIES[quantity].kind == "scalar":
                rows.append(metric_row(split, quantity, float(found[quantity]), len(ours.structures)))
    return rows


def both(arrays: Path, reference: Path) -> dict[str, tuple[Labelled, Labelled]]:
    """Set of structures -> what the potential and what the reference say of it; empty if the task did not compute them.

    Raises:
        ValueError: the arrays are not those of these structures.
    """
    theirs = reference_sets(reference)
    with np.load(arrays, allow_pickle=False) as stored:
        if "properties.energy" not in stored:
            return {}
        energy, forces, stress = (stored[f"properties.{name}"] for name in ("energy", "forces", "stress"))
    structures = _structures(str(reference), reference.stat().st_mtime_ns)[0]
    if len(energy) != len(structures):
        raise ValueError(f"{len(energy)} predicted energies for {len(structures)} structures")
    ours = labelled_sets(structures, energy, forces, stress)
    return {name: (ours[name], theirs[name]) for name in theirs}


def reference_sets(reference: Path) -> dict[str, Labelled]:
    """The sets of structures with the reference's labels."""
    structures, frames = _structures(str(reference), reference.stat().st_mtime_ns)
    return labelled_sets(structures, frames.energy, frames.forces, frames.stress)


def reference_values(reference: Path) -> dict[str, dict[str, Value]]:
    """Set of structures -> quantity -> the reference's value."""
    return {name: _values(name, labelled) for name, labelled in reference_sets(reference).items()}


def imaginary_text(name: str, ours: Labelled, theirs: Labelled) -> str:
    """Which phonons are imaginary; empty if the reference has as many, or the set is of another property."""
    if name.partition(":")[0] != Phonons.name:
        return ""
    modes, expected = imaginary_modes(ours), imaginary_modes(theirs)
    return "; ".join(modes) if len(modes) > len(expected) else ""


def _values(name: str, labelled: Labelled) -> dict[str, Value]:
    return PROPERTIES[name.partition(":")[0]].values(labelled)


@lru_cache(maxsize=4)
def _structures(path: str, time: int) -> tuple[list[Any], Frames]:
    structures = list(read(path, index=":"))
    energy = [atoms.get_potential_energy() for atoms in structures]
    forces = [atoms.get_forces(apply_constraint=False) for atoms in structures]
    nothing = np.full(6, np.nan)
    stress = np.array([atoms.calc.results.get("stress", nothing) for atoms in structures])
    return structures, Frames.from_atoms(structures, energy, forces, stress)
