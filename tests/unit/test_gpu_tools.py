"""The steps of ``tests/gpu``: limits, what is kept, what a second call repeats; which packages a bundle carries."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from mlpbench.errors import UserError
from tests.gpu.bundle import read_target, unfit
from tests.gpu.runner import Clock, Kept, Rows, Step, Trouble, run_steps


def measured(clock: Clock) -> Rows:
    return {"speed": [{"ms": 1.5}]}


def sleeping(clock: Clock) -> Rows:
    clock.call([sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"], {}, clock_log)
    return {}


def failing(clock: Clock) -> Rows:
    try:
        clock.call([sys.executable, "-c", "print('mlpbench: no such device'); raise SystemExit(2)"], {}, clock_log)
    except Trouble as trouble:
        raise Trouble(str(trouble), {"md": [{"replicas": 8}]}) from trouble
    return {}


clock_log = Path("unset")


@pytest.fixture(autouse=True)
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "clock_log", tmp_path / "logs" / "log")


def call(tmp_path: Path, steps: list[Step], seconds: float = 100.0) -> bool:
    kept = Kept(tmp_path / "out", tmp_path / "work", None)
    return run_steps(steps, kept, time.monotonic() + seconds, 2)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_step_at_its_limit_ends_and_the_others_go_on(tmp_path: Path) -> None:
    begin = time.monotonic()
    steps = [Step("a:slow", 1.5, sleeping), Step("b:broken", 30, failing), Step("c:good", 30, measured)]
    assert not call(tmp_path, steps)
    assert time.monotonic() - begin < 40  # the sleeper would have taken 60 s
    known = json.loads((tmp_path / "out" / "acceptance.json").read_text())["steps"]
    assert {name: entry["status"] for name, entry in known.items()} == {
        "a:slow": "timeout", "b:broken": "failed", "c:good": "done",
    }  # fmt: skip
    assert known["b:broken"]["reason"] == "exit code 2: mlpbench: no such device"
    assert rows_of(tmp_path / "out" / "speed.csv") == [{"step": "c:good", "ms": "1.5"}]
    assert rows_of(tmp_path / "out" / "md.csv") == [{"step": "b:broken", "replicas": "8"}]


def test_a_second_call_repeats_only_what_is_not_done(tmp_path: Path) -> None:
    count = {"good": 0, "bad": 0}

    def good(clock: Clock) -> Rows:
        count["good"] += 1
        return measured(clock)

    def bad(clock: Clock) -> Rows:
        count["bad"] += 1
        if count["bad"] == 1:
            raise Trouble("not yet")
        return {"speed": [{"ms": 3.0}]}

    steps = [Step("x:good", 30, good), Step("x:bad", 30, bad)]
    assert not call(tmp_path, steps)
    assert call(tmp_path, steps)
    assert count == {"good": 1, "bad": 2}
    assert [row["step"] for row in rows_of(tmp_path / "out" / "speed.csv")] == ["x:good", "x:bad"]


def test_the_results_of_a_machine_that_is_gone_are_gone_on_from(tmp_path: Path) -> None:
    assert call(tmp_path, [Step("x:good", 30, measured)])
    kept = Kept(tmp_path / "new", tmp_path / "new-work", tmp_path / "out")
    assert kept.done("x:good")
    kept.write()
    assert rows_of(tmp_path / "new" / "speed.csv") == [{"step": "x:good", "ms": "1.5"}]


def test_with_no_time_left_nothing_is_begun(tmp_path: Path) -> None:
    assert not call(tmp_path, [Step("x:good", 30, measured)], seconds=5.0)
    assert "not begun" in (tmp_path / "out" / "acceptance.log").read_text()


def test_what_a_target_has_in_an_unknown_version_is_carried_if_it_is_bounded(tmp_path: Path) -> None:
    wheel = tmp_path / "mace-1.0-py3-none-any.whl"
    lines = ["e3nn==0.4.4", "numpy>=2.6", "scipy>=1", "gone", "warp-lang", "odd; python_version < '3'"]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(
            "mace-1.0.dist-info/METADATA", "Name: mace\n" + "".join(f"Requires-Dist: {n}\n" for n in lines)
        )
    target = {"e3nn": None, "numpy": "2.5.2", "scipy": None}
    carry, missing = unfit({"mace": wheel}, target)
    assert carry == {"e3nn", "numpy"}  # the version of numpy is known, and too old
    assert missing == ["mace needs gone"]


def test_a_list_of_the_target(tmp_path: Path) -> None:
    path = tmp_path / "target.txt"
    path.write_text("# comment\ntorch==2.11.0\nPy_Thing\n")
    assert read_target(path) == {"torch": "2.11.0", "py-thing": None}
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match="lists no package"):
        read_target(path)


STOPPED = """
import sys, time
from pathlib import Path
from tests.gpu.runner import Kept, Step, run_steps
folder = Path(sys.argv[1])
code = "import time; print('begun', flush=True); time.sleep(60)"
steps = [Step("x:slow", 100, lambda clock: clock.call([sys.executable, "-c", code], {}, folder / "log") and {}),
         Step("y:next", 100, lambda clock: {})]
run_steps(steps, Kept(folder / "out", folder / "work", None), time.monotonic() + 100, 1)
"""


def test_ctrl_c_ends_the_step_that_runs_and_begins_no_other(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", STOPPED, str(tmp_path)], cwd=root, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while time.monotonic() < end and "begun" not in (
        (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    ):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=40)  # the step would have taken 60 s
    known = json.loads((tmp_path / "out" / "acceptance.json").read_text())["steps"]
    assert {name: entry["status"] for name, entry in known.items()} == {"x:slow": "interrupted"}
