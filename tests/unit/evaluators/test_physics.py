"""Frequencies, geometries and scans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from mlpbench.evaluators import Context
from mlpbench.evaluators.physics import frequencies, reference_frequencies, scan_rows, score, superposed_rmsd
from mlpbench.units import ASE_TIME_IN_FS
from tests.support import ETHANOL

HESSIAN = ETHANOL / "reference_hessian.json"
MASSES = np.array([12.011, 12.011, 15.999, *[1.008] * 6])


def rotation(seed: int) -> np.ndarray:
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))[0]
    return turn * np.sign(np.linalg.det(turn))


def test_reference_hessian_gives_its_own_frequencies() -> None:
    listed = json.loads(HESSIAN.read_text())["frequencies_cm1"]
    found = reference_frequencies(HESSIAN)
    assert found.shape == (21,)
    assert np.abs(found - listed).max() < 0.01  # an independent code, PySCF's analysis


def test_diatomic_against_the_formula() -> None:
    constant, mass = 100.0, 14.0
    block = np.zeros((6, 6))
    block[np.ix_([2, 5], [2, 5])] = constant * np.array([[1, -1], [-1, 1]])
    found = frequencies(block, np.array([[0.0, 0, 0], [0, 0, 1.1]]), np.array([mass, mass]))
    omega = np.sqrt(constant / (mass / 2)) / ASE_TIME_IN_FS * 1e15
    assert found == pytest.approx([omega / (2 * np.pi * 2.99792458e10)], rel=1e-9)


def test_residue_along_rotation_is_projected_out() -> None:
    data = json.loads(HESSIAN.read_text())
    clean, where = np.array(data["hessian_eV_per_A2"]), np.array(data["positions_A"])
    push = np.cross(np.array([0.0, 0.0, 1.0]), where).ravel()
    push = push - np.tile(np.average(push.reshape(9, 3), axis=0, weights=MASSES), 9)
    dirty = clean + 0.5 * np.outer(push * np.repeat(MASSES, 3), push * np.repeat(MASSES, 3))
    assert frequencies(dirty, where, MASSES) == pytest.approx(frequencies(clean, where, MASSES), abs=2.0)


def test_imaginary_modes_are_negative() -> None:
    data = json.loads(HESSIAN.read_text())
    found = frequencies(-np.array(data["hessian_eV_per_A2"]), np.array(data["positions_A"]), MASSES)
    assert (found < 0).all()


def test_frequencies_do_not_depend_on_orientation() -> None:
    data = json.loads(HESSIAN.read_text())
    turn = rotation(1)
    big = np.kron(np.eye(9), turn)
    turned = frequencies(
        big @ np.array(data["hessian_eV_per_A2"]) @ big.T, np.array(data["positions_A"]) @ turn.T, MASSES
    )
    assert turned == pytest.approx(reference_frequencies(HESSIAN), abs=0.05)


def test_rmsd_ignores_rotation_and_shift_but_not_reflection() -> None:
    where = read(ETHANOL / "test_500K.xyz", index=0).positions
    assert superposed_rmsd(where @ rotation(2).T + 3.0, where) < 1e-10
    assert superposed_rmsd(where * [1, 1, -1], where) > 0.1


def scan(energies, **info) -> list[Atoms]:
    frames = []
    for energy in energies:
        atoms = Atoms("H", info=dict(info))
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        frames.append(atoms)
    return frames


def test_scan_is_relative_to_where_the_reference_is_lowest() -> None:
    reference = np.array([0.1, 0.0, 0.05, 0.2])
    rows = {r["metric"]: r for r in scan_rows("s", reference + 123.0, scan(reference - 4000))}
    assert rows["scan_rmse_s"]["value"] == pytest.approx(0.0, abs=1e-6)
    assert rows["scan_rmse_s"]["unit"] == "meV"
    assert "barrier_error_s" not in rows  # the highest point is a wall at the end
    rows = {r["metric"]: r for r in scan_rows("s", 2 * reference, scan(reference))}
    assert rows["scan_rmse_s"]["value"] == pytest.approx(1000 * np.sqrt(np.mean(reference**2)))


def test_barriers() -> None:
    reference = np.array([0.0, 0.06, 0.1, 0.05, 0.0])
    rows = {r["metric"]: r["value"] for r in scan_rows("s", 0.8 * reference, scan(reference))}
    assert rows["barrier_error_s"] == pytest.approx(-20.0)
    upside_down = {r["metric"]: r["value"] for r in scan_rows("s", -reference, scan(reference))}
    assert upside_down["barrier_error_s"] == pytest.approx(-100.0)  # no barrier at all, not one of 100 meV
    angles = {r["metric"] for r in scan_rows("s", reference[2:], scan(reference[2:], angle_deg=0.0))}
    assert "barrier_error_s" in angles  # eclipsed at 0°, the end of the scan
    with pytest.raises(ValueError, match="4 predicted energies for 5"):
        scan_rows("s", reference[1:], scan(reference))


def test_score_of_the_reference_itself_is_perfect(tmp_path: Path) -> None:
    references = {"minimum": str(ETHANOL / "reference_minimum.xyz"), "hessian": str(HESSIAN),
                  "stretch_OH": str(ETHANOL / "reference_stretch_OH.xyz")}  # fmt: skip
    energies = np.array([a.get_potential_energy() for a in read(references["stretch_OH"], index=":")])
    np.savez(
        tmp_path / "physics.npz", minimum=read(references["minimum"]).positions,
        hessian=np.array(json.loads(HESSIAN.read_text())["hessian_eV_per_A2"]), **{"scan.stretch_OH": energies + 4209},
    )  # fmt: skip
    values = {"force_consistency": 1e-9, "rotation_force": 1e-6, "n_frames": 4}
    rows = {r["metric"]: r for r in score(tmp_path, values, Context({}, references=references))}
    assert rows["frequency_mae"]["value"] < 0.01
    assert rows["frequency_mae"]["n"] == 21
    assert rows["minimum_rmsd"]["value"] < 1e-8
    assert rows["scan_rmse_stretch_OH"]["value"] < 1e-6
    assert rows["rotation_error"] == {"split": "", "metric": "rotation_error", "value": 1e-3, "unit": "meV/Å",
                                      "lower": None, "upper": None, "n": 4}  # fmt: skip
    assert "cutoff_jump" not in rows  # the task did not find a pair at the cutoff


@pytest.mark.parametrize("count", [0, 1, 2])
def test_imaginary_modes_of_a_minimum_that_is_a_saddle(tmp_path: Path, count: int) -> None:
    """The reference's Hessian with its softest modes turned downhill."""
    data = json.loads(HESSIAN.read_text())
    hessian, root = np.array(data["hessian_eV_per_A2"]), np.repeat(np.sqrt(MASSES), 3)
    sizes, modes = np.linalg.eigh(hessian / np.outer(root, root))
    for k in range(6, 6 + count):
        hessian -= 2 * sizes[k] * np.outer(modes[:, k] * root, modes[:, k] * root)
    references = {"minimum": str(ETHANOL / "reference_minimum.xyz"), "hessian": str(HESSIAN)}
    np.savez(tmp_path / "physics.npz", minimum=read(references["minimum"]).positions, hessian=hessian)
    rows = {r["metric"]: r for r in score(tmp_path, {"n_frames": 1}, Context({}, references=references))}
    assert rows["imaginary_modes"]["value"] == count
