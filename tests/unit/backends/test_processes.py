"""Resident workers: a fork computes what a fresh process would, and nothing of a trial reaches another."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from mlpbench.backends import processes
from mlpbench.backends.launcher import launch
from mlpbench.backends.registry import Environment
from mlpbench.protocol import EVENTS, HELLO, LOG, PREDICTIONS, Request, Result, Task
from tests.support import make_request

# Counts its imports, and does to its process what a trial must not do to another.
ROGUE = """
import os, signal, sys, time
import numpy as np
from mlpbench.worker.adapter import Adapter

print("imported by", os.getpid(), flush=True)
if os.environ.get("ROGUE_IMPORT") == "raise":
    raise ImportError("libfast.so.3: cannot open shared object file")
if os.environ.get("ROGUE_IMPORT") == "die":
    os.kill(os.getpid(), signal.SIGKILL)
SHARED = []

class Rogue(Adapter):
    architectures = ("rogue",)
    packages = ()
    preload = ("colorsys", "no_such_module")

    def train(self, train, valid, events):
        act = self.request.architecture["act"]
        SHARED.append(act)
        events.write(
            "acting", seen=list(SHARED), draw=float(np.random.random()), preloaded="colorsys" in sys.modules,
            parent=os.getppid(), folder=os.getcwd(),
        )
        if act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "memory":
            raise MemoryError
        if act == "hang":
            time.sleep(600)
        raise ValueError("done acting")

    def load(self, dtype=None):
        raise FileNotFoundError("no checkpoint")
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(processes.SWITCH, "1")
    processes.close_residents()
    yield
    processes.close_residents()


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "rogue.py").write_text(ROGUE)
    return Environment("rogue", Path(sys.executable), (str(packages),), "lock", True)


def rogue(tmp_path: Path, name: str, act: str = "raise", **changes: Any) -> Request:
    architecture = {"name": "rogue", "act": act}
    return make_request(tmp_path / name, "rogue:Rogue", architecture, [Task("train")], n_train=4, n_valid=2, **changes)


def toy(directory: Path, **changes: Any) -> Request:
    architecture = {"name": "toy", "cutoff": 4.0, "n_basis": 6, "ridge": 1e-6}
    return make_request(
        directory, "mlpbench.worker.adapters.toy:ToyAdapter", architecture, n_train=8, n_valid=4, **changes
    )


def run(request: Request, environment: Environment, **options: Any) -> tuple[Result, dict[str, Any]]:
    """The training's result, and what the rogue said of its process."""
    events: list[dict[str, Any]] = []
    results = launch(request, environment, timeout=60, on_event=events.append, **options)
    return results["train"], next((event for event in events if event["event"] == "acting"), {})


def residents() -> list[psutil.Process]:
    return psutil.Process().children()


def test_imported_once_and_every_trial_starts_clean(tmp_path, environment):
    seen = []
    for name in ("a", "b", "c"):
        result, said = run(rogue(tmp_path, name), environment)
        assert "done acting" in result.reason
        assert said["seen"] == ["raise"], "what a trial changes is not there for the next"
        assert said["preloaded"]
        assert said["folder"] == str(tmp_path / name)
        seen.append((said["parent"], said["draw"], (tmp_path / name / LOG).read_text().count("imported by")))
    parents, draws, prints = zip(*seen, strict=True)
    assert set(parents) == {residents()[0].pid}
    assert len(set(draws)) == 3, "an unseeded generator draws afresh in every trial"
    assert prints == (1, 1, 1), "what the packages said when they were imported stands in every trial's log"


def test_identical_to_a_process_of_its_own(tmp_path, monkeypatch):
    environment = Environment("toy", Path(sys.executable), (), "lock", True)
    arrays, epochs = [], []
    for name, switch in (("alone", "0"), ("first", "1"), ("second", "1")):
        monkeypatch.setenv(processes.SWITCH, switch)
        results = launch(toy(tmp_path / name, seed=3), environment)
        assert {result.status for result in results.values()} == {"done"}
        assert bool(residents()) is (switch == "1")
        with np.load(tmp_path / name / PREDICTIONS) as stored:
            arrays.append({key: stored[key].tobytes() for key in stored})
        events = [json.loads(line) for line in (tmp_path / name / EVENTS).read_text().splitlines()]
        timeless = [{k: v for k, v in e.items() if k not in ("time", "seconds")} for e in events]
        epochs.append([e for e in timeless if e["event"] == "epoch"])
        peaks = [result.peak_memory_mb for result in results.values()]
        assert 20 < max(peaks) < 500
    assert arrays[0] == arrays[1] == arrays[2]
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(epochs[0]) == 3


@pytest.mark.parametrize(("act", "status"), [("kill", "failed"), ("memory", "out_of_memory")])
def test_a_crash_takes_down_one_trial(tmp_path, environment, act, status):
    run(rogue(tmp_path, "before"), environment)
    resident = residents()[0].pid
    assert run(rogue(tmp_path, "bad", act), environment)[0].status == status
    result, said = run(rogue(tmp_path, "after"), environment)
    assert "done acting" in result.reason
    assert said["parent"] == resident, "it serves on"


