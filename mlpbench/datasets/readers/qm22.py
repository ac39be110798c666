"""QM-22: one stream of xyz blocks with the energy alone in the comment and gradients behind the positions."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import batched, islice
from pathlib import Path
from typing import IO

import numpy as np
from ase import Atoms

from mlpbench.datasets.readers.base import CHUNK, Chunk, Factors, Labels, Notes, unit_factors
from mlpbench.errors import UserError
from mlpbench.frames import Float, Frames


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
    with _text(path) as stream:
        for start, blocks in enumerate(batched(_blocks(path, stream), CHUNK)):
            yield _convert(path, start * CHUNK, blocks, factors)


@contextmanager
def _text(path: Path) -> Iterator[IO[str]]:
    if path.suffix != ".zip":
        with open(path, encoding="utf-8") as stream:
            yield stream
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith(".xyz")]
            if len(names) != 1:
                raise UserError(f"{path}: expected one .xyz in the zip, found {', '.join(names) or 'none'}")
            with archive.open(names[0]) as raw:
                yield io.TextIOWrapper(raw, encoding="utf-8")
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: damaged zip ({error})") from error


def _blocks(path: Path, stream: IO[str]) -> Iterator[tuple[str, list[str]]]:
    """The comment and the atom lines of each block."""
    for number, line in enumerate(iter(stream.readline, "")):
        if not line.strip():
            continue
        if not line.strip().isdigit():
            raise UserError(f"{path}: a number of atoms was expected, found {line.strip()[:40]!r} (block {number})")
        n_atoms, comment = int(line), stream.readline().strip()
        lines = list(islice(stream, n_atoms))
        if len(lines) < n_atoms:
            raise UserError(
                f"{path}: block {number} ends after {len(lines)} of {n_atoms} atoms", "The file is cut off."
            )
        yield comment, lines


def _convert(path: Path, start: int, blocks: tuple[tuple[str, list[str]], ...], factors: Factors) -> Chunk:
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
