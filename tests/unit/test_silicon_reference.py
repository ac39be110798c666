"""The silicon set that ships: whole, in the units and signs it claims, and its values those of PBE silicon."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase import Atoms
from ase.eos import EquationOfState
from ase.io import read

from mlpbench.config import conf_dirs
from mlpbench.datasets import Dataset, embedded, load, registry
from mlpbench.datasets.validation import validate
from mlpbench.evaluators.properties import reference_sets, reference_values
from mlpbench.files import sha256
from mlpbench.properties import Labelled
from mlpbench.units import GPA

FOLDER = embedded.ROOT / "silicon-pbe"
FILE = FOLDER / "reference_properties.xyz"
FRAMES = {"pool_600K": 64, "test_600K": 12, "test_300K": 8, "test_1200K": 8, "test_strain": 8, "test_vacancy": 8}
FIXED_CUTOFF = 0.25  # GPa, by which stresses and slopes of energies differ (README of the set)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load(registry.find("silicon", conf_dirs()))


def frames(name: str) -> list[Atoms]:
    return list(read(FOLDER / f"{name}.xyz", index=":"))


def test_the_files_are_those_that_were_made() -> None:
    digests = embedded.expected_digests(FOLDER)
    assert set(digests) == {path.name for path in FOLDER.iterdir()} - {"README.md", "SHA256SUMS"}
    assert digests == {name: sha256(FOLDER / name) for name in digests}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1_000_000


def test_frames_headers_and_one_level_of_theory() -> None:
    levels = set()
    for name, count in FRAMES.items():
        structures = frames(name)
        assert len(structures) == count
        for atoms in structures:
            assert atoms.pbc.all()
            assert set(atoms.symbols) == {"Si"}
            assert len(atoms) == (7 if name == "test_vacancy" else 8)
            assert atoms.info["label_seconds"] > 0
            assert set(atoms.calc.results) >= {"energy", "forces", "stress"}
            levels.add((atoms.info["level_of_theory"], json.dumps(atoms.info["reference_method"], sort_keys=True)))
    levels |= {
        (a.info["level_of_theory"], json.dumps(a.info["reference_method"], sort_keys=True)) for a in read(FILE, ":")
    }
    assert len(levels) == 1


def test_it_loads_with_its_splits_and_passes_validation(dataset: Dataset) -> None:
    assert {"pool_600K": len(dataset.pool), **{name: len(part) for name, part in dataset.tests.items()}} == FRAMES
    assert np.isfinite(dataset.pool.stress).all()
    config = registry.find("silicon", conf_dirs())
    reports = validate(config)
    assert all(report.ok for report in reports), [str(finding) for report in reports for finding in report.findings]
    method = frames("pool_600K")[0].info["reference_method"]
    assert config.reference_method is not None
    assert {k: method[k] for k in config.reference_method} == config.reference_method


def test_units_are_ev_and_angstrom(dataset: Dataset) -> None:
    """Cohesive energy of PBE silicon: 4.55 eV (nearest published values 4.55 to 4.61)."""
    assert dataset.isolated_atoms is not None
    lowest = min(float(labelled.energy.min()) for labelled in reference_sets(FILE).values())
    assert dataset.isolated_atoms["Si"] - lowest / 8 == pytest.approx(4.55, abs=0.03)
    assert np.sqrt((dataset.pool.forces**2).mean()) == pytest.approx(0.73, abs=0.01)  # eV/Å, from the set's README


def test_temperatures_and_strains_are_what_the_splits_say() -> None:
    """Kinetic energy of 3N degrees of freedom: one frame's temperature scatters by √(2/3N) of itself."""
    for name, kelvin, strain in [
        ("pool_600K", 600, 0.02), ("test_600K", 600, 0.02), ("test_300K", 300, 0.0), ("test_1200K", 1200, 0.0),
        ("test_strain", 600, 0.06), ("test_vacancy", 600, 0.0),
    ]:  # fmt: skip
        structures = frames(name)
        kinetic = [atoms.info["kinetic_temperature_K"] for atoms in structures]
        scatter = kelvin * np.sqrt(2 / (3 * len(structures[0])) / len(structures))
        assert abs(np.mean(kinetic) - kelvin) < 3 * scatter, name
        sizes = [np.abs(atoms.cell.array @ np.linalg.inv(5.47 * np.eye(3)) - np.eye(3)).max() for atoms in structures]
        assert max(sizes) <= strain + 1e-9, name
        assert max(sizes) > 0.8 * strain or strain == 0, name


