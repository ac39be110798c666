"""Properties: sets of structures made from a start, and pure functions of what a method says of them.

A potential and its reference method go through the same function on the same structures, so no analysis favours one. A
new property is a class in a module here, and its quantities in :mod:`mlpbench.quantities`.
"""

from __future__ import annotations

from mlpbench.properties.base import Labelled, Property, compare, labelled_sets
from mlpbench.properties.crystal import Elastic, EquationOfState, Phonons, Surface, Vacancy
from mlpbench.properties.reaction import (
    Band,
    BondSmoothness,
    Conformers,
    Dimer,
    Dissociation,
    RareEvents,
    Rate,
    ReactionPath,
)

PROPERTIES: dict[str, Property] = {
    known.name: known
    for known in (
        EquationOfState(), Elastic(), Phonons(), Vacancy(), Surface(),
        ReactionPath(), Band(), Dissociation(), BondSmoothness(), Conformers(), Dimer(), RareEvents(), Rate(),
    )
}  # fmt: skip

__all__ = ["PROPERTIES", "Labelled", "Property", "compare", "labelled_sets"]
