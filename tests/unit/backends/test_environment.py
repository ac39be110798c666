"""Built and adopted interpreters: locks, checks before use, and what is said when one cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlpbench.backends import probe as probing
from mlpbench.backends.environment import check, disk_gb, environments, needs, remove, resolve
from mlpbench.backends.probe import Installed, clashes, probe
from mlpbench.backends.registry import (
    COMPLETE,
    BackendConfig,
    Environment,
    build_lock,
    built_folder,
    built_lock,
    home,
    interpreter,
)
from mlpbench.errors import UserError
from mlpbench.files import locked


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MLPBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLPBENCH_TOY_PYTHON", raising=False)
    monkeypatch.delenv("MLPBENCH_OTHER_PYTHON", raising=False)
    return tmp_path / "home"


def toy(**more: object) -> BackendConfig:
    values = {
        "name": "toy",
        "adapter": "mlpbench.worker.adapters.toy:ToyAdapter",
        "requirements": "toy.requirements.txt",
    }
    return BackendConfig(**{**values, **more})


def other(tmp_path: Path, wanted: str, pins: str) -> BackendConfig:
    """A backend ``other`` with an ``.in`` and a ``.txt`` of its own."""
    (tmp_path / "other.in").write_text(wanted)
    (tmp_path / "other.txt").write_text(pins)
    return toy(name="other", requirements=str(tmp_path / "other.txt"))


def distribution(folder: Path, name: str, version: str, *requires: str) -> None:
    """Make ``folder`` hold an installed distribution without any code."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def pretend_built(backend: BackendConfig) -> Path:
    folder = built_folder(backend)
    interpreter(folder).parent.mkdir(parents=True)
    interpreter(folder).symlink_to(sys.executable)
    (folder / COMPLETE).write_text("{}")
    return folder


