"""Whatever ASE reads: extxyz, ASE databases, outputs of VASP, Quantum ESPRESSO, CP2K, ORCA, GPAW ..."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import iread
from ase.stress import full_3x3_to_voigt_6_stress

from mlpbench.datasets.readers.base import CHUNK, Chunk, Factors, Labels, Notes, reorder, unit_factors
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Float, Frames

_PREFIXES = ("", "REF_", "ref_", "dft_", "DFT_")
ENERGY_KEYS = (*(f"{p}energy" for p in _PREFIXES), "E", "Energy", "total_energy", "free_energy")
FORCES_KEYS = (*(f"{p}forces" for p in _PREFIXES), "force", "Forces", "F", "gradient", "gradients")
STRESS_KEYS = (
    *(f"{p}stress" for p in _PREFIXES), *(f"{p}virial" for p in _PREFIXES), "virials", "REF_virials",
)  # fmt: skip


def read_ase(path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
    """Chunks of the structures in ``path``.

    Raises:
        UserError: ASE cannot read the file, it is empty, or it has no such key.
    """
    keys: dict[str, str | None] | None = None
    start = 0
    try:
        for structures in batched(iread(str(path), index=labels.index), CHUNK):
            if keys is None:
                keys = _choose_keys(path, structures[0], labels, notes)
            yield _convert(path, start, structures, keys, labels)
            start += len(structures)
    except UserError:
        raise
    except Exception as error:  # ASE's readers raise almost anything on a file they do not understand
        raise UserError(
            f"{path}: ASE cannot read this file ({type(error).__name__}: {error})"
            if start == 0
            else f"{path}: reading stopped after frame {start} ({type(error).__name__}: {error})",
            "ASE's formats: 'ase info --formats'. Others: dataset.format=sgdml|deepmd|mlearn|qm22|qm9|ani.",
        ) from error  # fmt: skip
    if start == 0:
        raise UserError(f"{path}: holds no structures", "Check dataset.path and dataset.index.")


def _available(atoms: Atoms) -> dict[str, Any]:
    """All labels and headers of one structure by name; a calculator's results come first."""
    found: dict[str, Any] = {**atoms.info}
    found.update({k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")})
    if atoms.calc is not None:
        found.update({k: v for k, v in atoms.calc.results.items() if v is not None})
    return found


def _choose_keys(path: Path, atoms: Atoms, labels: Labels, notes: Notes) -> dict[str, str | None]:
    found = _available(atoms)
    chosen: dict[str, str | None] = {}
    for label, asked, known, shape in (
        ("energy", labels.energy_key, ENERGY_KEYS, ()),
        ("forces", labels.forces_key, FORCES_KEYS, (len(atoms), 3)),
        ("stress", labels.stress_key, STRESS_KEYS, None),
    ):
        if asked is not None:
            if asked not in found and label == "energy":
                text = f"{path}: the first frame has no '{asked}' ({label}_key)"
                raise UserError(text, close_match(asked, found))
            chosen[label] = asked
            continue
        fits = [k for k in known if k in found and (shape is None or np.shape(found[k]) == shape)]
        chosen[label] = fits[0] if fits else None
        if fits:
            others = f" (also there: {', '.join(fits[1:])})" if len(fits) > 1 else ""
            notes.add(f"{path.name}: {label} taken from '{fits[0]}'{others}")
    if chosen["energy"] is None:
        raise UserError(
            f"{path}: no energy found; the first frame has {', '.join(sorted(found)) or 'no labels at all'}",
            "Name it: dataset.energy_key=... (and dataset.forces_key=...).",
        )
    return chosen


def _convert(
    path: Path, start: int, structures: tuple[Atoms, ...], keys: dict[str, str | None], labels: Labels
) -> Chunk:
    by_name = "gradient" if re.match("gradient", keys["forces"] or "") else "forces"
    factors = unit_factors(labels, forces_sign=by_name)
    energy, forces, stress, headers = [], [], [], []
    used = {k for k in keys.values() if k}
    for offset, atoms in enumerate(structures):
        found = _available(atoms)
        atoms.calc = None
        where = f"{path}, frame {start + offset}"
        energy.append(_number(found.get(keys["energy"] or ""), where, str(keys["energy"])) * factors.energy)
        force = _array(found.get(keys["forces"] or ""), (len(atoms), 3), where, str(keys["forces"]))
        forces.append(force * factors.forces)
        atoms.positions *= factors.length
        atoms.cell *= factors.length
        stress.append(_stress(found, keys["stress"], atoms, labels, where, factors))
        headers.append({k: v for k, v in found.items() if k not in used and np.ndim(v) == 0})
    return Chunk(Frames.from_atoms(structures, energy, forces, np.array(stress)), headers)


def _number(value: Any, where: str, key: str) -> float:
    if value is None:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: '{key}' is {str(value)[:60]!r}, not a number") from error


def _array(value: Any, shape: tuple[int, int], where: str, key: str) -> Float:
    if value is None:
        return np.full(shape, np.nan)
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise UserError(f"{where}: '{key}' has shape {array.shape}, expected {shape}")
    return array


def _stress(
    found: dict[str, Any], key: str | None, atoms: Atoms, labels: Labels, where: str, factors: Factors
) -> Float:
    """(6,) eV/Å³, ASE's order and sign; a virial (eV) is −stress·volume."""
    if key is None or found.get(key) is None:
        return np.full(6, np.nan)
    value = np.asarray(found[key], dtype=np.float64)
    if value.size == 9:
        value = full_3x3_to_voigt_6_stress(value.reshape(3, 3))
    if value.shape != (6,):
        raise UserError(f"{where}: '{key}' has shape {value.shape}, expected (6,) or (3, 3)")
    if labels.stress_order is not None:
        value = reorder(value, labels.stress_order)
    if "virial" in key.lower():
        if atoms.cell.rank < 3:
            raise UserError(f"{where}: has a virial ('{key}') but no cell to turn it into a stress")
        return np.asarray(-value * factors.energy / atoms.get_volume())
    return np.asarray(value * factors.stress)
