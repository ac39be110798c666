"""Properties against known answers: Stillinger–Weber silicon, a harmonic lattice, analytic paths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.data import atomic_masses

from mlpbench.frames import Float
from mlpbench.properties import PROPERTIES, Labelled, compare, labelled_sets
from mlpbench.properties.crystal import elastic_matrix, hill, imaginary_modes
from mlpbench.properties.reaction import Rate, arc_length, peak
from mlpbench.quantities import QUANTITIES, Value, kendall
from mlpbench.units import ASE_TIME_IN_FS, BOLTZMANN
from mlpbench.worker.reference.stillinger_weber import StillingerWeber


def labelled(structures: list[Atoms], calculator: Calculator) -> Labelled:
    energy, forces, stress = [], [], []
    for atoms in structures:
        work = atoms.copy()
        work.calc = calculator
        energy.append(work.get_potential_energy())
        forces.append(work.get_forces())
        stress.append(work.get_stress() if work.pbc.all() else np.full(6, np.nan))
    return Labelled(structures, np.array(energy), forces, np.array(stress))


@pytest.fixture(scope="module")
def silicon() -> Atoms:
    return bulk("Si", "diamond", a=5.43095, cubic=True)


def values(name: str, start: Atoms, calculator: Calculator) -> dict[str, Value]:
    return PROPERTIES[name].values(labelled(PROPERTIES[name].structures(start), calculator))


def test_equation_of_state_of_stillinger_weber_silicon(silicon: Atoms) -> None:
    """Its authors' lattice constant, also from a start 1 % off; bulk modulus: Cowley (1988)."""
    start = silicon.copy()
    start.set_cell(start.cell.array * 1.01, scale_atoms=True)
    found = values("eos", start, StillingerWeber())
    assert found["eos_a0"] == pytest.approx(5.431, abs=0.002)
    assert found["eos_v0"] == pytest.approx(5.431**3 / 8, rel=1e-3)
    assert found["eos_b0"] == pytest.approx(101.4, rel=0.01)


def test_equation_of_state_without_a_minimum_is_left_out(silicon: Atoms) -> None:
    start = silicon.copy()
    start.set_cell(start.cell.array * 1.06, scale_atoms=True)
    assert values("eos", start, StillingerWeber()) == {}


def test_elastic_constants_with_relaxed_atoms(silicon: Atoms) -> None:
    """Stillinger–Weber: C11 151.4, C12 76.4, C44 56.4 GPa (Cowley 1988; Balamane, Halicioglu & Tiller 1992)."""
    sets = labelled(PROPERTIES["elastic"].structures(silicon), StillingerWeber())
    found = PROPERTIES["elastic"].values(sets)
    assert found["elastic_c11"] == pytest.approx(151.4, rel=0.01)
    assert found["elastic_c12"] == pytest.approx(76.4, rel=0.01)
    assert found["elastic_c44"] == pytest.approx(56.4, rel=0.01)
    assert found["elastic_bulk"] == pytest.approx((151.4 + 2 * 76.4) / 3, rel=0.01)
    clamped = labelled(sets.structures, StillingerWeber())
    for i in sets.where("strain_index"):
        clamped.forces[i][:] = 0.0
    matrix = elastic_matrix(clamped)
    assert matrix is not None
    assert matrix[5, 5] > 1.9 * found["elastic_c44"]  # clamped atoms make it twice as stiff against shear


def test_all_six_strains_agree_with_two(silicon: Atoms) -> None:
    """A cell that is not a cube takes the general way and finds the same crystal."""
    double = silicon.repeat((2, 1, 1))
    found = values("elastic", double, StillingerWeber())
    assert found["elastic_c11"] == pytest.approx(151.4, rel=0.01)
    assert found["elastic_c44"] == pytest.approx(56.4, rel=0.01)


def test_a_relaxed_cell_has_the_same_constant_as_linear_response(silicon: Atoms) -> None:
    from ase.optimize import BFGS

    strain = 0.004
    stresses = []
    for sign in (1, -1):
        work = silicon.copy()
        tensor = np.eye(3)
        tensor[1, 2] = tensor[2, 1] = sign * strain / 2
        work.set_cell(work.cell.array @ tensor, scale_atoms=True)
        work.calc = StillingerWeber()
        BFGS(work, logfile=None).run(fmax=1e-5, steps=200)
        stresses.append(work.get_stress()[3])
    direct = (stresses[0] - stresses[1]) / (2 * strain) * 160.21766
    assert values("elastic", silicon, StillingerWeber())["elastic_c44"] == pytest.approx(direct, rel=2e-3)


