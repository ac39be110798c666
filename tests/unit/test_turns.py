"""Trials work beside each other, a timing works alone, and who waits for it is not put off for ever."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from contextlib import ExitStack
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
with getattr(turns, kind)(lambda: (told.append(1), out.with_suffix(".waits").touch())):
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
    waiting = start("beside_others", 0.0, tmp_path / "waiting", wait=False)
    while not (tmp_path / "waiting.waits").exists():
        assert waiting.poll() is None, "the timing holds the machine"
        time.sleep(0.01)
    timing.kill()
    timing.wait()
    assert waiting.wait(timeout=30) == 0
    assert times(tmp_path / "waiting")[2] == 1, "it was told that it waits"
    told: list[str] = []
    with turns.beside_others(lambda: told.append("waits")):
        assert told == [], "nothing is being timed"


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without runtime folders, whose temporary folder everybody may write to; the folder of its locks."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    monkeypatch.delenv("MLPBENCH_TURNS")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(turns.tempfile, "gettempdir", lambda: str(shared))
    monkeypatch.setattr(turns.os, "access", lambda *_: False)  # a runtime folder of whoever runs the tests
    return shared / f"mlpbench-turns-{os.getuid()}"


def test_a_planted_link_is_refused_and_empties_nothing(temporary: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    temporary.mkdir(mode=0o700)
    (temporary / "work").symlink_to(victim)
    with pytest.raises(turns.Unsafe, match="is a link"), turns.beside_others():
        pass
    (temporary / "work").unlink()
    os.link(victim, temporary / "work")  # a hard link cannot be told from a file: it is locked, and keeps its content
    with turns.alone():
        pass
    assert victim.read_text() == "precious"
    (temporary / "work").unlink()
    os.mkfifo(temporary / "work")
    with pytest.raises(turns.Unsafe, match="not an ordinary file"), turns.beside_others():
        pass


def test_a_folder_that_is_not_ours_alone_is_refused(
    temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary.symlink_to(tmp_path)
    with pytest.raises(turns.Unsafe, match="is a link or a file"):
        turns.safe_place()
    temporary.unlink()
    temporary.mkdir()
    temporary.chmod(0o777)
    with pytest.raises(turns.Unsafe, match="written to by others"):
        turns.safe_place()
    temporary.chmod(0o700)
    assert turns.safe_place() == temporary
    owner = os.getuid()
    monkeypatch.setattr(turns, "place", lambda: temporary)
    monkeypatch.setattr(turns.os, "getuid", lambda: owner + 1)
    with pytest.raises(turns.Unsafe, match="another user"):
        turns.safe_place()


def test_the_runtime_folder_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLPBENCH_TURNS")
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert turns.safe_place() == tmp_path / "mlpbench-turns"
    assert (tmp_path / "mlpbench-turns").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_work_goes_on_and_it_is_said_once(
    code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(handle: int, kind: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(turns.fcntl, "flock", flock)
    monkeypatch.setattr(turns, "_said", set())
    for _ in range(2):
        with turns.beside_others():
            pass
        with turns.alone(lambda: pytest.fail("nobody is waited for")):
            pass
    said = capsys.readouterr().err
    assert said.count("no locks on this file system") == 1


def test_devices_are_spread(tmp_path: Path) -> None:
    names = [f"device-{i}" for i in range(3)]
    with ExitStack() as stack:
        taken = [stack.enter_context(turns.least_used(names)) for _ in range(7)]
        assert sorted(taken[:3]) == sorted(taken[3:6]) == names
    with turns.least_used(names) as first:
        assert first == "device-0", "all were given back"
