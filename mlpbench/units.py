"""Units at the boundary. Inside mlpbench everything is eV, Å, fs and eV/Å³; reports use meV, GPa, ps.

Constants are CODATA 2018 (https://physics.nist.gov/cuu/Constants/), written out so that the worker and the core
cannot disagree through different versions of a library.
"""

from __future__ import annotations

HARTREE = 27.211386245988  # eV
RYDBERG = HARTREE / 2  # eV
BOHR = 0.529177210903  # Å
KCAL_PER_MOL = 4184.0 / (1.602176634e-19 * 6.02214076e23)  # eV; thermochemical calorie
KJ_PER_MOL = 1000.0 / (1.602176634e-19 * 6.02214076e23)  # eV
GPA = 1e9 * 1e-30 / 1.602176634e-19  # eV/Å³ in one GPa
KBAR = GPA / 10  # eV/Å³
BOLTZMANN = 8.617333262e-5  # eV/K
ASE_TIME_IN_FS = 10.180505710774743  # fs in ASE's unit of time, Å·sqrt(u/eV)
CM1_PER_EV = 8065.543937  # cm⁻¹ in one eV

ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "hartree": HARTREE,
    "Ry": RYDBERG,
    "kcal/mol": KCAL_PER_MOL,
    "kJ/mol": KJ_PER_MOL,
}
LENGTH = {"Å": 1.0, "angstrom": 1.0, "bohr": BOHR, "nm": 10.0}
PRESSURE = {
    "eV/Å³": 1.0, "eV/angstrom^3": 1.0, "GPa": GPA, "kbar": KBAR, "bar": KBAR / 1000, "MPa": GPA / 1000,
    "Pa": GPA / 1e9,
}  # fmt: skip


def factor(unit: str) -> float:
    """Multiply a value in ``unit`` by this to get eV, Å, eV/Å or eV/Å³.

    Args:
        unit: a name from :data:`ENERGY`, :data:`LENGTH` or :data:`PRESSURE`, ``energy/length`` for forces, or
            ``energy/length³`` for stress.

    Raises:
        KeyError: if the unit is not known; the message lists those that are.
    """
    for table in (ENERGY, LENGTH, PRESSURE):
        if unit in table:
            return table[unit]
    energy, _, length = unit.rpartition("/")
    edge = length.removesuffix("³").removesuffix("^3")
    if energy in ENERGY and edge in LENGTH:
        return ENERGY[energy] / LENGTH[edge] ** (1 if edge == length else 3)
    raise KeyError(f"unit '{unit}' is not known; known: {', '.join([*ENERGY, *LENGTH, *PRESSURE])}, or energy/length")
