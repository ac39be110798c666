"""Scores of physical properties: the same functions on what the potential and what the reference method say."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read

from mlpbench.evaluators import Context, Row
from mlpbench.evaluators.physics import ARRAYS
from mlpbench.frames import Float, Frames
from mlpbench.metrics import metric_row
from mlpbench.properties import PROPERTIES, Labelled, compare, labelled_sets
from mlpbench.properties.crystal import Phonons, imaginary_modes
from mlpbench.properties.reaction import Band, ReactionPath
from mlpbench.protocol import PREDICTIONS
from mlpbench.quantities import QUANTITIES, Value

NAME = "properties"  # of the data set's reference file
PATH = "path_"  # and how those begin that declare a test split to be a path


def score(directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """``<quantity>`` and ``<quantity>_error`` for each that both methods have.

    A band that did not converge is left out. The split is that of a set with a name of its own
    (``path:proton_transfer``: ``proton_transfer``), else empty.

    Args:
        directory: the trial's folder, with ``physics.npz``.
        values: what the task returned.
        context: ``references`` names the structures with the reference's labels.
    """
    rows: list[Row] = []
    for name, (ours, theirs) in both(directory / ARRAYS, Path(context.references[NAME])).items():
        if values.get("bands", {}).get(name, {}).get("converged", True):  # else the band has no barrier yet
            rows += quantity_rows(name.partition(":")[2], name, ours, theirs)
    return rows


def score_paths(directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """Barriers, reaction energies and rates along test splits whose frames are structures of a path, in order.

    Such a split is declared by a reference file ``path_<split>``, the file that it is read from: nothing but the stored
    predictions is needed.

    Args:
        directory: the trial's folder, with ``predictions.npz``.
        values: of the ``predict`` task (``splits``).
        context: reference frames of each split.

    Raises:
        ValueError: a reference names a split that there is not.
    """
    rows: list[Row] = []
    with np.load(directory / PREDICTIONS, allow_pickle=False) as stored:
        for split in (name.removeprefix(PATH) for name in context.references if name.startswith(PATH)):
            if split not in values["splits"]:
                raise ValueError(f"references.{PATH}{split} names no test split; there are {values['splits']}")
            frames = context.frames[split]
            structures, nothing = frames.to_atoms(), np.full((len(frames), 6), np.nan)
            forces = np.split(frames.forces, frames.offsets[1:-1])
            ours = Labelled(structures, stored[f"{split}.energy"] + frames.baseline, forces, nothing)
            theirs = Labelled(structures, frames.energy, forces, nothing)
            rows += quantity_rows(split, ReactionPath.name, ours, theirs)
    return rows


def quantity_rows(split: str, name: str, ours: Labelled, theirs: Labelled) -> list[Row]:
    """``<quantity>_error`` of what both methods have, and ``<quantity>`` where it is a scalar."""
    rows: list[Row] = []
    found = _values(name, ours)
    for quantity, error in compare(found, _values(name, theirs)).items():
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
        relaxed = {name: stored[name] for name in stored.files if name.startswith(f"properties.{Band.name}")}
    structures = _structures(str(reference), reference.stat().st_mtime_ns)[0]
    if len(energy) != len(structures):
        raise ValueError(f"{len(energy)} predicted energies for {len(structures)} structures")
    ours = labelled_sets(structures, energy, forces, stress)
    for name in [name for name in ours if name.partition(":")[0] == Band.name]:
        if f"properties.{name}.energy" in relaxed:
            ours[name] = _band(
                ours[name], relaxed[f"properties.{name}.positions"], relaxed[f"properties.{name}.energy"]
            )
        else:  # predicted before bands were relaxed
            del ours[name]
    return {name: (ours[name], theirs[name]) for name in theirs if name in ours}


def _band(given: Labelled, positions: Float, energy: Float) -> Labelled:
    """The band that the potential relaxed, (K, N, 3) Å and (K,) eV."""
    first, images = given.structures[0], []
    for place in positions:
        atoms = first.copy()
        atoms.positions = place
        images.append(atoms)
    return Labelled(
        images, energy, [np.full_like(place, np.nan) for place in positions], np.full((len(energy), 6), np.nan)
    )


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
    results = [atoms.calc.results for atoms in structures]  # paths are often labelled with energies alone
    forces = [r.get("forces", np.full((len(a), 3), np.nan)) for r, a in zip(results, structures, strict=True)]
    stress = np.array([r.get("stress", np.full(6, np.nan)) for r in results])
    return structures, Frames.from_atoms(structures, energy, forces, stress)
