"""The JSON of materialsvirtuallab/mlearn: pymatgen structures with energy, forces and VASP's stress."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlpbench.datasets.readers.base import CHUNK, Chunk, Labels, Notes, reorder, unit_factors
from mlpbench.errors import UserError
from mlpbench.frames import Frames

VASP_ORDER = "xx yy zz xy yz zx"


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
            structures = [_atoms(entry["structure"], factors.length) for entry in batch]
            outputs = [entry["outputs"] for entry in batch]
            energy = np.array([o["energy"] for o in outputs], dtype=np.float64) * factors.energy
            forces = [np.asarray(o["forces"], dtype=np.float64).reshape(-1, 3) * factors.forces for o in outputs]
            stress = np.array([o.get("virial_stress", [np.nan] * 6) for o in outputs], dtype=np.float64)
            frames = Frames.from_atoms(structures, energy, forces, reorder(stress, order) * factors.stress)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            text = f"{path}: entries {start} to {start + len(batch) - 1}: {type(error).__name__}: {error}"
            raise UserError(text, "Each entry needs structure, outputs.energy and outputs.forces.") from error
        yield Chunk(frames, [_header(entry) for entry in batch])


def _atoms(structure: dict[str, Any], to_length: float) -> Atoms:
    cell = np.array(structure["lattice"]["matrix"], dtype=np.float64) * to_length
    symbols = [site["species"][0]["element"] for site in structure["sites"]]
    fractional = np.array([site["abc"] for site in structure["sites"]], dtype=np.float64)
    return Atoms(symbols, scaled_positions=fractional, cell=cell, pbc=True)


def _header(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("group", "tag", "description") if key in entry}
