"""Kinds of data with traps of their own: padded arrays, held atoms; and the registry's entries for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from mlpbench.datasets.dataset import frames_without
from mlpbench.datasets.readers import read
from mlpbench.datasets.readers.base import Labels, Notes
from mlpbench.errors import UserError
from mlpbench.evaluators.accuracy import score_split
from mlpbench.frames import Frames
from mlpbench.statistics.committee import force_errors
from mlpbench.study.trial import _why_not
from mlpbench.units import KCAL_PER_MOL
from mlpbench.worker.adapter import Prediction, common_loss
from mlpbench.worker.adapters.toy import Features, _linear_problem
from mlpbench.worker.training import check_labels, label_scale
from tests.support import ethanol_frames


def padded() -> dict[str, Any]:
    return {
        "R": np.arange(36, dtype=float).reshape(2, 6, 3), "F": np.full((2, 6, 3), 2.0),
        "Z": np.array([[8, 1, 0, 0, 0, 0], [8, 1, 1, 0, 0, 0]]), "N": np.array([[2], [3]]),
        "E": np.array([[-10.0], [-20.0]]), "RXN": np.array([["1"], ["1"]]),
    }  # fmt: skip


def test_padding_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "irc.npz"
    np.savez(path, **padded())
    notes = Notes()
    (chunk,) = read(path, "auto", Labels(energy_unit="kcal/mol"), notes)
    assert chunk.frames.n_atoms.tolist() == [2, 3]
    assert chunk.frames.numbers.tolist() == [8, 1, 8, 1, 1]
    np.testing.assert_allclose(chunk.frames.energy, np.array([-10, -20]) * KCAL_PER_MOL)
    np.testing.assert_allclose(chunk.frames.forces, 2 * KCAL_PER_MOL)
    np.testing.assert_allclose(chunk.frames.positions[2:], padded()["R"][1, :3])
    assert any("7 padding entries" in text for text in notes.listed())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"N": np.array([[2], [2]])}, "does not agree with 'N'"),
        ({"F": np.zeros((2, 5, 3))}, "expected"),
    ],
)
def test_padding_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    path = tmp_path / "irc.npz"
    np.savez(path, **(padded() | change))
    with pytest.raises(UserError, match=text):
        list(read(path, "auto", Labels(energy_unit="kcal/mol"), Notes()))


def test_the_unit_of_padded_energies_must_be_declared(tmp_path: Path) -> None:
    path = tmp_path / "irc.npz"
    np.savez(path, **padded())
    with pytest.raises(UserError, match="unit of the energies"):
        list(read(path, "auto", Labels(), Notes()))


@pytest.mark.parametrize("zeroed", [True, False])
def test_zero_forces_of_held_atoms_are_said(tmp_path: Path, zeroed: bool) -> None:
    """ASE's get_forces() gives zero for held atoms; a file that stores it has no true forces there."""
    atoms = Atoms("Cu3", positions=[[0, 0, 0], [2.5, 0, 0], [5, 0, 0]], cell=[8, 8, 8], pbc=True)
    forces = np.array([[0.1, 0, 0], [0.2, 0, 0], [-0.3, 0, 0]])
    if zeroed:
        forces[0] = 0.0
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=forces)
    atoms.set_constraint(FixAtoms([0]))
    write(tmp_path / "path.traj", atoms)
    notes = Notes()
    (chunk,) = read(tmp_path / "path.traj", "traj", Labels(), notes)
    assert chunk.frames.held.tolist() == [zeroed, False, False]
    expected = np.where(chunk.frames.held[:, None], np.nan, forces)
    np.testing.assert_allclose(chunk.frames.forces, expected)
    said = [text for text in notes.listed() if "constraint" in text]
    assert bool(said) == zeroed


def masked(n: int = 4) -> tuple[Frames, Frames]:
    """Ethanol frames with two atoms held, and the same frames with the forces that those atoms have."""
    whole = ethanol_frames("test_300K", n)
    held = np.tile(np.arange(9) < 2, n)
    return replace(whole, held=held, forces=np.where(held[:, None], np.nan, whole.forces)), whole


