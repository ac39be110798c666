"""Geometries by molecular dynamics, with ASE's own calculators in the interpreter that runs the tests."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read
from pydantic import ValidationError

from mlpbench.backends.registry import BackendConfig, Environment
from mlpbench.errors import UserError
from mlpbench.references import running
from mlpbench.references.methods import complete_method
from mlpbench.references.sampling import Sampling, draw, start_structure
from tests.unit.references.conftest import BACKEND

EMT = complete_method({"code": "ase", "calculator": "ase.calculators.emt.EMT"})
ASE = BackendConfig(name="ase", adapter="mlpbench.worker.reference.ase_code:AseCode")
SETTINGS = {
    "start": None, "friction_per_ps": 50.0, "time_step_fs": 4.0, "equilibration_ps": 0.4, "spacing_fs": 8.0,
    "hold_centre": False, "relax_fmax": 0.05, "relax_steps": 50, "temperatures_K": [300.0], "frames": 5, "seeds": [0],
    "trajectories": None,
}  # fmt: skip


def sampling(**values: object) -> Sampling:
    return Sampling.model_validate({**SETTINGS, **values})


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = Environment("ase", Path(sys.executable), (), "x", True)
    monkeypatch.setattr(running, "resolve", lambda backend: environment)


def test_trajectories_at_their_temperature_and_reproducible(tmp_path: Path, here: None) -> None:
    start = bulk("Cu", cubic=True) * (2, 2, 2)
    settings = sampling(temperatures_K=[300, 900], frames=150)
    paths, failed = draw(start, settings, EMT, ASE, tmp_path / "a", jobs=2)
    assert failed == {}
    assert [path.name for path in paths] == ["300K.xyz", "900K.xyz"]
    for path, expected in zip(paths, (300, 900), strict=True):
        frames = read(path, index=":")
        assert len(frames) == 150
        measured = np.mean([atoms.info["kinetic_temperature_K"] for atoms in frames])
        # 96 degrees of freedom, memory of 1/friction = 20 fs over 1200 fs: 0.14 (sqrt 2/96) / sqrt(30) = 3 %
        assert measured == pytest.approx(expected, rel=0.1)
        assert {atoms.info["temperature_K"] for atoms in frames} == {expected}
        assert frames[0].info["sampler"].startswith("EMT() (ASE ")
        assert frames[0].info["sampler"].endswith("then a frame every 8 fs; seed 0")
        assert frames[0].pbc.all()
        assert frames[0].calc is None  # the sampler's energy is no label
    again, _ = draw(start, sampling(temperatures_K=[300], frames=3), EMT, ASE, tmp_path / "b")
    np.testing.assert_array_equal(read(again[0], index=0).positions, read(paths[0], index=0).positions)
    other, _ = draw(start, sampling(seeds=[1], frames=3), EMT, ASE, tmp_path / "c")
    assert np.abs(read(other[0], index=0).positions - read(paths[0], index=0).positions).max() > 0.01


def test_what_is_there_is_not_drawn_again(tmp_path: Path, here: None) -> None:
    start = bulk("Cu", cubic=True)
    paths, _ = draw(start, sampling(), EMT, ASE, tmp_path)
    stamp = paths[0].stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    paths, _ = draw(start, sampling(temperatures_K=[300, 400]), EMT, ASE, tmp_path, on_step=lambda *n: seen.append(n))
    assert [path.name for path in paths] == ["300K.xyz", "400K.xyz"]
    assert paths[0].stat().st_mtime_ns == stamp
    assert seen[-1] == (110, 110)  # 100 steps of equilibration and 5 frames of 2 steps


def test_molecules_are_centred(tmp_path: Path, here: None) -> None:
    paths, _ = draw(Atoms("Cu2", positions=[[50, 0, 0], [52.2, 0, 0]]), sampling(), EMT, ASE, tmp_path)
    for atoms in read(paths[0], index=":"):
        np.testing.assert_allclose(atoms.get_center_of_mass(), 0, atol=1e-7)


def test_any_code_can_drive_the_dynamics(tmp_path: Path, computed) -> None:
    """A code that is no ASE calculator: with a constant force along x the centre would run away; it is taken out."""
    method = complete_method({"code": "pyscf", "xc": "pbe", "basis": "x"})
    start = Atoms("OHH", positions=np.eye(3))
    paths, failed = draw(start, sampling(relax_fmax=None, equilibration_ps=0, frames=2), method, BACKEND, tmp_path)
    assert failed == {}
    assert len(read(paths[0], index=":")) == 2
    assert computed() >= 5


def test_a_trajectory_that_breaks_costs_no_other(tmp_path: Path, here: None) -> None:
    named = {"cold": {"temperature_K": 300, "frames": 2, "seed": 0}}
    start = Atoms("CuSi", positions=[[0, 0, 0], [2.2, 0, 0]])  # EMT knows no silicon
    paths, failed = draw(start, sampling(trajectories=named), EMT, ASE, tmp_path)
    assert paths == []
    assert failed.keys() == {"cold"}
    assert "Si" in failed["cold"]
    start = Atoms("Cu2", positions=[[0, 0, 0], [1.5, 0, 0]])
    _, failed = draw(start, sampling(relax_fmax=1e-9, relax_steps=1), EMT, ASE, tmp_path)
    assert failed == {"300K": "RuntimeError: the start does not relax below 1e-09 eV/Å"}


def test_names_of_trajectories() -> None:
    assert list(sampling(temperatures_K=[300, 500.5], seeds=[1]).planned()) == ["300K", "500.5K"]
    assert list(sampling(seeds=[1, 2]).planned()) == ["300K_seed1", "300K_seed2"]
    with pytest.raises(ValidationError, match="becomes a file"):
        sampling(trajectories={"../x": {"temperature_K": 1, "frames": 1, "seed": 0}})
    with pytest.raises(ValidationError, match="shorter than time_step_fs"):
        sampling(spacing_fs=1.0)


def test_start(tmp_path: Path) -> None:
    assert start_structure("CH3CH2OH").get_chemical_formula() == "C2H6O"
    with pytest.raises(UserError, match="no structure to start from"):
        start_structure(None)
    with pytest.raises(UserError, match="neither a file nor a molecule"):
        start_structure("nothing.xyz")
    (tmp_path / "bad.xyz").write_text("no")
    with pytest.raises(UserError, match="a number of atoms was expected"):
        start_structure(str(tmp_path / "bad.xyz"))


def test_trajectories_may_begin_from_molecules_of_their_own() -> None:
    named = {
        "a": {"temperature_K": 300, "frames": 2, "seed": 0, "start": "CH4"},
        "b": {"temperature_K": 300, "frames": 2, "seed": 0},
        "c": {"temperature_K": 500, "frames": 3, "seed": 1, "start": "CH4"},
    }
    groups = sampling(trajectories=named, start="H2O").by_start()
    assert {start: list(group.planned()) for start, group in groups.items()} == {"CH4": ["a", "c"], "H2O": ["b"]}
    assert groups["CH4"].start == "CH4"
    assert groups["CH4"].steps(groups["CH4"].planned()["c"]) == sampling().steps(groups["CH4"].planned()["c"])


def test_strained_frames_and_vacancies(tmp_path: Path, here: None) -> None:
    """Each frame has a cell of its own, within the strain asked for, and one atom fewer; the recipe repeats itself."""
    start = start_structure("bulk:Cu:3.61")
    assert len(start) == 4
    assert start.cell[0, 0] == pytest.approx(3.61)
    named = {"hole": {"temperature_K": 300.0, "frames": 4, "seed": 1, "strain": 0.02, "remove": [0]}}
    settings = sampling(trajectories=named, relax_fmax=None)
    (path,), failed = draw(start, settings, EMT, ASE, tmp_path / "a")
    assert failed == {}
    frames = read(path, index=":")
    assert {len(atoms) for atoms in frames} == {3}
    strains = np.array([np.linalg.solve(start.cell.array, atoms.cell.array) - np.eye(3) for atoms in frames])
    assert np.abs(strains).max() <= 0.02
    assert len({round(float(s[0, 0]), 6) for s in strains}) == 4
    np.testing.assert_allclose(strains, strains.transpose(0, 2, 1), atol=1e-6)
    (again,), _ = draw(start, settings, EMT, ASE, tmp_path / "b")
    assert read(again, index=3).cell.array == pytest.approx(frames[3].cell.array)
    with pytest.raises(UserError, match="no atom 9"):
        draw(start, sampling(trajectories={"x": {**named["hole"], "remove": [9]}}), EMT, ASE, tmp_path / "c")
    with pytest.raises(UserError, match="no crystal"):
        start_structure("bulk:Cu")
