"""Lattice and elastic constants of a crystal of springs, known by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.neighborlist import neighbor_list
from ase.stress import full_3x3_to_voigt_6_stress

from mlpbench.evaluators.physics import crystal_rows
from mlpbench.units import GPA
from mlpbench.worker.adapter import Prediction
from mlpbench.worker.tasks.physics import PredictCalculator, cubic

A, K = 4.0, 2.0  # Å, eV/Å²
FCC = {"symbols": ["Cu"] * 4, "scaled_positions": [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]}


class Springs:
    """½k(r − a/√2)² between nearest neighbours."""

    def __init__(self, with_stress: bool = True) -> None:
        self.with_stress = with_stress

    def predict(self, frames, batch_size, stress=False):
        energies, forces, stresses = [], [], []
        for atoms in frames.to_atoms():
            first, length, vector = neighbor_list("idD", atoms, 1.2 * A / np.sqrt(2))
            gap = length - A / np.sqrt(2)
            pull = (K * gap / length)[:, None] * vector  # on the first atom, towards the second
            force = np.zeros((len(atoms), 3))
            np.add.at(force, first, pull)
            energies.append(0.25 * K * (gap**2).sum())
            forces.append(force)
            virial = 0.5 * np.einsum("pi,pj->ij", pull, vector) / atoms.get_volume()
            stresses.append(full_3x3_to_voigt_6_stress(virial))
        found = np.array(stresses) if stress and self.with_stress else None
        return Prediction(np.array(energies), np.concatenate(forces), found)


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    path = tmp_path / "crystal.json"
    # The guess is 2 % off; C11 = 2k/a and C12 = C44 = k/a for nearest-neighbour springs in fcc.
    path.write_text(json.dumps({**FCC, "lattice_constant_A": 1.02 * A}))
    return path


def test_constants_of_springs(reference: Path) -> None:
    found = cubic(Springs(), reference, PredictCalculator)
    assert found["lattice_constant_A"] == pytest.approx(A, rel=1e-5)
    expected = {"C11": 2 * K / A / GPA, "C12": K / A / GPA, "C44": K / A / GPA}
    assert found["elastic_GPa"] == pytest.approx(expected, rel=2e-3)
    assert expected["C44"] == pytest.approx(80.11, abs=0.01)


def test_without_stress_or_without_a_minimum_less_is_said(reference: Path) -> None:
    assert set(cubic(Springs(with_stress=False), reference, PredictCalculator)) == {"lattice_constant_A"}
    reference.write_text(json.dumps({**FCC, "lattice_constant_A": 1.1 * A}))
    assert cubic(Springs(), reference, PredictCalculator) == {"lattice_constant_A": None}


def test_rows() -> None:
    data = {"lattice_constant_A": 3.0, "elastic_GPa": {"C11": 480.0, "C12": 160.0, "C44": 110.0}}
    found = {"lattice_constant_A": 3.03, "elastic_GPa": {"C11": 450.0, "C12": 165.0, "C44": 111.0}}
    rows = {r["metric"]: (r["value"], r["unit"]) for r in crystal_rows(found, data)}
    assert rows["lattice_constant_error"] == (pytest.approx(1.0), "%")
    assert rows["elastic_error_C11"] == (pytest.approx(-30.0), "GPa")
    assert rows["elastic_mae"] == (pytest.approx(12.0), "GPa")
    assert crystal_rows({"lattice_constant_A": None}, data) == []
