"""Any ASE calculator as a reference code: the class is named, the arguments are given."""

from __future__ import annotations

from typing import Any

import ase
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, SCFError

from mlpbench.worker.reference.code import Answer, NotConverged, Structure, load


class AseCode:
    """Labels with the calculator of ``method``: ``calculator`` (dotted class), ``arguments``, ``reuse``."""

    packages = ("ase",)

    def __init__(self, method: dict[str, Any]) -> None:
        self.method = method
        self._kept = self.calculator() if method.get("reuse") else None

    @property
    def version(self) -> str:
        """The calculator's package and version, ASE's own where it has none."""
        package = self.method["calculator"].replace(":", ".").split(".")[0]
        version = ase.__version__ if package == "ase" else getattr(__import__(package), "__version__", "")
        return f"{'ASE' if package == 'ase' else package} {version}".strip()

    def calculator(self) -> Any:
        """A new calculator. An argument that is a mapping with ``_target_`` is made first, as a profile is.

        Raises:
            ImportError, AttributeError, TypeError: no such class, or it does not take these arguments.
        """
        return load(self.method["calculator"])(**_made(self.method.get("arguments") or {}))

    def compute(self, structure: Structure) -> Answer:
        """Energy, forces, and the stress of a periodic structure where the calculator has it.

        The energy is the free energy where the calculator gives one: that is what the forces are the derivative of.

        Raises:
            NotConverged: the calculator says so.
        """
        return compute_with_ase(self._kept or self.calculator(), structure)


def compute_with_ase(calculator: Calculator, structure: Structure, moments: Any = None) -> Answer:
    """See :meth:`AseCode.compute`; ``moments`` (N,) μB are where the spins start from."""
    atoms = to_atoms(structure)
    if moments is not None and np.any(moments):
        atoms.set_initial_magnetic_moments(moments)
    if hasattr(calculator, "reset"):
        calculator.reset()
    atoms.calc = calculator
    try:
        forces = atoms.get_forces()
        energy = atoms.get_potential_energy()
        stress = atoms.get_stress() if structure.pbc.all() and "stress" in calculator.implemented_properties else None
    except Exception as error:  # GPAW's KohnShamConvergenceError, tblite's message and their like share no base class
        if isinstance(error, SCFError) or "converge" in f"{type(error).__name__} {error}".lower():
            raise NotConverged(str(error)) from error
        raise
    results = getattr(calculator, "results", {})
    energy = float(results.get("free_energy", energy))
    return Answer(energy, np.asarray(forces, dtype=np.float64), None if stress is None else np.asarray(stress))


def to_atoms(structure: Structure) -> Atoms:
    """The same for ASE."""
    return Atoms(structure.numbers, positions=structure.positions, cell=structure.cell, pbc=structure.pbc)


def _made(value: Any) -> Any:
    """``value`` with every mapping that has ``_target_`` turned into an object of that class."""
    if isinstance(value, list):
        return [_made(item) for item in value]
    if not isinstance(value, dict):
        return value
    rest = {key: _made(item) for key, item in value.items() if key != "_target_"}
    return load(value["_target_"])(**rest) if "_target_" in value else rest
