"""GFN-xTB through tblite: semi-empirical energies and forces in milliseconds, molecules and crystals."""

from __future__ import annotations

from typing import Any

from tblite.ase import TBLite
from tblite.library import get_version

from mlpbench.worker.reference.ase_code import compute_with_ase
from mlpbench.worker.reference.code import Answer, Structure


class XtbCode:
    """GFN2-xTB or a relative of it."""

    packages = ("tblite",)

    def __init__(self, method: dict[str, Any]) -> None:
        self.method = method

    @property
    def version(self) -> str:
        """The library's version."""
        return "tblite " + ".".join(map(str, get_version()))

    def calculator(self) -> Any:
        """A new calculator for ASE."""
        method = self.method
        return TBLite(
            method=method["hamiltonian"], charge=method["charge"], multiplicity=method["multiplicity"],
            accuracy=method["accuracy"], electronic_temperature=method["electronic_temperature_K"],
            max_iterations=method["max_iterations"], verbosity=0,
        )  # fmt: skip

    def compute(self, structure: Structure) -> Answer:
        """Energy, forces and, in a crystal, stress.

        A new calculator each time: tblite starts from the last density otherwise, and a label would depend on the
        frame before it.

        Raises:
            NotConverged: the self-consistent charges.
        """
        return compute_with_ase(self.calculator(), structure)
