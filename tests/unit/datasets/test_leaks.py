"""Fingerprints and the leak check: planted copies are found, in whatever disguise; other frames are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from scipy.spatial.transform import Rotation

from mlpbench.datasets import load, prepare_split
from mlpbench.datasets.leak_check import check_leaks
from mlpbench.datasets.leaks import Fingerprinted, compare, duplicates, lag_ratio
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from tests.support import ethanol_frames
from tests.unit.datasets.support import file_config, frames_of, shared

TOLERANCE = 1e-3  # Å, the default of the configuration


def disguise(frames: Frames, i: int, how: str) -> Frames:
    """Frame ``i`` rotated, shifted, relabelled or mirrored."""
    atoms = frames.select([i]).to_atoms()[0]
    generator = np.random.default_rng(i)
    if how in ("rotated", "everything"):
        atoms.positions = atoms.positions @ Rotation.random(rng=generator).as_matrix()
    if how in ("shifted", "everything"):
        atoms.positions += [3.0, -1.0, 12.0]
    if how in ("permuted", "everything"):
        atoms = atoms[generator.permutation(len(atoms))]
    if how in ("mirrored", "everything"):
        atoms.positions[:, 0] *= -1
    return Frames.from_atoms([atoms], [frames.energy[i]])


@pytest.mark.parametrize("how", ["rotated", "shifted", "permuted", "mirrored", "everything"])
def test_disguised_copies_are_found(how):
    pool = ethanol_frames("pool_500K", 80)
    test = Frames.concatenate([ethanol_frames("test_500K", 20), disguise(pool, 13, how), disguise(pool, 55, how)])
    found = compare(Fingerprinted.of(pool), Fingerprinted.of(test), TOLERANCE)
    assert [(copy.first, copy.second) for copy in found.copies] == [(13, 20), (55, 21)]
    assert max(copy.distance for copy in found.copies) < 1e-9


def test_no_copies_among_independent_frames():
    pool, test = ethanol_frames("pool_500K"), ethanol_frames("test_1000K")
    assert compare(Fingerprinted.of(pool), Fingerprinted.of(test), TOLERANCE).copies == []
    assert duplicates(Fingerprinted.of(pool), TOLERANCE) == []


def test_tolerance_is_where_it_says():
    pool = ethanol_frames("pool_500K", 5)
    moved = pool.select([3]).to_atoms()[0]
    moved.positions[2, 0] += 0.02  # changes some distance by up to 0.02 Å, and none by more
    test = Fingerprinted.of(Frames.from_atoms([moved], [0.0]))
    assert compare(Fingerprinted.of(pool), test, 1e-3).copies == []
    assert [copy.first for copy in compare(Fingerprinted.of(pool), test, 0.0201).copies] == [3]


def _crystal(seed: int, count: int) -> list[Any]:
    generator = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        atoms = bulk("Si", cubic=True)
        atoms.positions += generator.normal(0, 0.05, atoms.positions.shape)
        result.append(atoms)
    return result


def test_symmetry_copies_of_crystals_are_found():
    """The same displacement applied through an operation of the cubic group, in another origin and order."""
    pool = _crystal(0, 12)
    copy = pool[4].copy()
    turn = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])  # a three-fold axis of the cubic cell
    copy.positions = copy.positions @ turn.T + [1.1, 2.2, -0.7]
    copy.wrap()
    copy = copy[np.random.default_rng(1).permutation(len(copy))]
    test = [*_crystal(1, 5), copy]
    found = compare(
        Fingerprinted.of(Frames.from_atoms(pool, np.zeros(12))),
        Fingerprinted.of(Frames.from_atoms(test, np.zeros(6))), TOLERANCE,
    )  # fmt: skip
    assert [(c.first, c.second) for c in found.copies] == [(4, 5)]


def test_other_volume_is_another_configuration():
    small, large = bulk("Cu", a=3.6, cubic=True), bulk("Cu", a=3.61, cubic=True)
    found = compare(*(Fingerprinted.of(Frames.from_atoms([a], [0.0])) for a in (small, large)), TOLERANCE)
    assert found.copies == []


@pytest.mark.parametrize(("element", "expected"), [("Si", {22, 23, 24}), ("Mo", set())])
def test_mlearn_official_split(element, expected):
    train = frames_of(shared(f"mlearn/{element}/training.json"))
    test = frames_of(shared(f"mlearn/{element}/test.json"))
    found = compare(Fingerprinted.of(train), Fingerprinted.of(test), TOLERANCE)
    assert {copy.second for copy in found.copies} == expected
    assert all(abs(copy.energy_difference) < 1e-5 for copy in found.copies)  # the labels agree that they are the same


def mlearn(element: str, **values: Any):
    path = shared(f"mlearn/{element}/training.json")
    values = {"name": element, "test_path": str(path.with_name("test.json")), "n_train": 150, "n_valid": 20, **values}
    return file_config(path, **values)


def test_refused_with_the_pairs_listed(tmp_path):
    config = mlearn("Si")
    with pytest.raises(UserError, match=r"3 frames of the pool repeat test frames.*pool 192 = test 22"):
        prepare_split(load(config), config, 0, tmp_path)


def test_dropped_from_the_pool_and_counted(tmp_path):
    config = mlearn("Si", on_leak="drop", n_train=191)
    dataset = load(config)
    manifest = prepare_split(dataset, config, 0, tmp_path).manifest
    assert manifest["leak_check"]["dropped"] == 3
    assert manifest["leak_check"]["splits"]["test"]["test_frames_repeated"] == 3
    used = manifest["splits"]["train"]["indices"] + manifest["splits"]["valid"]["indices"]
    assert not {192, 201, 210} & set(used)
    assert manifest["splits"]["test"]["frames"] == 25  # published test sets stay as they are
    with pytest.raises(UserError, match="the pool has 211"):
        prepare_split(dataset, mlearn("Si", on_leak="drop", n_train=192), 0, tmp_path)


def test_random_split_of_consecutive_md17_frames_warns(tmp_path):
    path = shared("md17_ethanol/ethanol.npz")
    config = file_config(path, split={"strategy": "random"})
    split = prepare_split(load(config), config, 0, tmp_path)
    assert any("random split of consecutive frames leaks" in warning for warning in split.warnings)
    assert any("times closer to a pool frame" in warning for warning in split.warnings)
    blocked = file_config(path)
    dataset = load(blocked)
    assert dataset.info["strategy"] == "blocked"  # chosen by itself
    assert prepare_split(dataset, blocked, 0, tmp_path).warnings == []


def test_order_in_time_is_recognised():
    assert lag_ratio(Fingerprinted.of(frames_of(shared("md17_ethanol/ethanol.npz")))) < 0.1
    assert lag_ratio(Fingerprinted.of(ethanol_frames("pool_500K"))) > 0.7  # 25 fs apart


def test_check_is_computed_once_and_ethanol_is_clean():
    from tests.unit.datasets.test_embedded import ethanol

    dataset = load(ethanol())
    check = check_leaks(dataset, TOLERANCE)
    assert check is check_leaks(dataset, TOLERANCE)
    assert len(check.pool_frames) == 0
    assert check.warnings == []