def test_home(monkeypatch, tmp_path):
    assert home() == tmp_path / "home"
    monkeypatch.delenv("MLPBENCH_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert home() == tmp_path / "cache" / "mlpbench"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert home() == Path.home() / ".cache" / "mlpbench"


def test_the_lock_follows_the_pins_and_not_the_comments(tmp_path):
    first = built_lock(other(tmp_path, "", "a==1\nb==2\n    # via a\n"))
    assert built_lock(other(tmp_path, "", "b==2  # why\n\na==1\n")) == first
    assert built_lock(other(tmp_path, "", "a==1\nb==3\n")) != first


def test_what_is_not_built_names_the_command():
    with pytest.raises(UserError, match="not built yet") as error:
        resolve(toy())
    assert error.value.hint == "Run: mlpbench env build toy"


def test_a_half_built_one_is_not_taken():
    folder = pretend_built(toy())
    (folder / COMPLETE).unlink()
    with pytest.raises(UserError, match="is incomplete"):
        resolve(toy())


def test_a_built_one():
    folder = pretend_built(toy())
    assert resolve(toy()) == Environment("toy", folder / "bin" / "python", (), built_lock(toy()), False)
    assert folder.name == f"toy-{built_lock(toy())[:12]}"


def test_adopting_and_the_order_of_who_says_it(monkeypatch, tmp_path):
    monkeypatch.setenv("MLPBENCH_TOY_PYTHON", str(tmp_path / "no-python"))
    with pytest.raises(UserError, match=r"MLPBENCH_TOY_PYTHON: there is no interpreter"):
        resolve(toy())
    found = resolve(toy(python=sys.executable))  # the configuration wins over the variable
    assert found.adopted
    assert found.python == Path(sys.executable)  # the link of the virtual environment, not what it points to
    assert found.lock != built_lock(toy())


def test_an_interpreter_that_is_none(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho 'cannot find libpython' >&2\nexit 3\n")
    fake.chmod(0o755)
    with pytest.raises(UserError, match=r"backend\.toy\.python: .*exit code 3\): cannot find libpython"):
        resolve(toy(python=str(fake)))
    fake.chmod(0o644)
    with pytest.raises(UserError, match="cannot be started"):
        resolve(toy(python=str(fake)))


def test_a_missing_package_and_a_folder_that_has_it(tmp_path):
    backend = other(tmp_path, "frobnicate==2.0\n", "frobnicate==2.0\n").model_copy(update={"python": sys.executable})
    with pytest.raises(UserError, match="frobnicate is not installed") as error:
        resolve(backend)
    assert "pythonpath" in (error.value.hint or "")
    packages = tmp_path / "packages"
    distribution(packages, "frobnicate", "2.0")
    with_folder = backend.model_copy(update={"pythonpath": [str(packages)]})
    found = resolve(with_folder)
    assert found.pythonpath == (str(packages),)
    with pytest.raises(UserError, match="which is not a folder"):
        resolve(backend.model_copy(update={"pythonpath": [str(tmp_path / "nowhere")]}))


def test_a_clash_names_both_packages(tmp_path):
    packages = tmp_path / "packages"
    distribution(packages, "frobnicate", "2.0", "e3nn==0.4.4", "absent>=1", "tests-only; extra == 'dev'")
    distribution(packages, "e3nn", "0.6.0")
    backend = other(tmp_path, "frobnicate==2.0\n", "frobnicate==2.0\n")
    backend = backend.model_copy(update={"python": sys.executable, "pythonpath": [str(packages)]})
    with pytest.raises(UserError) as error:
        resolve(backend)
    assert "frobnicate 2.0 needs e3nn==0.4.4, but 0.6.0 is installed" in error.value.message
    assert "frobnicate 2.0 needs absent>=1, which is not installed" in error.value.message
    assert "tests-only" not in error.value.message


def test_another_version_is_a_note_and_an_optional_package_may_be_missing(tmp_path):
    backend = other(tmp_path, "frobnicate==2.0\ntorchsim==1  # optional\n", "frobnicate==2.0\ntorchsim==1\n")
    assert [(need.name, need.version, need.optional) for need in needs(backend)] == [
        ("frobnicate", "2.0", False), ("torchsim", "1", True),
    ]  # fmt: skip
    installed = Installed("3.12.1", {"frobnicate": ("2.1", [])}, {}, torch=False)
    errors, notes = check(backend, installed)
    assert errors == []
    tested = "frobnicate 2.1 differs from 2.0, the version that mlpbench was tested with"
    assert notes == [tested, "torchsim is not installed"]
    errors, _ = check(backend, Installed("3.10.4", installed.distributions, {}, torch=False))
    assert errors == ["Python 3.10.4 is too old, 3.12 or later is needed"]


def test_a_local_build_of_torch_is_the_same_version(tmp_path):
    backend = other(tmp_path, "torch==2.13.0\n", "torch==2.13.0\n")
    assert check(backend, Installed("3.12.1", {"torch": ("2.13.0+cu130", [])}, {}, torch=True)) == ([], [])
    assert (
        clashes(Installed("3.12.1", {"a": ("1", ["torch==2.13.0"]), "torch": ("2.13.0+cpu", [])}, {}, True), ["a"])
        == []
    )


def test_what_a_package_requires_and_never_imports_may_be_missing():
    installed = Installed("3.12.1", {"a": ("1", ["Pre_Commit>=2", "b"]), "b": ("1", ["c"])}, {}, torch=False)
    assert clashes(installed, ["a"], ["pre-commit"]) == ["b 1 needs c, which is not installed"]
    assert len(clashes(installed, ["a"])) == 2


def test_the_answer_of_an_interpreter_is_kept_until_something_is_installed(tmp_path, monkeypatch):
    packages = tmp_path / "packages"
    packages.mkdir()
    asked = []
    ask = probing._ask
    monkeypatch.setattr(probing, "_ask", lambda *a: asked.append(a) or ask(*a))
    first = probe(Path(sys.executable), [str(packages)])
    assert probe(Path(sys.executable), [str(packages)]) == first
    assert len(asked) == 1
    distribution(packages, "frobnicate", "2.0")
    assert probe(Path(sys.executable), [str(packages)]).versions["frobnicate"] == "2.0"
    assert len(asked) == 2


def test_the_lock_of_an_adopted_one_follows_what_is_installed(tmp_path):
    packages = tmp_path / "packages"
    packages.mkdir()
    backend = toy(python=sys.executable, pythonpath=[str(packages)])
    first = resolve(backend).lock
    assert resolve(backend).lock == first
    distribution(packages, "frobnicate", "2.0")
    assert resolve(backend).lock != first


def test_the_list_and_removing(tmp_path, own_home):
    folder = pretend_built(toy())
    (own_home / "envs" / "toy-000000000000").mkdir()
    adopted = toy(name="adopted", python=sys.executable)
    missing = other(tmp_path, "", "x==1\n").model_copy(update={"size_gb": 5.6})
    (folder / "library.so").write_bytes(bytes(3000))
    rows = environments([toy(), adopted, missing])
    assert [(row.name, row.state) for row in rows] == [
        ("toy", "built"), ("adopted", "adopted"), ("other", "missing"), ("toy-000000000000", "unused"),
    ]  # fmt: skip
    assert "mlpbench env build other" in rows[2].detail
    assert rows[0].size_gb == pytest.approx(disk_gb(folder)) == pytest.approx(3e-6, rel=0.5)
    assert [row.size_gb for row in rows[1:]] == [None, 5.6, 0.0]
    with locked(build_lock(folder)), pytest.raises(UserError, match="another process"):
        remove(folder)
    remove(folder)
    assert not folder.exists()


def test_a_built_environment_is_kept_while_another_is_adopted():
    folder = pretend_built(toy())
    assert [(row.state, row.path) for row in environments([toy(python=sys.executable)])] == [
        ("adopted", Path(sys.executable))
    ]
    assert folder.exists()
