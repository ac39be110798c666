"""``mlpbench studies``, and the exit code of a command whose trials were all skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlpbench.cli import main
from mlpbench.cli.run import Session
from mlpbench.errors import EXIT_USAGE
from mlpbench.files import locked
from tests.unit.decision_tables import record


def test_studies_are_listed_with_their_trials_by_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["studies"]) == EXIT_USAGE
    assert "no study with results here" in capsys.readouterr().err
    kinds = [("old", "done", "2026-01-01T10:00:00"), ("new", "done", "2026-02-01T10:00:00"),
             ("new", "failed", "2026-02-03T11:30:00"), ("new", "done", "2026-02-02T10:00:00")]  # fmt: skip
    for number, (study, status, finished) in enumerate(kinds):
        folder = tmp_path / "results" / study / f"t{number}"
        folder.mkdir(parents=True)
        made = record("mace", 50, number, 0.01, [])
        made |= {"format": 2, "trial": folder.name, "status": status, "finished": finished}
        (folder / "record.json").write_text(json.dumps(made))
    damaged = tmp_path / "results" / "old" / "t9"
    damaged.mkdir()
    (damaged / "record.json").write_text("{")
    assert main(["studies"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["new", "2", "done,", "1", "failed", "ethanol", "mace", "2026-02-03", "11:30"]
    assert lines[2].split() == ["old", "1", "done,", "1", "unreadable", "ethanol", "mace", "2026-01-01", "10:00"]


@pytest.fixture
def two_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the results: ``one`` with the trials ``t0`` and ``t1``, ``two`` with ``t0``."""
    monkeypatch.chdir(tmp_path)
    for study, trial in (("one", "t0"), ("one", "t1"), ("two", "t0")):
        folder = tmp_path / "results" / study / trial
        folder.mkdir(parents=True)
        made = record("mace", 50, int(trial[1]), 0.01, [("test_500K", "force_mae", 50.0, "meV/Å")])
        made |= {"format": 2, "trial": trial, "study": study, "inputs": {}, "ladder": ""}
        (folder / "record.json").write_text(json.dumps(made).replace("NaN", "null"))
    return tmp_path / "results"


def test_a_renamed_study_has_its_name_everywhere(two_studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies", "--rename", "one", "tuning"]) == 0
    assert sorted(path.name for path in two_studies.iterdir()) == ["tuning", "two"]
    for path in (two_studies / "tuning").glob("*/record.json"):
        made = json.loads(path.read_text())
        assert (made["study"], made["config"]["study"]) == ("tuning", "tuning")
    assert ",tuning," in (two_studies / "tuning" / "trials.csv").read_text().splitlines()[1]
    for arguments, said in (
        (["tuning", "two"], "is there already"), (["tunin", "x"], "'tuning'"), (["two", "../x"], "becomes a folder"),
    ):  # fmt: skip
        capsys.readouterr()
        assert main(["studies", "--rename", *arguments]) == EXIT_USAGE
        assert said in capsys.readouterr().err
    assert sorted(path.name for path in two_studies.iterdir()) == ["tuning", "two"]


def test_nothing_is_deleted_unless_it_is_confirmed(two_studies: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["studies", "--delete", "one/t1", "two"]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert "this would delete" in said
    assert "results/one/t1" in said
    assert "--yes" in said
    assert len(list(two_studies.glob("*/*/record.json"))) == 3
    assert main(["studies", "--delete", "one/t1", "two", "--yes"]) == 0
    assert [str(path.relative_to(two_studies)) for path in two_studies.glob("*/*/record.json")] == [
        "one/t0/record.json"
    ]
    assert len((two_studies / "one" / "trials.csv").read_text().splitlines()) == 2
    for name, hint in (("one/t7", "'t0'"), ("on", "'one'"), ("one/../../x", "no trial"), ("..", "no study")):
        capsys.readouterr()
        assert main(["studies", "--delete", name, "--yes"]) == EXIT_USAGE
        assert hint in capsys.readouterr().err
    assert (two_studies / "one" / "t0" / "record.json").is_file()


def test_what_is_being_run_is_neither_renamed_nor_deleted(
    two_studies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(two_studies / "one" / "t1" / ".lock"):
        for arguments in (["--rename", "one", "x"], ["--delete", "one", "--yes"]):
            assert main(["studies", *arguments]) == EXIT_USAGE
            assert "is being run by another process" in capsys.readouterr().err
    assert len(list(two_studies.glob("one/*/record.json"))) == 2


@pytest.mark.parametrize(("ended", "failed"), [
    (["done", "done"], False), (["done", "skipped"], False), (["skipped", "skipped"], True), (["done", "failed"], True),
])  # fmt: skip
def test_a_command_that_only_skipped_has_failed(tmp_path: Path, ended: list[str], failed: bool) -> None:
    session = Session([])
    session.names = {tmp_path: [f"t{number}" for number in range(len(ended))]}
    session.ended = {f"t{number}": status for number, status in enumerate(ended)}
    assert session.failed([tmp_path]) is failed
