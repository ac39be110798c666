"""``mlpbench studies``, and the exit code of a command whose trials were all skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlpbench.cli import main
from mlpbench.cli.run import Session
from mlpbench.errors import EXIT_USAGE
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


@pytest.mark.parametrize(("ended", "failed"), [
    (["done", "done"], False), (["done", "skipped"], False), (["skipped", "skipped"], True), (["done", "failed"], True),
])  # fmt: skip
def test_a_command_that_only_skipped_has_failed(tmp_path: Path, ended: list[str], failed: bool) -> None:
    session = Session([])
    session.names = {tmp_path: [f"t{number}" for number in range(len(ended))]}
    session.ended = {f"t{number}": status for number, status in enumerate(ended)}
    assert session.failed([tmp_path]) is failed
