"""Studies on public sets and on one's own file, from the command line to the tables, with the toy backend."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from ase.io import write

from mlpbench.datasets import registry
from tests.integration.conftest import Run
from tests.support import ethanol_frames
from tests.unit.datasets.support import REPOSITORY, shared

TOY = ["architecture=toy", "size=tiny", "dataset.n_train=20", "dataset.n_valid=10", "budget.steps=2"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A download cache that is filled by hand, and no network."""
    monkeypatch.setenv("MLPBENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("MLPBENCH_OFFLINE", "1")
    return tmp_path / "cache"


def metrics(root: Path) -> pd.DataFrame:
    return pd.read_parquet(root / "results" / "s" / "metrics.parquet")


def test_acetylacetone_with_splits_that_have_only_energies(tmp_path: Path, mlpbench: Run, cache: Path) -> None:
    (cache / "acac").mkdir(parents=True)
    for item in registry.find("acac", [REPOSITORY / "conf"]).downloads:
        (cache / "acac" / item.filename).symlink_to(shared(f"acac/{item.filename}"))
    done = mlpbench("run", "study=s", "dataset=acac", *TOY)
    assert done.returncode == 0, done.stderr
    table = metrics(tmp_path)
    for split in ("test_300K", "test_600K", "test_H_transfer", "test_dihedral"):
        assert "energy_mae" in set(table[table["split"] == split]["metric"])
    assert "force_mae" in set(table.query("split == 'test_600K'")["metric"])
    assert "force_mae" not in set(table.query("split == 'test_dihedral'")["metric"])


def test_a_leaking_official_split_is_refused_or_cleaned(tmp_path: Path, mlpbench: Run, cache: Path) -> None:
    (cache / "mlearn").mkdir(parents=True)
    for part in ("training", "test"):
        (cache / "mlearn" / f"Si_{part}.json").symlink_to(shared(f"mlearn/Si/{part}.json"))
    study = ["run", "study=s", "dataset=mlearn", "dataset.variant=Si", "dataset.labels=[energy,forces]", *TOY]
    refused = mlpbench(*study, "dataset.on_leak=refuse")
    assert refused.returncode == 2
    assert "3 frames of the pool repeat test frames" in refused.stderr
    assert "dataset.on_leak=drop" in refused.stderr
    assert "Traceback" not in refused.stderr
    cleaned = mlpbench(*study)  # mlearn.yaml drops them
    assert cleaned.returncode == 0, cleaned.stderr
    (record,) = (json.loads(path.read_text()) for path in (tmp_path / "results" / "s").glob("*/record.json"))
    assert record["split"]["leak"]["dropped"] == 3
    assert "energy_mae" in set(metrics(tmp_path).query("split == 'test'")["metric"])


def test_ones_own_file_in_kcal_per_mol(tmp_path: Path, mlpbench: Run) -> None:
    path = shared("md17_ethanol/ethanol.npz")
    done = mlpbench("run", "study=s", "dataset=file", f"dataset.path={path}", "dataset.index=:400", *TOY)
    assert done.returncode == 0, done.stderr
    assert set(metrics(tmp_path)["dataset"]) == {"ethanol"}
    assert "test" in set(metrics(tmp_path)["split"])


def test_a_file_without_forces_is_skipped_with_the_reason_or_trained_on_energies(tmp_path: Path, mlpbench: Run) -> None:
    structures = ethanol_frames("pool_500K", 60).to_atoms()
    for atoms in structures:
        atoms.calc.results.pop("forces")
    write(tmp_path / "e.xyz", structures, format="extxyz")
    study = ["run", "study=s", "dataset=file", "dataset.path=e.xyz", *TOY]
    skipped = mlpbench(*study)
    assert skipped.returncode == 1, skipped.stderr  # nothing was done
    assert "skipped: e: no frame of the pool has forces" in skipped.stdout
    assert "dataset.labels=[energy]" in skipped.stdout
    trained = mlpbench(*study, "dataset.labels=[energy]")
    assert trained.returncode == 0, trained.stderr
    found = set(metrics(tmp_path).query("split == 'test'")["metric"])
    assert "energy_mae" in found
    assert "force_mae" not in found
