"""FitSNAP's JSON: one file per frame as a rule, in folders that are its groups."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlpbench.datasets.readers.base import CHUNK, Chunk, Factors, Labels, Notes, unit_factors
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Float, Frames

_STYLES = {"EnergyStyle": "energy", "PositionsStyle": "length", "ForcesStyle": "forces", "StressStyle": "stress"}
_LABELS = {"energy": "Energy", "forces": "Forces", "stress": "Stress"}
_USED = {"AtomTypes", "Positions", "Lattice", "NumAtoms", *_LABELS.values()}
_ASYMMETRY = 1e-3  # of the largest component; a stress that was printed with few digits stays below


@dataclass(frozen=True)
class _Frame:
    """One configuration: structure, labels in eV and Å (NaN: not there), header."""

    atoms: Atoms
    energy: float
    forces: Float
    stress: Float
    header: dict[str, str]


def read_fitsnap(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the configurations in ``path``, a file or a folder with files and groups (folders) of files.

    Units are those that each file states (``EnergyStyle`` ...), else eV, Å and bar; a stress is positive under
    compression and a full matrix. Frames with a ``Lattice`` are periodic along all three vectors, as FitSNAP takes
    them. The header has ``group``, the folder of the file, and ``file``, its name without ``.json``. Files come in
    the order of their names with numbers counted (2 before 10), so that steps of a relaxation stay in order.

    Raises:
        UserError: no such file in the folder, not JSON of this layout, or numbers that do not fit each other.
    """
    files = json_files(path)
    if not files:
        raise UserError(f"{path}: holds no .json files", "FitSNAP keeps frames in FOLDER/GROUP/*.json.")
    notes.add(f"{path.name}: FitSNAP JSON, {len(files)} files; stress positive under compression, sign reversed")
    zero = 0
    for batch in batched(_frames(path, files, labels, notes), CHUNK):
        stress = np.array([frame.stress for frame in batch])
        zero += int((stress == 0).all(axis=1).sum())
        frames = Frames.from_atoms(
            [f.atoms for f in batch], [f.energy for f in batch], [f.forces for f in batch], stress
        )
        yield Chunk(frames, [f.header for f in batch])
    if zero:
        notes.add(
            f"warning: {path.name}: {zero} frames have a stress of exactly zero in every component, which may mean "
            "that it was not computed; dataset.labels=[energy,forces] leaves stress out"
        )


def json_files(path: Path) -> list[Path]:
    """The file, or every ``.json`` below the folder in natural order of their names; hidden files are left out."""
    if path.is_file():
        return [path]
    files = [f for f in path.rglob("*.json") if not f.name.startswith(".") and f.is_file()]
    return sorted(files, key=lambda file: [_natural(part) for part in file.relative_to(path).parts])


def looks_like_it(head: str) -> bool:
    """Whether the beginning of a file is that of this layout: perhaps a comment, then an object with ``Dataset``."""
    return re.match(r"\s*(#[^\n]*\n\s*)?\{\s*\"Dataset\"\s*:", head) is not None


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts text by its words and numbers: a2 before a10."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d{1,15})", name) if word]


def _frames(path: Path, files: list[Path], labels: Labels, notes: Notes) -> Iterator[_Frame]:
    for file in files:
        group = file.parent.resolve().name if path.is_file() else file.parent.relative_to(path).as_posix()
        header = {"group": path.resolve().name if group == "." else group, "file": file.stem}
        dataset = _dataset(file)
        factors = _factors(file, dataset, labels, notes)
        for number, data in enumerate(dataset["Data"]):
            try:
                yield _frame(file, data, labels, factors, header, notes)
            except (KeyError, TypeError, ValueError, IndexError, AttributeError, np.linalg.LinAlgError) as error:
                raise UserError(
                    f"{file}: configuration {number} cannot be read ({type(error).__name__}: {error})",
                    "Each needs Positions, AtomTypes (element symbols), Lattice and Energy.",
                ) from error


