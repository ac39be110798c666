"""Readers, one per file layout, all to eV and Å. Nothing but frames or a UserError leaves them."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import iread

from mlpbench.datasets.readers import extxyz
from mlpbench.datasets.readers.arrays import read_deepmd, read_sgdml
from mlpbench.datasets.readers.ase_files import read_ase, read_extxyz
from mlpbench.datasets.readers.base import Chunk, Labels, Notes, Reader, Selection
from mlpbench.datasets.readers.fitsnap import looks_like_it, read_fitsnap
from mlpbench.datasets.readers.published import VASP_ORDER, read_ani, read_mlearn, read_qm9, read_qm22
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.errors import UserError, close_match

ASE_ORDER = "xx yy zz yz xz xy"
READERS: dict[str, Reader] = {
    "ase": read_ase,
    "extxyz": read_extxyz,
    "sgdml": read_sgdml,
    "deepmd": read_deepmd,
    "fitsnap": read_fitsnap,
    "mlearn": read_mlearn,
    "qm22": read_qm22,
    "qm9": read_qm9,
    "ani": read_ani,
}
_ALIASES = {"xyz": "extxyz", "npz": "sgdml"}
_HIGHEST = 118  # atomic number


def read(path: Path, format: str, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the frames in ``path``, in eV and Å.

    Args:
        path: a file or folder.
        format: a name in :data:`READERS`, one of ASE's, or ``auto``.
        labels: names and units that are not to be detected; its ``index`` chooses frames.
        notes: receives what was detected; sentences that begin with "warning: " deserve attention.

    Raises:
        UserError: the file cannot be understood, a frame has no atoms, or ``index`` chooses none.
    """
    selection = Selection.of(labels.index)
    number = 0
    try:
        require_file(path)
        reader, own_index = _reader(path, format, notes)
        chunks = reader(path, labels, notes)
        for chunk in chunks if own_index else _choose(chunks, selection):
            _require_atoms(path, number, chunk)
            number += len(chunk.frames)
            yield chunk
    except UserError:
        raise
    except Exception as error:  # files are made by anybody; libraries below raise whatever they raise
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise UserError(
            f"{path}: cannot be read{f' after frame {number - 1}' if number else ''} ({text[:300]})",
            "The file is damaged or has another layout: name it with dataset.format=... (--format).",
        ) from error
    if number == 0:
        what = "has no frames" if labels.index == ":" else f"dataset.index='{labels.index}' chooses none of its frames"
        raise UserError(f"{path}: {what}", "Check dataset.path and dataset.index.")


def geometries(path: Path, index: str = ":") -> list[Atoms]:
    """The structures of a file without regard to labels, with headers and whatever results it has, in its own units.

    Args:
        path: xyz, or whatever ASE reads.
        index: which of them, as ``dataset.index``.

    Raises:
        UserError: it cannot be read, chooses none, or a structure has no atoms.
    """
    try:
        require_file(path)
        if path.is_file() and detect(path) == "extxyz":
            structures = list(extxyz.structures(path, Selection.of(index), Notes()))
        else:
            Selection.of(index)
            structures = list(iread(path, index=index, do_not_split_by_at_sign=True))
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: ASE cannot read this file ({type(error).__name__}: {error})") from error
    if not structures:
        raise UserError(f"{path}: holds no structures")
    empty = [i for i, atoms in enumerate(structures) if len(atoms) == 0]
    if empty:
        raise UserError(f"{path}: structure {empty[0]} has no atoms")
    return structures


def _reader(path: Path, format: str, notes: Notes) -> tuple[Reader, bool]:
    """The reader, and whether it follows ``index`` itself."""
    name = detect(path) if format == "auto" else _ALIASES.get(format, format)
    if format == "auto" and name not in ("ase", "extxyz"):
        notes.add(f"{path.name}: read as {name}")
    if name in READERS:
        return READERS[name], name in ("ase", "extxyz")
    check_format(name)
    return partial(read_ase, format=name), True


