"""``.npz`` as sGDML, MD17, MD22 and rMD17 write it: one molecule, many geometries."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.datasets.baseline import all_electron_unit
from mlpbench.datasets.readers.base import CHUNK, Chunk, Labels, Notes, uniform, unit_factors
from mlpbench.errors import UserError, close_match

_NAMES = {
    "numbers": ("z", "nuclear_charges", "atomic_numbers", "numbers"),
    "positions": ("R", "coords", "coordinates", "positions"),
    "energy": ("E", "energies", "energy"),
    "forces": ("F", "forces", "force"),
}
_UNITS = {"Ang": "Å", "angstrom": "Å", "Angstrom": "Å", "kcal": "kcal/mol", "Hartree": "hartree", "au": "hartree"}


class _Array:
    """One array of an ``.npz``: its shape, and its rows read in order without holding the rest."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._stream = archive.open(f"{name}.npy")
        version = np.lib.format.read_magic(self._stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self._fortran, self.dtype = read_header(self._stream)

    def rows(self, count: int) -> Any:
        """The next ``count`` rows."""
        shape = (count, *self.shape[1:])
        size = int(np.prod(shape)) * self.dtype.itemsize
        content = self._stream.read(size)
        if len(content) != size or self._fortran:
            raise ValueError("an array is shorter than its header says, or in Fortran's order")
        return np.frombuffer(content, dtype=self.dtype).reshape(shape)

    def whole(self) -> Any:
        """All of it; a number or text where it has no dimensions."""
        if self.shape:
            return self.rows(self.shape[0])
        return np.frombuffer(self._stream.read(self.dtype.itemsize), dtype=self.dtype)[0]


def read_sgdml(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the geometries in ``path``. Without a declared unit the file's ``e_unit`` counts, else the composition.

    Raises:
        UserError: not an ``.npz``, an array is missing or misshapen, or the unit of the energy cannot be told.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            arrays = {name: _Array(archive, name) for name in names}
            content = {name: array for name, array in arrays.items() if not array.dtype.hasobject}
            yield from _chunks(path, content, labels, notes)
    except UserError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a readable .npz ({error})") from error


def _chunks(path: Path, content: dict[str, _Array], labels: Labels, notes: Notes) -> Iterator[Chunk]:
    numbers = np.asarray(_pick(path, content, "numbers", None, notes).whole(), dtype=np.int64)
    positions = _pick(path, content, "positions", None, notes)
    energies = np.asarray(_pick(path, content, "energy", labels.energy_key, notes).whole(), dtype=np.float64)
    energies = energies.reshape(-1)
    forces = _pick(path, content, "forces", labels.forces_key, notes, optional=True)
    expected = (len(energies), len(numbers), 3)
    for what, array in (("positions", positions), ("forces", forces)):
        if array is not None and array.shape != expected:
            raise UserError(
                f"{path}: {what} have shape {array.shape}, expected {expected} for that many energies and atoms"
            )
    unit, length = _units(path, content, labels, numbers, energies, notes)
    factors = unit_factors(labels, energy=unit, length=length)
    for start in range(0, len(energies), CHUNK):
        energy = energies[start : start + CHUNK]
        frames = uniform(
            numbers,
            positions.rows(len(energy)) * factors.length,
            energy * factors.energy,
            None if forces is None else forces.rows(len(energy)) * factors.forces,
        )
        yield Chunk(frames, [{} for _ in energy])


def _pick(
    path: Path, content: dict[str, _Array], what: str, asked: str | None, notes: Notes, optional: bool = False
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
    path: Path, content: dict[str, _Array], labels: Labels, numbers: Any, energy: Any, notes: Notes
) -> tuple[str, str]:
    """Names of the energy and length unit."""
    length = str(content["r_unit"].whole()) if "r_unit" in content else "Å"
    if labels.energy_unit is not None:
        return labels.energy_unit, _UNITS.get(length, length)
    if "e_unit" in content:
        unit = str(content["e_unit"].whole())
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
