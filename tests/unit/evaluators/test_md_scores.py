"""Rows of the MD task from made-up runs: the right numbers, the right silence, and nothing from behind a collapse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.data import atomic_masses
from ase.io import read

from mlpbench.evaluators import Context
from mlpbench.evaluators.md import score
from mlpbench.frames import Frames
from tests.support import ethanol_frames

FRAMES = ethanol_frames("test_500K", 100)
NUMBERS = FRAMES.numbers[:9]
GEOMETRIES = FRAMES.positions.reshape(-1, 9, 3)
T, STEP = 101, 10.0
CODES = {"finished": 0, "non_finite": 1, "exploded": 2, "wall_limit": 3}


def fabricate(
    folder: Path,
    name: str = "nvt",
    replicas: int = 4,
    ended: dict | None = None,
    broken: dict | None = None,
    kelvin: float = 500.0,
):
    """``ended``: replica -> (code, frame of its end); ``broken``: replica -> frame from which a hydrogen is away."""
    generator = np.random.default_rng(1)
    positions = np.stack([GEOMETRIES[(np.arange(T) + 7 * r) % 100] for r in range(replicas)]).astype(np.float32)
    arrays = {
        "positions": positions,
        "temperature": (500 + 50 * generator.standard_normal((replicas, T))).astype(np.float32),
        "potential": 0.1 * generator.standard_normal((replicas, T)),
        "forces": np.zeros((replicas, T, 9, 3), np.float32),
    }
    arrays["total"] = arrays["potential"] + 0.6 + 0.01 * generator.standard_normal((replicas, T))
    codes, ended_fs = np.zeros(replicas, int), np.full(replicas, (T - 1) * STEP)
    for r, frame in (broken or {}).items():
        positions[r, frame:, 3] += 6.0
    for r, (code, frame) in (ended or {}).items():
        codes[r], ended_fs[r] = CODES[code], frame * STEP - 3.0
        for array in arrays.values():
            array[r, frame:] = np.nan
    (folder / "md").mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "md" / f"{name}.npz", **arrays, time_fs=np.arange(T) * STEP, numbers=NUMBERS, ended=codes,
        masses=atomic_masses[NUMBERS], start_cell=np.zeros((replicas, 3, 3)), pbc=np.zeros(3, bool),
        ended_fs=ended_fs, length_fs=np.array((T - 1) * STEP), baseline=-4209.0, temperature_K=kelvin,
    )  # fmt: skip


def rows_of(folder: Path, runs: tuple[str, ...] = ("nvt",), **options) -> dict:
    values = {"runs": {name: {} for name in runs}, "options": {"temperature_K": 500.0, "limits": {}, **options}}
    found = score(folder, values, Context({"test_500K": FRAMES}, "test_500K"))
    assert len({(r["split"], r["metric"]) for r in found}) == len(found)
    return {r["metric"]: r for r in found}


def test_stable_run(tmp_path: Path) -> None:
    fabricate(tmp_path)
    rows = rows_of(tmp_path)
    assert rows["md_survival"]["value"] == 1.0
    assert rows["md_survival"]["split"] == "md_500K"
    assert rows["md_survival"]["lower"] == pytest.approx(0.025 ** (1 / 4))
    assert rows["md_stable_time"]["value"] == pytest.approx(1.0)
    assert rows["md_temperature_error"]["value"] < 2
    assert "hr_mae" not in rows
    kept = json.loads((tmp_path / "md" / "scores.json").read_text())
    assert [r["cause"] for r in kept["runs"]["nvt"]["replicas"]] == ["survived"] * 4
    assert "no reference MD" in kept["not_scored"]["hr_mae"]


def test_deaths_and_their_last_frames(tmp_path: Path) -> None:
    fabricate(tmp_path, ended={1: ("non_finite", 50)}, broken={2: 30})
    rows = rows_of(tmp_path)
    assert rows["md_survival"]["value"] == pytest.approx(0.5)
    assert rows["md_stable_time"]["value"] == pytest.approx((1.0 + 1.0 + 0.497 + 0.3) / 4)
    kept = json.loads((tmp_path / "md" / "scores.json").read_text())["runs"]["nvt"]["replicas"]
    assert [r["cause"] for r in kept] == ["survived", "non_finite", "bond", "survived"]
    last = read(tmp_path / "md" / "death-nvt-002.xyz", index=":")
    assert len(last) == 31  # of the last picosecond: all that there is
    assert last[-1].info["time_fs"] == 300.0  # the frame that failed is the last one
    assert last[-1].get_distance(2, 3) > 3 > last[-2].get_distance(2, 3)
    assert read(tmp_path / "md" / "death-nvt-001.xyz", index=-1).info["time_fs"] == 490.0
    assert not (tmp_path / "md" / "death-nvt-000.xyz").exists()


def test_a_slow_potential_is_not_called_unstable(tmp_path: Path) -> None:
    """All stopped by the clock: nothing is known of survival at the planned length, so nothing is claimed."""
    fabricate(tmp_path, ended={r: ("wall_limit", 40) for r in range(4)})
    rows = rows_of(tmp_path)
    assert "md_survival" not in rows
    assert "md_stable_time" not in rows
    kept = json.loads((tmp_path / "md" / "scores.json").read_text())["runs"]["nvt"]["replicas"]
    assert {r["cause"] for r in kept} == {"wall_limit"}
    fabricate(tmp_path, ended={0: ("wall_limit", 40)}, broken={1: 60})
    assert rows_of(tmp_path)["md_survival"]["value"] == pytest.approx(2 / 3)  # the censored one counts until 0.4 ps


def test_observables_stop_at_collapse(tmp_path: Path) -> None:
    """A replica whose hydrogen flies away at 0.3 ps leaves the distributions of the sound frames as they were."""
    fabricate(tmp_path, replicas=2)
    clean = rows_of(tmp_path, reference_splits=["test_500K"])
    fabricate(tmp_path, replicas=2, broken={1: 60})
    hurt = rows_of(tmp_path, reference_splits=["test_500K"])
    assert clean["hr_mae"]["value"] < 0.1
    assert hurt["hr_mae"]["value"] < 0.15
    assert hurt["hr_mae"]["n"] < clean["hr_mae"]["n"]
    assert hurt["adf_error"]["value"] < 10
    with pytest.raises(ValueError, match="no split 'test_600K'"):
        rows_of(tmp_path, reference_splits=["test_600K"])


def test_drift_and_order_from_two_time_steps(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    for step, spread in ((0.5, 0.04), (0.25, 0.01)):
        fabricate(tmp_path, f"nve-{step:g}fs")
        path = tmp_path / "md" / f"nve-{step:g}fs.npz"
        arrays = dict(np.load(path))
        drift = 0.009 * arrays["time_fs"] / 1000 if step == 0.5 else 0.0
        arrays["total"] = 0.6 + drift + spread * generator.standard_normal(arrays["total"].shape)
        np.savez(path, **arrays)
    rows = rows_of(tmp_path, ("nve-0.5fs", "nve-0.25fs"))
    assert rows["nve_order"]["value"] == pytest.approx(2.0, abs=0.2)
    assert rows["nve_drift"]["lower"] <= 1.0 <= rows["nve_drift"]["upper"]
    assert rows["nve_drift"]["lower"] == 0.0  # 36 meV of noise in 1 ps: no drift can be told from it
    assert rows["nve_drift"]["n"] == 4
    assert rows["nve_drift"]["unit"] == "meV/atom/ps"
    assert "md_survival" not in rows


def test_a_drift_from_too_short_a_run_is_not_given(tmp_path: Path) -> None:
    fabricate(tmp_path, "nve-0.5fs")
    path = tmp_path / "md" / "nve-0.5fs.npz"
    arrays = dict(np.load(path))
    for name in ("positions", "temperature", "potential", "total"):
        arrays[name] = arrays[name][:, :21]
    arrays["time_fs"] = arrays["time_fs"][:21]
    np.savez(path, **arrays)
    rows = rows_of(tmp_path, ("nve-0.5fs",))
    assert not {"nve_drift", "nve_drift_ratio"} & set(rows)
    reasons = json.loads((tmp_path / "md" / "scores.json").read_text())["not_scored"]
    assert reasons["nve_drift"].startswith("0.2 ps at constant energy")


def test_a_strong_bath_gives_no_diffusion(tmp_path: Path) -> None:
    """The same trajectory of walkers at 0.5 Å²/ps: scored at constant energy, refused under 10/ps."""
    steps, atoms = 5201, 30
    width = np.sqrt(2 * 0.5 * 0.01)  # 0.5 Å²/ps, every 10 fs
    walk = np.cumsum(np.random.default_rng(0).standard_normal((1, steps, atoms, 3)) * width, axis=1)
    arrays = {
        "time_fs": 10.0 * np.arange(steps), "positions": walk, "temperature": np.full((1, steps), 500.0),
        "potential": np.zeros((1, steps)), "total": np.zeros((1, steps)), "start_cell": 20 * np.eye(3)[None],
        "numbers": np.full(atoms, 29), "masses": np.full(atoms, 63.5), "pbc": np.ones(3, bool),
        "ended": np.zeros(1, int), "ended_fs": np.array([52000.0]), "length_fs": np.array(52000.0),
        "temperature_K": np.array(500.0),
    }  # fmt: skip
    (tmp_path / "md").mkdir()
    for name in ("nvt", "nve-1fs"):
        np.savez(tmp_path / "md" / f"{name}.npz", **arrays)
    frames = Frames.from_atoms([Atoms("Cu30", positions=walk[0, 0], cell=20 * np.eye(3), pbc=True)])

    def found(**settings: Any) -> tuple[dict[str, Any], dict[str, str]]:
        values = {"runs": {n: {"settings": s} for n, s in settings.items()}, "options": {"temperature_K": 500.0}}
        values["runs"] = {n.replace("nve", "nve-1fs"): one for n, one in values["runs"].items()}
        rows = score(tmp_path, values, Context({"test": frames}, "test"))
        kept = json.loads((tmp_path / "md" / "scores.json").read_text())
        return {row["metric"]: row for row in rows}, kept["not_scored"]

    strong = {"ensemble": "langevin", "friction_per_ps": 10.0}
    rows, reasons = found(nvt=strong)
    assert "diffusion" not in rows
    assert "slows diffusion down" in reasons["diffusion"]
    for known in ({"nvt": {**strong, "friction_per_ps": 0.1}}, {"nvt": strong, "nve": {"ensemble": "nve"}},
                  {"nvt": {"ensemble": "nose_hoover", "friction_per_ps": 10.0}}):  # fmt: skip
        rows, reasons = found(**known)
        assert "diffusion" not in reasons
        assert rows["diffusion"]["value"] == pytest.approx(0.5, rel=0.15)
        assert rows["diffusion"]["n"] == 8


def test_further_temperatures_have_splits_of_their_own(tmp_path: Path) -> None:
    fabricate(tmp_path)
    fabricate(tmp_path, "nvt-1000K", broken={0: 30, 1: 40}, kelvin=1000.0)
    values = {"runs": {"nvt": {}, "nvt-1000K": {}}, "options": {"temperature_K": 500.0, "limits": {}}}
    found = score(tmp_path, values, Context({"test_500K": FRAMES}, "test_500K"))
    survival = {r["split"]: r["value"] for r in found if r["metric"] == "md_survival"}
    assert survival == {"md_500K": 1.0, "md_1000K": 0.5}
    kept = json.loads((tmp_path / "md" / "scores.json").read_text())["runs"]["nvt-1000K"]
    assert kept["temperature_K"] == 1000.0
    assert kept["replicas"][0]["pair"] == [2, 3]  # O–H, counted from 0
    assert (tmp_path / "md" / "death-nvt-1000K-001.xyz").exists()


def test_whole_trajectories_on_request(tmp_path: Path) -> None:
    fabricate(tmp_path, replicas=2, ended={1: ("non_finite", 50)})
    rows_of(tmp_path, write_extxyz=True)
    whole = read(tmp_path / "md" / "trajectory-nvt-000.xyz", index=":")
    assert len(whole) == T
    assert whole[-1].info["time_fs"] == 1000.0
    assert whole[0].get_forces().shape == (9, 3)
    assert whole[0].get_potential_energy() == pytest.approx(-4209.0, abs=1.0)
    assert len(read(tmp_path / "md" / "trajectory-nvt-001.xyz", index=":")) == 50


def test_own_trajectory(tmp_path: Path) -> None:
    """Two frames of the sound trajectory and the last one before a bond broke; errors by hand."""
    fabricate(tmp_path, broken={2: 30})
    folder = tmp_path / "md"
    with np.load(folder / "nvt.npz") as stored:
        potential, positions = stored["potential"], stored["positions"]
    replica, frame = np.array([0, 1, 2]), np.array([5, 60, 29])
    forces = np.full((3, 9, 3), 0.02)
    bond = positions[2, 29, 3] - positions[2, 29, 2]
    forces[2] = 0.0
    forces[2, 3] = -0.5 * bond / np.linalg.norm(bond)  # the reference pulls the hydrogen back
    np.savez(
        folder / "own_labels.npz", run=np.array(["nvt"] * 3), replica=replica, frame=frame, forces=forces,
        kind=np.array(["own", "own", "last"]), energy=potential[replica, frame] - 4209.0 - 0.009,
    )  # fmt: skip
    (folder / "own_labels.json").write_text(json.dumps({"status": "done", "reason": ""}))
    rows = rows_of(tmp_path, own_trajectory={"frames": 2})
    assert rows["own_trajectory_force_mae"]["value"] == pytest.approx(20.0)
    assert rows["own_trajectory_energy_mae"]["value"] == pytest.approx(1.0)
    assert rows["own_trajectory_force_mae"]["n"] == 2
    assert rows["death_force_mae"]["value"] == pytest.approx(1e3 * np.abs(forces[2]).mean(), rel=1e-5)
    last = json.loads((folder / "scores.json").read_text())["own_trajectory"]["labelled"][2]
    assert last["pull_eV_per_A"] == 0.0
    assert last["reference_pull_eV_per_A"] == pytest.approx(0.25)
    assert last["detail"].startswith("O2–H3")
    (folder / "own_labels.json").write_text(json.dumps({"status": "skipped", "reason": "pyscf is not built"}))
    assert "own_trajectory_force_mae" not in rows_of(tmp_path, own_trajectory={"frames": 2})
    assert json.loads((folder / "scores.json").read_text())["own_trajectory"]["reason"] == "pyscf is not built"
