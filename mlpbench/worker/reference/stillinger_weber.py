"""Stillinger and Weber's potential of silicon, Phys. Rev. B 31, 5262 (1985): draws geometries in microseconds an atom.

``reference=ase reference.calculator=mlpbench.worker.reference.stillinger_weber.StillingerWeber``; not for labels.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress

A, B, CUTOFF, LAMBDA, GAMMA = 7.049556277, 0.6022245584, 1.80, 21.0, 1.20  # their table I; p = 4, q = 0
EPSILON, SIGMA = 2.16826, 2.0951  # eV, Å


class StillingerWeber(Calculator):
    """An ASE calculator for one element in the diamond structure or near it."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]  # type: ignore[misc]  # as ASE's do

    def __init__(self, lattice_constant_A: float | None = None) -> None:
        """``lattice_constant_A`` scales all lengths, and with them the forces; None: 5.431 Å, as published."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.sigma = SIGMA if lattice_constant_A is None else lattice_constant_A * SIGMA / 5.43095

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Energy, forces and, of a crystal, stress."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        atoms = self.atoms
        assert atoms is not None
        first, second, vectors = neighbor_list("ijD", atoms, CUTOFF * self.sigma * (1 - 1e-9))
        edges = vectors / self.sigma
        pair, gradient = _pairs(edges)
        triple, more = _triples(first, edges)
        gradient = EPSILON * (gradient + more) / self.sigma
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, first, gradient)
        np.add.at(forces, second, -gradient)
        energy = EPSILON * (pair + triple)
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}
        if atoms.cell.rank == 3:
            self.results["stress"] = full_3x3_to_voigt_6_stress(vectors.T @ gradient / atoms.get_volume())


def _pairs(edges: Any) -> tuple[float, Any]:
    """Energy, and its derivative (E, 3) by every edge vector, which each pair has twice; in ε and σ."""
    r = np.linalg.norm(edges, axis=1)
    decay = np.exp(1 / (r - CUTOFF))
    core = A * (B * r**-4 - 1)
    slope = decay * (-4 * A * B * r**-5 - core / (r - CUTOFF) ** 2)
    return 0.5 * float((core * decay).sum()), 0.5 * (slope / r)[:, None] * edges


def _triples(first: Any, edges: Any) -> tuple[float, Any]:
    """The same of all pairs of edges of one atom, which favour the tetrahedral angle."""
    order = np.argsort(first, kind="stable")
    left, right = [], []
    for group in np.split(order, np.flatnonzero(np.diff(first[order])) + 1):
        a, b = np.triu_indices(len(group), 1)
        left.append(group[a])
        right.append(group[b])
    i, j = np.concatenate(left), np.concatenate(right)
    r = np.linalg.norm(edges, axis=1)
    unit, decay = edges / r[:, None], np.exp(GAMMA / (r - CUTOFF))
    fall = -GAMMA / (r - CUTOFF) ** 2  # derivative of its logarithm
    cosine = (unit[i] * unit[j]).sum(axis=1)
    bend, weight = cosine + 1 / 3, LAMBDA * decay[i] * decay[j]
    gradient = np.zeros_like(edges)
    for one, other in ((i, j), (j, i)):
        turn = (unit[other] - cosine[:, None] * unit[one]) / r[one][:, None]
        part = (2 * weight * bend)[:, None] * turn + (weight * bend**2 * fall[one])[:, None] * unit[one]
        np.add.at(gradient, one, part)
    return float((weight * bend**2).sum()), gradient