def _dataset(file: Path) -> dict[str, Any]:
    text = file.read_text(encoding="utf-8")
    try:
        content = json.loads(text.partition("\n")[2] if text.lstrip().startswith("#") else text)
        dataset = content["Dataset"]
        if not isinstance(dataset["Data"], list) or not dataset["Data"]:
            raise TypeError("Data is not a list of configurations")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: not FitSNAP's JSON ({type(error).__name__}: {error})",
            'Expected {"Dataset": {"Data": [...]}}, after at most one line of comment.',
        ) from error
    return dict(dataset)


def _factors(file: Path, dataset: dict[str, Any], labels: Labels, notes: Notes) -> Factors:
    """Units as the file states them, in its spelling: kB, electronvoltperangstrom, hartree_per_bohr."""
    stated = {}
    for style, quantity in _STYLES.items():
        if style in dataset:
            text = str(dataset[style]).lower().replace("_per_", "/").replace("per", "/").replace("electron_volt", "ev")
            stated[quantity] = {"metal": None, "atomic": "a.u."}.get(text, text)  # FitSNAP's names of unit systems
    if dataset.get("LatticeStyle", dataset.get("PositionsStyle")) != dataset.get("PositionsStyle"):
        raise UserError(f"{file}: states other units for the lattice than for positions", "Convert one of them.")
    words = {quantity: text for quantity, text in stated.items() if text is not None}
    factors = unit_factors(labels, stress="bar", stress_sign="compression", stated=words, where=str(file))
    listed = ", ".join(f"{quantity} {text}" for quantity, text in words.items())
    notes.add(f"units as the files state: {listed}" if listed else "no units stated; eV, Å and bar taken")
    return factors


def _frame(
    file: Path, data: dict[str, Any], labels: Labels, factors: Factors, header: dict[str, str], notes: Notes
) -> _Frame:
    positions = np.asarray(data["Positions"], dtype=np.float64).reshape(-1, 3) * factors.length
    symbols = [str(symbol) for symbol in data["AtomTypes"]]
    if len(symbols) != len(positions) or data.get("NumAtoms", len(symbols)) != len(symbols):
        raise ValueError(f"{len(symbols)} AtomTypes, {len(positions)} Positions, NumAtoms {data.get('NumAtoms', '-')}")
    atoms = Atoms(symbols, positions=positions)
    if "Lattice" in data:
        atoms.set_cell(np.asarray(data["Lattice"], dtype=np.float64).reshape(3, 3) * factors.length)
        atoms.pbc = True
    energy, forces, stress = (_value(file, data, labels, name) for name in _LABELS)
    unused = sorted(name for name in data if name not in _USED and name not in (labels.energy_key, labels.forces_key))
    if unused:
        notes.add(f"not used: {', '.join(unused)}")
    if energy is None:
        raise ValueError("there is no Energy")
    return _Frame(
        atoms,
        float(energy) * factors.energy,
        np.full((len(atoms), 3), np.nan) if forces is None
        else np.asarray(forces, dtype=np.float64).reshape(len(atoms), 3) * factors.forces,
        np.full(6, np.nan) if stress is None else _voigt(np.asarray(stress, dtype=np.float64)) * factors.stress,
        header,
    )  # fmt: skip


def _value(file: Path, data: dict[str, Any], labels: Labels, quantity: str) -> Any:
    """The label as the file has it; None where it is not there.

    Raises:
        UserError: the configuration names a key for it that the file has not.
    """
    asked = getattr(labels, f"{quantity}_key")
    if asked is not None and asked not in data:
        raise UserError(f"{file}: has no '{asked}'", close_match(asked, data))
    return data.get(asked or _LABELS[quantity])


def _voigt(matrix: Float) -> Float:
    """(6,) in ASE's order from a symmetric (3, 3) matrix."""
    if matrix.shape != (3, 3):
        raise ValueError(f"Stress has the shape {matrix.shape}, not (3, 3)")
    if np.abs(matrix - matrix.T).max() > _ASYMMETRY * np.abs(matrix).max():
        raise ValueError("Stress is not symmetric")
    symmetric = (matrix + matrix.T) / 2
    return symmetric[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
