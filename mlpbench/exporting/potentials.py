"""The calculators of an exported folder: what ``potential.py`` says, of one potential and of a committee."""

POTENTIAL = '''\
"""{title}, trained by mlpbench as {trial}.

    from potential import calculator

    atoms.calc = calculator("cpu")      # or "cuda"; energies are those of the data set it was trained on

Needs the packages in requirements.txt, and nothing of mlpbench. CARD.md says what the potential is good for.
"""

from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list

HERE = Path(__file__).resolve().parent
# eV; the package's own energies are without these.
REFERENCE = {reference}
# What the training frames held.
SHORTEST = {shortest:.4f}  # Å between two atoms
LARGEST_FORCE = {largest_force}  # eV/Å, a component; None where forces were no labels
DENSITY = {density}  # g/cm³, lowest and highest; None where the frames have no volume


{code}

class Potential(Calculator):
    """The package's calculator with the reference energies added."""

    def __init__(self, device="cpu"):
        super().__init__()
        self.inner = package_calculator(HERE, device)
        known = self.inner.implemented_properties
        self.implemented_properties = ["energy", "free_energy", "forces"] + [p for p in ("stress",) if p in known]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        asked = ["energy", "forces"] + [p for p in ("stress",) if p in properties]
        self.inner.calculate(self.atoms, asked, all_changes)
        shift = sum(REFERENCE[symbol] for symbol in self.atoms.get_chemical_symbols())
        energy = float(self.inner.results["energy"]) + shift
        self.results = {{"energy": energy, "free_energy": energy}}
        for name in asked[1:]:
            self.results[name] = np.array(self.inner.results[name], dtype=float)


def calculator(device="cpu"):
    """An ASE calculator: eV, eV/Å, eV/Å³."""
    return Potential(device)


def warnings_for(atoms):
    """Sentences that say where a structure lies outside of what the potential was trained on; empty if nowhere."""
    said = []
    strange = sorted(set(atoms.get_chemical_symbols()) - set(REFERENCE))
    if strange:
        said.append(f"it has no training frame with {{', '.join(strange)}}")
    near = neighbor_list("d", atoms, SHORTEST)
    if len(near) and near.min() < 0.95 * SHORTEST:
        said.append(f"two atoms are {{near.min():.3f}} Å apart, in the training frames {{SHORTEST:.3f}} Å or more")
    forces = atoms.calc.results.get("forces") if atoms.calc is not None else None
    if forces is not None and LARGEST_FORCE is not None and np.abs(forces).max() > 1.2 * LARGEST_FORCE:
        said.append(f"a force of {{np.abs(forces).max():.1f}} eV/Å is larger than any in the training frames")
    if DENSITY is not None and atoms.pbc.all():
        density = 1.66053907 * atoms.get_masses().sum() / atoms.get_volume()
        if not 0.95 * DENSITY[0] <= density <= 1.05 * DENSITY[1]:
            said.append(f"a density of {{density:.3f}} g/cm³ is not between {{DENSITY[0]:.3f}} and {{DENSITY[1]:.3f}}")
    return said
'''
COMMITTEE = '''\
"""{title}: a committee of {count}, trained by mlpbench on other splits and from other weights.

    from potential import calculator

    atoms.calc = calculator("cpu")
    atoms.get_potential_energy(), atoms.get_forces()      # means over the members
    atoms.calc.results["energy_std"], atoms.calc.results["forces_std"]      # their standard deviations

Where the members disagree, none of them is to be trusted. CARD.md of each member says what it was trained on.
"""

import importlib.util
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

HERE = Path(__file__).resolve().parent
MEMBERS = {members}


def _load(name):
    spec = importlib.util.spec_from_file_location(f"{{name}}_potential", HERE / name / "potential.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULES = [_load(name) for name in MEMBERS]


class Committee(Calculator):
    """Means over the M members, and ``energies_of_members`` (M,), ``energy_std`` eV, ``forces_std`` (N, 3) eV/Å."""

    def __init__(self, device="cpu"):
        super().__init__()
        self.members = [module.calculator(device) for module in MODULES]
        self.implemented_properties = list(self.members[0].implemented_properties)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        for member in self.members:
            member.calculate(self.atoms, properties, all_changes)
        every = [member.results for member in self.members]
        self.results = {{name: np.mean([one[name] for one in every], axis=0) for name in every[0]}}
        self.results["energy"] = self.results["free_energy"] = float(self.results["energy"])
        self.results["energies_of_members"] = np.array([one["energy"] for one in every])
        self.results["energy_std"] = float(np.std(self.results["energies_of_members"], ddof=1))
        self.results["forces_std"] = np.std([one["forces"] for one in every], axis=0, ddof=1)


def calculator(device="cpu"):
    """An ASE calculator of the committee: eV, eV/Å, eV/Å³."""
    return Committee(device)


def warnings_for(atoms):
    """What any member says of a structure outside of its training frames."""
    return sorted({{text for module in MODULES for text in module.warnings_for(atoms)}})
'''