def test_held_atoms_leave_metrics_and_loss(tmp_path: Path) -> None:
    """Errors are those over the other atoms, by hand; a frame that lacks another force is missing all the same."""
    frames, whole = masked()
    noise = np.random.default_rng(0).standard_normal(whole.forces.shape)
    rows = {row["metric"]: row["value"] for row in score_split("t", frames, whole.target_energy, whole.forces + noise)}
    free = ~frames.held
    assert rows["force_mae"] == pytest.approx(1e3 * np.abs(noise[free]).mean())
    assert rows["force_rmse"] == pytest.approx(1e3 * np.sqrt((noise[free] ** 2).mean()))
    assert rows["force_max"] == pytest.approx(1e3 * np.abs(noise[free]).max())
    assert rows["force_r2"] == pytest.approx(1 - (noise[free] ** 2).sum() / (whole.forces[free] ** 2).sum())
    assert not [name for name, value in rows.items() if not np.isfinite(value)]
    assert "force_mae_C" not in rows  # both carbon atoms are held
    training = {"energy_weight": 0.0, "force_weight": 2.0}
    prediction = Prediction(whole.target_energy, whole.forces + noise)
    assert common_loss(prediction, frames, training) == pytest.approx(2 * (noise[free] ** 2).mean())
    assert label_scale(frames, ["forces"]) == pytest.approx(np.sqrt((whole.forces[free] ** 2).mean()))
    check_labels(["energy", "forces"], train=frames)
    assert len(frames_without(frames, "forces")) == 0
    assert frames.has_forces
    broken = replace(frames, forces=np.where(np.arange(36)[:, None] == 5, np.nan, frames.forces))
    assert frames_without(broken, "forces").tolist() == [0]
    assert not broken.has_forces
    with pytest.raises(ValueError, match="frame 0"):
        check_labels(["forces"], train=broken)
    errors = force_errors(np.stack([whole.forces + noise, whole.forces - noise]), frames.forces, frames.frame_of_atom)
    np.testing.assert_allclose(errors.error, 0, atol=1e-12)
    assert np.isfinite(errors.disagreement).all()


def test_masks_survive_files_and_choices(tmp_path: Path) -> None:
    frames, whole = masked()
    frames.save(tmp_path / "held.npz")
    assert Frames.load(tmp_path / "held.npz").held.tolist() == frames.held.tolist()
    whole.save(tmp_path / "whole.npz")
    with np.load(tmp_path / "whole.npz") as arrays:
        assert "held" not in arrays.files  # files of other data are what they were
    assert Frames.load(tmp_path / "whole.npz").held.sum() == 0
    assert frames.select([2, 0]).held.sum() == 4
    assert Frames.concatenate([frames, whole]).held.sum() == 8


def test_the_toy_learns_from_the_other_atoms_alone() -> None:
    """The same potential comes out whatever stands for the forces of held atoms."""
    frames, whole = masked(6)
    features = Features([1, 6, 8], 6, 4.0)
    training = {"energy_weight": 1.0, "force_weight": 10.0}
    rows, targets, weights = _linear_problem(features, frames, training)
    others, same, full = _linear_problem(features, whole, training)
    free = np.concatenate([[True, *np.repeat(~frames.held[:9], 3)]] * 6)
    np.testing.assert_allclose(rows, others)
    np.testing.assert_allclose(targets[free], same[free])
    assert not weights[~free].any()
    assert weights[1:][free[1:]].max() > full.max() * 0.99
    assert weights[free].sum() == pytest.approx(full.sum())


def test_backends_that_cannot_mask_are_skipped_with_the_reason(tmp_path: Path) -> None:
    frames, _ = masked()
    dataset: Any = SimpleNamespace(info={}, pool=frames, name="slab")

    def config(masks: bool) -> Any:
        """As much of a trial's configuration as is read."""
        backend = SimpleNamespace(labels=["energy", "forces"], masks_forces=masks, periodic=True)
        return SimpleNamespace(architecture=SimpleNamespace(name="x"), backend_config=backend)

    assert "4 of 4 frames" in str(_why_not(config(False), dataset, ["energy", "forces"]))
    assert _why_not(config(False), dataset, ["energy"]) is None
    assert _why_not(config(True), dataset, ["energy", "forces"]) is None
