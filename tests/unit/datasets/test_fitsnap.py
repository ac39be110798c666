"""FitSNAP's JSON: units as stated, the sign of the stress, groups, order, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpbench.datasets import load
from mlpbench.datasets.readers import read
from mlpbench.datasets.readers.base import Labels, Notes
from mlpbench.datasets.validation import validate
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.units import BOHR, GPA, HARTREE, KBAR
from tests.unit.datasets.support import file_config, frames_of, strained_copper

STYLES = {
    "EnergyStyle": "electronvolt", "PositionsStyle": "angstrom", "LatticeStyle": "angstrom",
    "ForcesStyle": "electronvoltperangstrom", "StressStyle": "kB", "AtomTypeStyle": "chemicalsymbol",
}  # fmt: skip


def configuration(frames: Frames, i: int, stress_unit: float = KBAR) -> dict[str, Any]:
    """One entry of ``Data``: the stress with the sign of a pressure, as a matrix."""
    atoms = frames.to_atoms()[i]
    xx, yy, zz, yz, xz, xy = (-frames.stress[i] / stress_unit).tolist()
    return {
        "AtomTypes": atoms.get_chemical_symbols(), "NumAtoms": len(atoms), "Positions": atoms.positions.tolist(),
        "Lattice": atoms.cell.tolist(), "Energy": float(frames.energy[i]), "Forces": atoms.get_forces().tolist(),
        "Stress": [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]],
    }  # fmt: skip


def put(path: Path, *data: dict[str, Any], comment: str = "# Header\n", **styles: str) -> Path:
    """A file of the layout; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(comment + json.dumps({"Dataset": {**STYLES, **styles, "Data": list(data)}}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def copper() -> Frames:
    return strained_copper(30)


def test_a_file_gives_what_went_in(tmp_path, copper):
    frames = frames_of(put(tmp_path / "a.json", configuration(copper, 0), configuration(copper, 1)))
    assert frames.energy == pytest.approx(copper.energy[:2])
    assert frames.forces == pytest.approx(copper.forces[:8])
    assert frames.stress == pytest.approx(copper.stress[:2])
    assert np.abs(copper.stress[:2, 3:]).min() > 1e-5  # so that the shear components are told from each other
    assert frames.cell == pytest.approx(copper.cell[:2])
    assert frames.pbc.all()


@pytest.mark.parametrize(("style", "unit"), [("kB", KBAR), ("bar", KBAR / 1000), ("kbar", KBAR), ("Pa", GPA * 1e-9)])
def test_a_stress_in_the_unit_that_the_file_states(tmp_path, copper, style, unit):
    path = put(tmp_path / "a.json", configuration(copper, 3, unit), StressStyle=style)
    assert frames_of(path).stress == pytest.approx(copper.stress[3:4])


def test_atomic_units_as_fitsnap_spells_them(tmp_path, copper):
    entry = configuration(copper, 0)
    entry["Energy"] /= HARTREE
    entry["Forces"] = (np.array(entry["Forces"]) * BOHR / HARTREE).tolist()
    for name in ("Positions", "Lattice"):
        entry[name] = (np.array(entry[name]) / BOHR).tolist()
    units = {"EnergyStyle": "Hartree", "PositionsStyle": "bohr", "LatticeStyle": "bohr"}
    frames = frames_of(put(tmp_path / "a.json", entry, comment="", ForcesStyle="hartree_per_bohr", **units))
    assert frames.energy == pytest.approx(copper.energy[:1])
    assert frames.positions == pytest.approx(copper.positions[:4])
    assert frames.forces == pytest.approx(copper.forces[:4])
    assert frames.stress == pytest.approx(copper.stress[:1])


def test_without_units_they_are_those_of_fitsnaps_metal(tmp_path, copper):
    (tmp_path / "a.json").write_text(json.dumps({"Dataset": {"Data": [configuration(copper, 0, KBAR / 1000)]}}))
    notes = Notes()
    (chunk,) = read(tmp_path / "a.json", "auto", Labels(), notes)
    assert chunk.frames.stress == pytest.approx(copper.stress[:1])
    assert "no units stated; eV, Å and bar taken" in notes.listed()


def test_folders_are_groups_and_numbers_are_counted(tmp_path, copper):
    for i, name in enumerate(["a/x_10", "a/x_2", "b/deep/y", "a/.hidden", "z"]):
        put(tmp_path / "set" / f"{name}.json", configuration(copper, i))
    (tmp_path / "set" / "a" / "notes.txt").write_text("not a frame")
    (chunk,) = read(tmp_path / "set", "auto", Labels(), Notes())
    assert [(h["group"], h["file"]) for h in chunk.headers] == [
        ("a", "x_2"), ("a", "x_10"), ("b/deep", "y"), ("set", "z"),
    ]  # fmt: skip
    assert chunk.frames.energy == pytest.approx(copper.energy[[1, 0, 2, 4]])


def test_a_group_becomes_a_test_split(tmp_path, copper):
    for i in range(30):
        put(tmp_path / ("strain" if i < 24 else "EOS") / f"{i}.json", configuration(copper, i))
    split = {"strategy": "key", "key": "group", "test_values": ["EOS"]}
    dataset = load(file_config(tmp_path, labels=["energy", "forces", "stress"], split=split, name="set"))
    assert len(dataset.pool) == 24
    assert dataset.tests["test_EOS"].energy == pytest.approx(copper.energy[24:])


@pytest.mark.parametrize(("sign", "outcome"), [(None, "passed"), ("tension", "found")])
def test_the_sign_of_the_stress_agrees_with_strained_cells(tmp_path, copper, sign, outcome):
    for i in range(30):
        put(tmp_path / "strain" / f"{i}.json", configuration(copper, i))
    report = validate(file_config(tmp_path, labels=["energy", "forces", "stress"], stress_sign=sign, name="set"))[0]
    assert report.outcomes["stress against strain (sign, unit, order)"] == outcome


def test_labels_that_are_not_there_are_missing_not_zero(tmp_path, copper):
    entry = configuration(copper, 0)
    del entry["Forces"], entry["Stress"]
    frames = frames_of(put(tmp_path / "a.json", entry))
    assert np.isnan(frames.forces).all()
    assert np.isnan(frames.stress).all()


def test_a_stress_of_nothing_but_zeros_is_warned_of(tmp_path, copper):
    entry = configuration(copper, 0) | {"Stress": np.zeros((3, 3)).tolist(), "Spins": [0] * 4}
    notes = Notes()
    list(read(put(tmp_path / "a.json", entry, configuration(copper, 1)), "auto", Labels(), notes))
    assert any(note.startswith("warning: a.json: 1 frames have a stress of exactly zero") for note in notes.listed())
    assert "not used: Spins" in notes.listed()


def test_a_named_energy(tmp_path, copper):
    path = put(tmp_path / "a.json", configuration(copper, 0) | {"FreeEnergy": -1.5})
    assert frames_of(path, energy_key="FreeEnergy").energy == pytest.approx([-1.5])
    with pytest.raises(UserError, match=r"has no 'Enery'[\s\S]*Did you mean 'Energy'"):
        frames_of(path, energy_key="Enery")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AtomTypes": ["Cu", "Cu"]}, "2 AtomTypes, 4 Positions"),
        ({"NumAtoms": 5}, "NumAtoms 5"),
        ({"AtomTypes": [1, 1, 1, 1]}, "configuration 0 cannot be read"),
        ({"Forces": [[0, 0, 0]]}, "cannot reshape"),
        ({"Stress": [0, 0, 0, 0, 0, 0]}, r"shape \(6,\)"),
        ({"Stress": [[0, 1, 0], [2, 0, 0], [0, 0, 0]]}, "not symmetric"),
        ({"Energy": None}, "there is no Energy"),
        ({"Positions": "none"}, "configuration 0 cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_name_of_the_file(tmp_path, copper, change, message):
    put(tmp_path / "set" / "g" / "good.json", configuration(copper, 1))
    put(tmp_path / "set" / "g" / "wrong.json", configuration(copper, 0) | change)
    with pytest.raises(UserError, match=rf"wrong\.json[\s\S]*{message}"):
        frames_of(tmp_path / "set")


def test_another_layout_and_other_units_are_refused(tmp_path, copper):
    path = put(tmp_path / "a.json", configuration(copper, 0), LatticeStyle="bohr")
    with pytest.raises(UserError, match="other units for the lattice"):
        frames_of(path)
    with pytest.raises(UserError, match="states the stress unit 'torr'"):
        frames_of(put(tmp_path / "a.json", configuration(copper, 0), StressStyle="torr"))
    path.write_text('# Header\n{"Dataset": {"Data": {}}}')
    with pytest.raises(UserError, match="Data is not a list of configurations"):
        frames_of(path, format="fitsnap")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.json files"):
        frames_of(tmp_path / "empty", format="fitsnap")
