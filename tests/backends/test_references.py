"""Reference codes in their own environments, against numbers from elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read

from mlpbench.cli.data import composed, method_of
from mlpbench.config import load_backends
from mlpbench.datasets import embedded
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.references.labels import Label, label
from mlpbench.references.methods import complete_method
from tests.support import ETHANOL

pytestmark = pytest.mark.backend

SILICON = embedded.ROOT / "silicon-pbe"
PBE = complete_method({"code": "pyscf", "xc": "pbe", "basis": "def2-svp", "density_fit": True})
GFN2 = complete_method({"code": "xtb"})


def labels(structures: list[Atoms], method: dict, cache: Path) -> list[Label]:
    try:
        found = label(Frames.from_atoms(structures), method, load_backends()[method["backend"]], cache=cache)
    except UserError as error:
        if "mlpbench env build" in str(error):
            pytest.skip(str(error))
        raise
    assert all(isinstance(answer, Label) for answer in found), found
    return found


@pytest.mark.slow
def test_pyscf_repeats_the_embedded_set(tmp_path: Path) -> None:
    """One frame of each temperature; another machine's libraries move the grid's sums by some 1e-5."""
    structures = [read(ETHANOL / f"{name}.xyz", index=7) for name in ("test_300K", "test_500K", "test_1000K")]
    for atoms, found in zip(structures, labels(structures, PBE, tmp_path), strict=True):
        assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
        np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-3)
        assert found.version.startswith("PySCF ")


@pytest.mark.slow
def test_gpaw_repeats_the_embedded_silicon(tmp_path: Path) -> None:
    """recipe=silicon from an empty cache: frames at 600 K, at 300 K and with a vacancy (a minute on a free core)."""
    node, backends = composed(["recipe=silicon"])
    method, _ = method_of(node["reference"], backends)
    structures = [read(SILICON / f"{name}.xyz", index=3) for name in ("pool_600K", "test_300K", "test_vacancy")]
    differences = []
    for atoms, found in zip(structures, labels(structures, method, tmp_path), strict=True):
        assert found.version in atoms.info["level_of_theory"]
        assert found.stress is not None
        energy = abs(found.energy - atoms.get_potential_energy())
        differences.append((energy, np.abs(found.forces - atoms.get_forces()).max()))
        assert energy < 1e-4
        np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-3)
        np.testing.assert_allclose(found.stress, atoms.get_stress(), atol=1e-5)
    print("largest differences (eV, eV/Å):", np.max(differences, axis=0))


def test_pyscf_hydrogen_atom_and_what_does_not_converge(tmp_path: Path) -> None:
    """PBE's hydrogen atom: -0.49999 hartree at the basis-set limit (Perdew, Burke, Ernzerhof 1996: 13.60 eV)."""
    atom = complete_method({"code": "pyscf", "xc": "pbe", "basis": "def2-qzvp", "spin": 1})
    assert labels([Atoms("H")], atom, tmp_path)[0].energy == pytest.approx(-13.605, abs=0.01)
    hasty = complete_method({**PBE, "max_cycle": 1})
    (answer,) = label(Frames.from_atoms([molecule("H2O")]), hasty, load_backends()["pyscf"], cache=tmp_path)
    assert not isinstance(answer, Label)
    assert answer.reason == "the SCF did not converge in 1 cycles"


def test_tblite_gives_its_documentations_water(tmp_path: Path) -> None:
    """Energy (eV) and forces (eV/Å) as tblite's manual prints them for this molecule."""
    (found,) = labels([molecule("H2O")], GFN2, tmp_path)
    assert found.energy == pytest.approx(-137.96777594, abs=1e-6)
    expected = [[0, 0, -0.7495], [0, -0.1535, 0.3748], [0, 0.1535, 0.3748]]
    np.testing.assert_allclose(found.forces, expected, atol=1e-4)
    assert found.stress is None


def test_tblite_stress_is_the_strain_derivative(tmp_path: Path) -> None:
    crystal = bulk("C")
    crystal.rattle(0.05, seed=1)
    step = 1e-4
    strained = []
    for a, b in ((0, 0), (1, 2)):
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            atoms = crystal.copy()
            atoms.set_cell(crystal.cell.array @ strain, scale_atoms=True)
            strained.append(atoms)
    found = labels([crystal, *strained], GFN2, tmp_path)
    energies = [answer.energy for answer in found[1:]]
    stress = found[0].stress
    assert stress is not None
    slopes = np.array([energies[0] - energies[1], energies[2] - energies[3]]) / (2 * step * crystal.get_volume())
    np.testing.assert_allclose(stress[[0, 3]], slopes, atol=1e-5)  # xx and yz of xx yy zz yz xz xy


def test_a_label_does_not_depend_on_the_frame_before(tmp_path: Path) -> None:
    near, far = molecule("C2H6"), molecule("C2H6")
    far.rattle(0.1, seed=3)
    alone = labels([near], GFN2, tmp_path / "a")[0]
    after = labels([far, near], GFN2, tmp_path / "b")[1]
    assert alone.energy == after.energy
    np.testing.assert_array_equal(alone.forces, after.forces)


def test_an_ase_calculator_by_name_with_arguments(tmp_path: Path) -> None:
    """Argon where Lennard-Jones has its minimum: energy −ε, and no force; in frames of unlike size."""
    method = complete_method(
        {
            "code": "ase", "calculator": "ase.calculators.lj.LennardJones",
            "arguments": {"sigma": 3.4, "epsilon": 0.01, "rc": 100.0},
        }
    )  # fmt: skip
    near = 2 ** (1 / 6) * 3.4
    dimer, trimer = Atoms("Ar2", [[0, 0, 0], [0, 0, near]]), Atoms("Ar3", [[0, 0, 0], [near, 0, 0], [0, 900, 0]])
    pair, three = labels([dimer, trimer], method, tmp_path)
    assert pair.energy == pytest.approx(-0.01, abs=1e-8)  # ASE shifts the energy by its value at rc
    np.testing.assert_allclose(pair.forces, 0, atol=1e-9)
    assert three.energy == pytest.approx(pair.energy, abs=1e-8)
    assert pair.version.startswith("ASE ")


def test_arguments_that_are_objects_are_made(tmp_path: Path) -> None:
    """A calculator whose arguments are other objects, as profiles are: a sum of two halves."""
    half = {"_target_": "ase.calculators.lj.LennardJones", "sigma": 3.4, "epsilon": 0.005, "rc": 100.0}
    method = complete_method(
        {"code": "ase", "calculator": "ase.calculators.mixing.SumCalculator", "arguments": {"calcs": [half, half]}}
    )
    near = 2 ** (1 / 6) * 3.4
    (found,) = labels([Atoms("Ar2", [[0, 0, 0], [0, 0, near]])], method, tmp_path)
    assert found.energy == pytest.approx(-0.01, abs=1e-8)
