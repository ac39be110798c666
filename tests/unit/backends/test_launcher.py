"""A worker may end in any way; each has a status and a reason of its own, and nothing is left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mlpbench.backends.launcher import launch
from mlpbench.backends.processes import worker_environment
from mlpbench.backends.registry import Environment
from mlpbench.protocol import EVENTS, HELLO, LOG, Request, Result, Task
from tests.support import make_request

# Stands in for a backend whose package misbehaves; what it does is told by architecture.act.
ROGUE = """
import json, os, signal, subprocess, sys, time
from mlpbench.worker.adapter import Adapter

class Rogue(Adapter):
    architectures = ("rogue",)
    packages = ()

    def train(self, train, valid, events):
        act = self.request.architecture["act"]
        tasks = self.directory / "tasks"
        events.write("acting", act=act)
        if act == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if act == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if act == "exit":
            print("the package says: no licence", flush=True)
            os._exit(7)
        if act == "silent":
            os._exit(0)
        if act == "garbage":
            (tasks / "train.json").write_text("{half of a")
            os._exit(0)
        if act == "version":
            (tasks / "train.json").write_text(json.dumps({"version": 99, "task": "train", "status": "done"}))
            os._exit(0)
        if act == "raise":
            raise ValueError("a cutoff of -1 makes no sense")
        if act == "memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        if act == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            events.write("child", pid=child.pid)
        time.sleep(600)

    def load(self, dtype=None):
        raise FileNotFoundError("no checkpoint")
"""

TASKS = [Task("train", key="k1"), Task("predict", key="k2", options={"splits": ["valid"], "batch_size": 10})]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """The core's own interpreter, with the rogue adapter on its path."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "rogue.py").write_text(ROGUE)
    return Environment("rogue", Path(sys.executable), (str(packages),), "lock", True)


def rogue(tmp_path: Path, act: str) -> Request:
    return make_request(tmp_path / "trial", "rogue:Rogue", {"name": "rogue", "act": act}, TASKS, n_train=4, n_valid=2)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("kill", "killed by SIGKILL (often the system's out-of-memory killer), at"),
        ("segfault", "killed by SIGSEGV, at"),
        ("exit", "exit code 7; the end of worker.log:\nthe package says: no licence"),
        ("silent", "left no result"),
        ("garbage", "not JSON"),
        ("version", "protocol version 99"),
        ("raise", "ValueError: a cutoff of -1 makes no sense"),
    ],
)
def test_each_way_to_fail_has_its_own_reason(tmp_path, environment, act, reason):
    request = rogue(tmp_path, act)
    results = launch(request, environment, timeout=60)
    assert list(results) == ["train", "predict"]
    assert results["train"].status == "failed"
    assert reason in results["train"].reason
    assert results["train"].key == "k1"
    assert results["predict"].status == "skipped"
    assert "train is failed" in results["predict"].reason
    for name, result in results.items():  # on disk as well, for whoever reads the folder later
        assert Result.read(Path(request.directory), name) == result


def test_a_killed_worker_leaves_its_peak_memory(tmp_path, environment):
    results = launch(rogue(tmp_path, "kill"), environment, timeout=60)
    assert 10 < results["train"].peak_memory_mb < 1000


def test_out_of_memory_is_a_status_with_advice(tmp_path, environment):
    results = launch(rogue(tmp_path, "memory"), environment, timeout=60)
    assert results["train"].status == "out_of_memory"
    assert "training.batch_size" in results["train"].reason


def test_timeout_ends_the_worker_and_its_children(tmp_path, environment, monkeypatch):
    monkeypatch.setattr("mlpbench.backends.launcher.PATIENCE_TERM", 0.5)
    for limit in (3, 10, 40):  # a busy machine takes its time until the worker is in its task
        events: list[dict] = []
        start = time.monotonic()
        results = launch(rogue(tmp_path, "stubborn"), environment, timeout=limit, on_event=events.append)
        assert time.monotonic() - start < limit + 30
        assert results["train"].status == "timeout"
        assert f"limit of {limit} s" in results["train"].reason
        assert results["predict"].status == "skipped"
        children = [event["pid"] for event in events if event["event"] == "child"]
        if children:
            break
    assert all(gone(child) for child in children)
    assert children


