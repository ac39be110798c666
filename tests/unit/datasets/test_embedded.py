"""The data set that ships: what it holds, how it is split."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mlpbench.datasets import load, prepare_split
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.errors import UserError
from mlpbench.frames import Frames

CONF = Path(__file__).parents[3] / "conf" / "dataset"


def ethanol(**overrides: Any) -> DatasetConfig:
    values = yaml.safe_load((CONF / "ethanol.yaml").read_text(encoding="utf-8"))
    values.pop("defaults")
    return DatasetConfig.model_validate({**values, **overrides})


@pytest.fixture(scope="module")
def dataset():
    return load(ethanol())


def test_counts_units_and_references(dataset):
    assert len(dataset.pool) == 640
    assert {name: len(frames) for name, frames in dataset.tests.items()} == {
        "test_500K": 200, "test_300K": 100, "test_1000K": 100,
    }  # fmt: skip
    assert dataset.pool.energy.mean() == pytest.approx(-4209.5, abs=1)  # eV, a total energy
    assert np.sqrt((dataset.pool.forces**2).mean()) == pytest.approx(1.41, abs=0.02)  # from the set's README
    assert dataset.isolated_atoms is not None
    assert set(dataset.isolated_atoms) == {"C", "H", "O"}
    assert all(path.is_file() for path in dataset.references.values())
    assert ethanol().in_distribution in dataset.tests


def test_split_files_hold_total_energies_and_a_baseline(dataset, tmp_path):
    split = prepare_split(dataset, ethanol(n_train=50, n_valid=10), 3, tmp_path)
    train = Frames.load(split.files["train"])
    assert (len(train), len(Frames.load(split.files["valid"]))) == (50, 10)
    assert train.energy.max() < -4000
    assert abs(train.target_energy.mean()) < 1e-9
    hot = Frames.load(split.files["test_1000K"])
    assert 0.1 < hot.target_energy.mean() < 2  # hotter frames lie higher, on the training set's scale


def test_subsets_are_nested_and_validation_does_not_move(dataset, tmp_path):
    splits = [prepare_split(dataset, ethanol(n_train=n), 7, tmp_path).manifest["splits"] for n in (20, 50, 200)]
    for small, large in pairwise(splits):
        assert set(small["train"]["sha256"]) < set(large["train"]["sha256"])
        assert small["valid"]["sha256"] == large["valid"]["sha256"]
    assert not set(splits[-1]["train"]["indices"]) & set(splits[-1]["valid"]["indices"])


def test_digest_follows_content_not_place(dataset, tmp_path):
    first = prepare_split(dataset, ethanol(), 1, tmp_path / "a")
    assert prepare_split(dataset, ethanol(), 1, tmp_path / "b").digest == first.digest
    assert prepare_split(dataset, ethanol(), 2, tmp_path / "a").digest != first.digest


def test_written_once(dataset, tmp_path):
    first = prepare_split(dataset, ethanol(), 1, tmp_path)
    stamp = first.files["train"].stat().st_mtime_ns
    assert prepare_split(dataset, ethanol(), 1, tmp_path).files["train"].stat().st_mtime_ns == stamp


def test_too_few_frames_says_how_many_there_are(dataset, tmp_path):
    with pytest.raises(UserError, match="the pool has 640") as caught:
        prepare_split(dataset, ethanol(n_train=600), 1, tmp_path)
    assert "dataset.n_train=590" in str(caught.value)
