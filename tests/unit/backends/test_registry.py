"""Backends come from YAML files of conf folders and from outside packages."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from pydantic import ValidationError

from mlpbench.backends import registry
from mlpbench.backends.registry import ADAPTERS, BackendConfig, backend_nodes
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


def test_an_outside_package_announces_a_backend(tmp_path, monkeypatch):
    path = write(tmp_path, "deep.yaml", "deep: {adapter: 'deep.adapter:Deep', requirements: deep.requirements.txt}")
    (tmp_path / "deep_entry.py").write_text(
        f"YAML = {str(path)!r}\ndef broken():\n    return {str(tmp_path / 'no')!r}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [metadata.EntryPoint("deep", "deep_entry:YAML", registry.ENTRY_POINTS)]
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: points)
    node = backend_nodes([CONF])["deep"]
    assert node["requirements"] == str(path.parent / "deep.requirements.txt")
    points[0] = metadata.EntryPoint("deep", "deep_entry:broken", registry.ENTRY_POINTS)
    with pytest.raises(UserError, match="not a file"):
        backend_nodes([CONF])
    points[0] = metadata.EntryPoint("deep", "not_there:YAML", registry.ENTRY_POINTS)
    with pytest.raises(UserError, match="ModuleNotFoundError"):
        backend_nodes([CONF])


def test_settings_are_strict():
    assert BackendConfig(name="x", adapter="a.b:C", requirements="r.txt").requirements_path() == ADAPTERS / "r.txt"
    assert BackendConfig(name="x", adapter="a.b:C", requirements="/r.txt").requirements_path() == Path("/r.txt")
    with pytest.raises(ValidationError, match="pythn"):
        BackendConfig(name="x", adapter="a.b:C", pythn="/usr/bin/python")  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="adapter"):
        BackendConfig(name="x", adapter="a.b.C")