def test_results_and_events_of_an_earlier_run_do_not_count(tmp_path, environment):
    request = rogue(tmp_path, "silent")
    directory = Path(request.directory)
    Result("train", "k1", "done").write(directory)
    (directory / EVENTS).write_text('{"event": "old"}\n')
    events: list[dict] = []
    results = launch(request, environment, timeout=60, on_event=events.append)
    assert results["train"].status == "failed"
    names = [event["event"] for event in events]
    assert "old" not in names
    assert names[:3] == ["hello", "task", "acting"]


def test_a_good_worker(tmp_path):
    environment = Environment("toy", Path(sys.executable), (), "lock", True)
    request = make_request(
        tmp_path / "trial", "mlpbench.worker.adapters.toy:ToyAdapter",
        {"name": "toy", "cutoff": 4.0, "n_basis": 6, "ridge": 1e-6}, n_train=10, n_valid=5,
    )  # fmt: skip
    epochs: list[int] = []
    results = launch(request, environment, on_event=lambda e: epochs.append(e["epoch"]) if "epoch" in e else None)
    assert {name: result.status for name, result in results.items()} == {"train": "done", "predict": "done"}
    assert epochs == [1, 2, 3]
    hello = json.loads((tmp_path / "trial" / HELLO).read_text())
    assert hello["threads"] == 1
    assert (tmp_path / "trial" / LOG).exists()


def test_a_listener_that_fails_takes_the_worker_with_it(tmp_path, environment, monkeypatch):
    monkeypatch.setattr("mlpbench.backends.launcher.PATIENCE_TERM", 0.5)
    pids: list[int] = []

    def listener(event: dict) -> None:
        if event["event"] == "child":
            pids.append(event["pid"])
            raise RuntimeError("the terminal is gone")

    with pytest.raises(RuntimeError, match="the terminal is gone"):
        launch(rogue(tmp_path, "stubborn"), environment, on_event=listener)
    assert gone(pids[0])


def core(tmp_path: Path, request: Request, environment: Environment) -> subprocess.Popen[str]:
    """A core in a process of its own that launches ``request`` and then prints what interrupted it."""
    (tmp_path / "trial" / EVENTS).unlink(missing_ok=True)
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from mlpbench.backends.launcher import launch\nfrom mlpbench.backends.registry import Environment\n"
        "from mlpbench.protocol import Request\n"
        f"request = Request.read(Path({request.directory!r}) / 'request.json')\n"
        f"environment = Environment('rogue', Path(sys.executable), {environment.pythonpath!r}, 'lock', True)\n"
        "try:\n    launch(request, environment)\nexcept KeyboardInterrupt:\n    print('interrupted')\n"
    )
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)


def acting(tmp_path: Path) -> int:
    """Wait until the worker is in its task; its process id."""
    hello = tmp_path / "trial" / HELLO
    for _ in range(300):
        if hello.exists() and "acting" in (tmp_path / "trial" / EVENTS).read_text():
            return int(json.loads(hello.read_text())["pid"])
        time.sleep(0.1)
    raise AssertionError("the worker did not begin")


def gone(pid: int, seconds: float = 10) -> bool:
    for _ in range(int(seconds * 20)):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_ctrl_c_is_forwarded_and_every_task_is_interrupted(tmp_path, environment):
    request = rogue(tmp_path, "hang")
    process = core(tmp_path, request, environment)
    worker = acting(tmp_path)
    os.kill(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30)[0].strip() == "interrupted"
    assert gone(worker)
    train, predict = (Result.read(tmp_path / "trial", name) for name in ("train", "predict"))
    assert train.status == "interrupted"
    assert "run the same command again" in train.reason
    assert predict.status in ("interrupted", "skipped")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the worker looks for its parent once a second")
def test_a_worker_does_not_outlive_a_killed_core(tmp_path, environment):
    process = core(tmp_path, rogue(tmp_path, "hang"), environment)
    worker = acting(tmp_path)
    process.kill()
    process.communicate()
    assert gone(worker)


def test_the_workers_variables(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/core/packages")
    monkeypatch.setenv("PYTHONHOME", "/core")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    variables = worker_environment(Environment("x", Path("python"), ("/a", "/b"), "", True), threads=3)
    assert variables["PYTHONPATH"] == f"/a{os.pathsep}/b"
    assert "PYTHONHOME" not in variables
    assert {variables[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")} == {"3"}
    assert variables["CUDA_VISIBLE_DEVICES"] == "1"
    assert variables["PYTHONHASHSEED"] == "0"