def test_values_are_those_of_pbe_silicon() -> None:
    """Published PBE: a₀ 5.469 Å, B₀ 88.6, C11 153, C12 57, C44 75 GPa, Γ 15.1 THz."""
    found = {name: float(value) for values in reference_values(FILE).values() for name, value in values.items()
             if np.ndim(value) == 0}  # fmt: skip
    published = {
        "eos_a0": (5.469, 0.002), "eos_b0": (88.6, 0.01), "elastic_c11": (153, 0.02), "elastic_c12": (57, 0.02),
        "elastic_c44": (75, 0.03), "phonon_top": (15.1, 0.01), "phonon_imaginary": (0, 0.0),
    }  # fmt: skip
    for name, (value, tolerance) in published.items():
        assert found[name] == pytest.approx(value, rel=tolerance, abs=1e-9), name
    # Two ways to the same modulus: curvature of the energy, and slope of the stress.
    assert found["elastic_bulk"] == pytest.approx(found["eos_b0"], rel=0.01)
    assert (found["elastic_c11"] + 2 * found["elastic_c12"]) / 3 == pytest.approx(found["eos_b0"], rel=0.01)


def of(name: str) -> Labelled:
    return reference_sets(FILE)[name]


def test_bulk_modulus_by_ase_and_by_a_polynomial() -> None:
    labelled = of("eos")
    volumes = np.array([atoms.get_volume() for atoms in labelled.structures])
    v0, _, b0 = EquationOfState(volumes, labelled.energy, eos="birchmurnaghan").fit()
    expected = reference_values(FILE)["eos"]
    assert expected["eos_a0"] == pytest.approx(v0 ** (1 / 3), rel=1e-9)
    assert expected["eos_b0"] == pytest.approx(b0 / GPA, rel=1e-9)
    curve = np.polynomial.Polynomial.fit(volumes, labelled.energy, 4)
    assert v0 * curve.deriv(2)(v0) / GPA == pytest.approx(expected["eos_b0"], rel=0.02)


def test_stress_is_the_slope_of_the_energies() -> None:
    """Sign, unit and order: over the volumes, ±0.5 % along x and a shear, by differences of energies alone."""
    labelled = of("eos")
    volumes = np.array([atoms.get_volume() for atoms in labelled.structures])
    slopes = np.polynomial.Polynomial.fit(volumes, labelled.energy, 4).deriv()(volumes) / GPA
    stress = labelled.stress[:, :3] / GPA
    assert np.ptp(slopes) > 10  # from compression (negative) to tension
    np.testing.assert_allclose(stress.mean(axis=1), slopes, atol=FIXED_CUTOFF)
    elastic = of("elastic")
    pairs: dict[int, dict[float, int]] = {}
    for i in elastic.where("strain_index"):
        info = elastic.structures[i].info
        pairs.setdefault(int(info["strain_index"]), {})[float(info["strain"])] = i
    volume = elastic.structures[0].get_volume()
    for index, pair in pairs.items():
        up, down = pair[max(pair)], pair[min(pair)]
        slope = (elastic.energy[up] - elastic.energy[down]) / (max(pair) - min(pair)) / volume / GPA
        assert elastic.stress[0][index] / GPA == pytest.approx(slope, abs=FIXED_CUTOFF)
        assert elastic.stress[up][index] > elastic.stress[down][index]


def test_forces_are_the_slope_of_the_energies() -> None:
    """A displaced atom is pulled back, by twice the energy over the displacement (to third order)."""
    labelled = of("phonons")
    start = labelled.structures[0]
    for i in range(1, len(labelled.structures)):
        shift = labelled.structures[i].positions - start.positions
        work = 2 * (labelled.energy[i] - labelled.energy[0])
        assert -(labelled.forces[i] * shift).sum() == pytest.approx(work, rel=0.02)


def test_forces_balance() -> None:
    for labelled in reference_sets(FILE).values():
        for forces in labelled.forces:
            assert np.abs(forces.sum(axis=0)).max() < 0.02
    for name in FRAMES:
        for atoms in frames(name):
            assert np.abs(atoms.get_forces().sum(axis=0)).max() < 0.02
