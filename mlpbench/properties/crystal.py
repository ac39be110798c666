"""Properties of crystals: equation of state, elastic constants, phonons, vacancy and surface energies."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from ase.eos import EquationOfState as AseFit

from mlpbench.errors import UserError
from mlpbench.frames import Float
from mlpbench.properties.base import PROPERTY, Labelled, Property
from mlpbench.quantities import Value
from mlpbench.units import GPA

VOLUMES = np.linspace(0.94, 1.06, 9)  # relative
STRAIN = 0.005  # Voigt; stress is linear in it to a few tenths of a per cent
DISPLACEMENT = 0.03  # Å, of the atoms for phonons
VACUUM = 10.0  # Å between the two surfaces of a slab
MESH = 8  # q-points along each vector, for the density of states
IMAGINARY = -0.1  # THz
JOULE_PER_M2 = 16.0217663  # in one eV/Å²
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def _made(start: Atoms, name: str, **info: Any) -> Atoms:
    """A copy with nothing but geometry and the headers of its purpose."""
    atoms = Atoms(start.numbers, positions=start.positions, cell=start.cell, pbc=start.pbc)
    atoms.info = {PROPERTY: name, **info}
    return atoms


def _require_crystal(start: Atoms) -> None:
    if not start.pbc.all():
        raise ValueError("needs a structure that is periodic in three directions")


def is_cubic(atoms: Atoms) -> bool:
    """Whether the cell is a cube: three equal lengths, right angles."""
    lengths = atoms.cell.lengths()
    return bool(np.allclose(lengths, lengths[0], rtol=1e-6) and np.allclose(atoms.cell.angles(), 90.0, atol=1e-4))


class EquationOfState(Property):
    """Energies of nine volumes from 94 to 106 %, and a Birch–Murnaghan fit (Phys. Rev. 71, 809 (1947))."""

    name: ClassVar[str] = "eos"

    def structures(self, start: Atoms) -> list[Atoms]:
        """Scaled cells, scaled positions kept: atoms that symmetry does not hold in place stay unrelaxed."""
        _require_crystal(start)
        made = []
        for volume in VOLUMES:
            atoms = _made(start, self.name, volume=float(volume))
            atoms.set_cell(start.cell.array * volume ** (1 / 3), scale_atoms=True)
            made.append(atoms)
        return made

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """Left out where the energy has no minimum among the volumes."""
        volumes = np.array([atoms.get_volume() for atoms in labelled.structures])
        order = np.argsort(volumes)
        lowest = int(np.argmin(labelled.energy[order]))
        if not 0 < lowest < len(order) - 1:
            return {}
        fit = AseFit(volumes[order], labelled.energy[order], eos="birchmurnaghan")
        v0, _, b0 = fit.fit(warn=False)
        if not volumes.min() < v0 < volumes.max():
            return {}
        first = labelled.structures[0]
        values = {"eos_v0": v0 / len(first), "eos_b0": b0 / GPA, "eos_b0_prime": fit.eos_parameters[2]}
        if is_cubic(first):
            values["eos_a0"] = v0 ** (1 / 3)
        return {name: np.float64(value) for name, value in values.items()}


class Elastic(Property):
    """Elastic constants from stresses of strained cells, atoms relaxed by linear response.

    C = ∂σ/∂η − (1/V)·Λ·K⁺·Λᵀ with the forces Λ that a strain makes and the force constants K (Wu, Vanderbilt & Hamann,
    Phys. Rev. B 72, 035105 (2005)), so that no method has to relax anything: all are asked about the same structures.
    """

    name: ClassVar[str] = "elastic"

    def structures(self, start: Atoms) -> list[Atoms]:
        """Strained cells, both signs (of cubic ones, xx and yz alone), and displaced atoms."""
        _require_crystal(start)
        made = []
        for index in (0, 3) if is_cubic(start) else range(6):
            for sign in (1, -1):
                atoms = _made(start, self.name, strain_index=index, strain=sign * STRAIN)
                atoms.set_cell(start.cell.array @ (np.eye(3) + strain_tensor(index, sign * STRAIN)), scale_atoms=True)
                made.append(atoms)
        return [_made(start, self.name, role="start"), *made, *displacements(start, self.name)]

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """Left out where there is no stress."""
        matrix = elastic_matrix(labelled)
        if matrix is None:
            return {}
        moduli = hill(matrix)
        values = {
            "elastic_c11": float(matrix[:3, :3].diagonal().mean()),
            "elastic_c12": float(matrix[(0, 0, 1), (1, 2, 2)].mean()),
            "elastic_c44": float(matrix[3:, 3:].diagonal().mean()),
        }  # fmt: skip
        if moduli is not None:
            values |= {"elastic_bulk": moduli[0], "elastic_shear": moduli[1]}
        return {name: np.float64(value) for name, value in values.items()}


def strain_tensor(index: int, size: float) -> Float:
    """(3, 3) symmetric, of one Voigt component (xx, yy, zz, yz, xz, xy); a shear has ``size`` = 2ε."""
    strain = np.zeros((3, 3))
    i, j = VOIGT[index]
    strain[i, j] = strain[j, i] = size if i == j else size / 2
    return strain


def elastic_matrix(labelled: Labelled) -> Float | None:
    """(6, 6) GPa, symmetrised; None without stresses."""
    pairs: dict[int, dict[float, int]] = {}
    for i in labelled.where("strain_index"):
        info = labelled.structures[i].info
        pairs.setdefault(int(info["strain_index"]), {})[float(info["strain"])] = i
    rows = [i for pair in pairs.values() for i in pair.values()]
    if not np.isfinite(labelled.stress[rows]).all():
        return None
    start = next(atoms for atoms in labelled.structures if atoms.info.get("role") == "start")
    columns, responses = {}, {}
    for index, pair in pairs.items():
        up, down = pair[max(pair)], pair[min(pair)]
        width = max(pair) - min(pair)
        columns[index] = (labelled.stress[up] - labelled.stress[down]) / width
        responses[index] = ((labelled.forces[up] - labelled.forces[down]) / width).ravel()
    inverse = np.linalg.pinv(_constants(labelled, start), rcond=1e-3)
    order = sorted(columns)
    stiffness = np.column_stack([columns[index] for index in order])[order]
    response = np.column_stack([responses[index] for index in order])
    stiffness = stiffness - response.T @ inverse @ response / start.get_volume()
    if order == [0, 3]:  # a cubic cell: the other strains are these, turned about its diagonals
        stiffness = _cubic(stiffness[0, 0], float(columns[0][1:3].mean()), stiffness[1, 1])
    return np.asarray(0.5 * (stiffness + stiffness.T) / GPA, dtype=np.float64)


def _cubic(c11: float, c12: float, c44: float) -> Float:
    stiffness = np.diag([c11] * 3 + [c44] * 3)
    stiffness[:3, :3] += c12 * (1 - np.eye(3))
    return stiffness


def hill(matrix: Float) -> tuple[float, float] | None:
    """Bulk and shear modulus of a polycrystal in GPa, means of Voigt's and Reuss's (Hill, Proc. Phys. Soc. A 65, 349
    (1952)); None where the crystal is not stable.
    """
    if np.linalg.eigvalsh(matrix)[0] <= 0:
        return None
    soft = np.linalg.inv(matrix)
    sums = [(np.trace(m[:3, :3]), m[0, 1] + m[0, 2] + m[1, 2], np.trace(m[3:, 3:])) for m in (matrix, soft)]
    (a, b, c), (u, v, w) = sums
    voigt = (a + 2 * b) / 9, (a - b + 3 * c) / 15
    reuss = 1 / (u + 2 * v), 15 / (4 * u - 4 * v + 3 * w)
    return float(voigt[0] + reuss[0]) / 2, float(voigt[1] + reuss[1]) / 2


class Phonons(Property):
    """Frequencies from forces on displaced atoms (phonopy: Togo, J. Phys. Soc. Jpn. 92, 012001 (2023))."""

    name: ClassVar[str] = "phonons"

    def structures(self, start: Atoms) -> list[Atoms]:
        """The displacements that symmetry leaves, both signs; the start is the supercell."""
        _require_crystal(start)
        return [_made(start, self.name, role="start"), *displacements(start, self.name)]

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """Frequencies in THz at the q-points that the supercell holds exactly, and on an interpolated mesh."""
        phonons = _phonons(labelled)
        points = commensurate(phonons)
        phonons.run_qpoints(points)
        bands = np.asarray(phonons.qpoints.frequencies)
        phonons.run_mesh([MESH] * 3, is_mesh_symmetry=False)
        return {
            "phonon_bands": bands.ravel(), "phonon_dos": np.sort(np.asarray(phonons.mesh.frequencies).ravel()),
            "phonon_top": np.float64(bands.max()), "phonon_imaginary": np.float64((bands < IMAGINARY).sum()),
        }  # fmt: skip


def imaginary_modes(labelled: Labelled) -> list[str]:
    """``2 at q = (0.50, 0.50, 0.00), to 1.3i THz`` for each q-point of the supercell that has any."""
    phonons = _phonons(labelled)
    points = commensurate(phonons)
    phonons.run_qpoints(points)
    said = []
    for point, row in zip(points, np.asarray(phonons.qpoints.frequencies), strict=True):
        if (row < IMAGINARY).any():
            where = ", ".join(f"{x:.2f}" for x in point)
            said.append(f"{int((row < IMAGINARY).sum())} at q = ({where}), to {-row.min():.2g}i THz")
    return said


def commensurate(phonons: Any) -> Float:
    """(Q, 3) q-points of the primitive cell whose waves fit into the supercell."""
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    ratio = np.linalg.inv(phonons.primitive.primitive_matrix) @ phonons.supercell_matrix
    return np.asarray(get_commensurate_points(np.rint(ratio).astype(int)), dtype=np.float64)


def _phonopy(start: Atoms, primitive: str) -> Any:
    try:
        from phonopy import Phonopy
        from phonopy.structure.atoms import PhonopyAtoms
    except ImportError as error:
        raise UserError("phonopy, which phonons and elastic constants need, is not installed",
                        "pip install 'mlpbench[solids]'") from error  # fmt: skip
    cell = PhonopyAtoms(
        numbers=start.numbers, masses=atomic_masses[start.numbers], cell=start.cell.array,
        scaled_positions=start.get_scaled_positions(),
    )  # fmt: skip
    matrix: Any = np.eye(3) if primitive == "none" else primitive
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that 'auto' is not what an earlier version did
        return Phonopy(cell, supercell_matrix=np.eye(3, dtype=int), primitive_matrix=matrix)


def displacements(start: Atoms, name: str) -> list[Atoms]:
    """The start with one atom moved, for each displacement that symmetry leaves, both signs."""
    phonons = _phonopy(start, "none")
    phonons.generate_displacements(distance=DISPLACEMENT, is_plusminus=True)
    made = []
    for cell in phonons.supercells_with_displacements:
        moved = _made(start, name, role="displaced")
        moved.positions = start.positions + _nearest(cell.positions - start.positions, start)
        made.append(moved)
    return made


def _nearest(shift: Float, start: Atoms) -> Float:
    """Shifts by the smallest equivalent vector."""
    inner = shift @ np.linalg.inv(start.cell.array)
    return np.asarray((inner - np.rint(inner)) @ start.cell.array)


def _phonons(labelled: Labelled, primitive: str = "auto") -> Any:
    """phonopy's object with force constants from the displaced structures."""
    start = next(atoms for atoms in labelled.structures if atoms.info.get("role") == "start")
    moved = [i for i, atoms in enumerate(labelled.structures) if atoms.info.get("role") == "displaced"]
    phonons = _phonopy(start, primitive)
    first = []
    for i in moved:
        shift = _nearest(labelled.structures[i].positions - start.positions, start)
        atom = int(np.argmax(np.linalg.norm(shift, axis=1)))
        first.append({"number": atom, "displacement": shift[atom], "forces": labelled.forces[i]})
    phonons.dataset = {"natom": len(start), "first_atoms": first}
    phonons.produce_force_constants(show_drift=False)
    phonons.symmetrize_force_constants()
    return phonons


