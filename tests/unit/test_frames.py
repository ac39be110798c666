"""Frames: shapes, selection, exact storage, and the way to ASE and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from mlpbench.frames import Frames
from tests.support import ethanol_frames


def mixed() -> Frames:
    """Two structures of different size; the second has no forces, the first no stress."""
    water = Atoms("OH2", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    bulk = Atoms(
        "Si2", positions=[[0, 0, 0], [1.36, 1.36, 1.36]], cell=[[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0]], pbc=True
    )
    return Frames.from_atoms(
        [water, bulk],
        energy=[-10.0, -9.0],
        forces=[np.arange(9.0).reshape(3, 3), np.full((2, 3), np.nan)],
        stress=[np.full(6, np.nan), np.arange(6.0)],
    )


def test_flat_layout() -> None:
    frames = mixed()
    assert frames.offsets.tolist() == [0, 3, 5]
    assert frames.frame_of_atom.tolist() == [0, 0, 0, 1, 1]
    assert not frames.has_forces
    assert not frames.has_stress
    assert frames.select([0]).has_forces
    assert frames.select([1]).has_stress


def test_select_reorders_atoms_with_their_frames() -> None:
    frames = mixed().select([1, 0])
    assert frames.numbers.tolist() == [14, 14, 8, 1, 1]
    assert frames.forces[2:].tolist() == np.arange(9.0).reshape(3, 3).tolist()
    assert len(mixed().select([])) == 0


def test_storage_is_exact(tmp_path: Path) -> None:
    frames = ethanol_frames("pool_500K", 20)
    frames.save(tmp_path / "f.npz")
    again = Frames.load(tmp_path / "f.npz")
    assert np.array_equal(again.positions, frames.positions)
    assert np.array_equal(again.target_energy, frames.target_energy)
    assert again.target_energy == pytest.approx(frames.energy + 4209.0)


def test_ase_and_back_keeps_labels() -> None:
    frames = mixed()
    water, bulk = frames.to_atoms()
    assert water.get_potential_energy() == -10.0
    assert water.get_forces()[2].tolist() == [6, 7, 8]
    assert bulk.get_stress().tolist() == [0, 1, 2, 3, 4, 5]
    assert bulk.pbc.all()
    with pytest.raises(NotImplementedError):
        bulk.get_forces()


def test_concatenate_is_select_undone() -> None:
    frames = ethanol_frames("pool_500K", 7)
    again = Frames.concatenate([frames.select([0, 1, 2]), frames.select([3, 4, 5, 6])])
    assert np.array_equal(again.forces, frames.forces)
    assert np.array_equal(again.baseline, frames.baseline)


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="energy has shape"):
        Frames.from_atoms([Atoms("H")], energy=[1.0, 2.0])