def check_format(name: str) -> None:
    """Accept a layout of :data:`READERS`, ``auto``, or a format of ASE.

    Raises:
        UserError: it is none; with the close match.
    """
    from ase.io.formats import ioformats

    known = {*READERS, *_ALIASES, "auto", *ioformats}
    if name not in known:
        match = close_match(name, known).partition(" Known:")[0]
        rest = f"Own layouts: {', '.join(READERS)}; ASE's: 'ase info --formats'."
        raise UserError(
            f"dataset.format='{name}' is not a known layout", f"{match} {rest}" if match.startswith("Did") else rest
        )


def require_file(path: Path) -> None:
    """Accept only what can be read to its end.

    Raises:
        UserError: it is a pipe, a socket or a device.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a pipe or device, not a file", "Write the frames to a file first.")
    if stat.S_ISREG(mode) and path.stat().st_size == 0:
        raise UserError(f"{path}: is empty")


def _require_atoms(path: Path, first: int, chunk: Chunk) -> None:
    frames = chunk.frames
    empty = np.flatnonzero(frames.n_atoms == 0)
    if len(empty):
        raise UserError(f"{path}, frame {first + int(empty[0])}: has no atoms", "Remove it, or choose dataset.index.")
    strange = np.flatnonzero((frames.numbers < 1) | (frames.numbers > _HIGHEST))
    if len(strange):
        frame = first + int(frames.frame_of_atom[strange[0]])
        raise UserError(
            f"{path}, frame {frame}: has an atom of no element (atomic number {frames.numbers[strange[0]]})"
        )


def detect(path: Path) -> str:
    """The reader for ``path``, from its name and first bytes; ``ase`` where no other layout fits."""
    if path.is_dir():
        return "deepmd" if (path / "type.raw").exists() else "fitsnap" if _is_fitsnap(path) else "ase"
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
        head = stream.read(100_000).decode("utf-8", errors="replace")
    if name.endswith(".json") and head.lstrip().startswith("[") and '"structure"' in head:
        return "mlearn"
    if name.endswith(".json") and looks_like_it(head):
        return "fitsnap"
    lines = head.lstrip().splitlines()
    if len(lines) > 2 and re.fullmatch(r"\s*\d+\s*", lines[0], re.ASCII):
        if re.fullmatch(r"\s*-?\d+\.\d+\s*", lines[1]) and len(lines[2].split()) == 7:
            return "qm22"
        words = lines[2].split()
        if name.endswith((".xyz", ".extxyz", ".exyz")) or "Properties=" in lines[1] or _is_atom(words):
            return "extxyz"
    return "extxyz" if name.endswith((".xyz", ".extxyz", ".exyz")) else "ase"


def _is_fitsnap(folder: Path) -> bool:
    first = next((file for pattern in ("*.json", "*/*.json") for file in folder.glob(pattern) if file.is_file()), None)
    if first is None:
        return False
    with open(first, "rb") as stream:
        return looks_like_it(stream.read(1000).decode("utf-8", errors="replace"))


def _is_atom(words: list[str]) -> bool:
    """A symbol and at least three numbers."""
    numbers = [re.fullmatch(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?", word) for word in words[1:4]]
    return len(words) >= 4 and re.fullmatch(r"[A-Z][a-z]?", words[0]) is not None and all(numbers)


def stress_order(path: Path, config: DatasetConfig) -> str:
    """The order in which the components of the stress in ``path`` are taken: as declared, else the layout's own."""
    format = detect(path) if config.format == "auto" else config.format
    return config.stress_order or (VASP_ORDER if format == "mlearn" else ASE_ORDER)


def _choose(chunks: Iterator[Chunk], selection: Selection) -> Iterator[Chunk]:
    """The frames that ``selection`` asks for, without reading past the last of them."""
    if selection.counts_from_the_end:
        everything = list(chunks)
        chunks, selection = iter(everything), selection.within(sum(len(chunk.frames) for chunk in everything))
    seen = 0
    for chunk in chunks:
        chosen = [i for i in range(len(chunk.frames)) if selection.wants(seen + i)]
        if len(chosen) == len(chunk.frames):
            yield chunk
        elif chosen:
            yield Chunk(chunk.frames.select(chosen), [chunk.headers[i] for i in chosen])
        seen += len(chunk.frames)
        if selection.ended(seen):
            return
