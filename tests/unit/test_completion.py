"""What a shell is told when it asks what may follow."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mlpbench.cli._completion import complete

COMMANDS = ["run", "report", "env", "table"]


def answer(monkeypatch, line: str, arguments: tuple[str, ...] = ("-sc", "query=bash")) -> tuple[str, list[str]]:
    """The line and the arguments that Hydra gets to see; an empty line if it is not asked."""
    seen: list[tuple[str, list[str]]] = []

    def hydra() -> int:
        seen.append((os.environ["COMP_LINE"], list(sys.argv)))
        return 0

    monkeypatch.setenv("COMP_LINE", line)
    assert complete(arguments, COMMANDS, hydra) == 0
    return seen[0] if seen else ("", [])


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("mlpbench ", "run report env table"),
        ("mlpbench r", "run report"),
        ("mlpbench run", "run"),
        ("mlpbench env b", "build"),
        ("mlpbench env build to", "toy"),
        ("mlpbench report fi", "first"),
        ("mlpbench nothing ", ""),
    ],
)
def test_names_outside_run(monkeypatch, capsys, tmp_path, line, printed):
    (tmp_path / "results" / "first").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert answer(monkeypatch, line)[0] == ""
    assert capsys.readouterr().out.strip() == printed


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("mlpbench run ", "mlpbench "),
        ("mlpbench run arch", "mlpbench arch"),
        ("mlpbench run -m architecture=toy size=", "mlpbench architecture=toy size="),
        (".venv/bin/mlpbench run --multirun experiment=", ".venv/bin/mlpbench experiment="),
        ("/opt/run/mlpbench run study=rerun dataset.n", "/opt/run/mlpbench study=rerun dataset.n"),
    ],
)
def test_hydra_sees_the_overrides_alone(monkeypatch, line, seen):
    found, argv = answer(monkeypatch, line)
    assert found == seen
    assert argv == ["mlpbench", "-sc", "query=bash"]


def test_the_script_is_installed_under_the_programs_name(monkeypatch):
    before = list(sys.argv)
    assert answer(monkeypatch, "", ("-sc", "install=bash"))[1] == ["mlpbench", "-sc", "install=bash"]
    assert sys.argv == before
    assert Path(sys.argv[0]).name != "mlpbench"
