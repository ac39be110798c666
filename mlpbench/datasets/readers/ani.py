"""ANI's HDF5: one group per molecule with coordinates, species and labels; nothing in it is unpickled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from mlpbench.datasets.readers.base import CHUNK, Chunk, Factors, Labels, Notes, uniform, unit_factors
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Int

ENERGY_KEYS = ("wb97x_dz.energy", "wb97x_tz.energy", "energies", "energy")
FORCES_KEYS = ("wb97x_dz.forces", "wb97x_tz.forces", "forces")


def read_ani(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the conformations in ``path``; hartree and hartree/Å unless declared otherwise.

    Conformations without the chosen energy (another level of theory was not computed for them) are left out, and
    their number is noted.

    Raises:
        UserError: h5py is not installed, the file is not HDF5, or has no such label.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError("reading HDF5 needs h5py", "pip install 'mlpbench[hdf5]'") from error
    factors = unit_factors(labels, energy="hartree")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: not a readable HDF5 file ({error})") from error
    left_out = 0
    with file:
        for group in _molecules(file):
            for chunk, missing in _read_group(path, group, labels, factors, notes):
                left_out += missing
                if len(chunk.frames):
                    yield chunk
    if left_out:
        notes.add(f"{path.name}: {left_out} conformations without the chosen energy left out")


def _molecules(group: Any) -> Iterator[Any]:
    """Every group, however deep, that holds coordinates."""
    if "coordinates" in group:
        yield group
        return
    for name in group:
        child = group.get(name)
        if hasattr(child, "keys"):
            yield from _molecules(child)


def _numbers(path: Path, group: Any) -> Int:
    if "atomic_numbers" in group:
        return np.asarray(group["atomic_numbers"][()], dtype=np.int64)
    if "species" in group:
        symbols = [s.decode() if isinstance(s, bytes) else str(s) for s in group["species"][()]]
        return np.array([atomic_numbers[s] for s in symbols], dtype=np.int64)
    raise UserError(f"{path}: group {group.name} has neither atomic_numbers nor species")


def _key(path: Path, group: Any, asked: str | None, known: tuple[str, ...], what: str, notes: Notes) -> str | None:
    if asked is not None:
        if asked not in group and what == "energy":
            raise UserError(f"{path}: group {group.name} has no '{asked}'", close_match(asked, group.keys()))
        return asked if asked in group else None
    found = next((key for key in known if key in group), None)
    if found is None and what == "energy":
        names = ", ".join(group.keys())
        raise UserError(f"{path}: group {group.name} has no energy; it has {names}", "Set dataset.energy_key=...")
    if found is not None:
        notes.add(f"{path.name}: {what} taken from '{found}'")
    return found


def _read_group(path: Path, group: Any, labels: Labels, factors: Factors, notes: Notes) -> Iterator[tuple[Chunk, int]]:
    numbers = _numbers(path, group)
    energy_key = str(_key(path, group, labels.energy_key, ENERGY_KEYS, "energy", notes))
    forces_key = _key(path, group, labels.forces_key, FORCES_KEYS, "forces", notes)
    positions, energies = group["coordinates"], group[energy_key]
    if positions.ndim != 3 or positions.shape[1:] != (len(numbers), 3) or len(positions) != energies.size:
        raise UserError(
            f"{path}: group {group.name}: coordinates {positions.shape}, {energies.size} energies, {len(numbers)} atoms"
        )
    for start in range(0, len(positions), CHUNK):
        part = slice(start, start + CHUNK)
        energy = np.asarray(energies[part], dtype=np.float64).reshape(-1)
        there = np.isfinite(energy)
        forces = None if forces_key is None else np.asarray(group[forces_key][part], dtype=np.float64)
        frames = uniform(
            numbers,
            np.asarray(positions[part], dtype=np.float64)[there] * factors.length,
            energy[there] * factors.energy,
            None if forces is None else forces[there] * factors.forces,
        )
        yield Chunk(frames, [{"molecule": group.name.strip("/")} for _ in range(len(frames))]), int((~there).sum())
