"""Readers, one per file layout, all to eV and Å."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mlpbench.datasets.readers.ase_files import read_ase
from mlpbench.datasets.readers.base import Chunk, Labels, Notes, Reader

READERS: dict[str, Reader] = {"ase": read_ase}


def read(path: Path, format: str, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the frames in ``path``, in eV and Å.

    Args:
        path: a file or folder.
        format: a name in :data:`READERS`, or ``auto``.
        labels: names and units that are not to be detected.
        notes: receives what was detected.

    Raises:
        UserError: the file cannot be understood.
    """
    return READERS["ase" if format == "auto" else format](path, labels, notes)
