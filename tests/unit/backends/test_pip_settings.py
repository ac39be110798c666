"""What a user has told pip reaches uv, unless uv was told something itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlpbench.backends.uv import pip_settings, uv_variables


@pytest.fixture
def bare(tmp_path, monkeypatch) -> dict[str, str]:
    """Variables of a user without any configuration; no file of this machine is read."""
    monkeypatch.setattr("mlpbench.backends.uv._pip_files", lambda env: [tmp_path / "pip.conf"])
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "UV_CONFIG_FILE": str(tmp_path / "uv.toml")}


def translate(environment: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    notes: list[str] = []
    return uv_variables(environment, notes.append), notes


def test_nothing_configured_changes_nothing(bare):
    assert translate(bare) == ({}, [])


def test_a_file_and_variables(bare, tmp_path):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.example/simple\ncert = /etc/ca.pem\n"
        f"[install]\nfind-links = {wheels}\n    {tmp_path}/nowhere\n"
    )
    variables, notes = translate(
        {**bare, "PIP_EXTRA_INDEX_URL": f"https://two.example/simple file://{tmp_path}/absent"}
    )
    assert variables == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://two.example/simple",
        "UV_FIND_LINKS": str(wheels),
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "SSL_CERT_FILE": "/etc/ca.pem",
    }
    assert len(notes) == 2
    assert all("does not exist: ignored" in note for note in notes)


def test_a_variable_wins_over_the_file(bare, tmp_path):
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://file.example/simple\n")
    assert pip_settings({**bare, "PIP_INDEX_URL": "https://variable.example/simple"})["index-url"] == (
        "https://variable.example/simple"
    )


@pytest.mark.parametrize("name", ["UV_INDEX", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_FIND_LINKS"])
def test_uvs_own_variables_stand(bare, name):
    assert translate({**bare, "PIP_INDEX_URL": "https://pip.example", name: "x"}) == ({}, [])


def test_uvs_own_file_stands(bare, tmp_path):
    (tmp_path / "uv.toml").write_text('[[index]]\nurl = "https://uv.example/simple"\n')
    assert translate({**bare, "PIP_INDEX_URL": "https://pip.example"}) == ({}, [])


def test_the_strategy_is_the_users_if_there_is_one(bare, tmp_path):
    variables, _ = translate({**bare, "PIP_FIND_LINKS": str(tmp_path), "UV_INDEX_STRATEGY": "first-index"})
    assert variables == {"UV_FIND_LINKS": str(tmp_path)}


def test_no_index(bare):
    assert translate({**bare, "PIP_NO_INDEX": "1"})[0] == {"UV_NO_INDEX": "1"}


def test_a_broken_file_is_pips_business(bare, tmp_path):
    (tmp_path / "pip.conf").write_text("index-url = no section\n")
    assert translate(bare) == ({}, [])


def test_the_order_of_pips_files(monkeypatch, tmp_path):
    from mlpbench.backends import uv as module

    assert module._pip_files({"PIP_CONFIG_FILE": "/dev/null"}) == []
    files = module._pip_files({"PIP_CONFIG_FILE": "/x.conf", "XDG_CONFIG_HOME": str(tmp_path)})
    assert files.index(Path("/etc/pip.conf")) < files.index(tmp_path / "pip" / "pip.conf")
    assert files[-1] == Path("/x.conf")
