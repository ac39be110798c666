"""Pairs of atoms within a cutoff, for packages whose own lists do not serve batches of any periodicity."""

from __future__ import annotations

import numpy as np
import vesin
from ase import Atoms
from ase.neighborlist import neighbor_list


def half_list(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (i, j) and (P, 3) lattice shifts of j, each pair and image once: the vector is r_j + shift·cell − r_i."""
    if atoms.pbc.all() or not atoms.pbc.any():
        first, second, shift = vesin.ase_neighbor_list("ijS", atoms, cutoff=cutoff)
    else:  # vesin knows no mixed periodicity
        first, second, shift = neighbor_list("ijS", atoms, cutoff)
    leading = np.where(shift[:, 0] != 0, shift[:, 0], np.where(shift[:, 1] != 0, shift[:, 1], shift[:, 2]))
    kept = (first < second) | ((first == second) & (leading > 0))
    return first[kept].astype(np.int64), second[kept].astype(np.int64), shift[kept]