def test_hill_moduli_of_an_isotropic_solid() -> None:
    """With C11 − C12 = 2·C44 the bounds of Voigt and Reuss meet: K and G of the solid itself."""
    shear, bulk_modulus = 30.0, 80.0
    matrix = np.diag([shear * 4 / 3 + bulk_modulus] * 3 + [shear] * 3)
    matrix[:3, :3] += (bulk_modulus - shear * 2 / 3) * (1 - np.eye(3))
    assert hill(matrix) == pytest.approx((bulk_modulus, shear))
    assert hill(-matrix) is None


class Springs(Calculator):
    """A simple cubic lattice of unit springs along the bonds: frequencies are known by hand."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def __init__(self, rest: Atoms, constant: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rest, self.constant = rest, constant

    def calculate(self, atoms: Any = None, properties: Any = (), system_changes: Any = ()) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        shift = atoms.positions - self.rest.positions
        forces = np.zeros_like(shift)
        n = round(len(self.rest) ** (1 / 3))
        grid = shift.reshape(n, n, n, 3)
        for axis in range(3):
            stretch = np.roll(grid, -1, axis=axis) - grid  # all components alike: longitudinal and transverse springs
            forces += (self.constant * (stretch - np.roll(stretch, 1, axis=axis))).reshape(-1, 3)
        energy = -0.5 * float((forces * shift).sum())
        self.results = {"energy": energy, "free_energy": energy, "forces": forces, "stress": np.zeros(6)}


def test_phonons_of_a_harmonic_lattice() -> None:
    """ω² = (4K/m)·Σ sin²(π q_i): at the corner of the zone the highest frequency, twelve times K/m."""
    constant = 2.0
    start = bulk("Ag", "sc", a=3.3).repeat((2, 2, 2))
    spring = Springs(start, constant)
    structures = PROPERTIES["phonons"].structures(start)
    parts = []
    for atoms in structures:
        work = atoms.copy()
        work.calc = spring
        parts.append((work.get_potential_energy(), work.get_forces()))
    sets = Labelled(structures, np.array([e for e, _ in parts]), [f for _, f in parts], np.zeros((len(parts), 6)))
    found = PROPERTIES["phonons"].values(sets)
    mass = atomic_masses[47]
    top = np.sqrt(12 * constant / mass) / (2 * np.pi * ASE_TIME_IN_FS) * 1e3  # THz
    assert found["phonon_top"] == pytest.approx(top, rel=1e-3)
    assert found["phonon_imaginary"] == 0
    assert np.shape(found["phonon_bands"]) == (8 * 3,)
    expected = sorted(np.sqrt(4 * constant * k / mass) / (2 * np.pi * ASE_TIME_IN_FS) * 1e3 for k in
                      [0] * 3 + [1] * 9 + [2] * 9 + [3] * 3)  # fmt: skip
    np.testing.assert_allclose(np.sort(found["phonon_bands"]), expected, atol=0.01)
    upside_down = Labelled(structures, sets.energy, [-f for f in sets.forces], sets.stress)
    assert PROPERTIES["phonons"].values(upside_down)["phonon_imaginary"] == 21
    assert any("q = (0.50, 0.50, 0.50)" in text for text in imaginary_modes(upside_down))


def test_vacancy_and_surface_energies(silicon: Atoms) -> None:
    """Stillinger–Weber's unrelaxed vacancy costs four bonds of 2.17 eV less an atom's own energy: 4.34 eV."""
    vacancy = values("vacancy", silicon.repeat((2, 2, 2)), StillingerWeber())
    assert vacancy["vacancy_energy"] == pytest.approx(4 * 4.33652 / 2 - 4.33652, rel=1e-3)
    copper = bulk("Cu", cubic=True).repeat((1, 1, 3))
    surface = values("surface", copper, EMT())["surface_energy"]
    work, slab = copper.copy(), copper.copy()
    slab.center(vacuum=8.0, axis=2)
    work.calc = slab.calc = EMT()
    area = copper.cell[0, 0] * copper.cell[1, 1]
    expected = (slab.get_potential_energy() - work.get_potential_energy()) / (2 * area) * 16.0217663
    assert surface == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="one element"):
        PROPERTIES["vacancy"].structures(bulk("NaCl", "rocksalt", a=5.6, cubic=True))


def along(energies: Any, name: str = "path", **info: object) -> Labelled:
    structures = []
    for i in range(len(energies)):
        atoms = Atoms("H2", positions=[[0, 0, 0], [1.0 + 0.1 * i, 0, 0]])
        atoms.info = {"property": name} | {k: v[i] for k, v in info.items()}  # type: ignore[index]
        structures.append(atoms)
    return Labelled(structures, energies, [np.zeros((2, 3))] * len(energies), np.full((len(energies), 6), np.nan))


def test_path_barrier_and_saddle() -> None:
    """A parabola's top lies between the points; the arc length is that of the path."""
    x: Float = np.arange(8) * np.float64(0.1)
    energy = 0.5 - 4 * (x - 0.33) ** 2
    found = PROPERTIES["path"].values(along(energy))
    assert found["path_saddle"] == pytest.approx(0.33, abs=1e-9)
    assert found["path_barrier"] == pytest.approx(1e3 * 4 * 0.33**2, rel=1e-9)
    assert found["path_reaction"] == pytest.approx(1e3 * (energy[-1] - energy[0]))
    np.testing.assert_allclose(arc_length(along(energy).structures), x, atol=1e-12)
    assert set(PROPERTIES["path"].values(along(x))) == {"path_energy", "path_reaction"}  # uphill: no barrier
    assert np.allclose(peak(x, x), 0.7)


