"""Fingerprints and the leak check: planted copies are found, in whatever disguise; other frames are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from scipy.spatial.transform import Rotation

from mlpbench.datasets import load, prepare_split
from mlpbench.datasets.leaks import Fingerprinted, check_leaks, compare, duplicates, lag_ratio
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


@pytest.mark.parametrize(("noise", "same"), [(4e-4, True), (1.5e-3, False)])
def test_tolerance_is_where_it_says(noise, same):
    """Noise of σ along each axis displaces atoms by σ√3 (rms); the tolerance is 1e-3 Å."""
    pool = ethanol_frames("pool_500K", 20)
    for i in range(20):
        moved = pool.select([i]).to_atoms()[0]
        moved.positions += np.random.default_rng(i).normal(0, noise, moved.positions.shape)
        test = Fingerprinted.of(Frames.from_atoms([moved], [pool.energy[i]]))
        copies = compare(Fingerprinted.of(pool), test, TOLERANCE).copies
        assert [copy.first for copy in copies] == ([i] if same else [])


def test_one_atom_displaced_on_purpose_is_another_configuration():
    """Finite differences of 1e-3 Å: told by the atoms that stay, and by the energy, which differs."""
    pool = ethanol_frames("pool_500K", 5)
    moved = pool.select([3]).to_atoms()[0]
    moved.positions[2, 0] += 1e-3
    for energy in (pool.energy[3], pool.energy[3] + 2e-3, np.nan):
        test = Fingerprinted.of(Frames.from_atoms([moved], [energy]))
        assert compare(Fingerprinted.of(pool), test, TOLERANCE).copies == []
    crystal = bulk("Cu", cubic=True) * (3, 3, 3)
    other = crystal.copy()
    other.positions[17, 1] += 1e-3
    assert not _same(crystal, other)


def _same(first: Any, second: Any, energies: tuple[float, float] = (0.0, 0.0)) -> bool:
    one, two = (Fingerprinted.of(Frames.from_atoms([a], [e])) for a, e in zip((first, second), energies, strict=True))
    return len(compare(one, two, TOLERANCE).copies) == 1


def _stacked(symbol: str, a: float, hexagonal: bool) -> Any:
    """Close-packed layers (with ``diamond`` pairs for carbon) in cubic or hexagonal order, six layers, ideal."""
    from ase import Atoms

    places = [np.zeros(3), np.array([1 / 3, 1 / 3, 0]), np.array([2 / 3, 2 / 3, 0])]
    order = [0, 1, 0, 1, 0, 1] if hexagonal else [0, 1, 2, 0, 1, 2]
    height = a * np.sqrt(2 / 3)
    cell = np.array([[a, 0, 0], [a / 2, a * np.sqrt(3) / 2, 0], [0, 0, 6 * height]])
    points = [places[which] @ cell + [0, 0, i * height] for i, which in enumerate(order)]
    return Atoms(f"{symbol}6", positions=points, cell=cell, pbc=True)


def _tetrahedral(hexagonal: bool, bond: float = 1.54) -> Any:
    """Diamond, or ideal lonsdaleite: the same bonds and angles, other dihedrals."""
    from ase import Atoms

    a = bond * np.sqrt(8 / 3)
    layers = _stacked("C", a, hexagonal)
    height = a * np.sqrt(2 / 3)
    places = [np.zeros(3), np.array([1 / 3, 1 / 3, 0]), np.array([2 / 3, 2 / 3, 0])]
    points = []
    if hexagonal:  # A b' | B a' : the second of each pair lies over the next layer's place
        for i, (low, high) in enumerate([(0, 0), (1, 1), (0, 0), (1, 1), (0, 0), (1, 1)]):
            points += [places[low] @ layers.cell.array + [0, 0, i * height],
                       places[high] @ layers.cell.array + [0, 0, i * height + bond]]  # fmt: skip
    else:
        for i, low in enumerate([0, 1, 2, 0, 1, 2]):
            points += [places[low] @ layers.cell.array + [0, 0, i * height],
                       places[low] @ layers.cell.array + [0, 0, i * height + bond]]  # fmt: skip
    return Atoms("C12", positions=points, cell=layers.cell, pbc=True)


def test_stackings_that_share_their_nearest_neighbours_differ():
    fcc, hcp = _stacked("Cu", 2.55, False), _stacked("Cu", 2.55, True)
    assert not _same(fcc, hcp)
    assert _same(fcc, bulk("Cu", "fcc", a=2.55 * np.sqrt(2)))
    assert _same(hcp, bulk("Cu", "hcp", a=2.55, c=2.55 * np.sqrt(8 / 3)))
    diamond, lonsdaleite = _tetrahedral(False), _tetrahedral(True)
    assert _same(diamond, bulk("C", "diamond", a=1.54 * 4 / np.sqrt(3)))
    assert not _same(diamond, lonsdaleite)


def test_unrelaxed_divacancies_at_different_distances_differ():
    perfect = bulk("Cu", cubic=True) * (3, 3, 3)
    apart = perfect.get_distances(0, range(len(perfect)), mic=True)
    shells = sorted({round(float(d), 3) for d in apart})[1:7]
    cells = []
    for other in (int(np.argmin(np.abs(apart - distance))) for distance in shells):
        atoms = perfect.copy()
        del atoms[[0, other]]
        cells.append(atoms)
    frames = Fingerprinted.of(Frames.from_atoms(cells, np.zeros(len(cells))))
    assert duplicates(frames, TOLERANCE) == []
    for atoms in cells:  # and each is found again turned, shifted, in another order and with noise
        again = atoms.copy()
        again.rotate(37.0, [1, 2, 3], rotate_cell=True)
        again.translate([1.0, 2.0, 3.0])
        again.positions += np.random.default_rng(0).normal(0, 3e-4, (len(again), 3))
        again = again[np.random.default_rng(1).permutation(len(again))]
        assert _same(atoms, again)


def test_cells_of_one_crystal_are_the_same():
    primitive = bulk("NaCl", "rocksalt", a=5.64)
    conventional = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    assert _same(primitive, conventional)
    assert _same(primitive * (2, 2, 3), conventional)
    rattled = bulk("Cu", cubic=True)
    rattled.rattle(0.1, seed=1)
    assert _same(rattled, rattled * (2, 1, 2))
    skewed = rattled.copy()
    skewed.set_cell(rattled.cell.array + np.array([[0, 0, 0], [1, 0, 0], [0, -1, 0]]) @ rattled.cell.array)
    assert _same(rattled, skewed)  # other lattice vectors, the same lattice
    slab = rattled.copy()
    slab.pbc = [True, True, False]
    assert not _same(rattled, slab)
    assert _same(slab, slab * (2, 2, 1))


def test_noise_on_a_large_crystal_is_seen_through():
    found = 0
    for seed in range(20):
        atoms = bulk("Cu", cubic=True) * (3, 3, 3)
        atoms.rattle(0.1, seed=seed)
        noisy = atoms.copy()
        noisy.positions += np.random.default_rng(seed).normal(0, 3e-4, noisy.positions.shape)
        found += _same(atoms, noisy)
        assert not _same(atoms, noisy, (0.0, 0.1))  # 0.9 meV/atom: another calculation of another structure
    assert found == 20


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
