"""DeePMD-kit's folders: ``type.raw``, ``type_map.raw`` and ``set.*/{coord,energy,force,box,virial}.npy``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers
from ase.stress import full_3x3_to_voigt_6_stress

from mlpbench.datasets.readers.base import CHUNK, Chunk, Factors, Labels, Notes, uniform, unit_factors
from mlpbench.errors import UserError
from mlpbench.frames import Float, Int


def read_deepmd(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the system in folder ``path``, its sets in order; eV and Å unless declared otherwise.

    Raises:
        UserError: a file is missing or misshapen.
    """
    numbers = _numbers(path)
    sets = sorted(path.glob("set.*"))
    if not sets:
        raise UserError(f"{path}: has no set.* folder", "DeePMD's npy layout keeps frames in set.000, set.001, ...")
    notes.add(f"{path.name}: DeePMD npy layout, energies in {labels.energy_unit or 'eV'}")
    factors = unit_factors(labels)
    periodic = not (path / "nopbc").exists()
    for folder in sets:
        yield from _read_set(folder, numbers, factors, periodic)


def _numbers(path: Path) -> Int:
    try:
        types = np.loadtxt(path / "type.raw", dtype=int, ndmin=1)
        names = (path / "type_map.raw").read_text(encoding="utf-8").split()
        return np.array([atomic_numbers[names[t]] for t in types], dtype=np.int64)
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename}: no such file", "A DeePMD system needs type.raw and type_map.raw (element names)."
        ) from error
    except (ValueError, IndexError, KeyError) as error:
        raise UserError(f"{path}: type.raw or type_map.raw cannot be read ({error})") from error


def _array(folder: Path, name: str, shape: tuple[int, ...] | None = None) -> Float | None:
    file = folder / f"{name}.npy"
    if not file.exists():
        return None
    try:
        values = np.load(file, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{file}: not a readable .npy ({error})") from error
    if shape is not None and values.size != int(np.prod(shape)):
        raise UserError(f"{file}: has {values.size} values, expected {' x '.join(map(str, shape))}")
    return np.asarray(values if shape is None else values.reshape(shape))


def _read_set(folder: Path, numbers: Int, factors: Factors, periodic: bool) -> Iterator[Chunk]:
    energy = _array(folder, "energy")
    if energy is None:
        raise UserError(f"{folder}: has no energy.npy")
    n, atoms = energy.size, len(numbers)
    positions = _array(folder, "coord", (n, atoms, 3))
    forces = _array(folder, "force", (n, atoms, 3))
    box = _array(folder, "box", (n, 3, 3))
    virial = _array(folder, "virial", (n, 3, 3))
    if positions is None or (periodic and box is None):
        raise UserError(f"{folder}: has no {'coord' if positions is None else 'box'}.npy")
    for start in range(0, n, CHUNK):
        part = slice(start, start + CHUNK)
        cell = None if box is None else np.asarray(box[part], dtype=np.float64) * factors.length
        stress = None
        if virial is not None and cell is not None:  # DeePMD's virial is minus the stress times the volume
            tensor = -np.asarray(virial[part], dtype=np.float64) * factors.energy
            volume = np.abs(np.linalg.det(cell))
            stress = np.array([full_3x3_to_voigt_6_stress(t) for t in tensor / volume[:, None, None]])
        frames = uniform(
            numbers,
            np.asarray(positions[part], dtype=np.float64) * factors.length,
            np.asarray(energy.reshape(-1)[part], dtype=np.float64) * factors.energy,
            None if forces is None else np.asarray(forces[part], dtype=np.float64) * factors.forces,
            cell if periodic else None,
            periodic,
            stress,
        )
        yield Chunk(frames, [{"set": folder.name} for _ in range(len(frames))])
