"""Properties of molecules and reactions: paths, dissociation, conformers, rare events, rates; structures from files."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import numpy as np
from ase import Atoms
from ase.data import atomic_masses

from mlpbench.frames import Float
from mlpbench.properties.base import PROPERTY, Labelled, Property
from mlpbench.quantities import Value
from mlpbench.units import ASE_TIME_IN_FS, BOLTZMANN

MEV = 1e3
MIGRATING = "distance_to_migrating_atom"  # array of the files of Liu, He & Mo: 0 at the atom that moves
STEP = 0.01  # Å, of the displacements behind the Hessians of a rate
KELVIN = (300, 1000)
JUMP = 1.0  # Å between neighbours of a path, over all coordinates
SOFT = 1e-4  # eV/Å²/u: an eigenvalue below is translation, rotation or noise


def peak(x: Float, y: Float) -> tuple[float, float]:
    """Place and height of the highest point: a parabola through it and its neighbours; at an end the point itself."""
    top = int(np.argmax(y))
    if not 0 < top < len(y) - 1:
        return float(x[top]), float(y[top])
    a, b, c = np.polyfit(x[top - 1 : top + 2] - x[top], y[top - 1 : top + 2], 2)
    if a >= 0:
        return float(x[top]), float(y[top])
    return float(x[top] - b / (2 * a)), float(c - b**2 / (4 * a))


def arc_length(structures: list[Atoms]) -> Float:
    """(K,) Å along the path, Euclidean over all coordinates, shortest images where periodic."""
    steps = [0.0]
    for one, other in pairwise(structures):
        shift = other.positions - one.positions
        if one.pbc.any():
            inner = shift @ np.linalg.inv(one.cell.array)
            shift = (inner - np.where(one.pbc, np.rint(inner), 0.0)) @ one.cell.array
        steps.append(float(np.linalg.norm(shift)))
    return np.cumsum(steps)


def is_one_path(structures: list[Atoms]) -> bool:
    """Whether no step of the path is out of all proportion: files hold several paths one after another."""
    steps = np.diff(arc_length(structures))
    return len(steps) < 2 or float(steps.max()) <= max(JUMP, 10 * float(np.median(steps)))


class ReactionPath(Property):
    """Structures in order from reactant to product: an intrinsic reaction coordinate, the images of a band."""

    name: ClassVar[str] = "path"

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """meV, Å; the energies alone where the structures are several paths.

        The potential's own highest point counts: its saddle need not lie where the reference's does.
        """
        energy = (labelled.energy - labelled.energy[0]) * MEV
        place, height = peak(arc_length(labelled.structures), energy)
        values: dict[str, Value] = {"path_energy": energy}
        if not is_one_path(labelled.structures):
            return values
        values["path_reaction"] = np.float64(energy[-1])
        if 0 < int(np.argmax(energy)) < len(energy) - 1:
            values |= {"path_barrier": np.float64(height), "path_saddle": np.float64(place)}
            values |= {f"path_rate_{kelvin}K": boltzmann(height, kelvin) for kelvin in KELVIN}
        return values


class Band(Property):
    """A nudged elastic band between two given ends, relaxed with the method itself (climbing image).

    The reference's structures are its own band or path, in order; the worker relaxes one of its own from them, whose
    ends stay where the reference has them (Henkelman, Uberuaga & Jónsson, J. Chem. Phys. 113, 9901 (2000)).
    """

    name: ClassVar[str] = "neb"

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """meV, and the interatomic distances at the highest image in Å, (N(N−1)/2,), shortest images where periodic."""
        energy = (labelled.energy - labelled.energy[0]) * MEV
        top = int(np.argmax(energy))
        if not 0 < top < len(energy) - 1:
            return {}
        height = peak(arc_length(labelled.structures), energy)[1]
        values: dict[str, Value] = {f"neb_rate_{kelvin}K": boltzmann(height, kelvin) for kelvin in KELVIN}
        values |= {"neb_barrier": np.float64(height), "neb_reverse": np.float64(height - energy[-1])}
        saddle = labelled.structures[top]
        if len(saddle) > 1:
            distances = saddle.get_all_distances(mic=bool(saddle.pbc.any()))
            values["neb_saddle"] = distances[np.triu_indices(len(distances), 1)]
        return values


def boltzmann(barrier: float, kelvin: float) -> np.float64:
    """log₁₀ exp(−ΔE/kT) of a barrier in meV: the difference of two is log₁₀ of the factor between the rates of harmonic
    transition-state theory, if the frequencies agree.
    """
    return np.float64(-barrier / MEV / (BOLTZMANN * kelvin) / np.log(10))


class Dissociation(Property):
    """Structures along a bond, its length in the header ``distance_A``."""

    name: ClassVar[str] = "dissociation"

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """meV and Å; the length is left out where the curve has no minimum inside."""
        lengths = np.array([float(atoms.info["distance_A"]) for atoms in labelled.structures])
        order = np.argsort(lengths)
        energy = labelled.energy[order] * MEV
        values: dict[str, Value] = {"dissociation_energy": np.float64(energy[-1] - energy.min())}
        if 0 < int(np.argmin(energy)) < len(energy) - 1:
            place, height = peak(lengths[order], -energy)
            values = {"dissociation_energy": np.float64(energy[-1] + height), "dissociation_length": np.float64(place)}
        return values


class BondSmoothness(Property):
    """Structures along the stretching of a bond, ``distance_A`` in the header, with the two atoms in ``atoms``
    (numbers, as ``"2 3"``) where the force along the bond is to be compared.

    Made after the bond smoothness test of Liu et al. (arXiv:2602.04861 (2026)) and the diatomic curves of MLIP Arena:
    what spoils a curve are minima that are not there, and a way up and down that is longer than it needs to be.
    """

    name: ClassVar[str] = "smooth"

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """Tortuosity and number of minima of the energy, and the force along the bond in meV/Å, by length."""
        lengths = np.array([float(atoms.info["distance_A"]) for atoms in labelled.structures])
        order = np.argsort(lengths)
        energy = labelled.energy[order]
        lowest = int(np.argmin(energy))
        needed = abs(energy[0] - energy[lowest]) + abs(energy[-1] - energy[lowest])
        slopes = np.diff(energy)
        values: dict[str, Value] = {"smooth_minima": np.float64(int(((slopes[:-1] < 0) & (slopes[1:] > 0)).sum()))}
        if needed > 0:
            values["smooth_tortuosity"] = np.float64(np.abs(slopes).sum() / needed)
        forces = [_along_bond(labelled.structures[i], labelled.forces[i]) for i in order]
        if all(force is not None for force in forces):
            values["smooth_force"] = np.array(forces, dtype=np.float64) * MEV
        return values


def _along_bond(atoms: Atoms, forces: Float) -> float | None:
    """eV/Å that stretches the bond between the two atoms in the header ``atoms``; None without them or forces."""
    if "atoms" not in atoms.info or not np.isfinite(forces).all():
        return None
    named = atoms.info["atoms"]
    i, j = (int(number) for number in (named.split() if isinstance(named, str) else named))
    bond = atoms.get_distance(i, j, mic=bool(atoms.pbc.any()), vector=True)
    return float((forces[j] - forces[i]) @ bond / np.linalg.norm(bond) / 2)


class Dimer(Property):
    """A complex (header ``role=dimer``) and its parts (``role=part``), as they are: nothing is relaxed."""

    name: ClassVar[str] = "dimer"

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """meV; negative where the complex is bound.

        Raises:
            ValueError: the parts do not make up the complex.
        """
        roles = [str(atoms.info.get("role")) for atoms in labelled.structures]
        whole, parts = roles.count("dimer"), [i for i, role in enumerate(roles) if role == "part"]
        if whole != 1 or len(parts) < 2:
            raise ValueError("a dimer is one structure with role=dimer and two or more with role=part")
        complex_ = labelled.structures[roles.index("dimer")]
        numbers = sorted(int(z) for i in parts for z in labelled.structures[i].numbers)
        if numbers != sorted(int(z) for z in complex_.numbers):
            raise ValueError("the parts of a dimer do not have its atoms")
        energy = labelled.energy[roles.index("dimer")] - labelled.energy[parts].sum()
        return {"dimer_binding": np.float64(energy * MEV)}


class Conformers(Property):
    """Structures of one molecule in several conformations."""

    name: ClassVar[str] = "conformers"

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """meV, relative to their mean."""
        energy = (labelled.energy - labelled.energy.mean()) * MEV
        return {"conformer_energy": energy, "conformer_order": energy}


class RareEvents(Property):
    """Frames of rare events; the array ``moving`` or the header ``moving_atom`` marks the atoms that move."""

    name: ClassVar[str] = "rare"

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """meV/Å, (M·3,) components.

        Raises:
            ValueError: a structure marks no atom.
        """
        parts = []
        for atoms, forces in zip(labelled.structures, labelled.forces, strict=True):
            marked = np.asarray(atoms.arrays.get("moving", np.zeros(len(atoms)))).astype(bool)
            if MIGRATING in atoms.arrays:
                marked |= atoms.arrays[MIGRATING] == 0
            if "moving_atom" in atoms.info:
                marked[int(atoms.info["moving_atom"])] = True
            if not marked.any():
                raise ValueError("a frame of rare events marks no atom that moves (array 'moving')")
            parts.append(forces[marked].ravel())
        return {"rare_force": np.concatenate(parts) * MEV}


class Rate(Property):
    """Rate by harmonic transition-state theory (Vineyard, J. Phys. Chem. Solids 3, 121 (1957)).

    k = (Π ν_minimum / Π ν_saddle) · exp(−ΔE/kT), real modes alone, Hessians by central differences.
    """

    name: ClassVar[str] = "rate"

    def structures_of(self, minimum: Atoms, saddle: Atoms) -> list[Atoms]:
        """Both, and both with every coordinate moved up and down by ``STEP`` Å."""
        made = []
        for role, start in (("minimum", minimum), ("saddle", saddle)):
            plain = Atoms(start.numbers, positions=start.positions, cell=start.cell, pbc=start.pbc)
            plain.info = {PROPERTY: self.name, "role": role}
            made.append(plain)
            for coordinate in range(3 * len(start)):
                for sign in (1, -1):
                    moved = plain.copy()
                    moved.positions.flat[coordinate] += sign * STEP
                    moved.info = {PROPERTY: self.name, "of": role}
                    made.append(moved)
        return made

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """log₁₀ of rates in 1/s; left out unless the saddle has one mode downhill, and the minimum none."""
        energy, product = {}, {}
        for role in ("minimum", "saddle"):
            own = next(i for i, atoms in enumerate(labelled.structures) if atoms.info.get("role") == role)
            moved = [i for i, atoms in enumerate(labelled.structures) if atoms.info.get("of") == role]
            modes = _modes(labelled, own, moved)
            if (modes < -SOFT).sum() != (role == "saddle"):
                return {}
            energy[role] = float(labelled.energy[own])
            product[role] = modes[modes > SOFT]
        if len(product["minimum"]) != len(product["saddle"]) + 1:
            return {}
        # sqrt(eV/Å²/u) is an angular frequency per ASE's unit of time
        logs = {role: float(np.log10(np.sqrt(modes) / (2 * np.pi * ASE_TIME_IN_FS * 1e-15)).sum()) for role, modes in
                product.items()}  # fmt: skip
        prefactor = logs["minimum"] - logs["saddle"]
        barrier = energy["saddle"] - energy["minimum"]
        return {
            f"rate_{kelvin}K": np.float64(prefactor - barrier / (BOLTZMANN * kelvin) / np.log(10)) for kelvin in KELVIN
        }


def _modes(labelled: Labelled, own: int, moved: list[int]) -> Float:
    """Eigenvalues (eV/Å²/u) of the mass-weighted Hessian, those of translation and rotation projected out."""
    start = labelled.structures[own]
    size = 3 * len(start)
    forces = np.array([labelled.forces[i].ravel() for i in moved]).reshape(size, 2, size)
    hessian = -(forces[:, 0] - forces[:, 1]) / (2 * STEP)
    masses = atomic_masses[start.numbers]
    root = np.repeat(np.sqrt(masses), 3)
    weighted = 0.5 * (hessian + hessian.T) / np.outer(root, root)
    arms = start.positions - masses @ start.positions / masses.sum()
    columns = [(np.sqrt(masses)[:, None] * axis).ravel() for axis in np.eye(3)]
    if not start.pbc.any():
        columns += [(np.sqrt(masses)[:, None] * np.cross(axis, arms)).ravel() for axis in np.eye(3)]
    left, sizes, _ = np.linalg.svd(np.stack(columns, axis=1), full_matrices=True)
    inner = left[:, int((sizes > 1e-6 * sizes[0]).sum()) :]
    return np.asarray(np.linalg.eigvalsh(inner.T @ weighted @ inner), dtype=np.float64)