def test_dissociation_conformers_and_errors() -> None:
    lengths = np.linspace(0.6, 3.0, 13)
    morse = 4.0 * (1 - np.exp(-2.0 * (lengths - 1.0))) ** 2
    found = PROPERTIES["dissociation"].values(along(morse, "dissociation", distance_A=lengths))
    assert found["dissociation_length"] == pytest.approx(1.0, abs=0.05)
    assert found["dissociation_energy"] == pytest.approx(1e3 * morse[-1], rel=0.01)
    ours, theirs = along(np.array([0.0, 0.2, 0.1])), along(np.array([0.0, 0.1, 0.2]))
    errors = compare(PROPERTIES["conformers"].values(ours), PROPERTIES["conformers"].values(theirs))
    assert errors["conformer_order"] == pytest.approx(1 / 3)
    assert errors["conformer_energy"] == pytest.approx(1e3 * 0.2 / 3)
    assert kendall(np.arange(4.0), -np.arange(4.0)) == -1


def test_rate_of_a_double_well() -> None:
    """H between walls: k = ν·exp(−E/kT) with the frequencies along and across the way."""

    class Well(Calculator):
        implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

        def calculate(self, atoms: Any = None, properties: Any = (), system_changes: Any = ()) -> None:
            super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
            x, y, z = atoms.positions[1] - atoms.positions[0] - np.array([10.0, 0, 0])
            energy = 0.4 * (x**2 - 1) ** 2 + 2.0 * y**2 + 3.0 * z**2
            force = np.array([-1.6 * x * (x**2 - 1), -4.0 * y, -6.0 * z])
            self.results = {"energy": energy, "free_energy": energy, "forces": np.array([-force, force])}

    cell = {"cell": [40.0] * 3, "pbc": True}
    minimum = Atoms("UH", positions=[[0, 0, 0], [11.0, 0, 0]], **cell)
    saddle = Atoms("UH", positions=[[0, 0, 0], [10.0, 0, 0]], **cell)
    structures = Rate().structures_of(minimum, saddle)
    energy, forces = [], []
    for atoms in structures:
        work = atoms.copy()
        work.calc = Well()  # type: ignore[no-untyped-call]
        energy.append(work.get_potential_energy())
        forces.append(work.get_forces())
    found = Rate().values(Labelled(structures, np.array(energy), forces, np.full((len(energy), 6), np.nan)))
    reduced = 1 / (1 / atomic_masses[1] + 1 / atomic_masses[92])
    nu = np.sqrt(3.2 / reduced) / (2 * np.pi * ASE_TIME_IN_FS * 1e-15)
    for kelvin in (300, 1000):
        expected = np.log10(nu) - 0.4 / (BOLTZMANN * kelvin) / np.log(10)
        assert found[f"rate_{kelvin}K"] == pytest.approx(expected, abs=2e-3)
    assert Rate().values(Labelled(structures, np.array(energy), [-f for f in forces], np.zeros((len(energy), 6)))) == {}


def test_rare_events_look_at_the_atoms_that_move() -> None:
    structures = [Atoms("H2", positions=[[0, 0, 0], [1, 0, 0]], info={"property": "rare", "moving_atom": 1})]
    forces = np.array([[1.0, 0, 0], [0.2, 0.1, 0]])
    sets = labelled_sets(structures, np.zeros(1), forces, np.full((1, 6), np.nan))
    np.testing.assert_allclose(PROPERTIES["rare"].values(sets["rare"])["rare_force"], [200, 100, 0])
    with pytest.raises(ValueError, match="marks no atom"):
        PROPERTIES["rare"].values(along(np.zeros(2), "rare"))


def test_every_value_is_a_registered_quantity(silicon: Atoms) -> None:
    for name in ("eos", "elastic", "phonons", "vacancy", "surface"):
        assert set(values(name, silicon, StillingerWeber())) <= set(QUANTITIES)


def test_stillinger_weber_forces_are_the_gradient(silicon: Atoms) -> None:
    from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

    atoms = silicon.copy()
    atoms.rattle(0.15, seed=1)
    atoms.calc = StillingerWeber()
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, 1e-4), atol=1e-6)
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, 1e-5), atol=1e-8)
