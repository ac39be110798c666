"""FitSNAP's JSON, and folders of a git repository that are verified by git's id of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ase.units import GPa

from mlpbench.datasets import load
from mlpbench.datasets.git_folder import tree_id, verify_folder
from mlpbench.datasets.readers import detect
from mlpbench.datasets.schema import DatasetConfig, Download
from mlpbench.errors import UserError

STRESS = [[10.0, 1.0, 2.0], [1.0, 20.0, 3.0], [2.0, 3.0, 30.0]]  # kbar, positive under compression


def write(path: Path, energy: float = -8.0, **changes: Any) -> None:
    data = {
        "Positions": [[0.0, 0.0, 0.0], [1.5, 1.5, 1.5]], "Forces": [[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]],
        "Stress": STRESS, "Lattice": [[6.0, 0.0, 0.0], [0.0, 6.0, 0.0], [0.0, 0.0, 6.0]],
        "Energy": energy, "AtomTypes": ["In", "P"], "NumAtoms": 2, **changes,
    }  # fmt: skip
    styles = {"EnergyStyle": "electronvolt", "PositionsStyle": "angstrom", "StressStyle": "kB"}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# a comment\n" + json.dumps({"Dataset": {**styles, "Data": [data]}}))


def config(path: Path, **changes: Any) -> DatasetConfig:
    return DatasetConfig(
        name="x", kind="file", path=str(path), labels=["energy", "forces", "stress"], n_train=2, n_valid=1, **changes
    )


def test_units_sign_order_and_groups(tmp_path: Path) -> None:
    folder = tmp_path / "JSON"
    for number in (1, 2, 10):
        write(folder / "bulk" / f"run{number}.json", energy=-8.0 - number)
    for number in (1, 2):
        write(folder / "vacancy" / f"run{number}.json", energy=-7.0 - number)
    assert detect(folder) == "fitsnap"
    assert detect(folder / "bulk" / "run1.json") == "fitsnap"
    pool = load(
        config(folder, group_key="group", split={"strategy": "key", "key": "group", "test_values": ["vacancy"]})
    ).pool
    assert pool.energy == pytest.approx([-9.0, -10.0, -18.0])  # run10 behind run2
    first = pool.to_atoms()[0]
    assert first.pbc.all()
    assert first.get_chemical_symbols() == ["In", "P"]
    assert pool.stress[0] / GPa == pytest.approx([-1.0, -2.0, -3.0, -0.3, -0.2, -0.1])
    assert pool.forces[0] == pytest.approx([0.1, 0.0, 0.0])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"AtomTypes": ["In"]}, "1 AtomTypes, 2 Positions"),
        ({"Stress": [[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]}, "not symmetric"),
        ({"Energy": None}, "no Energy"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_file(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    write(tmp_path / "JSON" / "bulk" / "run1.json", **changes)
    with pytest.raises(UserError, match=told) as caught:
        load(config(tmp_path / "JSON", format="fitsnap"))
    assert "run1.json" in str(caught.value)


def test_an_empty_folder_and_other_json_are_refused(tmp_path: Path) -> None:
    (tmp_path / "JSON").mkdir()
    with pytest.raises(UserError, match=r"no \.json files"):
        load(config(tmp_path / "JSON", format="fitsnap"))
    (tmp_path / "JSON" / "a.json").write_text("[1, 2]")
    with pytest.raises(UserError, match="not FitSNAP's JSON"):
        load(config(tmp_path / "JSON", format="fitsnap"))


def test_the_id_of_a_folder_is_gits_and_an_altered_file_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for name in ("b/x.json", "b.json", "a.json", "b-c/y.json"):
        write(folder / name)
    environment = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "PATH": "/usr/bin:/bin"}
    for words in (["init", "-q"], ["add", "."], ["write-tree"]):
        done = subprocess.run(["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    tree = done.stdout.strip()
    assert tree_id(folder) == tree
    item = Download(
        url="https://example.org/x.git", filename="data", git_folder="data", git_commit="0" * 40, git_tree=tree
    )
    verify_folder(item, folder)
    (folder / "a.json").write_text("{}")
    with pytest.raises(UserError, match="missing, was added or altered"):
        verify_folder(item, folder)


def test_a_folder_of_a_repository_is_described_in_full() -> None:
    with pytest.raises(ValueError, match="all three"):
        Download(url="https://example.org/x.git", filename="data", git_folder="data")