def test_a_resident_that_dies_idle_is_replaced(tmp_path, environment):
    run(rogue(tmp_path, "before"), environment)
    dead = residents()[0]
    dead.kill()
    for _ in range(200):
        if dead.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    result, said = run(rogue(tmp_path, "after"), environment)
    assert "done acting" in result.reason
    assert said["parent"] != dead.pid


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the worker looks for its parent once a second")
def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_resident_that_dies_at_work_fails_that_trial_alone(tmp_path, environment):
    directory = tmp_path / "trial"

    def kill() -> None:
        while not (directory / HELLO).exists() or "acting" not in (directory / EVENTS).read_text():
            time.sleep(0.02)
        residents()[0].kill()

    request = rogue(tmp_path, "trial", "hang")
    killer = threading.Thread(target=kill)
    killer.start()
    result, _ = run(request, environment)
    killer.join()
    assert result.status == "failed"
    assert "forked from ended" in result.reason
    worker = json.loads((directory / HELLO).read_text())["pid"]
    deadline = time.monotonic() + 20  # the kernel's signal reaches it when it is next scheduled
    while not gone(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(worker)
    assert "done acting" in run(rogue(tmp_path, "after"), environment)[0].reason


def test_an_import_that_fails_is_reported_as_by_a_process_of_its_own(tmp_path, environment, monkeypatch):
    monkeypatch.setenv("ROGUE_IMPORT", "raise")
    reasons = []
    for name, switch in (("resident", "1"), ("alone", "0")):
        monkeypatch.setenv(processes.SWITCH, switch)
        reasons.append(run(rogue(tmp_path, name), environment)[0].reason)
    assert all("exit code 1" in reason for reason in reasons)
    assert all(reason.endswith("ImportError: libfast.so.3: cannot open shared object file") for reason in reasons)
    assert residents() == [], "the next trial tries again"


def test_an_import_that_kills_the_resident_falls_back_and_says_so(tmp_path, environment, monkeypatch):
    monkeypatch.setenv("ROGUE_IMPORT", "die")
    result, _ = run(rogue(tmp_path, "trial"), environment)
    assert result.status == "failed"
    assert "killed by SIGKILL" in result.reason
    assert "in a process of its own, because a resident one cannot" in (tmp_path / "trial" / LOG).read_text()


def test_timings_have_a_process_of_their_own(tmp_path, environment):
    request = make_request(
        tmp_path / "timed", "rogue:Rogue", {"name": "rogue", "act": "raise"}, [Task("train"), Task("speed")]
    )
    _, said = run(request, environment)
    assert said["parent"] == os.getpid()
    assert residents() == []


def test_other_variables_and_threads_have_other_residents(tmp_path, environment, monkeypatch):
    parents = []
    for name, threads, variable in (("a", 1, "x"), ("b", 2, "x"), ("c", 1, "y"), ("d", 1, "x")):
        monkeypatch.setenv("SOME_LIBRARYS_SWITCH", variable)
        parents.append(run(rogue(tmp_path, name, threads=threads), environment)[1]["parent"])
    assert len(set(parents)) == 3
    assert parents[0] == parents[3]
    monkeypatch.setattr(processes, "MOST_IDLE", 1)
    run(rogue(tmp_path, "e"), environment)
    assert len(residents()) == 1, "those that were not needed for longest end first"


def test_waiting_for_its_turn_is_not_counted_as_work(tmp_path):
    """Another process times something for longer than the trial may take."""
    from mlpbench import turns

    environment = Environment("toy", Path(sys.executable), (), "lock", True)
    launch(toy(tmp_path / "warm"), environment)
    events: list[dict[str, Any]] = []
    inside = threading.Event()

    def hold() -> None:
        with turns.alone():
            inside.set()
            while not any(event.get("waiting") for event in events):
                time.sleep(0.05)
            time.sleep(6)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait()
    start = time.monotonic()
    results = launch(toy(tmp_path / "trial", budget={"epochs": 1}), environment, timeout=5, on_event=events.append)
    assert {result.status for result in results.values()} == {"done"}
    assert time.monotonic() - start > 5
    holder.join()


@pytest.mark.slow
def test_memory_and_files_do_not_creep(tmp_path):
    environment = Environment("toy", Path(sys.executable), (), "lock", True)
    request = toy(tmp_path / "trial", budget={"epochs": 1})
    sizes, files = [], []
    for _ in range(100):
        launch(request, environment)
        resident = residents()[0]
        sizes.append((resident.memory_info().rss, psutil.Process().memory_info().rss))
        files.append((resident.num_fds(), psutil.Process().num_fds()))
    assert len({resident for resident, _ in files[2:]}) == 1
    assert len({core for _, core in files[2:]}) == 1
    for first, last in zip(sizes[10], sizes[-1], strict=True):
        assert last < first + 2e6


def test_interrupted_while_the_packages_are_imported(tmp_path, environment):
    """Ctrl-C before the worker has begun: nothing is left, and every task is interrupted."""
    (Path(environment.pythonpath[0]) / "rogue.py").write_text("import time\ntime.sleep(600)\n" + ROGUE)
    request = rogue(tmp_path, "trial")
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        while not residents():
            time.sleep(0.05)
        time.sleep(0.5)
        signal.pthread_kill(main, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        launch(request, environment)
    interrupter.join()
    assert Result.read(tmp_path / "trial", "train").status == "interrupted"
    assert residents() == []
