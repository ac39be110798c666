"""A run whose environments are not built: what is said, who is asked, and what is built."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from mlpbench.backends.environment import NotBuilt
from mlpbench.backends.registry import BackendConfig
from mlpbench.cli import building, main, run
from mlpbench.errors import EXIT_USAGE, UserError

GRID = ["-m", "study=b", "architecture=sevennet,soap_bpnn,pet", "size=tiny", "dataset.n_train=20"]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what would have been built, in a home without environments."""
    names: list[str] = []

    def note(backend: BackendConfig, **_: object) -> None:
        names.append(backend.name)

    monkeypatch.setenv("MLPBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(building, "build", note)
    return names


def test_without_a_terminal_nothing_is_built_and_the_command_is_named(
    built: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *GRID]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert built == []
    assert "mlpbench env build sevennet metatrain, or add --build" in said
    assert "sevennet: sevenn; about 5.6 GB, most of it shared with other environments by hard links; MIT" in said
    assert "Build now?" not in said
    assert "Traceback" not in said
    assert not list(Path("results").glob("*/*/record.json"))


def test_with_build_each_environment_is_built_once(built: list[str]) -> None:
    with pytest.raises(NotBuilt):  # the fixture's builder builds nothing, so the second look finds nothing
        run.main(["--build", *GRID])
    assert built == ["sevennet", "metatrain"]


@pytest.mark.parametrize(
    ("answer", "expected"), [("y\n", ["sevennet", "metatrain"]), ("\n", []), ("no\n", []), ("", [])]
)
def test_on_a_terminal_it_is_asked_once(
    built: list[str], monkeypatch: pytest.MonkeyPatch, answer: str, expected: list[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    monkeypatch.setattr("sys.stderr", terminal)
    with pytest.raises(UserError):
        run.main(GRID)
    assert built == expected
    assert terminal.getvalue().count("Build now?") == 1
