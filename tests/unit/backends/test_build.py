"""A build that fails leaves nothing that looks finished, and says what uv said."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path

import pytest

from mlpbench.backends import build as building
from mlpbench.backends import uv
from mlpbench.backends.build import build
from mlpbench.backends.registry import COMPLETE, BackendConfig, built_folder, is_complete
from mlpbench.backends.wheels import Pin
from mlpbench.cli import main
from mlpbench.errors import UserError

# Stands in for uv: makes an interpreter, fails where the requirements say so, and keeps a diary.
FAKE_UV = f"""#!{sys.executable}
import os, sys, time
from pathlib import Path
words = sys.argv[1:]
with open(os.environ["DIARY"], "a") as diary:
    diary.write(" ".join(words[:2]) + " offline=" + os.environ.get("UV_OFFLINE", "") + "\\n")
if words[:2] == ["cache", "dir"]:
    print(os.environ["DIARY"])
elif words[0] == "venv":
    folder = Path(words[words.index("--python") + 2])
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
elif words[:2] == ["pip", "install"]:
    text = Path(words[words.index("-r") + 1]).read_text()
    time.sleep(0.3)
    if "broken" in text:
        print("No solution found: broken==1 is nowhere")
        sys.exit(1)
"""


@pytest.fixture
def diary(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MLPBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIARY", str(tmp_path / "diary"))
    fake = tmp_path / "uv"
    fake.write_text(FAKE_UV)
    fake.chmod(0o755)
    monkeypatch.setattr(uv, "uv_command", lambda: str(fake))
    monkeypatch.setattr(building, "uv_command", lambda: str(fake))
    return tmp_path / "diary"


def backend(tmp_path: Path, pins: str) -> BackendConfig:
    path = tmp_path / "x.txt"
    path.write_text(pins)
    return BackendConfig(name="x", adapter="a:B", requirements=str(path))


def test_all_builds_the_default_set_and_names_the_rest(tmp_path, diary, monkeypatch, capsys):
    first, second = backend(tmp_path, "a==1\n"), backend(tmp_path, "b==1\n")
    second = second.model_copy(update={"name": "large", "default": False, "size_gb": 5.6, "licence": "LGPL-3.0"})
    unbuildable = second.model_copy(update={"name": "elsewhere", "requirements": None})
    known = {each.name: each for each in (first, second, unbuildable)}
    monkeypatch.setattr("mlpbench.config.load_backends", lambda overrides: known)
    assert main(["env", "build", "--all"]) == 0
    said = capsys.readouterr().err
    assert "large: not in the default set (about 5.6 GB, LGPL-3.0): mlpbench env build large" in said
    assert is_complete(built_folder(first))
    assert not built_folder(second).exists()
    assert "elsewhere" not in said
    assert main(["env", "build", "large"]) == 0
    assert is_complete(built_folder(second))


def quiet(line: str) -> None:
    """Say nothing."""


def test_a_build_and_then_nothing(tmp_path, diary):
    x = backend(tmp_path, "numpy==2.0.2\n")
    environment = build(x, progress=quiet)
    assert environment.python == built_folder(x) / "bin" / "python"
    assert is_complete(built_folder(x))
    before = diary.read_text()
    said: list[str] = []
    assert build(x, progress=said.append) == environment
    assert diary.read_text() == before
    assert "built already" in said[-1]
    build(x, rebuild=True, progress=quiet)
    assert diary.read_text().count("venv") == 2


def test_changed_pins_are_another_environment(tmp_path, diary):
    first = build(backend(tmp_path, "numpy==2.0.2\n"), progress=quiet)
    second = build(backend(tmp_path, "numpy==2.0.1\n"), progress=quiet)
    assert first.python != second.python
    assert first.lock != second.lock


def test_a_failure_shows_uvs_words_and_leaves_nothing(tmp_path, diary):
    x = backend(tmp_path, "broken==1\n")
    with pytest.raises(UserError, match="broken==1 is nowhere"):
        build(x, progress=quiet)
    assert not built_folder(x).exists()


def test_a_half_built_folder_is_built_anew(tmp_path, diary):
    x = backend(tmp_path, "numpy==2.0.2\n")
    (built_folder(x) / "bin").mkdir(parents=True)
    (built_folder(x) / "rubbish").touch()
    build(x, progress=quiet)
    assert not (built_folder(x) / "rubbish").exists()


def test_ctrl_c_leaves_nothing(tmp_path, diary, monkeypatch):
    x = backend(tmp_path, "numpy==2.0.2\n")

    def interrupt(*arguments: object) -> None:
        built_folder(x).mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(building, "run_uv", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(x, progress=quiet)
    assert not built_folder(x).exists()


def _build_in_child(path: str) -> None:
    build(BackendConfig(name="x", adapter="a:B", requirements=path), progress=quiet)


def test_two_builds_at_once_make_one_environment(tmp_path, diary):
    x = backend(tmp_path, "numpy==2.0.2\n")
    context = multiprocessing.get_context("fork")  # the children keep the stand-in for uv
    children = [context.Process(target=_build_in_child, args=(x.requirements,)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0]
    assert diary.read_text().count("venv") == 1


def test_too_little_disk_is_said_before_anything_is_fetched(tmp_path, diary, monkeypatch):
    monkeypatch.setattr(building, "disk_left", lambda folder: {tmp_path: 2.1})
    with pytest.raises(UserError, match=r"about 6\.0 GB, but .* has 2\.1 GB left"):
        build(backend(tmp_path, "torch==2.13.0\n"), progress=quiet)
    assert not diary.exists()
    build(backend(tmp_path, "numpy==2.0.2\n"), progress=quiet)  # without torch it is enough


def test_a_second_environment_with_the_same_torch_needs_less(tmp_path, diary, monkeypatch):
    monkeypatch.setattr(building, "wants_cpu_build", lambda choice, offline: False)
    first = build(backend(tmp_path, "torch==2.13.0\nnumpy==2.0.2\n"), progress=quiet)
    monkeypatch.setattr(building, "disk_left", lambda folder: {tmp_path: 2.1})
    second = build(backend(tmp_path, "torch==2.13.0\n"), progress=quiet)  # 2.1 GB would not do for a first one
    assert second.lock != first.lock


def test_a_folder_of_wheels(tmp_path, diary):
    x = backend(tmp_path, "numpy==2.0.2\npython-hostlist==2.3.0\n")
    with pytest.raises(UserError, match="no such folder"):
        build(x, wheels=tmp_path / "nowhere", offline=True, progress=quiet)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "numpy-2.0.2-py3-none-any.whl").touch()
    with pytest.raises(UserError, match="lacks python-hostlist, which 'x' needs"):
        build(x, wheels=wheels, offline=True, progress=quiet)
    (wheels / "python_hostlist-2.3.0-py3-none-any.whl").touch()
    build(x, wheels=wheels, offline=True, progress=quiet)
    assert "pip install offline=1" in diary.read_text()


def test_offline_looks_into_the_folder_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_INDEX", "https://index.example/simple")
    variables = uv.source_variables(tmp_path, True, quiet)
    assert variables["UV_FIND_LINKS"] == str(tmp_path)
    assert variables["UV_NO_INDEX"] == "1"
    assert variables["UV_INDEX"] == ""
    both = uv.source_variables(tmp_path, False, quiet)
    assert str(tmp_path) in both["UV_FIND_LINKS"].split(",")
    assert "UV_NO_INDEX" not in both


def test_the_cpu_build_is_for_machines_without_a_driver(monkeypatch):
    monkeypatch.delenv("UV_TORCH_BACKEND", raising=False)
    monkeypatch.setattr(building, "driver_present", lambda: False)
    assert building.wants_cpu_build("auto", offline=False)
    assert not building.wants_cpu_build("auto", offline=True)
    assert not building.wants_cpu_build("default", offline=False)
    monkeypatch.setattr(building, "driver_present", lambda: True)
    assert not building.wants_cpu_build("auto", offline=False)
    assert building.wants_cpu_build("cpu", offline=False)


def test_the_cpu_build_leaves_out_what_only_cuda_needs():
    pins = [
        Pin("torch", "2.13.0", frozenset({"-r x.in"})),
        Pin("nvidia-cublas", "13.1", frozenset({"torch", "nvidia-cudnn"})),
        Pin("nvidia-cudnn", "9.2", frozenset({"torch"})),
        Pin("triton", "3.7", frozenset({"torch"})),
        Pin("cuda-pathfinder", "1.9", frozenset({"torch", "warp-lang"})),
        Pin("warp-lang", "1.19", frozenset({"torch-sim"})),
        Pin("sympy", "1.14", frozenset({"torch"})),
    ]
    assert [pin.name for pin in building.without_cuda(pins)] == ["torch", "cuda-pathfinder", "warp-lang", "sympy"]


def test_asking_for_a_cpu_build_takes_ten_seconds_at_most(tmp_path, monkeypatch):
    slow = tmp_path / "uv"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setattr(building, "LIMIT", 0.3)
    start = time.monotonic()
    assert not building.cpu_build_exists(str(slow), Path("python"), Pin("torch", "1", frozenset()), {})
    assert time.monotonic() - start < 5
    slow.write_text("#!/bin/sh\necho ' + torch==1+cpu'\n")
    assert building.cpu_build_exists(str(slow), Path("python"), Pin("torch", "2", frozenset()), {})


def test_uvs_output_goes_to_progress(tmp_path, diary):
    said: list[str] = []
    with pytest.raises(UserError):
        build(backend(tmp_path, "broken==1\n"), progress=said.append)
    assert any("No solution found" in line for line in said)
    assert not os.path.exists(tmp_path / COMPLETE)
