"""Accuracy against numpy by hand, and against the mistakes others made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from mlpbench.evaluators.accuracy import score_split
from mlpbench.frames import Frames
from mlpbench.units import GPA
from tests.support import CASES, ethanol_frames


def rows_of(frames: Frames, energy: np.ndarray, forces: np.ndarray, **more: np.ndarray) -> dict[str, dict]:
    return {row["metric"]: row for row in score_split("test", frames, energy, forces, **more)}


def two_sizes() -> Frames:
    """A dimer and an octamer: per-atom averages over frames and over atoms differ."""
    small = Atoms("CO", positions=[[0, 0, 0], [1.1, 0, 0]])
    large = Atoms("C8", positions=np.arange(24.0).reshape(8, 3))
    return Frames.from_atoms([small, large], energy=[0.0, 0.0], forces=[np.ones((2, 3)), np.ones((8, 3))])


def test_energy_per_atom_is_averaged_over_frames_not_atoms() -> None:
    frames = two_sizes()
    found = rows_of(frames, np.array([0.2, 0.8]), frames.forces)
    assert found["energy_mae"]["value"] == pytest.approx(1e3 * (0.2 / 2 + 0.8 / 8) / 2)
    assert found["energy_mae"]["unit"] == "meV/atom"
    assert found["energy_mae_total"]["value"] == pytest.approx(500.0)
    assert found["energy_rmse_total"]["value"] == pytest.approx(1e3 * np.sqrt((0.04 + 0.64) / 2))


def test_forces_are_averaged_over_all_components_of_all_atoms() -> None:
    frames = two_sizes()
    forces = frames.forces.copy()
    forces[0, 0] += 0.3  # one component of the dimer's carbon
    found = rows_of(frames, np.zeros(2), forces)
    assert found["force_mae"]["value"] == pytest.approx(1e3 * 0.3 / 30)
    assert found["force_rmse"]["value"] == pytest.approx(1e3 * np.sqrt(0.09 / 30))
    assert found["force_mae_C"]["value"] == pytest.approx(1e3 * 0.3 / 27)
    assert found["force_mae_O"]["value"] == 0
    assert found["force_max"]["value"] == pytest.approx(300.0)


def test_the_baseline_drops_out() -> None:
    frames = ethanol_frames("test_500K", 30)
    total = frames.energy + 0.009
    shifted = frames.with_baseline(np.linspace(-5000, -4000, 30))
    a = rows_of(frames, total - frames.baseline, frames.forces)["energy_mae_total"]["value"]
    b = rows_of(shifted, total - shifted.baseline, frames.forces)["energy_mae_total"]["value"]
    assert a == pytest.approx(9.0, rel=1e-6)
    assert b == pytest.approx(a, rel=1e-6)


def test_perfect_and_random_forces() -> None:
    frames = ethanol_frames("test_500K", 50)
    perfect = rows_of(frames, frames.target_energy, frames.forces)
    assert perfect["force_r2"]["value"] == 1
    assert perfect["energy_r2"]["value"] == 1
    assert perfect["force_angle"]["value"] == pytest.approx(0, abs=1e-4)
    turned = rows_of(frames, frames.target_energy, -frames.forces)  # gradients taken for forces
    assert turned["force_angle"]["value"] == pytest.approx(180)
    assert turned["force_r2"]["value"] == pytest.approx(-3)


def test_gaussian_errors_have_the_known_mean() -> None:
    frames = ethanol_frames("test_500K")
    rng = np.random.default_rng(0)
    found = rows_of(frames, frames.target_energy, frames.forces + rng.normal(0, 0.05, frames.forces.shape))
    assert found["force_rmse"]["value"] == pytest.approx(50, rel=0.03)
    assert found["force_mae"]["value"] == pytest.approx(50 * np.sqrt(2 / np.pi), rel=0.03)
    row = found["force_mae"]
    assert row["lower"] < row["value"] < row["upper"]
    assert row["n"] == 200


def test_stress_is_reported_in_gpa() -> None:
    cell = Atoms("Si2", positions=[[0, 0, 0], [1.4, 1.4, 1.4]], cell=np.eye(3) * 5.4, pbc=True)
    frames = Frames.from_atoms([cell] * 3, energy=[0.0] * 3, forces=[np.zeros((2, 3))] * 3, stress=np.zeros((3, 6)))
    found = rows_of(frames, np.zeros(3), np.zeros((6, 3)), stress=np.full((3, 6), 0.25 * GPA))
    assert found["stress_mae"]["value"] == pytest.approx(0.25)


def test_energies_alone_are_scored_where_forces_are_missing() -> None:
    frames = Frames.from_atoms([Atoms("H2", positions=[[0, 0, 0], [0.7, 0, 0]])] * 3, energy=[1.0, 2.0, 3.0])
    found = rows_of(frames, np.array([1.0, 2.0, 3.3]), np.zeros((6, 3)))
    assert found["energy_mae_total"]["value"] == pytest.approx(100.0)
    assert "force_mae" not in found


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_refused(bad: float) -> None:
    frames = ethanol_frames("test_500K", 5)
    forces = frames.forces.copy()
    forces[7, 1] = bad
    with pytest.raises(ValueError, match="not finite"):
        score_split("test", frames, frames.target_energy, forces)


def test_wrong_shapes_are_refused() -> None:
    frames = ethanol_frames("test_500K", 5)
    with pytest.raises(ValueError, match="expected"):
        score_split("test", frames, frames.target_energy[:4], frames.forces)


def labelled(path: Path, stress: bool = False) -> Frames:
    atoms = read(path, index=":")
    more = {"stress": [a.get_stress() for a in atoms]} if stress else {}
    return Frames.from_atoms(
        atoms, energy=[a.get_potential_energy() for a in atoms], forces=[a.get_forces() for a in atoms], **more
    )


def test_zero_reference_forces_leave_only_their_share_out() -> None:
    """An energy-volume curve of a perfect crystal: there is a force error, and no R² of forces."""
    frames = labelled(CASES / "09-eos-force-r2" / "eos.extxyz")
    assert not frames.forces.any()
    found = rows_of(frames, frames.energy, frames.forces + 0.01)
    assert "force_r2" not in found
    assert "force_angle" not in found
    assert found["force_mae"]["value"] == pytest.approx(10.0)
    assert all(np.isfinite(row["value"]) for row in found.values())


def test_a_slab_without_predicted_stress_keeps_its_other_errors() -> None:
    """MACE gives no stress, NaN, where the cell has no volume of its own; where some frames have one, they count."""
    frames = labelled(CASES / "08-mace-slab-stress" / "slab_stress.extxyz", stress=True)
    assert frames.has_stress
    assert not frames.pbc.all()
    stress = np.full((len(frames), 6), np.nan)
    found = rows_of(frames, frames.energy, frames.forces, stress=stress)
    assert found["force_mae"]["value"] == 0
    assert "stress_mae" not in found
    stress[:3] = frames.stress[:3] + 0.1 * GPA
    found = rows_of(frames, frames.energy, frames.forces, stress=stress)
    assert found["stress_mae"]["value"] == pytest.approx(0.1)
    assert found["stress_mae"]["n"] == 3


def test_one_frame_without_forces_leaves_only_itself_out() -> None:
    frames = ethanol_frames("test_500K", 10)
    whole = rows_of(frames, frames.energy, frames.forces + 0.01)
    forces = frames.forces.copy()
    forces[:9] = np.nan
    found = rows_of(replace(frames, forces=forces), frames.energy, frames.forces + 0.01)
    assert whole["force_mae"]["n"] == 10
    assert found["force_mae"]["n"] == 9
    assert found["force_mae"]["value"] == pytest.approx(10.0)
    assert found["energy_mae"]["n"] == 10
