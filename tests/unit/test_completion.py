"""What a shell is told when it asks what may follow."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mlpbench.cli import COMMANDS as ALL
from mlpbench.cli import _function, complete, main

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
        ("mlpbench env build to", "torchani toy"),
        ("mlpbench report fi", "first"),
        ("mlpbench compare first fi", "first"),
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


@pytest.mark.parametrize("name", sorted(set(ALL) - {"run"}))  # the help of run is Hydra's, see test_hydra_is_all_there
def test_every_command_has_its_functions_and_says_what_it_takes(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: mlpbench {name} ")
    assert " ".join(ALL[name][1].split()) in " ".join(text.split())
    assert callable(_function("execute", name))


def test_no_arguments_list_every_command_and_are_a_mistake(capsys):
    assert main([]) == 2
    text = capsys.readouterr().out
    assert all(f"\n  {name:<10} {said}" in text for name, (_, said) in ALL.items())
