"""Splits that are made here: random, blocked, by key; nested training sets; baselines."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from ase.io import write
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpbench.datasets import load, prepare_split
from mlpbench.datasets.baseline import fit_baseline
from mlpbench.datasets.dataset import why_not
from mlpbench.datasets.readers.base import Notes
from mlpbench.datasets.schema import SplitConfig
from mlpbench.datasets.splits import hold_out
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from tests.unit.datasets.support import file_config, rattled_molecules


@pytest.fixture
def file(tmp_path):
    atoms = rattled_molecules(60).to_atoms()
    for i, a in enumerate(atoms):
        a.info["temperature"] = 300 if i < 40 else 600
    write(tmp_path / "my.extxyz", atoms)
    return tmp_path / "my.extxyz"


def test_a_users_file_is_named_after_its_stem_and_gets_a_test_split(file, tmp_path):
    config = file_config(file)
    dataset = load(config)
    assert (dataset.name, list(dataset.tests)) == ("my", ["test"])
    assert len(dataset.pool) == 48
    assert config.in_distribution == "test"
    assert dataset.info["strategy"] == "random"
    split = prepare_split(dataset, config, 0, tmp_path)
    assert set(split.files) == {"train", "valid", "test"}


def test_held_out_frames_do_not_move_with_the_repetition(file):
    first, second = load(file_config(file)), load(file_config(file))
    assert np.array_equal(first.tests["test"].energy, second.tests["test"].energy)


def test_blocks_are_whole_stretches_with_a_gap():
    pool = rattled_molecules(100)
    split = SplitConfig(strategy="blocked", blocks=10, test_fraction=0.2, gap=3)
    held = hold_out(pool, [], split, Notes())
    place = {energy: i for i, energy in enumerate(pool.energy)}
    test = {place[e] for e in held.tests["test"].energy}
    rest = {place[e] for e in held.pool.energy}
    assert len(test) == 20
    assert all({10 * (t // 10) + k for k in range(10)} <= test for t in test)
    assert min(abs(t - r) for t in test for r in rest) == 4  # three frames between


def test_by_key_each_value_is_a_test_split(file, tmp_path):
    config = file_config(file, split={"strategy": "key", "key": "temperature", "test_values": ["600"]})
    dataset = load(config)
    assert {name: len(frames) for name, frames in dataset.tests.items()} == {"test_600": 20}
    assert len(dataset.pool) == 40
    with pytest.raises(UserError, match=r"temperature' has 300 \(40\), 600 \(20\)"):
        load(file_config(file, split={"strategy": "key", "key": "temperature"}))
    with pytest.raises(UserError, match="Did you mean 'temperature'"):
        load(file_config(file, split={"strategy": "key", "key": "temprature", "test_values": ["600"]}))


def test_by_composition_and_size():
    pool = Frames.concatenate([rattled_molecules(20), Frames.from_atoms([_dimer()] * 3, [-1.0] * 3)])
    split = SplitConfig(strategy="key", key="composition", test_values=["H2"])
    assert len(hold_out(pool, [], split, Notes()).tests["test_H2"]) == 3
    split = SplitConfig(strategy="key", key="n_atoms", test_values=["2"])
    assert len(hold_out(pool, [], split, Notes()).tests["test_2"]) == 3


def _dimer() -> Any:
    from ase import Atoms

    return Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])


def test_group_key_keeps_trajectories_apart(file):
    dataset = load(file_config(file, group_key="temperature"))
    assert set(dataset.pool.group) == {0, 1}
    with pytest.raises(UserError, match="Did you mean 'temperature'"):
        load(file_config(file, group_key="temperatur"))


def test_a_missing_label_names_the_frames(tmp_path):
    frames = rattled_molecules(20)
    frames.forces[7] = np.nan  # atom 1 of frame 2
    np.savez(tmp_path / "m.npz", z=frames.numbers[:3], R=frames.positions.reshape(20, 3, 3), E=frames.energy,
             F=frames.forces.reshape(20, 3, 3))  # fmt: skip
    with pytest.raises(UserError, match="forces missing or not finite in 1 of 20 frames: 2"):
        load(file_config(tmp_path / "m.npz"))
    assert len(load(file_config(tmp_path / "m.npz", labels=["energy"])).pool) == 16


def test_energies_alone_need_labels_energy(tmp_path):
    atoms = rattled_molecules(20).to_atoms()
    for a in atoms:
        a.calc.results.pop("forces")
    write(tmp_path / "e.xyz", atoms, format="extxyz")
    found = load(file_config(tmp_path / "e.xyz", labels=["energy", "forces", "stress"]))
    assert found.info["missing_labels"] == ["forces", "stress"]
    assert why_not(["forces", "stress"], ["energy", "forces", "stress"]) == (
        "no frame of the pool has forces or stress; name the key (dataset.forces_key=... and dataset.stress_key=...), "
        "or train without: dataset.labels=[energy]"
    )
    only = load(file_config(tmp_path / "e.xyz", labels=["energy"]))
    assert not only.pool.has_forces
    assert only.info["missing_labels"] == []
    assert why_not([], ["energy"]) is None


def test_an_energies_only_test_split_works(file, tmp_path):
    atoms = rattled_molecules(5, seed=1).to_atoms()
    for a in atoms:
        a.calc.results.pop("forces")
    write(tmp_path / "scan.xyz", atoms, format="extxyz")
    config = file_config(file, test_paths={"scan": str(tmp_path / "scan.xyz")}, in_distribution="scan")
    split = prepare_split(load(config), config, 0, tmp_path)
    scan = Frames.load(split.files["scan"])
    assert np.isfinite(scan.target_energy).all()
    assert not scan.has_forces


def test_official_splits_by_number(file, tmp_path):
    (tmp_path / "train.csv").write_text("5\n3\n" + "\n".join(map(str, range(10, 40))))
    (tmp_path / "test.csv").write_text("0\n1\n")
    config = file_config(
        file, pool_indices=str(tmp_path / "train.csv"), test_indices={"test": str(tmp_path / "test.csv")}
    )
    everything = rattled_molecules(60)
    dataset = load(config)
    assert dataset.pool.energy[:2] == pytest.approx(everything.energy[[5, 3]], rel=1e-9)
    assert len(dataset.tests["test"]) == 2
    (tmp_path / "test.csv").write_text("60\n")
    with pytest.raises(UserError, match="must lie in 0 to 59"):
        load(config)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4, unique=True))
def test_nested_for_every_seed(seed, sizes, tmp_path_factory):
    from mlpbench.datasets.dataset import Dataset

    dataset = Dataset("x", rattled_molecules(50), {"test": rattled_molecules(3, seed=9)})
    root = tmp_path_factory.mktemp("splits")
    splits = [prepare_split(dataset, file_config(n_train=n), seed, root).manifest["splits"] for n in sorted(sizes)]
    for small, large in pairwise(splits):
        assert set(small["train"]["indices"]) < set(large["train"]["indices"])
        assert small["valid"]["indices"] == large["valid"]["indices"]


def test_test_frames_do_not_touch_the_training_digest(tmp_path):
    from mlpbench.datasets.dataset import Dataset

    pool = rattled_molecules(50)
    manifests = [
        prepare_split(Dataset("x", pool, {"test": rattled_molecules(n, seed=9)}), file_config(), 0, tmp_path).manifest
        for n in (3, 4)
    ]
    assert manifests[0]["train_digest"] == manifests[1]["train_digest"]
    assert manifests[0]["digest"] != manifests[1]["digest"]


# ---------------------------------------------------------------- baselines


def test_one_composition_has_one_mean():
    baseline = fit_baseline(rattled_molecules(10), None)
    assert baseline.source == "mean"
    assert baseline.mean_per_atom == pytest.approx(rattled_molecules(10).energy.mean() / 3)


def test_isolated_atoms_and_the_mean_of_the_rest():
    frames = rattled_molecules(10)
    baseline = fit_baseline(frames, {"C": -1000.0, "O": -2000.0, "H": -13.0})
    assert np.abs((frames.energy - baseline.evaluate(frames)).mean()) < 1e-9
    with pytest.raises(UserError, match="no energy for O"):
        fit_baseline(frames, {"C": -1000.0, "H": -13.0})


def test_least_squares_where_compositions_tell_elements_apart():
    from ase import Atoms

    formulas = ["CO", "CO2", "CH4", "C2H6", "OH"]
    structures = [Atoms(f, positions=np.random.default_rng(0).normal(size=(len(Atoms(f)), 3))) for f in formulas]
    energy = [sum({"C": -10.0, "O": -20.0, "H": -1.0}[s] for s in a.get_chemical_symbols()) for a in structures]
    baseline = fit_baseline(Frames.from_atoms(structures, energy), None)
    assert baseline.source == "least_squares"
    assert baseline.elements == pytest.approx({"C": -10.0, "O": -20.0, "H": -1.0})


def test_an_element_that_training_never_saw():
    baseline = fit_baseline(rattled_molecules(5), None)
    from ase import Atoms

    with pytest.raises(UserError, match="S is in the frames but neither"):
        baseline.evaluate(Frames.from_atoms([Atoms("S")], [0.0]))
