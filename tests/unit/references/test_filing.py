"""Labelled files: what is written, what is left out and why, and that a data set takes its price from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from mlpbench.datasets import load
from mlpbench.datasets.dataset import label_seconds, level_of_theory
from mlpbench.errors import UserError
from mlpbench.references.labels import label_file
from mlpbench.references.methods import complete_method
from tests.unit.datasets.support import file_config
from tests.unit.references.conftest import BACKEND

METHOD = complete_method({"code": "pyscf", "xc": "pbe", "basis": "def2-svp"})
WATER = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


@pytest.fixture
def geometries(tmp_path: Path) -> Path:
    """Five frames; the second does not converge, the fourth breaks the code."""
    structures = []
    for i, shift in enumerate((0.0, 60.0, 1.0, 95.0, 2.0)):
        atoms = Atoms("OHH", positions=WATER + shift)
        atoms.info = {"temperature_K": 300 + i, "REF_energy": -1.0, "label_seconds": 99.0}
        atoms.arrays["REF_forces"] = np.ones((3, 3))
        structures.append(atoms)
    write(tmp_path / "geometries.xyz", structures, format="extxyz")
    return tmp_path / "geometries.xyz"


def test_file_has_labels_level_and_price_of_each_frame(tmp_path: Path, geometries: Path, computed) -> None:
    filed = label_file(geometries, tmp_path / "out" / "labelled.xyz", METHOD, BACKEND, cache=tmp_path / "c")
    assert [(number, answer.reason) for number, answer in filed.left_out] == [
        (1, "no convergence in sight"),
        (3, "ValueError: bad geometry"),
    ]
    frames = read(filed.path, index=":")
    assert [atoms.info["frame"] for atoms in frames] == [0, 2, 4]
    assert [atoms.info["temperature_K"] for atoms in frames] == [300, 302, 304]
    assert [atoms.get_potential_energy() for atoms in frames] == [-2000.0, -2001.0, -2002.0]
    for atoms, shift in zip(frames, (0, 1, 2), strict=True):
        np.testing.assert_allclose(atoms.positions, WATER + shift, atol=1e-8)
        np.testing.assert_allclose(atoms.get_forces(), np.tile([0.1, 0, 0], (3, 1)), atol=1e-8)
        assert atoms.info["level_of_theory"] == "PBE/def2-svp, grid level 3, fake 1.0"
        assert 0 < atoms.info["label_seconds"] < 10  # of this calculation, not what the source said
        assert atoms.info["reference_method"] == METHOD
        assert "REF_energy" not in atoms.info
        assert "REF_forces" not in atoms.arrays


def test_stress_of_a_crystal_in_order_and_sign(tmp_path: Path, computed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlpbench.references.methods.PyscfMethod.molecules_only", False)
    crystal = Atoms("OHH", positions=WATER, cell=[5, 6, 7], pbc=True)
    write(tmp_path / "g.xyz", crystal, format="extxyz")
    filed = label_file(tmp_path / "g.xyz", tmp_path / "l.xyz", METHOD, BACKEND, cache=tmp_path / "c")
    np.testing.assert_allclose(read(filed.path).get_stress(), np.arange(6) * 0.01)


def test_a_data_set_takes_price_and_level_from_the_file(tmp_path: Path, geometries: Path, computed) -> None:
    label_file(geometries, tmp_path / "l.xyz", METHOD, BACKEND, cache=tmp_path / "c")
    costs = [atoms.info["label_seconds"] for atoms in read(tmp_path / "l.xyz", index=":")]
    config = file_config(tmp_path / "l.xyz", n_train=1, n_valid=1, test_path=str(tmp_path / "l.xyz"))
    info = load(config).info
    assert info["label_seconds"] == pytest.approx(np.mean(costs))
    assert info["level_of_theory"] == "PBE/def2-svp, grid level 3, fake 1.0"
    assert info["reference_method"] == METHOD  # further frames can be labelled, and the reference timed
    info = load(config.model_copy(update={"label_seconds": 5.0, "level_of_theory": "mine"})).info
    assert (info["label_seconds"], info["level_of_theory"]) == (5.0, "mine")


def test_headers_of_two_levels_are_refused() -> None:
    assert level_of_theory([{}, {"level_of_theory": "PBE"}], "x") == "PBE"
    assert level_of_theory([{}], "x") is None
    assert label_seconds([{"label_seconds": 2.0}, {}, {"label_seconds": 4.0}]) == 3.0
    assert label_seconds([]) is None
    with pytest.raises(UserError, match="2 levels of theory: PBE; PBE0"):
        level_of_theory([{"level_of_theory": "PBE0"}, {"level_of_theory": "PBE"}], "x")


def test_mistakes(tmp_path: Path, geometries: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        label_file(tmp_path / "nothing.xyz", tmp_path / "l.xyz", METHOD, BACKEND)
    with pytest.raises(UserError, match="overwritten by its own labels"):
        label_file(geometries, geometries, METHOD, BACKEND)
    (tmp_path / "bad.xyz").write_text("3 what is this\n")
    with pytest.raises(UserError, match="line 1: a number of atoms was expected"):
        label_file(tmp_path / "bad.xyz", tmp_path / "l.xyz", METHOD, BACKEND)
