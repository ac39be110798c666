"""Trials work beside each other, a timing works alone, and who waits for it is not put off for ever."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlpbench import turns

# Takes a turn of the given kind, writes when it began and ended, and holds it for the given seconds.
SCRIPT = """
import sys, time
from pathlib import Path
from mlpbench import turns
kind, seconds, out = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
told = []
with getattr(turns, kind)(lambda: told.append(1)):
    start = time.monotonic()
    out.with_suffix(".began").touch()
    time.sleep(seconds)
    out.write_text(f"{start} {time.monotonic()} {len(told)}")
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPBENCH_TURNS", str(tmp_path / "turns"))


def start(kind: str, seconds: float, out: Path, wait: bool = True) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, kind, str(seconds), str(out)])
    while wait and not out.with_suffix(".began").exists():
        assert process.poll() is None
        time.sleep(0.01)
    return process


def times(out: Path) -> tuple[float, float, int]:
    begin, end, told = out.read_text().split()
    return float(begin), float(end), int(told)


def test_workers_share_and_a_timing_waits_for_them(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("first", "second", "timing", "late")]
    processes = [start("beside_others", 1.5, names[0]), start("beside_others", 1.5, names[1])]
    processes.append(start("alone", 0.3, names[2], wait=False))
    time.sleep(0.8)
    processes.append(start("beside_others", 0.1, names[3], wait=False))
    assert [process.wait(timeout=30) for process in processes] == [0, 0, 0, 0]
    first, second, timing, late = map(times, names)
    assert second[0] < first[1], "two trials work at the same time"
    assert timing[0] >= max(first[1], second[1]), "a timing begins when both are through"
    assert late[0] >= timing[1], "who came after the timing asked waits for it"
    assert (first[2], second[2], timing[2], late[2]) == (0, 0, 1, 1), "only those who wait are told so, once"


def test_a_killed_timing_gives_its_turn_back(tmp_path: Path) -> None:
    timing = start("alone", 60.0, tmp_path / "timing")
    timing.kill()
    timing.wait()
    with turns.beside_others(lambda: pytest.fail("nothing is being timed")):
        pass
