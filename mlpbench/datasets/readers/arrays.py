"""Arrays on disk: ``.npz`` as sGDML, MD17, MD22 and rMD17 write it, and DeePMD-kit's folders of ``.npy``."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.stress import full_3x3_to_voigt_6_stress

from mlpbench.datasets.baseline import all_electron_unit
from mlpbench.datasets.readers.base import CHUNK, Chunk, Factors, Labels, Notes, uniform, unit_factors
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Float, Frames, Int

_NAMES = {
    "numbers": ("z", "nuclear_charges", "atomic_numbers", "numbers", "Z"),
    "count": ("N",),  # atoms of each frame, where arrays are padded to the largest
    "positions": ("R", "coords", "coordinates", "positions"),
    "energy": ("E", "energies", "energy"),
    "forces": ("F", "forces", "force"),
    "lattice": ("lattice",),  # sGDML's: vectors as columns
    "cell": ("cell", "cells", "box"),  # ASE's: vectors as rows
    "pbc": ("pbc",),
}
_LARGEST_RATIO = 100  # unpacked over packed; labels in double precision come to 20 at most
_SMALL = 256 * 10**6  # bytes that may be unpacked whatever the ratio


class _Array:
    """One array of an ``.npz``: its shape, and its rows read in order without holding the rest."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.name = name
        member = archive.getinfo(f"{name}.npy")
        self._stream = archive.open(member)
        version = np.lib.format.read_magic(self._stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self._fortran, self.dtype = read_header(self._stream)
        self._rest: Any = None
        self._next = 0
        size = int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        if not self.dtype.hasobject and (size > member.file_size or min(self.shape, default=0) < 0):
            raise ValueError(f"'{name}' declares {size:,} bytes and holds {member.file_size:,}")

    def rows(self, count: int) -> Any:
        """The next ``count`` rows."""
        if self._fortran and len(self.shape) > 1:  # rows are scattered: all of it at once
            if self._rest is None:
                self._rest = self._read(self.shape[::-1]).T
            self._next += count
            return self._rest[self._next - count : self._next]
        return self._read((count, *self.shape[1:]))

    def _read(self, shape: tuple[int, ...]) -> Any:
        size = int(np.prod(shape)) * self.dtype.itemsize
        content = self._stream.read(size)
        if len(content) != size:
            raise ValueError(f"'{self.name}' is shorter than its header says")
        return np.frombuffer(content, dtype=self.dtype).reshape(shape)

    def whole(self) -> Any:
        """All of it; a number or text where it has no dimensions."""
        if self.shape:
            return self.rows(self.shape[0])
        return self._read((1,))[0]

    def text(self) -> str:
        """A single text, as units are stated.

        Raises:
            ValueError: it is something else.
        """
        if self.shape not in ((), (1,)) or self.dtype.kind not in "SU":
            raise ValueError(f"'{self.name}' is not a text")
        value = np.asarray(self.whole()).reshape(-1)[0]
        return value.decode() if isinstance(value, bytes) else str(value)


def read_sgdml(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the geometries in ``path``. Without a declared unit the file's ``e_unit`` counts, else the composition.

    Raises:
        UserError: not an ``.npz``, an array is missing or misshapen, or the unit of the energy cannot be told.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if unpacked > max(_SMALL, _LARGEST_RATIO * path.stat().st_size):
            raise UserError(
                f"{path}: {path.stat().st_size:,} bytes unpack to {unpacked:,}; refused",
                f"Data compress {_LARGEST_RATIO} times at most; if this is meant, save it with numpy.savez.",
            )
        names = [member.filename.removesuffix(".npy") for member in members if member.filename.endswith(".npy")]
        yield from _chunks(path, {name: _Array(archive, name) for name in names}, labels, notes)


@dataclass
class _Content:
    """The arrays of a file, and which of them were used."""

    path: Path
    arrays: Mapping[str, _Array]
    notes: Notes
    used: set[str]

    def pick(self, what: str, asked: str | None = None, optional: bool = False) -> _Array | None:
        """The array of ``what`` under the name asked for or a known one.

        Raises:
            UserError: there is none, or it holds pickled objects.
        """
        if asked is not None and asked not in self.arrays:
            raise UserError(f"{self.path}: has no array '{asked}'", close_match(asked, self.arrays))
        name = asked or next((n for n in _NAMES[what] if n in self.arrays), None)
        if name is None:
            if optional:
                return None
            raise UserError(
                f"{self.path}: has no {what} (looked for {', '.join(_NAMES[what])})",
                f"The file has {', '.join(self.arrays)}.",
            )
        if self.arrays[name].dtype.hasobject:
            raise UserError(
                f"{self.path}: '{name}' ({what}) holds pickled Python objects, which are never unpickled",
                f"Save it as an array of numbers: numpy.savez(..., {name}=numpy.array({name}.tolist(), dtype=float)).",
            )
        if asked is None:
            self.notes.add(f"{self.path.name}: {what} taken from '{name}'")
        self.used.add(name)
        return self.arrays[name]

    def need(self, what: str, asked: str | None = None) -> _Array:
        """As :meth:`pick`, for what must be there."""
        array = self.pick(what, asked)
        assert array is not None
        return array


def _chunks(path: Path, arrays: Mapping[str, _Array], labels: Labels, notes: Notes) -> Iterator[Chunk]:
    content = _Content(path, arrays, notes, {"e_unit", "r_unit"})
    numbers = np.asarray(content.need("numbers").whole())
    if numbers.ndim == 2:
        yield from _padded(content, numbers, labels)
        return
    if numbers.ndim != 1 or numbers.dtype.kind not in "iuf":
        raise UserError(
            f"{path}: atomic numbers of shape {numbers.shape}; expected one molecule's, the same in all frames"
        )
    numbers = numbers.astype(np.int64)
    positions = content.need("positions")
    energies = np.asarray(content.need("energy", labels.energy_key).whole(), dtype=np.float64).reshape(-1)
    forces = content.pick("forces", labels.forces_key, optional=True)
    expected = (len(energies), len(numbers), 3)
    for what, array in (("positions", positions), ("forces", forces)):
        if array is not None and array.shape != expected:
            raise UserError(
                f"{path}: {what} have shape {array.shape}, expected {expected} for that many energies and atoms"
            )
    factors = _units(path, arrays, labels, numbers, energies, notes)
    cell, pbc = _cells(content, len(energies))
    unread = sorted(set(arrays) - content.used)
    if unread:
        notes.add(f"{path.name}: not read: {', '.join(unread[:20])}")
    for start in range(0, len(energies), CHUNK):
        energy = energies[start : start + CHUNK]
        frames = uniform(
            numbers,
            positions.rows(len(energy)) * factors.length,
            energy * factors.energy,
            None if forces is None else forces.rows(len(energy)) * factors.forces,
            None if cell is None else cell[start : start + CHUNK] * factors.length,
            pbc[start : start + CHUNK],
        )
        yield Chunk(frames, [{} for _ in energy])


def _padded(content: _Content, numbers: Any, labels: Labels) -> Iterator[Chunk]:
    """Frames of several molecules in arrays padded to the largest: what lies beyond a frame's atoms is left out.

    Raises:
        UserError: the padding or the arrays do not agree, or the unit of the energies is not declared.
    """
    path, notes = content.path, content.notes
    count = content.pick("count", optional=True)
    sizes = (numbers > 0).sum(axis=1) if count is None else np.asarray(count.whole(), dtype=np.int64).reshape(-1)
    inside = np.arange(numbers.shape[1]) < sizes[:, None]
    if len(sizes) != len(numbers) or ((numbers > 0) != inside).any():
        raise UserError(
            f"{path}: atomic numbers of shape {numbers.shape} whose padding (zeros at the end) does not agree with 'N'"
        )
    positions = np.asarray(content.need("positions").whole(), dtype=np.float64)
    energy = np.asarray(content.need("energy", labels.energy_key).whole(), dtype=np.float64).reshape(-1)
    array = content.pick("forces", labels.forces_key, optional=True)
    forces = np.full(positions.shape, np.nan) if array is None else np.asarray(array.whole(), dtype=np.float64)
    expected = (*numbers.shape, 3)
    if positions.shape != expected or forces.shape != expected or len(energy) != len(numbers):
        raise UserError(f"{path}: positions {positions.shape} and forces {forces.shape}; expected {expected} of both")
    if labels.energy_unit is None:
        raise UserError(
            f"{path}: the unit of the energies cannot be inferred from padded arrays",
            "Declare it: dataset.energy_unit=kcal/mol (or eV, hartree, kJ/mol).",
        )
    factors = unit_factors(labels, energy="eV", stated={}, where=path.name, notes=notes)
    notes.add(f"{path.name}: padded to {numbers.shape[1]} atoms; {int((~inside).sum()):,} padding entries left out")
    unread = sorted(set(content.arrays) - content.used)
    if unread:
        notes.add(f"{path.name}: not read: {', '.join(unread[:20])}")
    for start in range(0, len(energy), CHUNK):
        some = range(start, min(start + CHUNK, len(energy)))
        structures = [Atoms(numbers[i, : sizes[i]], positions=positions[i, : sizes[i]] * factors.length) for i in some]
        kept = [forces[i, : sizes[i]] * factors.forces for i in some]
        frames = Frames.from_atoms(structures, energy[list(some)] * factors.energy, kept)
        yield Chunk(frames, [{} for _ in some])


def _cells(content: _Content, count: int) -> tuple[Float | None, Any]:
    """(F, 3, 3) lattice vectors as rows, in the file's unit, and (F, 3) periodicity."""
    lattice = content.pick("lattice", optional=True)
    rows = content.pick("cell", optional=True)
    periodic = content.pick("pbc", optional=True)
    array = lattice or rows
    if array is None:
        if periodic is not None and np.asarray(periodic.whole()).any():
            raise UserError(f"{content.path}: has 'pbc' but no cell", "Add the array 'cell' (lattice vectors as rows).")
        return None, np.zeros((count, 3), dtype=bool)
    values = np.asarray(array.whole(), dtype=np.float64)
    if values.shape not in ((3, 3), (count, 3, 3), (count, 9)):
        raise UserError(f"{content.path}: '{array.name}' has shape {values.shape}, expected (3, 3) or ({count}, 3, 3)")
    values = values.reshape(-1, 3, 3)
    if lattice is not None:
        values = values.transpose(0, 2, 1)
        content.notes.add(f"{content.path.name}: lattice vectors are the columns of 'lattice', as sGDML has them")
    cell = np.broadcast_to(values, (count, 3, 3))
    if periodic is None:
        return cell, np.linalg.norm(cell, axis=2) > 0
    flags = np.asarray(periodic.whole(), dtype=bool)
    if flags.shape not in ((), (1,), (3,), (count, 3)):
        raise UserError(f"{content.path}: 'pbc' has shape {flags.shape}, expected (3,) or ({count}, 3)")
    return cell, np.broadcast_to(flags, (count, 3))


def _units(
    path: Path, arrays: Mapping[str, _Array], labels: Labels, numbers: Int, energy: Float, notes: Notes
) -> Factors:
    """As declared, as ``e_unit`` and ``r_unit`` say, or told from the size of the energies.

    Raises:
        UserError: nothing says what the unit of the energies is.
    """
    stated = {what: arrays[key].text() for what, key in (("energy", "e_unit"), ("length", "r_unit")) if key in arrays}
    own = "eV"
    if labels.energy_unit is None and "energy" not in stated:
        recognised = all_electron_unit(numbers, np.array([len(numbers)]), energy[:1])
        if recognised is None:
            raise UserError(
                f"{path}: the unit of the energies cannot be inferred from the file",
                "Declare it: dataset.energy_unit=kcal/mol (or eV, hartree, kJ/mol).",
            )
        own = recognised
        length = labels.length_unit or stated.get("length", "Å")
        notes.add(f"{path.name}: energies in {own}, from their size against free atoms; forces in {own}/{length}")
    return unit_factors(labels, energy=own, stated=stated, where=path.name, notes=notes)


def read_deepmd(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the system in folder ``path``, its sets in order; eV and Å unless declared otherwise.

    With ``real_atom_types.npy`` (the layout npy/mixed) every frame has its own elements, and atoms of type −1 are
    padding that is left out.

    Raises:
        UserError: a file is missing or misshapen.
    """
    names = _type_map(path)
    types = np.loadtxt(path / "type.raw", dtype=int, ndmin=1)
    sets = sorted(path.glob("set.*"))
    if not sets:
        raise UserError(f"{path}: has no set.* folder", "DeePMD's npy layout keeps frames in set.000, set.001, ...")
    mixed = any((folder / "real_atom_types.npy").exists() for folder in sets)
    layout = "DeePMD npy/mixed layout, elements from real_atom_types" if mixed else "DeePMD npy layout"
    notes.add(f"{path.name}: {layout}, energies in {labels.energy_unit or 'eV'}")
    factors = unit_factors(labels)
    periodic = not (path / "nopbc").exists()
    for folder in sets:
        if mixed != (folder / "real_atom_types.npy").exists():
            raise UserError(f"{path}: some sets have real_atom_types.npy and some have not")
        yield from _read_set(folder, types, names, mixed, factors, periodic)


def _type_map(path: Path) -> Int:
    """(T,) atomic number of each type."""
    for name in ("type.raw", "type_map.raw"):
        if not (path / name).is_file():
            raise UserError(
                f"{path / name}: no such file", "A DeePMD system needs type.raw and type_map.raw (element names)."
            )
    symbols = (path / "type_map.raw").read_text(encoding="utf-8").split()
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown or not symbols:
        raise UserError(f"{path}/type_map.raw: {', '.join(unknown[:5]) or 'nothing'} where elements were expected")
    return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)


def _elements(path: Path, types: Int | Float, names: Int, lowest: int) -> Int:
    """Atomic numbers of ``types``; 0 for the padding.

    Raises:
        UserError: a type that the map does not have.
    """
    if types.dtype.kind not in "iuf" or types.min(initial=0) < lowest or types.max(initial=0) >= len(names):
        raise UserError(f"{path}: types must lie in 0 to {len(names) - 1}, the lines of type_map.raw")
    indices = types.astype(np.int64)
    return np.where(indices < 0, 0, names[indices])


def _array(folder: Path, name: str, shape: tuple[int, ...] | None = None) -> Float | None:
    file = folder / f"{name}.npy"
    if not file.exists():
        return None
    values = np.load(file, allow_pickle=False, mmap_mode="r")  # a map cannot be longer than its file
    if values.dtype.kind not in "iuf":
        raise UserError(f"{file}: holds no numbers")
    if shape is not None and values.size != int(np.prod(shape)):
        raise UserError(f"{file}: has {values.size} values, expected {' x '.join(map(str, shape))}")
    return np.asarray(values if shape is None else values.reshape(shape))


def _read_set(folder: Path, types: Int, names: Int, mixed: bool, factors: Factors, periodic: bool) -> Iterator[Chunk]:
    energy = _array(folder, "energy")
    if energy is None:
        raise UserError(f"{folder}: has no energy.npy")
    n, atoms = energy.size, len(types)
    positions = _array(folder, "coord", (n, atoms, 3))
    forces = _array(folder, "force", (n, atoms, 3))
    box = _array(folder, "box", (n, 3, 3))
    virial = _array(folder, "virial", (n, 3, 3))
    own = _array(folder, "real_atom_types", (n, atoms)) if mixed else None
    if positions is None or (periodic and box is None):
        raise UserError(f"{folder}: has no {'coord' if positions is None else 'box'}.npy")
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        cell = None if box is None else np.asarray(box[part], dtype=np.float64) * factors.length
        frames = uniform(
            _elements(folder.parent / "type.raw", types, names, -1 if mixed else 0),
            np.asarray(positions[part], dtype=np.float64) * factors.length,
            np.asarray(energy.reshape(-1)[part], dtype=np.float64) * factors.energy,
            None if forces is None else np.asarray(forces[part], dtype=np.float64) * factors.forces,
            cell if periodic else None,
            periodic,
            _stress(virial, cell, part, factors),
        )
        if own is not None:
            real = np.asarray(own[part])
            frames = _with_elements(frames, _elements(folder / "real_atom_types.npy", real, names, -1))
        yield Chunk(frames, [{"set": folder.name} for _ in range(len(frames))])


def _stress(virial: Float | None, cell: Float | None, part: slice, factors: Factors) -> Float | None:
    """(F, 6) eV/Å³; DeePMD's virial is minus the stress times the volume."""
    if virial is None or cell is None:
        return None
    tensor = -np.asarray(virial[part], dtype=np.float64) * factors.energy
    volume = np.abs(np.linalg.det(cell))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.array([full_3x3_to_voigt_6_stress(t) for t in tensor / volume[:, None, None]])


def _with_elements(frames: Frames, numbers: Int) -> Frames:
    """``frames`` with (F, N) atomic numbers of their own; atoms of number 0 are left out."""
    kept = (numbers > 0).reshape(-1)
    return Frames(
        n_atoms=(numbers > 0).sum(axis=1).astype(np.int64), numbers=numbers.reshape(-1)[kept],
        positions=frames.positions[kept], cell=frames.cell, pbc=frames.pbc, energy=frames.energy,
        forces=frames.forces[kept], stress=frames.stress, baseline=frames.baseline, group=frames.group,
    )  # fmt: skip
