"""The engine: replicas do not feel each other, die alone, resume exactly, and stop at the wall limit."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.worker.dynamics import engine
from mlpbench.worker.dynamics.engine import Engine
from mlpbench.worker.dynamics.forces import Labels
from mlpbench.worker.dynamics.record import EXPLODED, FINISHED, NON_FINITE, WALL_LIMIT, Settings, System
from tests.unit.dynamics.toys import LennardJones, cluster

NVE = Settings("nve", 0.5, 2.0, 10.0, 20.0)
NVT = Settings("langevin", 0.5, 2.0, 10.0, 20.0)


def run(folder, system, forces, settings, **keywords):
    engine = Engine(system, forces, settings, folder, 7, **keywords)
    outcome = engine.run()
    return engine.recorder.assemble(), outcome


def part_of(system, index):
    pick = slice(index, index + 1)
    return System(
        system.numbers,
        system.masses,
        system.periodic,
        system.positions[pick],
        system.velocities[pick],
        system.cell[pick],
    )


class Failing:
    """Lennard-Jones until a call, then something else for one replica (the one whose atoms started at ``mark``)."""

    name = "failing"

    def __init__(self, what, call, replica):
        self.inner, self.what, self.call, self.replica, self.calls = LennardJones(), what, call, replica, 0
        self.sizes = []

    def __call__(self, positions, cell):
        assert np.isfinite(positions).all()  # what is not finite never reaches a neighbour list
        self.calls += 1
        self.sizes.append(len(positions))
        labels = self.inner(positions, cell)
        if self.calls == self.call:
            labels.forces[self.replica] = self.what
        return labels


def test_batched_equals_single_replica(tmp_path) -> None:
    system = cluster(4)
    together, _ = run(tmp_path / "all", system, LennardJones(), NVE)
    for index in range(4):
        alone, _ = run(tmp_path / str(index), part_of(system, index), LennardJones(), NVE)
        assert np.abs(alone["total"][0] - together["total"][index]).max() < 1e-12
        assert np.array_equal(alone["positions"][0], together["positions"][index])


@pytest.mark.parametrize("settings", [NVE, NVT])
@pytest.mark.parametrize(("what", "code"), [(np.nan, NON_FINITE), (np.inf, NON_FINITE), (1e6, EXPLODED)])
def test_a_dying_replica_leaves_the_others_alone(tmp_path, settings, what, code) -> None:
    system = cluster(4)
    healthy, _ = run(tmp_path / "healthy", system, LennardJones(), settings)
    forces = Failing(what, call=60, replica=2)
    hurt, outcome = run(tmp_path / "hurt", system, forces, settings)
    assert outcome.ended.tolist() == [FINISHED, FINISHED, code, FINISHED]
    assert 58 <= outcome.ended_step[2] <= 61
    others = [0, 1, 3]
    assert np.array_equal(healthy["positions"][others], hurt["positions"][others])
    assert np.array_equal(healthy["total"][others], hurt["total"][others])
    assert np.isfinite(hurt["positions"][2, :11]).all()
    assert np.isnan(hurt["positions"][2, 13:]).all()
    assert forces.sizes[0] == 4
    assert forces.sizes[-1] == 3


def test_all_dead_ends_the_run(tmp_path) -> None:
    _, outcome = run(tmp_path / "run", cluster(1), Failing(np.nan, 10, 0), NVE)
    assert outcome.ended.tolist() == [NON_FINITE]
    assert outcome.replica_steps < 15


def test_wall_limit_censors(tmp_path) -> None:
    settings = Settings("nve", 1000.0, 2.0, 10.0, 20.0, wall_seconds=0.3)
    arrays, outcome = run(tmp_path / "run", cluster(2), LennardJones(), settings)
    assert outcome.ended.tolist() == [WALL_LIMIT, WALL_LIMIT]
    assert 0 < outcome.ended_step[0] < settings.steps
    assert np.isfinite(arrays["positions"]).all()


class Killed(Exception):
    pass


class KilledAt:
    name = "killed"

    def __init__(self, call):
        self.inner, self.left = LennardJones(), call

    def __call__(self, positions, cell):
        self.left -= 1
        if self.left == 0:
            raise Killed
        return self.inner(positions, cell)


@pytest.mark.parametrize("ensemble", ["nve", "langevin", "nose_hoover"])
def test_resumed_run_is_the_uninterrupted_one(tmp_path, ensemble) -> None:
    settings = Settings(ensemble, 0.5, 2.0, 10.0, 20.0, velocity_interval_fs=4.0)
    whole, _ = run(tmp_path / "whole", cluster(3), LennardJones(), settings, chunk_frames=10)
    with pytest.raises(Killed):
        run(tmp_path / "cut", cluster(3), KilledAt(180), settings, chunk_frames=10)
    resumed, outcome = run(tmp_path / "cut", cluster(3), LennardJones(), settings, chunk_frames=10)
    assert outcome.resumed
    assert outcome.replica_steps == 3 * (250 - 150)
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert np.array_equal(whole[name], resumed[name]), name
    assert whole["time_fs"].shape == (51,)
    assert whole["velocities"].shape == (3, 126, 8, 3)


def test_a_slow_run_is_saved_by_the_clock(tmp_path, monkeypatch) -> None:
    """Frames are far apart where each step is slow: no state would be written for hours."""
    whole, _ = run(tmp_path / "whole", cluster(2), LennardJones(), NVE)
    monkeypatch.setattr(engine, "SAVE_SECONDS", 0.0)
    with pytest.raises(Killed):
        run(tmp_path / "cut", cluster(2), KilledAt(37), NVE)
    resumed, outcome = run(tmp_path / "cut", cluster(2), LennardJones(), NVE)
    assert outcome.resumed
    assert outcome.replica_steps <= 2 * (NVE.steps - 30)
    for name in whole:
        assert np.array_equal(whole[name], resumed[name]), name


def test_state_of_another_potential_or_setting_is_not_taken_up(tmp_path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        run(folder, cluster(2), KilledAt(180), NVE, chunk_frames=10)
    _, outcome = run(folder, cluster(2), LennardJones(epsilon=0.02), NVE, chunk_frames=10)
    assert not outcome.resumed
    with pytest.raises(Killed):
        run(tmp_path / "b", cluster(2), KilledAt(180), NVE, chunk_frames=10)
    _, outcome = run(tmp_path / "b", cluster(2), LennardJones(), NVT, chunk_frames=10)
    assert not outcome.resumed


def test_a_potential_without_finite_forces_at_the_start_is_an_error(tmp_path) -> None:
    class Broken:
        name = "broken"

        def __call__(self, positions, cell):
            return Labels(
                np.full(len(positions), np.nan), np.zeros(positions.shape), np.full((len(positions), 6), np.nan)
            )

    with pytest.raises(ValueError, match="not finite at the start"):
        run(tmp_path / "run", cluster(2), Broken(), NVE)


def test_progress_says_how_much_is_left(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mlpbench.worker.dynamics.engine.REPORT_SECONDS", 0.0)
    seen = []
    run(tmp_path / "run", cluster(2), LennardJones(), NVE, progress=seen.append)
    assert seen[-1]["step"] == 250
    assert seen[-1]["alive"] == 2
    assert seen[-1]["left_seconds"] == 0.0
    assert seen[10]["left_seconds"] > 0.0
