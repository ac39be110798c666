"""The MD task as a whole: several runs, and what an interrupted one does not do again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase.io import read

from mlpbench.frames import Frames
from mlpbench.protocol import EventLog, read_events
from mlpbench.worker.adapter import Potential, Prediction
from mlpbench.worker.tasks import Skip, md
from tests.support import CASES, ethanol_frames

OPTIONS: dict[str, Any] = {
    "temperature_K": 300.0, "further_temperatures_K": [600.0], "time_step_fs": 0.5, "start_split": "test", "starts": 2,
    "seeds": 2, "seed": 0, "engine": "predict",
    "nvt": {"thermostat": "langevin", "length_ps": 0.02, "frame_interval_fs": 5.0},
    "nve": {"time_steps_fs": [0.5], "replicas": 2, "length_ps": 0.01, "frame_interval_fs": 5.0,
            "velocity_interval_fs": 1.0},
}  # fmt: skip


class Springs:
    """Every atom on a spring of its own; dies at a call, as a worker that is killed."""

    torchsim_model = Potential.torchsim_model

    def __init__(self, origin: np.ndarray, stiffness: float = 5.0) -> None:
        self.origin, self.stiffness, self.calls, self.last = origin, stiffness, 0, 10**9

    def predict(self, frames: Any, batch_size: int, stress: bool = False) -> Prediction:
        self.calls += 1
        if self.calls > self.last:
            raise KeyboardInterrupt
        away = frames.positions.reshape(len(frames), -1, 3) - self.origin
        return Prediction(0.5 * self.stiffness * (away**2).sum(axis=(1, 2)), (-self.stiffness * away).reshape(-1, 3))


@pytest.fixture
def adapter(tmp_path: Path) -> Any:
    frames = ethanol_frames("test_500K", 4)
    frames.save(tmp_path / "test.npz")
    potential = Springs(frames.positions[:9])
    request = SimpleNamespace(frames={"test": str(tmp_path / "test.npz")})
    return SimpleNamespace(request=request, directory=tmp_path, load=lambda: potential, potential=potential)


def run(adapter: Any, **changes: Any) -> dict[str, Any]:
    log = EventLog(adapter.directory / "events.jsonl")
    return md.run(adapter, {**OPTIONS, **changes}, log)


def test_runs_and_what_they_store(adapter: Any) -> None:
    found = run(adapter)["runs"]
    assert list(found) == ["nvt", "nvt-600K", "nve-0.5fs"]
    folder = adapter.directory / "md"
    assert {path.name for path in folder.iterdir()} == {"nvt.npz", "nvt-600K.npz", "nve-0.5fs.npz"}
    with np.load(folder / "nvt-600K.npz") as stored:
        assert stored["forces"].shape == (4, 5, 9, 3)
        assert stored["temperature_K"] == 600.0
        away = stored["positions"].astype(float) - adapter.potential.origin
        assert np.abs(stored["forces"] + 5.0 * away).max() < 1e-5
    with np.load(folder / "nve-0.5fs.npz") as stored:
        assert stored["velocities"].shape == (2, 11, 9, 3)
        assert "forces" not in stored
    assert list(read_events(adapter.directory / "events.jsonl")) == []  # shorter than the pause between two


def test_finished_runs_of_an_interrupted_task_are_not_done_again(adapter: Any) -> None:
    adapter.potential.last = 60  # 41 calls a run at constant temperature: in the middle of the second
    with pytest.raises(KeyboardInterrupt):
        run(adapter)
    first = adapter.directory / "md" / "nvt.npz"
    written = first.stat().st_mtime_ns
    adapter.potential.last, adapter.potential.calls = 10**9, 0
    found = run(adapter)["runs"]
    assert first.stat().st_mtime_ns == written
    assert found["nvt"]["replica_steps"] == 4 * 40
    assert adapter.potential.calls == 1 + 41 + 21  # one to see that it is the same potential
    assert not list((adapter.directory / "md").glob(".*"))


def test_another_potential_or_setting_starts_anew(adapter: Any) -> None:
    adapter.potential.last = 60
    with pytest.raises(KeyboardInterrupt):
        run(adapter)
    first = adapter.directory / "md" / "nvt.npz"
    written = first.stat().st_mtime_ns
    adapter.potential.last, adapter.potential.stiffness = 10**9, 6.0  # trained further
    run(adapter)
    assert first.stat().st_mtime_ns != written
    (adapter.directory / "md" / "death-nvt-000.xyz").write_text("of an earlier configuration")
    run(adapter, further_temperatures_K=[], nve=None)
    assert [path.name for path in (adapter.directory / "md").iterdir()] == ["nvt.npz"]


def test_single_atoms_start_no_simulation(adapter: Any) -> None:
    """A free atom first, and a primitive cell: neither has a temperature; with nothing else there is no simulation."""
    case = CASES / "10-single-atom-md-inf"
    mixed = Frames.from_atoms(read(case / "mix_test.extxyz", index=":"))
    mixed.save(adapter.directory / "test.npz")
    assert (mixed.n_atoms == 1).any()
    starts = md.start_frames(adapter, {**OPTIONS, "starts": 10})
    assert (starts.n_atoms > 1).all()
    mixed.select(np.flatnonzero(mixed.n_atoms == 1)).save(adapter.directory / "test.npz")
    with pytest.raises(Skip, match="every frame of test is one atom"):
        md.start_frames(adapter, OPTIONS)


def test_constant_pressure_without_a_stress_is_not_run(adapter: Any) -> None:
    """Every replica would die of a cell that is NaN, and the potential would be charged with it."""
    frames = ethanol_frames("test_500K", 4)
    npt = {"length_ps": 0.01, "frame_interval_fs": 5.0}
    for pbc, reason in (((True, True, True), "no stress"), ((True, True, False), "all three directions")):
        boxed = replace(frames, cell=np.tile(20.0 * np.eye(3), (4, 1, 1)), pbc=np.tile(pbc, (4, 1)))
        boxed.save(adapter.directory / "test.npz")
        found = run(adapter, npt=npt, further_temperatures_K=[])
        assert list(found["runs"]) == ["nvt", "nve-0.5fs"]
        assert reason in found["not_run"]["npt"]
