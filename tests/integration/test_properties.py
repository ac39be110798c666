"""Physical quantities from the command line: structures made and labelled, a study beside them, its page."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read
from scipy.optimize import minimize_scalar

from mlpbench.units import GPA
from tests.integration.conftest import Run

HERE = f"backend.ase.python={sys.executable}"
EMT_METHOD = ("reference=ase", "reference.calculator=ase.calculators.emt.EMT", HERE)


def copper(a: float) -> Atoms:
    atoms = Atoms(bulk("Cu", a=a, cubic=True))
    atoms.calc = EMT()
    return atoms


def energy(a: float) -> float:
    return float(copper(a).get_potential_energy())


@pytest.fixture(scope="module")
def lattice_constant() -> float:
    """Å, where EMT's copper has its lowest energy: by a search of its own, and no equation of state."""
    return float(minimize_scalar(energy, bounds=(3.4, 3.8), method="bounded", options={"xatol": 1e-6}).x)


def bulk_modulus(a: float, step: float = 0.01) -> float:
    """GPa: V·d²E/dV² at the minimum is (1/9a)·d²E/da² of the cubic cell."""
    curvature = (energy(a + step) - 2 * energy(a) + energy(a - step)) / step**2
    return curvature / (9 * a) / GPA


def direct_elastic(a: float, step: float = 0.002) -> tuple[float, float, float]:
    """C11, C12, C44 in GPa from EMT's stress of cells strained by hand; fcc's atoms need no relaxation."""
    slopes = []
    for i, j in ((0, 0), (1, 2)):
        ends = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            atoms = copper(a)
            atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            ends.append(atoms.get_stress())
        slopes.append((ends[0] - ends[1]) / (2 * step) / GPA)
    return float(slopes[0][0]), float(slopes[0][1:3].mean()), float(slopes[1][3])


@pytest.mark.slow
def test_properties_of_a_crystal_and_the_page(tmp_path: Path, mlpbench: Run, lattice_constant: float) -> None:
    home = {"MLPBENCH_HOME": str(tmp_path / "home")}
    start = f"bulk:Cu:{lattice_constant:.6f}"
    made = mlpbench("data", "properties", start, *EMT_METHOD, "--out", "properties.xyz", **home)
    assert made.returncode == 0, made.stderr
    said = {name: float(value) for name, value in re.findall(r"  (\S.*?) = (\S+)", made.stdout)}
    assert said["a₀"] == pytest.approx(lattice_constant, abs=0.002)
    assert said["B₀"] == pytest.approx(bulk_modulus(lattice_constant), rel=0.02)
    c11, c12, c44 = direct_elastic(lattice_constant)
    assert said["C₁₁"] == pytest.approx(c11, rel=0.01)
    assert said["C₁₂"] == pytest.approx(c12, rel=0.01)
    assert said["C₄₄"] == pytest.approx(c44, rel=0.01)
    assert (said["C₁₁"] + 2 * said["C₁₂"]) / 3 == pytest.approx(said["B₀"], rel=0.03)
    hole = copper(lattice_constant)[1:]
    hole.calc = EMT()
    assert said["vacancy"] == pytest.approx(hole.get_potential_energy() - 0.75 * energy(lattice_constant), abs=1e-3)
    assert said["imaginary phonons"] == 0
    structures = read(tmp_path / "properties.xyz", index=":")
    assert f"{len(structures)} of {len(structures)} structures labelled" in made.stdout

    sampled = mlpbench(
        "data", "sample", start, "reference@sampler=ase", "sampling.temperatures_K=[600]", "sampling.frames=24", HERE,
        "sampling.time_step_fs=2", "sampling.equilibration_ps=0.1", "sampling.spacing_fs=40", "--out", "geo", **home,
    )  # fmt: skip
    assert sampled.returncode == 0, sampled.stderr
    assert mlpbench("data", "label", "geo/600K.xyz", *EMT_METHOD, "--out", "cu.xyz", **home).returncode == 0
    run = mlpbench(
        "run", "study=s", "dataset=file", "dataset.path=cu.xyz", "dataset.references={properties: properties.xyz}",
        "architecture=toy", "size=tiny", "dataset.n_train=12", "dataset.n_valid=4", "budget.steps=1",
        "evaluation=properties", **home,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    _check_study(tmp_path, mlpbench, said)


def _check_study(folder: Path, mlpbench: Run, said: dict[str, float]) -> None:
    """Value less error is the reference's value; the page has it, and a dash where the toy has no stress."""
    table = pd.read_csv(folder / "results" / "s" / "metrics.csv").set_index("metric")["value"]
    assert table["eos_a0"] - table["eos_a0_error"] == pytest.approx(said["a₀"], abs=1e-3)
    assert table["vacancy_energy"] - table["vacancy_energy_error"] == pytest.approx(said["vacancy"], abs=1e-3)
    assert table["phonon_bands_error"] > 0
    assert "elastic_c11_error" not in table
    assert mlpbench("report", "s").returncode == 0
    page = (folder / "reports" / "s" / "index.html").read_text(encoding="utf-8")
    assert "Physical quantities beside the reference" in page
    path = folder / "reports" / "s" / "tables" / "properties-cu.csv"
    written = pd.read_csv(path, dtype=str).set_index("Quantity").to_dict("index")
    assert float(written["a₀"]["Reference"]) == pytest.approx(said["a₀"], abs=1e-3)
    assert float(written["C₁₁"]["Reference"]) == pytest.approx(said["C₁₁"], rel=1e-3)
    assert written["C₁₁"]["Toy pair potential"] == "–"


def test_what_cannot_be_had_is_said(tmp_path: Path, mlpbench: Run) -> None:
    (tmp_path / "molecule.xyz").write_text("2\n\nN 0 0 0\nN 0 0 1.1\n")
    for arguments, words in [
        (("molecule.xyz", "--out", "p.xyz"), "none of the properties"),
        (("bulk:Cu:3.6", "--names", "eos,elastc", "--out", "p.xyz"), "Did you mean 'elastic'"),
        (("molecule.xyz", "--names", "eos", "--out", "p.xyz"), "periodic in three directions"),
        (("bulk:Cu:wide", "--out", "p.xyz"), "is no crystal"),
    ]:  # fmt: skip
        done = mlpbench("data", "properties", *arguments, *EMT_METHOD)
        assert done.returncode == 2, done.stdout + done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "p.xyz").exists()
