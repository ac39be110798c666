"""Layouts of published sets: QM-22's streams, QM9's archive, ANI's HDF5, mlearn's JSON. Nothing is unpickled."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import batched, islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from mlpbench.datasets.readers.base import (
    CHUNK,
    Chunk,
    Factors,
    Labels,
    Notes,
    reorder,
    uniform,
    unit_factors,
)
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Float, Frames, Int

_LARGEST_RATIO = 200  # declared or unpacked bytes over those in the file
_SMALL = 256 * 10**6  # bytes that may be unpacked whatever the ratio
_LARGEST_MEMBER = 10**6  # bytes of one molecule of QM9; the real ones have 3,000

# Second line, after "gdb" and the index: Ramakrishnan and co-workers, Sci. Data 1, 140022 (2014), table 3.
QM9_PROPERTIES = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
_ANI_ENERGY = ("wb97x_dz.energy", "wb97x_tz.energy", "energies", "energy")
_ANI_FORCES = ("wb97x_dz.forces", "wb97x_tz.forces", "forces")
VASP_ORDER = "xx yy zz xy yz zx"


def read_qm22(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the blocks in ``path``, a text file or a zip with one text file; read as a stream.

    Unless declared otherwise: hartree, Å, and *gradients* in hartree/bohr, so that forces are their negative.

    Raises:
        UserError: the zip holds no or several ``.xyz``, or a block is malformed (with its number).
    """
    factors = unit_factors(labels, energy="hartree", forces="hartree/bohr", forces_sign="gradient")
    notes.add(
        f"{path.name}: QM-22 stream; energies in {labels.energy_unit or 'hartree'}, "
        f"{labels.forces_sign or 'gradient'} columns in {labels.forces_unit or 'hartree/bohr'}"
    )
    with _xyz_text(path) as stream:
        for start, blocks in enumerate(batched(_blocks(path, stream), CHUNK)):
            yield _convert_blocks(path, start * CHUNK, blocks, factors)


@contextmanager
def _xyz_text(path: Path) -> Iterator[IO[str]]:
    if path.suffix != ".zip":
        with open(path, encoding="utf-8") as stream:
            yield stream
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith(".xyz")]
            if len(names) != 1:
                raise UserError(f"{path}: expected one .xyz in the zip, found {', '.join(names) or 'none'}")
            size, packed = archive.getinfo(names[0]).file_size, path.stat().st_size
            if size > max(_SMALL, _LARGEST_RATIO * packed):
                raise UserError(f"{path}: {packed:,} bytes unpack to {size:,}; refused")
            with archive.open(names[0]) as raw:
                yield io.TextIOWrapper(raw, encoding="utf-8")
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: damaged zip ({error})") from error


def _blocks(path: Path, stream: IO[str]) -> Iterator[tuple[str, list[str]]]:
    """The comment and the atom lines of each block."""
    for number, line in enumerate(iter(stream.readline, "")):
        if not line.strip():
            continue
        if re.fullmatch(r"\s*\d{1,9}\s*", line, re.ASCII) is None:
            raise UserError(f"{path}: a number of atoms was expected, found {line.strip()[:40]!r} (block {number})")
        n_atoms, comment = int(line), stream.readline().strip()
        if n_atoms == 0:
            raise UserError(f"{path}: block {number} has no atoms")
        lines = list(islice(stream, n_atoms))
        if len(lines) < n_atoms:
            raise UserError(
                f"{path}: block {number} ends after {len(lines)} of {n_atoms} atoms", "The file is cut off."
            )
        yield comment, lines


def _convert_blocks(path: Path, start: int, blocks: tuple[tuple[str, list[str]], ...], factors: Factors) -> Chunk:
    structures: list[Atoms] = []
    energy, forces = [], []
    for number, (comment, lines) in enumerate(blocks, start):
        try:
            rows = [line.split() for line in lines]
            values: Float = np.array([row[1:7] for row in rows], dtype=np.float64)
            energy.append(float(comment.split()[0]) * factors.energy)
            gradient = values[:, 3:6] if values.shape[1] == 6 else np.full((len(rows), 3), np.nan)
            forces.append(gradient * factors.forces)
            structures.append(Atoms([row[0] for row in rows], positions=values[:, :3] * factors.length))
        except (ValueError, IndexError, KeyError) as error:
            raise UserError(f"{path}: block {number} cannot be read ({error})") from error
    return Chunk(Frames.from_atoms(structures, energy, forces), [{} for _ in structures])


