"""GPAW: DFT of crystals, surfaces and molecules with plane waves and PAW data sets."""

from __future__ import annotations

import os
from typing import Any

from mlpbench.worker.reference.ase_code import compute_with_ase, to_atoms
from mlpbench.worker.reference.code import Answer, Structure, kpoint_mesh

os.environ.pop("GPAW_SETUP_PATH", None)  # PAW data sets are those of the environment, so that its lock tells labels

import gpaw
import gpaw_data


class GpawCode:
    """A calculation from scratch for each structure; symmetry only saves k-points."""

    packages = ("gpaw", "gpaw_data")

    def __init__(self, method: dict[str, Any]) -> None:
        self.method = method

    @property
    def version(self) -> str:
        """GPAW and its PAW data sets."""
        return f"GPAW {gpaw.__version__} (data sets {getattr(gpaw_data, '__version__', '')})".replace(
            " (data sets )", ""
        )

    def compute(self, structure: Structure) -> Answer:
        """Free energy, forces and, of what is periodic in three directions, stress.

        Along open directions the cell is cut so that ``vacuum_A`` Å lie on either side of the atoms, and is periodic
        for the code.

        Raises:
            NotConverged: the self-consistent field.
        """
        method = self.method
        atoms = to_atoms(structure)
        for axis in (axis for axis in range(3) if not structure.pbc[axis]):
            atoms.center(vacuum=method["vacuum_A"], axis=axis)
        if method.get("moments"):
            atoms.set_initial_magnetic_moments([method["moments"].get(s, 0.0) for s in atoms.symbols])
        sizes = method.get("kpoints") or kpoint_mesh(atoms.cell.array, structure.pbc, method["kpoint_density_A"])
        calculator = gpaw.GPAW(
            mode=gpaw.PW(method["cutoff_eV"]), xc=method["xc"], txt=None, charge=method["charge"],
            kpts={"size": tuple(sizes), "gamma": method["gamma"]}, nbands="125%",
            occupations={"name": "fermi-dirac", "width": method["smearing_eV"]},
            spinpol=method["spin_polarised"] or None, hund=method["hund"], maxiter=method["max_cycle"],
            convergence={"energy": method["energy_tolerance_eV"], "density": method["density_tolerance"]},
        )  # fmt: skip
        crystal = Structure(atoms.numbers, atoms.positions, atoms.cell.array, structure.pbc | True)
        answer = compute_with_ase(calculator, crystal, atoms.get_initial_magnetic_moments())
        return answer if structure.pbc.all() else Answer(answer.energy, answer.forces)
