"""CP2K: DFT of crystals and molecules with Gaussians, plane waves and GTH pseudopotentials, through ASE's shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.cp2k import CP2K
from ase.units import Rydberg

from mlpbench.units import BOLTZMANN
from mlpbench.worker.reference.ase_code import compute_with_ase, to_atoms
from mlpbench.worker.reference.code import Answer, NotConverged, Structure, kpoint_mesh

PROGRAM = "cp2k.psmp"
DATA = Path("/usr/share/cp2k")  # Debian's cp2k-data
_FAILED = "SCF run NOT converged"


class Cp2kCode:
    """A calculation from scratch for each structure; the program is Debian's, or whichever ``PATH`` finds first."""

    packages = ("ase",)

    def __init__(self, method: dict[str, Any]) -> None:
        self.method = method
        if shutil.which(PROGRAM) is None:
            raise FileNotFoundError(f"{PROGRAM} is not on the PATH: apt install cp2k cp2k-data")
        if DATA.is_dir():
            os.environ.setdefault("CP2K_DATA_DIR", str(DATA))
        said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False).stdout
        self._version = said.splitlines()[0].strip() if said else "CP2K"

    @property
    def version(self) -> str:
        """As the program says it."""
        return self._version

    def compute(self, structure: Structure) -> Answer:
        """Free energy, forces and, of what is periodic in three directions, stress.

        Raises:
            NotConverged: the self-consistent field; CP2K itself only writes so and goes on.
        """
        method, atoms = self.method, to_atoms(structure)
        for axis in (axis for axis in range(3) if not structure.pbc[axis]):
            atoms.center(vacuum=method["vacuum_A"], axis=axis)
        sizes = method.get("kpoints") or kpoint_mesh(atoms.cell.array, structure.pbc, method["kpoint_density_A"])
        for file in Path().glob("cp2k.*"):
            file.unlink()
        calculator = CP2K(
            command=f"{PROGRAM} -s", xc=method["xc"], basis_set=method["basis"], basis_set_file="BASIS_MOLOPT",
            potential_file="GTH_POTENTIALS", pseudo_potential="auto", cutoff=method["cutoff_Ry"] * Rydberg,
            max_scf=method["max_cycle"], charge=method["charge"], multiplicity=method.get("multiplicity"),
            uks=method["spin_polarised"], stress_tensor=True, poisson_solver=None, inp=self._input(sizes),
        )  # fmt: skip
        try:
            crystal = Structure(atoms.numbers, atoms.positions, atoms.cell.array, np.ones(3, dtype=bool))
            answer = compute_with_ase(calculator, crystal)
        finally:
            calculator.close()
        if any(_FAILED in path.read_text(errors="replace") for path in Path().glob("cp2k*.out")):
            raise NotConverged(f"the SCF did not converge in {method['max_cycle']} cycles")
        return answer if structure.pbc.all() else Answer(answer.energy, answer.forces)

    def _input(self, sizes: list[int]) -> str:
        """What ASE's calculator does not write: k-points, smearing, convergence."""
        method = self.method
        mesh = f"SCHEME {'MACDONALD' if method['gamma'] else 'MONKHORST-PACK'} {' '.join(map(str, sizes))}"
        if method["gamma"]:  # MacDonald's shift moves an even mesh onto Γ; an odd one holds it already
            mesh += " " + " ".join("0.0" if size % 2 else f"{0.5 / size:.10f}" for size in sizes)
        kelvin = method["smearing_eV"] / BOLTZMANN
        return f"""&FORCE_EVAL
&DFT
 &KPOINTS
  {mesh}
  FULL_GRID .FALSE.
 &END KPOINTS
 &SCF
  EPS_SCF {method["conv_tol"]:g}
  ADDED_MOS {method["added_orbitals"]}
  &DIAGONALIZATION
  &END DIAGONALIZATION
  &MIXING
   METHOD BROYDEN_MIXING
   ALPHA 0.3
  &END MIXING
  &SMEAR
   METHOD FERMI_DIRAC
   ELECTRONIC_TEMPERATURE [K] {kelvin:.2f}
  &END SMEAR
 &END SCF
&END DFT
&END FORCE_EVAL"""
