"""Backends come from YAML files of conf folders and from outside packages."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlpbench.backends import registry
from mlpbench.backends.registry import ADAPTERS, BackendConfig, backend_nodes
from mlpbench.config import conf_dirs
from mlpbench.errors import UserError

CONF = Path(__file__).parents[3] / "conf"


def write(folder: Path, file: str, text: str) -> Path:
    (folder / "backend").mkdir(parents=True, exist_ok=True)
    path = folder / "backend" / file
    path.write_text(text)
    return path


def test_every_backend_that_ships_is_whole():
    nodes = backend_nodes([CONF])
    assert "toy" in nodes
    for name, node in nodes.items():
        backend = BackendConfig(name=name, **node)
        path = backend.requirements_path()
        assert path is not None, f"conf/backend/{name}.yaml names no requirements"
        assert path.is_file(), f"conf/backend/{name}.yaml names {path}, which does not exist"
        assert (CONF / "backend" / f"{name}.yaml").is_file(), "a file is called as the backend in it"


def test_the_first_folder_wins(tmp_path):
    for folder, version in (("mine", 7), ("packaged", 1)):
        write(tmp_path / folder, "x.yaml", f"x: {{adapter: 'a.b:C', adapter_version: {version}}}")
    write(tmp_path / "packaged", "y.yaml", "y: {adapter: 'a.b:C'}")
    nodes = backend_nodes([tmp_path / "mine", tmp_path / "packaged"])
    assert nodes["x"]["adapter_version"] == 7
    assert set(nodes) == {"x", "y"}


@pytest.mark.parametrize("text", ["x: [", "- x", "x: {adapter: a}\ny: {adapter: b}", "x: 3", ""])
def test_a_file_of_another_form_is_named(tmp_path, text):
    path = write(tmp_path, "x.yaml", text)
    with pytest.raises(UserError, match=r"x\.yaml") as error:
        backend_nodes([tmp_path])
    assert str(path) in error.value.message


@pytest.fixture
def announced(tmp_path, monkeypatch):
    """Entry points of outside packages; ``deep`` is one that is complete."""
    (tmp_path / "deep" / "conf" / "backend").mkdir(parents=True)
    (tmp_path / "deep" / "__init__.py").write_text("raise ImportError('never imported by the core')\n")
    write(tmp_path / "deep" / "conf", "deep.yaml", "deep: {adapter: 'deep.adapter:Deep', requirements: deep.txt}")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    points: list[metadata.EntryPoint] = []
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: points)
    registry._find_outside.cache_clear()
    yield points
    registry._find_outside.cache_clear()


def test_an_outside_package_brings_a_backend(tmp_path, announced):
    announced.append(metadata.EntryPoint("deep", "deep", registry.ENTRY_POINTS))
    assert conf_dirs()[-1] == tmp_path / "deep" / "conf"
    backend = BackendConfig(name="deep", **backend_nodes(conf_dirs())["deep"])
    assert backend.package == str(tmp_path / "deep")
    assert backend.requirements_path() == tmp_path / "deep" / "deep.txt"


def test_ones_own_file_for_an_outside_backend_finds_its_package(tmp_path, announced):
    announced.append(metadata.EntryPoint("deep", "deep", registry.ENTRY_POINTS))
    write(tmp_path / "mine", "deep.yaml", "deep: {adapter: 'deep.adapter:Deep', requirements: deep.txt, python: /x}")
    node = backend_nodes([tmp_path / "mine", *conf_dirs()])["deep"]
    assert (node["python"], node["package"]) == ("/x", str(tmp_path / "deep"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("toy: {adapter: 'deep.adapter:Deep'}", "another backend 'toy'"),
     ("deep: {adapter: 'deep.adapter:Deep', architectures: {mace: {title: M}}}", "'mace' has an architecture 'mace'")],
)  # fmt: skip
def test_an_outside_package_hides_nothing_and_is_not_hidden(tmp_path, announced, text, message):
    announced.append(metadata.EntryPoint("deep", "deep", registry.ENTRY_POINTS))
    write(tmp_path / "deep" / "conf", "deep.yaml", text)
    with pytest.raises(UserError, match=message):
        backend_nodes(conf_dirs())


@pytest.mark.parametrize(
    ("value", "message"),
    [("not_there", "does not name a package"), ("deep:YAML", "does not name a package"),
     ("deep.adapter", "does not name a package"), ("bare", "no folder 'conf'")],
)  # fmt: skip
def test_an_entry_point_that_names_no_such_package_is_said(announced, value, message):
    announced.append(metadata.EntryPoint("deep", value, registry.ENTRY_POINTS))
    with pytest.raises(UserError, match=message):
        conf_dirs()


def test_settings_are_strict():
    assert BackendConfig(name="x", adapter="a.b:C", requirements="r.txt").requirements_path() == ADAPTERS / "r.txt"
    assert BackendConfig(name="x", adapter="a.b:C", requirements="/r.txt").requirements_path() == Path("/r.txt")
    with pytest.raises(ValidationError, match="pythn"):
        BackendConfig(name="x", adapter="a.b:C", pythn="/usr/bin/python")  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="adapter"):
        BackendConfig(name="x", adapter="a.b.C")
