"""Which unit an all-electron total energy is in, told from the composition alone."""

from __future__ import annotations

import numpy as np

from mlpbench.frames import Float, Int
from mlpbench.units import ENERGY, HARTREE

# Non-relativistic energies of free atoms in hartree, H to Ar: Chakravorty and co-workers, Phys. Rev. A 47, 3649 (1993).
_ATOMS = (
    -0.500, -2.904, -7.478, -14.667, -24.654, -37.845, -54.589, -75.067, -99.734, -128.938,
    -162.255, -200.053, -242.346, -289.359, -341.259, -398.110, -460.148, -527.540,
)  # fmt: skip
_TOLERANCE = 0.03  # binding, functional and relativity change a total energy by less; the units lie far apart


def all_electron_unit(numbers: Int, n_atoms: Int, energy: Float) -> str | None:
    """The unit in which ``energy`` agrees with the sum of all-electron atomic energies; None if none does.

    Args:
        numbers: (A,) atomic numbers of all frames, concatenated.
        n_atoms: (F,) atoms of each frame.
        energy: (F,) values of unknown unit.
    """
    finite = np.isfinite(energy)
    if not finite.any() or numbers.max(initial=1) > len(_ATOMS):
        return None
    atomic = np.array((np.nan, *_ATOMS))[numbers]
    total = np.add.reduceat(atomic, np.concatenate([[0], np.cumsum(n_atoms)[:-1]]))
    hartrees = float(np.median(total[finite] / energy[finite]))  # in one of the unknown unit
    for name, value in ENERGY.items():
        if abs(hartrees * HARTREE / value - 1) < _TOLERANCE:
            return name
    return None
