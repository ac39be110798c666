"""Readers, one per file layout, all to eV and Å."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mlpbench.datasets.readers.ani import read_ani
from mlpbench.datasets.readers.ase_files import read_ase
from mlpbench.datasets.readers.base import Chunk, Labels, Notes, Reader
from mlpbench.datasets.readers.deepmd import read_deepmd
from mlpbench.datasets.readers.mlearn import VASP_ORDER, read_mlearn
from mlpbench.datasets.readers.qm9 import read_qm9
from mlpbench.datasets.readers.qm22 import read_qm22
from mlpbench.datasets.readers.sgdml import read_sgdml
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.errors import UserError

ASE_ORDER = "xx yy zz yz xz xy"
READERS: dict[str, Reader] = {
    "ase": read_ase,
    "sgdml": read_sgdml,
    "deepmd": read_deepmd,
    "mlearn": read_mlearn,
    "qm22": read_qm22,
    "qm9": read_qm9,
    "ani": read_ani,
}


def read(path: Path, format: str, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the frames in ``path``, in eV and Å.

    Args:
        path: a file or folder.
        format: a name in :data:`READERS`, or ``auto``.
        labels: names and units that are not to be detected; its ``index`` chooses frames.
        notes: receives what was detected.

    Raises:
        UserError: the file cannot be understood.
    """
    if format == "auto":
        format = detect(path)
        if format != "ase":
            notes.add(f"{path.name}: read as {format}")
    chunks = READERS[format](path, labels, notes)
    return chunks if format == "ase" else _choose(chunks, labels.index)


def detect(path: Path) -> str:
    """The reader for ``path``, from its name and first bytes; ``ase`` where no other layout fits."""
    if path.is_dir():
        return "deepmd" if (path / "type.raw").exists() else "ase"
    name = path.name.lower()
    if name.endswith(".npz"):
        return "sgdml"
    if name.endswith((".h5", ".hdf5")):
        return "ani"
    if name.endswith(".zip"):
        return "qm22"
    if re.search(r"\.tar(\.\w+)?$|\.t[bg]z2?$", name):
        return "qm9"
    with open(path, "rb") as stream:
        head = stream.read(4000).decode("utf-8", errors="replace")
    if name.endswith(".json") and head.lstrip().startswith("[") and '"structure"' in head:
        return "mlearn"
    lines = head.splitlines()
    if len(lines) > 2 and lines[0].strip().isdigit() and re.fullmatch(r"\s*-?\d+\.\d+\s*", lines[1]):
        return "qm22" if len(lines[2].split()) == 7 else "ase"
    return "ase"


def stress_order(path: Path, config: DatasetConfig) -> str:
    """The order in which the components of the stress in ``path`` are taken: as declared, else the layout's own."""
    format = detect(path) if config.format == "auto" else config.format
    return config.stress_order or (VASP_ORDER if format == "mlearn" else ASE_ORDER)


def _choose(chunks: Iterator[Chunk], index: str) -> Iterator[Chunk]:
    """The frames that ``index`` (start:stop:step, none negative) asks for, without reading past the last of them."""
    match = re.fullmatch(r"(\d*):(\d*)(?::(\d*))?", index)
    if match is None:
        raise UserError(f"dataset.index='{index}' is not start:stop:step", "For example ':5000' or '::10'.")
    start, stop, step = (int(part) if part else None for part in match.groups())
    first, every = start or 0, step or 1
    seen = 0
    for chunk in chunks:
        numbers = np.arange(seen, seen + len(chunk.frames))
        wanted = (numbers >= first) & ((numbers - first) % every == 0)
        if stop is not None:
            wanted &= numbers < stop
        if wanted.all():
            yield chunk
        elif wanted.any():
            chosen = np.flatnonzero(wanted)
            yield Chunk(chunk.frames.select(chosen), [chunk.headers[i] for i in chosen])
        seen += len(chunk.frames)
        if stop is not None and seen >= stop:
            return