def _constants(labelled: Labelled, start: Atoms) -> Float:
    """(3N, 3N) eV/Å² force constants of the start's cell under periodic boundary conditions."""
    constants = np.asarray(_phonons(labelled, "none").force_constants)
    size = 3 * len(start)
    return np.asarray(constants.transpose(0, 2, 1, 3).reshape(size, size), dtype=np.float64)


class Vacancy(Property):
    """One atom less, the others where they were: the energy of a defect that no relaxation blurs."""

    name: ClassVar[str] = "vacancy"

    def structures(self, start: Atoms) -> list[Atoms]:
        """The start, and the start without its first atom; of one element, or atoms would not balance."""
        _require_crystal(start)
        if len(set(start.numbers)) > 1:
            raise ValueError("a vacancy energy needs a crystal of one element: of a compound it depends on a reservoir")
        return [_made(start, self.name, role="start"), _made(start[1:], self.name, role="vacancy")]

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """eV."""
        bulk, hole = labelled.energy
        atoms = len(labelled.structures[0])
        return {"vacancy_energy": np.float64(hole - (atoms - 1) / atoms * bulk)}


class Surface(Property):
    """A slab cut across the third axis, unrelaxed."""

    name: ClassVar[str] = "surface"

    def structures(self, start: Atoms) -> list[Atoms]:
        """The start, and the same atoms with vacuum."""
        _require_crystal(start)
        slab = _made(start, self.name, role="slab")
        slab.wrap(pbc=True, eps=1e-6)
        slab.center(vacuum=VACUUM / 2, axis=2)
        return [_made(start, self.name, role="start"), slab]

    def values(self, labelled: Labelled) -> dict[str, Value]:
        """J/m²."""
        cell = labelled.structures[1].cell.array
        area = float(np.linalg.norm(np.cross(cell[0], cell[1])))
        bulk, slab = labelled.energy
        return {"surface_energy": np.float64((slab - bulk) / (2 * area) * JOULE_PER_M2)}
