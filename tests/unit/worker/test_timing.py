"""Timing: the clock, the watch on the machine, grown systems, and children that end before they are done."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule

from mlpbench.protocol import Task
from mlpbench.worker import clock as machine
from mlpbench.worker.clock import GAP, Clock, grown
from mlpbench.worker.paths import resident_mb, run_child, total_memory_mb
from mlpbench.worker.tasks.speed import _copies, _what_was_reached
from tests.support import make_request, run_worker

TOY = {"name": "toy", "cutoff": 4.0, "n_basis": 8, "ridge": 1e-6, "native": {}}
ADAPTER = "mlpbench.worker.adapters.toy:ToyAdapter"


def test_a_block_gives_seconds_per_call() -> None:
    clock = Clock("cpu", blocks=3, seconds=0.05)
    times = clock.times(lambda: time.sleep(0.005))
    assert len(times) == 3
    assert all(0.005 <= value < 0.02 for value in times)


def test_twice_measures_in_turn() -> None:
    """A B B A A B: a drift of the machine hits both alike."""
    order: list[float] = []
    clock = Clock("cpu", blocks=3, seconds=0.001)
    clock.warm_up = lambda call: (1, 1)  # type: ignore[method-assign]
    counter = itertools.count()
    clock.block = lambda call, calls: float(next(counter))  # type: ignore[method-assign]
    first, second, _ = clock.twice(lambda: order.append(0))
    assert (first, second) == ([0.0, 3.0, 4.0], [1.0, 2.0, 5.0])


def test_copies_keep_molecules_apart_and_crystals_whole() -> None:
    ethanol = molecule("CH3CH2OH")
    many = grown(ethanol, 5)
    assert len(many) == 45
    parts = many.positions.reshape(5, 9, 3)
    gaps = [np.linalg.norm(a[:, None] - b[None], axis=-1).min() for a, b in itertools.combinations(parts, 2)]
    assert min(gaps) >= GAP - 1e-9
    crystal = grown(bulk("Cu", cubic=True), 3)
    assert len(crystal) == 12
    assert crystal.cell.volume == pytest.approx(3 * bulk("Cu", cubic=True).cell.volume)


def test_sizes_go_on_doubling_until_memory_ends() -> None:
    assert list(_copies([1, 2, 4], False)) == [1, 2, 4]
    assert list(itertools.islice(_copies([1, 3], True), 5)) == [1, 3, 6, 12, 24]


def test_the_watch_tells_other_processes_from_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All cores 30 s busy while this process spent 10 s of them in 10 s: two cores were others'."""
    monkeypatch.setattr(machine, "PROC", tmp_path)
    busy, own, now = iter([100.0, 130.0]), iter([5.0, 15.0]), iter([0.0, 10.0])
    monkeypatch.setattr(machine, "busy_seconds", lambda: next(busy))
    monkeypatch.setattr(machine, "own_seconds", lambda: next(own))
    monkeypatch.setattr(machine, "clock_mhz", iter([3000.0, 2000.0]).__next__)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(now))
    found = machine.Watch(1, "cpu").report()
    assert found["others_cores"] == pytest.approx(2.0)
    assert found["busy"] is True
    assert "2.0 cores" in found["notice"]
    assert "3000 to 2000 MHz" in found["notice"]


def test_proc_stat_is_read_without_idle_and_guest_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PROC", tmp_path)
    assert machine.busy_seconds() is None
    (tmp_path / "stat").write_text("cpu  100 10 50 9999 8888 5 5 30 77 77\ncpu0 1 1\n")
    monkeypatch.setattr(machine.os, "sysconf", lambda name: 100)
    assert machine.busy_seconds() == pytest.approx((100 + 10 + 50 + 5 + 5 + 30) / 100)


def test_memory_is_told() -> None:
    import os

    assert 10 < resident_mb(os.getpid()) < total_memory_mb()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    make_request(folder, ADAPTER, TOY, [Task("train")])
    done = run_worker(folder)
    assert done.returncode == 0, done.stderr
    return folder


SCALING = {
    "path": {"deployment": "eager", "means": "", "dtype": "float64", "tf32": False}, "split": "test_500K",
    "n_frames": 2, "blocks": 2, "block_seconds": 0.01, "copies": [1, 2], "max_seconds_per_call": 60.0,
}  # fmt: skip


def child(folder: Path, **limits: float) -> tuple[str, str, dict]:
    request = make_request(folder, ADAPTER, TOY, [])
    found = run_child(
        replace(request, directory=str(folder)), folder / "speed" / "x", "scaling",
        {**SCALING, "forever": "cap_mb" in limits or limits["seconds"] < 5}, **{"seconds": 120.0, **limits},
    )  # fmt: skip
    return found.status, found.reason, found.values


def test_a_child_does_its_task_on_the_trained_potential(trained: Path) -> None:
    status, reason, values = child(trained, seconds=120.0)
    assert (status, reason) == ("done", "")
    assert [size["n_atoms"] for size in values["scaling"]] == [9, 18]


def test_a_child_that_takes_too_long_or_too_much_is_ended(trained: Path) -> None:
    status, reason, _ = child(trained, seconds=0.2)
    assert (status, reason) == ("timeout", "not done after 0.2 s")
    status, reason, _ = child(trained, cap_mb=20.0)
    assert (status, reason) == ("out_of_memory", "it needs more than the cap of 20 MB")


def test_what_a_dead_child_had_reached_is_kept() -> None:
    from mlpbench.protocol import Result

    events = [
        {"event": "growing", "n_atoms": 9},
        {"event": "size", "n_atoms": 9, "seconds": [1.0], "peak_mb": 5.0, "time": 0},
        {"event": "growing", "n_atoms": 18},
    ]  # fmt: skip
    found = _what_was_reached(events, Result("scaling", "", "out_of_memory", "it needs more than the cap of 9 MB"))
    assert found == [
        {"n_atoms": 9, "seconds": [1.0], "peak_mb": 5.0},
        {"n_atoms": 18, "seconds": [], "stopped": "it needs more than the cap of 9 MB"},
    ]
