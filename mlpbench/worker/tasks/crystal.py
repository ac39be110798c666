"""Lattice constant and elastic constants of a cubic crystal, at rest (0 K, no zero-point motion)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.optimize import BFGS

from mlpbench.frames import Float, Frames
from mlpbench.units import GPA
from mlpbench.worker.adapter import Potential

WIDTHS = (0.04, 0.01)  # relative, of the two rounds in which the energy is fitted around its minimum
STRAIN = 0.005  # Voigt; stress is linear in it to a few tenths of a per cent
FMAX = 1e-4  # eV/Å, of the atoms' positions inside a sheared cell


def cubic(potential: Potential, reference: Path, relaxed: Any) -> dict[str, Any]:
    """``lattice_constant_A`` and ``elastic_GPa`` (C11, C12, C44) of the crystal in ``reference``.

    Args:
        potential: in float64.
        reference: JSON with ``symbols``, ``scaled_positions`` of the cubic cell and ``lattice_constant_A``.
        relaxed: an ASE calculator class over a potential, for the positions inside a strained cell.

    Returns:
        Without ``elastic_GPa`` where the potential has no stress; ``lattice_constant_A`` None where the energy has no
        minimum within 4 % of the reference's.
    """
    data = json.loads(reference.read_text(encoding="utf-8"))
    start = Atoms(data["symbols"], scaled_positions=data["scaled_positions"], cell=np.eye(3), pbc=True)
    lattice = lattice_constant(potential, start, float(data["lattice_constant_A"]))
    if lattice is None:
        return {"lattice_constant_A": None}
    values: dict[str, Any] = {"lattice_constant_A": lattice}
    columns = {index: _response(potential, _scaled(start, lattice), index, relaxed) for index in (0, 3)}
    if all(column is not None for column in columns.values()):
        first, shear = columns[0], columns[3]
        assert first is not None
        assert shear is not None
        values["elastic_GPa"] = {"C11": float(first[0]), "C12": float(first[1:3].mean()), "C44": float(shear[3])}
    return values


def lattice_constant(potential: Potential, start: Atoms, guess: float) -> float | None:
    """Å, where a cubic polynomial through the energies of seven cells has its minimum; None if that is at the edge."""
    for width in WIDTHS:
        lengths = guess * (1 + width * np.linspace(-1, 1, 7))
        cells = [_scaled(start, a) for a in lengths]
        energy = potential.predict(Frames.from_atoms(cells), len(cells)).energy
        x = (lengths - guess) / (width * guess)
        fine = np.linspace(-1, 1, 20001)
        best = float(fine[np.argmin(np.polyval(np.polyfit(x, energy - energy.min(), 3), fine))])
        if abs(best) >= 1:
            return None
        guess *= 1 + width * best
    return guess


def strain_tensor(index: int, size: float) -> Float:
    """(3, 3) symmetric, of one Voigt component (xx, yy, zz, yz, xz, xy); a shear has ``size`` = 2ε."""
    strain = np.zeros((3, 3))
    i, j = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))[index]
    strain[i, j] = strain[j, i] = size if i == j else size / 2
    return strain


def _response(potential: Potential, crystal: Atoms, index: int, relaxed: Any) -> Float | None:
    """(6,) GPa, derivative of the stress by one strain, atoms relaxed; None where the potential has no stress."""
    stresses = []
    for size in (STRAIN, -STRAIN):
        work = crystal.copy()
        work.set_cell(crystal.cell.array @ (np.eye(3) + strain_tensor(index, size)), scale_atoms=True)
        work.calc = relaxed(potential)
        BFGS(work, logfile=None, maxstep=0.05).run(fmax=FMAX, steps=200)
        plain = Atoms(work.numbers, positions=work.positions, cell=work.cell, pbc=True)
        stress = potential.predict(Frames.from_atoms([plain]), 1, stress=True).stress
        if stress is None or not np.isfinite(stress).all():
            return None
        stresses.append(stress[0])
    return np.asarray((stresses[0] - stresses[1]) / (2 * STRAIN) / GPA, dtype=np.float64)


def _scaled(start: Atoms, length: float) -> Atoms:
    made: Atoms = start.copy()
    made.set_cell(np.eye(3) * length, scale_atoms=True)
    return made
