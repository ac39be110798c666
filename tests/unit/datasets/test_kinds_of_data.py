"""Kinds of data with traps of their own: padded arrays, held atoms; and the registry's entries for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write

from mlpbench.datasets.readers import read
from mlpbench.datasets.readers.base import Labels, Notes
from mlpbench.errors import UserError
from mlpbench.units import KCAL_PER_MOL


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
    np.testing.assert_allclose(chunk.frames.forces, forces)
    said = [text for text in notes.listed() if "constraint" in text]
    assert bool(said) == zeroed
