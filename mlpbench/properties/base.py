"""What a property is, and how two methods are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from ase import Atoms

from mlpbench.frames import Float
from mlpbench.quantities import QUANTITIES, Value

PROPERTY = "property"  # header of a structure: the property it belongs to, as "eos" or "path:proton_transfer"


@dataclass(frozen=True)
class Labelled:
    """The structures of one property, and what one method says of them.

    Attributes:
        structures: in the order in which they were made; headers tell what each is for.
        energy: (F,) eV, up to a constant per atom of each element: every quantity is balanced in atoms.
        forces: F arrays (N, 3) eV/Å.
        stress: (F, 6) eV/Å³, Voigt, ASE's sign; NaN where there is none.
    """

    structures: list[Atoms]
    energy: Float
    forces: list[Float]
    stress: Float

    def where(self, key: str) -> list[int]:
        """Numbers of the structures whose header has ``key``."""
        return [i for i, atoms in enumerate(self.structures) if key in atoms.info]


class Property(ABC):
    """A property: its structures, and its values from energies, forces and stresses on them."""

    name: ClassVar[str]

    def structures(self, start: Atoms) -> list[Atoms]:
        """The structures to be computed, from a relaxed start, with headers that :meth:`values` reads.

        Raises:
            ValueError: they cannot be made from this start, or come from a file alone.
        """
        raise ValueError(f"the structures of '{self.name}' come from a file")

    @abstractmethod
    def values(self, labelled: Labelled) -> dict[str, Value]:
        """Name of a quantity -> its value; one that cannot be had (no minimum in the range, no stress) is left out."""


def labelled_sets(structures: Iterable[Atoms], energy: Float, forces: Float, stress: Float) -> dict[str, Labelled]:
    """The structures by their header ``property``, in order.

    Args:
        structures: F of them, A atoms in all.
        energy: (F,) eV.
        forces: (A, 3) eV/Å.
        stress: (F, 6) eV/Å³.

    Raises:
        ValueError: a structure names no property.
    """
    frames = list(structures)
    parts = np.split(forces, np.cumsum([len(atoms) for atoms in frames])[:-1])
    groups: dict[str, list[int]] = {}
    for i, atoms in enumerate(frames):
        if PROPERTY not in atoms.info:
            raise ValueError(f"structure {i} has no header '{PROPERTY}'")
        groups.setdefault(str(atoms.info[PROPERTY]), []).append(i)
    return {
        name: Labelled([frames[i] for i in chosen], energy[chosen], [parts[i] for i in chosen], stress[chosen])
        for name, chosen in groups.items()
    }


def compare(ours: dict[str, Value], theirs: dict[str, Value]) -> dict[str, float]:
    """Errors of the quantities that both have; an array of another length is left out."""
    return {
        name: QUANTITIES[name].error(value, theirs[name])
        for name, value in ours.items()
        if name in theirs and np.shape(value) == np.shape(theirs[name])
    }
