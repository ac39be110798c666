"""Commands on a page: they find the study from where the reader stands, and carry nothing of another machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlpbench.report import facts, fronts
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, fabricate, make_records

ELSEWHERE = {
    "results_dir": "/scratch/results",
    "backend.mace.python": "/opt/python",
    "backend.mace.pythonpath": ["/opt/mace"],
    "training.lr": 0.02,
}


def test_a_command_says_where_the_study_lies_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(architectures=("mace",), n_train=(50,), settings=(ELSEWHERE,), predictions=False)
    monkeypatch.chdir(tmp_path)
    for folder, said in (("results", ""), ("kept", "results_dir=kept ")):
        study = fabricate(tmp_path / folder / "made-up", plan)
        command = facts.run_again(study, study.datasets[0], "evaluation=speed")
        assert command.partition("dataset=ethanol")[2].startswith(f" architecture=mace size=small {said}")
        assert "training.lr=0.02" in command
        assert "/" not in command


def test_a_command_is_for_those_that_were_trained_as_long(tmp_path: Path) -> None:
    settings = ({}, {"budget.steps": 50}, {"dtype": "float64"})
    study = fabricate(tmp_path / "made-up", Plan(("mace",), n_train=(50,), settings=settings, predictions=False))
    records = make_records(tmp_path / "two", Plan(("painn", "mace"), n_train=(50,), predictions=False))
    for record in records:
        if record["identifiers"]["architecture"] == "mace":
            record["config"]["budget"] = {**record["config"]["budget"], "steps": 50}
    mixed = Study("two", tmp_path / "two", records)
    assert " architecture=painn " in facts.run_again(mixed, mixed.datasets[0])
    assert "dtype" not in facts.run_again(study, study.datasets[0])


def test_equal_labels_are_no_cost_in_which_options_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = fabricate(tmp_path / "made-up", Plan(architectures=("mace",), n_train=(450,), predictions=False))
    (one,) = fronts.options(study, study.datasets[0])
    labels = [{"train": (), "speed": (), "labels": (500.0,) * count} for count in (1, 3)]
    options = [replace(one, costs=costs) for costs in labels]
    assert options[0].cost("labels") != options[1].cost("labels")  # in the last digit: geometric means
    monkeypatch.setattr(fronts, "options", lambda *_: options)
    assert fronts.cost_kinds(study, study.datasets[0]) == []
