"""``.npz`` as sGDML, MD17, MD22 and rMD17 write it: one molecule, many geometries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.datasets.energy_units import all_electron_unit
from mlpbench.datasets.readers.base import CHUNK, Chunk, Labels, Notes, uniform, unit_factors
from mlpbench.errors import UserError, close_match

_NAMES = {
    "numbers": ("z", "nuclear_charges", "atomic_numbers", "numbers"),
    "positions": ("R", "coords", "coordinates", "positions"),
    "energy": ("E", "energies", "energy"),
    "forces": ("F", "forces", "force"),
}
_UNITS = {"Ang": "Å", "angstrom": "Å", "Angstrom": "Å", "kcal": "kcal/mol", "Hartree": "hartree", "au": "hartree"}


def read_sgdml(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the geometries in ``path``. Without a declared unit the file's ``e_unit`` counts, else the composition.

    Raises:
        UserError: not an ``.npz``, an array is missing or misshapen, or the unit of the energy cannot be told.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            content: dict[str, Any] = {name: file[name] for name in file.files if file[name].dtype != object}
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a readable .npz ({error})") from error
    except Exception as error:  # zipfile and zlib raise their own kinds on a damaged archive
        raise UserError(f"{path}: damaged .npz ({type(error).__name__}: {error})") from error
    numbers = np.asarray(_pick(path, content, "numbers", None, notes), dtype=np.int64)
    positions = _pick(path, content, "positions", None, notes)
    energy = np.asarray(_pick(path, content, "energy", labels.energy_key, notes), dtype=np.float64).reshape(-1)
    forces = _pick(path, content, "forces", labels.forces_key, notes, optional=True)
    if positions.ndim != 3 or positions.shape != (len(energy), len(numbers), 3):
        raise UserError(
            f"{path}: positions have shape {positions.shape}, expected ({len(energy)}, {len(numbers)}, 3) "
            "for that many energies and atomic numbers"
        )
    if forces is not None and forces.shape != positions.shape:
        raise UserError(f"{path}: forces have shape {forces.shape}, positions {positions.shape}")
    unit, length = _units(path, content, labels, numbers, energy, notes)
    factors = unit_factors(labels, energy=unit, length=length)
    for start in range(0, len(energy), CHUNK):
        part = slice(start, start + CHUNK)
        yield Chunk(
            uniform(
                numbers,
                positions[part] * factors.length,
                energy[part] * factors.energy,
                None if forces is None else forces[part] * factors.forces,
            ),
            [{} for _ in energy[part]],
        )


def _pick(
    path: Path, content: dict[str, Any], what: str, asked: str | None, notes: Notes, optional: bool = False
) -> Any:
    if asked is not None and asked not in content:
        raise UserError(f"{path}: has no array '{asked}'", close_match(asked, content))
    name = asked or next((n for n in _NAMES[what] if n in content), None)
    if name is None:
        if optional:
            return None
        raise UserError(
            f"{path}: has no {what} (looked for {', '.join(_NAMES[what])})", f"The file has {', '.join(content)}."
        )
    if asked is None:
        notes.add(f"{path.name}: {what} taken from '{name}'")
    return content[name]


def _units(
    path: Path, content: dict[str, Any], labels: Labels, numbers: Any, energy: Any, notes: Notes
) -> tuple[str, str]:
    """Names of the energy and length unit."""
    length = str(content["r_unit"]) if "r_unit" in content else "Å"
    if labels.energy_unit is not None:
        return labels.energy_unit, _UNITS.get(length, length)
    if "e_unit" in content:
        unit = str(content["e_unit"])
        notes.add(f"{path.name}: energies in {_UNITS.get(unit, unit)}, as the file says (e_unit)")
        return _UNITS.get(unit, unit), _UNITS.get(length, length)
    found = all_electron_unit(numbers, np.array([len(numbers)]), energy[:1])
    if found is None:
        raise UserError(
            f"{path}: the unit of the energies cannot be told from the file",
            "Say it: dataset.energy_unit=kcal/mol (or eV, hartree, kJ/mol).",
        )
    notes.add(f"{path.name}: energies in {found}, told from their size against free atoms; forces in {found}/{length}")
    return found, _UNITS.get(length, length)
