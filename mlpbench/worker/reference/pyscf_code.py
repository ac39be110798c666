"""PySCF: Kohn–Sham energies and analytic forces of molecules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyscf
from pyscf import dft, gto
from pyscf.data.nist import BOHR, HARTREE2EV

from mlpbench.worker.reference.code import Answer, NotConverged, Structure


class PyscfCode:
    """Restricted (with spin: unrestricted) Kohn–Sham, on the CPU or, through gpu4pyscf, on a GPU."""

    packages = ("pyscf",)

    def __init__(self, method: dict[str, Any]) -> None:
        self.method = method
        self.on_gpu = method.get("device") == "gpu"
        if self.on_gpu:
            import gpu4pyscf  # noqa: F401  # says at once if it is not there

    @property
    def version(self) -> str:
        """PySCF and its version."""
        return f"PySCF {pyscf.__version__}" + (" (gpu4pyscf)" if self.on_gpu else "")

    def compute(self, structure: Structure) -> Answer:
        """Energy and forces of one open structure; gradients without the grid's response.

        Raises:
            NotConverged: the self-consistent field.
        """
        method = self.method
        molecule = gto.M(
            atom=[[int(z), tuple(map(float, r))] for z, r in zip(structure.numbers, structure.positions, strict=True)],
            unit="Angstrom", basis=method["basis"], charge=method["charge"], spin=method["spin"], verbose=0,
        )  # fmt: skip
        field = dft.RKS(molecule) if method["spin"] == 0 else dft.UKS(molecule)
        field.xc = method["xc"]
        if method["density_fit"]:
            field = field.density_fit(auxbasis=method.get("auxbasis"))
        field.grids.level = method["grid_level"]
        field.conv_tol = method["conv_tol"]
        if method.get("max_cycle"):
            field.max_cycle = method["max_cycle"]
        if self.on_gpu:
            field = field.to_gpu()
        energy = float(field.kernel())
        if not field.converged:
            raise NotConverged(f"the SCF did not converge in {field.max_cycle} cycles")
        gradient = np.asarray(field.nuc_grad_method().kernel(), dtype=np.float64)
        return Answer(energy * HARTREE2EV, -gradient * HARTREE2EV / BOHR)
