"""QM9's own archive: a tar of one small file per molecule, properties in the second line, energies only."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from itertools import batched
from pathlib import Path

import numpy as np
from ase import Atoms

from mlpbench.datasets.readers.base import CHUNK, Chunk, Labels, Notes, unit_factors
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Frames

# Second line, after "gdb" and the index: Ramakrishnan and co-workers, Sci. Data 1, 140022 (2014), table 3.
PROPERTIES = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")


def read_qm9(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the molecules in the tar ``path``, read as a stream; the energy is ``U0`` (hartree) unless named.

    Raises:
        UserError: not a tar, no such property, or a molecule is malformed.
    """
    key = labels.energy_key or "U0"
    if key not in PROPERTIES:
        raise UserError(f"QM9 has no property '{key}'", close_match(key, PROPERTIES))
    factors = unit_factors(labels, energy="hartree")
    notes.add(f"{path.name}: QM9 archive; energy taken from '{key}', {labels.energy_unit or 'hartree'}; no forces")
    for batch in batched(_members(path), CHUNK):
        structures, energy, headers = [], [], []
        for name, text in batch:
            try:
                symbols, positions, values = _parse(text)
            except (ValueError, IndexError) as error:
                raise UserError(f"{path}: {name} cannot be read ({error})") from error
            structures.append(Atoms(symbols, positions=positions * factors.length))
            energy.append(values[PROPERTIES.index(key)] * factors.energy)
            headers.append({"name": name})
        yield Chunk(Frames.from_atoms(structures, energy), headers)


def _members(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() and member.name.endswith(".xyz") else None
                if stream is not None:
                    yield Path(member.name).name, stream.read().decode("utf-8")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{path}: damaged or cut-off archive ({error})") from error


def _parse(text: str) -> tuple[list[str], np.ndarray[tuple[int, int], np.dtype[np.float64]], list[float]]:
    lines = text.splitlines()
    n_atoms = int(lines[0])
    values = [_number(word) for word in lines[1].split()[2:17]]
    rows = [line.split() for line in lines[2 : 2 + n_atoms]]
    positions = np.array([[_number(word) for word in row[1:4]] for row in rows], dtype=np.float64)
    return [row[0] for row in rows], positions.reshape(n_atoms, 3), values


def _number(word: str) -> float:
    return float(word.replace("*^", "e"))  # some files have Mathematica's 1.2*^-6