def read_qm9(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the molecules in the tar ``path``, read as a stream; the energy is ``U0`` (hartree) unless named.

    Raises:
        UserError: not a tar, no such property, or a molecule is malformed.
    """
    key = labels.energy_key or "U0"
    if key not in QM9_PROPERTIES:
        raise UserError(f"QM9 has no property '{key}'", close_match(key, QM9_PROPERTIES))
    factors = unit_factors(labels, energy="hartree")
    notes.add(f"{path.name}: QM9 archive; energy taken from '{key}', {labels.energy_unit or 'hartree'}; no forces")
    for batch in batched(_members(path), CHUNK):
        structures, energy, headers = [], [], []
        for name, text in batch:
            try:
                symbols, positions, values = _parse_qm9(text)
            except (ValueError, IndexError) as error:
                raise UserError(f"{path}: {name} cannot be read ({error})") from error
            structures.append(Atoms(symbols, positions=positions * factors.length))
            energy.append(values[QM9_PROPERTIES.index(key)] * factors.energy)
            headers.append({"name": name})
        yield Chunk(Frames.from_atoms(structures, energy), headers)


def _members(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() and member.name.endswith(".xyz") else None
                if member.size > _LARGEST_MEMBER:
                    raise UserError(f"{path}: {member.name} has {member.size:,} bytes, too many for one molecule")
                if stream is not None:
                    yield Path(member.name).name, stream.read().decode("utf-8")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path}: damaged or cut-off archive ({error})") from error


def _parse_qm9(text: str) -> tuple[list[str], np.ndarray[tuple[int, int], np.dtype[np.float64]], list[float]]:
    lines = text.splitlines()
    n_atoms = int(lines[0])
    if n_atoms < 1 or len(lines) < 2 + n_atoms:
        raise ValueError(f"{n_atoms} atoms in {len(lines)} lines")
    values = [_mathematica(word) for word in lines[1].split()[2:17]]
    rows = [line.split() for line in lines[2 : 2 + n_atoms]]
    positions = np.array([[_mathematica(word) for word in row[1:4]] for row in rows], dtype=np.float64)
    return [row[0] for row in rows], positions.reshape(n_atoms, 3), values


def _mathematica(word: str) -> float:
    return float(word.replace("*^", "e"))  # some files have Mathematica's 1.2*^-6


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
    left_out = 0
    with h5py.File(path, "r") as file:
        for group in _molecules(file):
            for chunk, missing in _read_group(path, group, labels, factors, notes):
                left_out += missing
                if len(chunk.frames):
                    yield chunk
    if left_out:
        notes.add(f"{path.name}: {left_out} conformations without the chosen energy left out")


def _molecules(file: Any) -> Iterator[Any]:
    """Every group, however deep, that holds coordinates, once; links out of the file or back are not followed."""
    import h5py

    seen: set[tuple[int, int]] = set()
    waiting = [file]
    while waiting:
        group = waiting.pop(0)
        place = h5py.h5o.get_info(group.id)
        if (place.fileno, place.addr) in seen:
            continue
        seen.add((place.fileno, place.addr))
        if "coordinates" in group:
            yield group
            continue
        children = [group.get(name) for name in group if isinstance(group.get(name, getlink=True), h5py.HardLink)]
        waiting[:0] = [child for child in children if isinstance(child, h5py.Group)]


def _stored(path: Path, group: Any, name: str) -> Any:
    """The data set ``name`` of a group, once the file is seen to hold what it declares.

    Raises:
        UserError: it is no array of numbers or text, or declares far more than is stored.
    """
    import h5py

    data = group[name]
    if not isinstance(data, h5py.Dataset):
        raise UserError(f"{path}: {data.name} is not an array")
    declared, stored = data.size * data.dtype.itemsize if data.shape is not None else 0, data.id.get_storage_size()
    if declared > max(1000, _LARGEST_RATIO * min(stored, path.stat().st_size)):
        raise UserError(f"{path}: {data.name} declares {declared:,} bytes, of which {stored:,} are stored; refused")
    return data


def _species(path: Path, group: Any) -> Int:
    if "atomic_numbers" in group:
        return np.asarray(_stored(path, group, "atomic_numbers")[()], dtype=np.int64).reshape(-1)
    if "species" in group:
        symbols = [s.decode() if isinstance(s, bytes) else str(s) for s in _stored(path, group, "species")[()]]
        unknown = [s for s in symbols if s not in atomic_numbers]
        if unknown:
            raise UserError(f"{path}: group {group.name}: {', '.join(unknown[:5])} where elements were expected")
        return np.array([atomic_numbers[s] for s in symbols], dtype=np.int64)
    raise UserError(f"{path}: group {group.name} has neither atomic_numbers nor species")


def _ani_key(path: Path, group: Any, asked: str | None, known: tuple[str, ...], what: str, notes: Notes) -> str | None:
    if asked is not None:
        if asked not in group and what == "energy":
            raise UserError(f"{path}: group {group.name} has no '{asked}'", close_match(asked, group.keys()))
        return asked if asked in group else None
    present = next((key for key in known if key in group), None)
    if present is None and what == "energy":
        names = ", ".join(group.keys())
        raise UserError(f"{path}: group {group.name} has no energy; it has {names}", "Set dataset.energy_key=...")
    if present is not None:
        notes.add(f"{path.name}: {what} taken from '{present}'")
    return present


def _read_group(path: Path, group: Any, labels: Labels, factors: Factors, notes: Notes) -> Iterator[tuple[Chunk, int]]:
    numbers = _species(path, group)
    energy_key = str(_ani_key(path, group, labels.energy_key, _ANI_ENERGY, "energy", notes))
    forces_key = _ani_key(path, group, labels.forces_key, _ANI_FORCES, "forces", notes)
    positions, energies = _stored(path, group, "coordinates"), _stored(path, group, energy_key)
    labelled = None if forces_key is None else _stored(path, group, forces_key)
    if labelled is not None and labelled.shape != positions.shape:
        raise UserError(f"{path}: group {group.name}: forces {labelled.shape}, coordinates {positions.shape}")
    if positions.ndim != 3 or positions.shape[1:] != (len(numbers), 3) or len(positions) != energies.size:
        raise UserError(
            f"{path}: group {group.name}: coordinates {positions.shape}, {energies.size} energies, {len(numbers)} atoms"
        )
    for start in range(0, len(positions), CHUNK):
        part = slice(start, start + CHUNK)
        energy = np.asarray(energies[part], dtype=np.float64).reshape(-1)
        there = np.isfinite(energy)
        forces = None if labelled is None else np.asarray(labelled[part], dtype=np.float64)
        frames = uniform(
            numbers,
            np.asarray(positions[part], dtype=np.float64)[there] * factors.length,
            energy[there] * factors.energy,
            None if forces is None else forces[there] * factors.forces,
        )
        yield Chunk(frames, [{"molecule": group.name.strip("/")} for _ in range(len(frames))]), int((~there).sum())


def read_mlearn(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the entries in ``path``. Stress: kbar, positive under compression, in VASP's order unless declared.

    The order of the shear components differs between the published elements, so declare ``stress_order``.

    Raises:
        UserError: not JSON of this layout.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path}: expected a list of entries with 'structure' and 'outputs'")
    order = labels.stress_order or VASP_ORDER
    said = "as declared" if labels.stress_order else "VASP's order, assumed: 'data validate' tests it against strain"
    notes.add(f"{path.name}: mlearn JSON; stress in kbar, sign reversed, components {order} ({said})")
    factors = unit_factors(labels, stress="kbar", stress_sign="compression")
    for start, batch in zip(range(0, len(entries), CHUNK), batched(entries, CHUNK), strict=False):
        try:
            structures = [_mlearn_atoms(entry["structure"], factors.length) for entry in batch]
            outputs = [entry["outputs"] for entry in batch]
            energy = np.array([o["energy"] for o in outputs], dtype=np.float64) * factors.energy
            forces = [np.asarray(o["forces"], dtype=np.float64).reshape(-1, 3) * factors.forces for o in outputs]
            stress = np.array([o.get("virial_stress", [np.nan] * 6) for o in outputs], dtype=np.float64)
            frames = Frames.from_atoms(structures, energy, forces, reorder(stress, order) * factors.stress)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, np.linalg.LinAlgError) as error:
            text = f"{path}: entries {start} to {start + len(batch) - 1}: {type(error).__name__}: {error}"
            raise UserError(text, "Each entry needs structure, outputs.energy and outputs.forces.") from error
        yield Chunk(frames, [_mlearn_header(entry) for entry in batch])


def _mlearn_atoms(structure: dict[str, Any], to_length: float) -> Atoms:
    cell = np.array(structure["lattice"]["matrix"], dtype=np.float64) * to_length
    symbols = [site["species"][0]["element"] for site in structure["sites"]]
    fractional = np.array([site["abc"] for site in structure["sites"]], dtype=np.float64)
    return Atoms(symbols, scaled_positions=fractional, cell=cell, pbc=True)


def _mlearn_header(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("group", "tag", "description") if key in entry}
