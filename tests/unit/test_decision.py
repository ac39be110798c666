"""Decisions on synthetic studies whose right answer is known."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mlpbench.cli import answers as command
from mlpbench.decision import Constraint, describe, parse_constraint, select
from mlpbench.decision.advice import run_commands
from mlpbench.errors import UserError
from tests.unit.decision_tables import make

ERRORS = {"schnet": 90, "painn": 50, "mace": 30}
SPEED = {"schnet": 10, "painn": 20, "mace": 80}


def force(limit, split=None):
    return Constraint("force_mae", limit, "max", split)


def decide(study, *constraints, objective=None, **options):
    return select(study, list(constraints), objective, **options)


def test_the_cheapest_that_passes_is_chosen_with_its_margin_and_chance():
    decision = decide(make(ERRORS, speed=SPEED), force(30))
    assert decision.chosen.label == "PaiNN, N = 200"
    assert decision.objective == "us_per_atom"
    assert decision.chosen.probability > 0.99
    assert decision.chosen.checks[0].margin == pytest.approx(1 - decision.chosen.checks[0].value / 30)
    assert not decision.thin
    failing = {c.label: c.reason for c in decision.candidates if c.verdict == "fails"}
    assert "force_mae is 44.6, not force_mae ≤ 30" in failing["SchNet, N = 200"]


def test_other_objectives_choose_otherwise():
    tables = make(ERRORS, speed=SPEED)
    assert decide(tables, force(30), objective="accurate").chosen.label == "MACE, N = 200"
    assert decide(tables, force(40), objective="fewest_labels").chosen.label == "MACE, N = 50"
    assert decide(tables, objective="us_per_atom").chosen.candidate.architecture == "schnet"


def test_equal_objectives_are_settled_by_the_margin():
    decision = decide(make(ERRORS, speed=SPEED), force(200), objective="fewest_labels")
    assert decision.chosen.label == "MACE, N = 50"  # all three keep it for certain; mace has the most room
    assert "3 are equal" in decision.chosen.reason
    assert "same labels" in next(c.reason for c in decision.candidates if c.label == "SchNet, N = 50")


def test_a_constraint_on_another_split():
    decision = decide(make(ERRORS, speed=SPEED), force(60, "test_1000K"))
    assert decision.chosen.label == "MACE, N = 200"
    assert decision.chosen.checks[0].value == pytest.approx(47, abs=2)


def test_too_close_to_the_limit_is_thin_and_says_what_would_settle_it():
    decision = decide(make(ERRORS, speed=SPEED, noise=0.06, seed=1), force(24.0))
    near = next(c for c in decision.candidates if c.label == "PaiNN, N = 200")
    assert 0.05 < near.probability < 0.95
    assert decision.thin
    wanted = r"mlpbench run( -m)? study=demo .*architecture=painn .*'?repetition=(3|range\(3)"
    assert any(re.match(wanted, a.command) for a in decision.advice)
    hours = [a.hours for a in decision.advice]
    assert hours == sorted(hours)


def test_out_of_reach_names_the_training_set_that_would_do():
    decision = decide(make(ERRORS, speed=SPEED), force(8))
    assert decision.chosen is None
    assert "dataset.n_train=750" in decision.advice[0].command  # 30 meV/Å at 50 frames, exponent 1/2: 703 frames
    assert "architecture=mace" in decision.advice[0].command


def test_a_metric_the_study_lacks_is_named_with_its_command():
    decision = decide(make(ERRORS), force(30), Constraint("md_survival", 0.95, "min"))
    assert decision.chosen is None
    assert "evaluation=" in decision.missing["md_survival"]
    assert "architecture=mace,painn,schnet" in decision.missing["md_survival"]
    assert "md_survival" in describe(decision)


def test_replicas_that_all_survive_are_not_proof():
    tables = make(ERRORS, speed=SPEED, survival=dict.fromkeys(ERRORS, 1.0))
    sure = decide(tables, Constraint("md_survival", 0.95, "min")).chosen.probability
    assert 0.9 < sure < 1  # 48 of 48 replicas: Jeffreys' posterior of at least 0.95 is 0.97
    doubtful = decide(tables, Constraint("md_survival", 0.999, "min")).chosen.probability
    assert doubtful < 0.5


def test_swept_settings_are_chosen_on_validation_not_on_test():
    tables = make({"mace": 30}, speed=SPEED, lrs={"mace": (0.01, 0.003)})
    decision = decide(tables, force(100), objective="accurate")
    assert decision.chosen.label == "MACE, N = 200, lr=0.01"  # 0.003 is better on the test frames
    assert any("chosen of 2 settings by force_mae on validation frames (6 trials" in note for note in decision.notes)


def test_one_repetition_is_provisional_and_asks_for_more():
    decision = decide(make(ERRORS, repetitions=1), force(60))
    assert decision.thin
    assert decision.chosen is not None
    assert "repetition=1,2" in decision.advice[0].command
    assert describe(decision).startswith("Provisional")


def test_failed_trials_and_trainings_not_at_rest_are_said():
    study = make(ERRORS, speed=SPEED, failed=frozenset({"mace"}), restless=frozenset({"painn"}))
    decision = decide(study, force(30))
    lost = [c for c in decision.candidates if c.candidate.architecture == "mace"]
    assert {c.verdict for c in lost} == {"no result"}
    assert "RuntimeError: no" in lost[0].reason
    assert any("6 of 12 trainings had not come to rest" in note for note in decision.notes)
    assert decision.chosen.restless == 3


def test_mistakes_have_a_close_match():
    tables = make(ERRORS, speed=SPEED)
    with pytest.raises(UserError, match="Did you mean 'force_mae'"):
        decide(tables, Constraint("forces_mae", 30, "max"))
    with pytest.raises(UserError, match="Did you mean 'test_500K'"):
        decide(tables, force(30), split="test_500")
    with pytest.raises(UserError, match="Did you mean 'us_per_atom'"):
        decide(tables, force(30), objective="us_per_atm")
    for text in ("force_mae", "force_mae=x", "=3", "force_mae=nan"):
        with pytest.raises(UserError, match="METRIC=NUMBER"):
            parse_constraint(text, "max")


def test_command_registers_and_shows_an_example():
    import argparse

    parser = argparse.ArgumentParser(prog="mlpbench select")
    command.register_select(parser)
    text = "demo --max force_mae=30 --max us_per_atom=200 --min md_survival=0.95"
    arguments = parser.parse_args(text.split())
    assert arguments.max == ["force_mae=30", "us_per_atom=200"]
    assert "mlpbench select" in parser.format_help()


def test_many_repetitions_are_a_range_that_hydra_reads():
    overrides = {"dataset": "ethanol", "architecture": "toy", "size": "tiny", "dataset.n_train": "50",
                 "training.lr": "0.01"}  # fmt: skip
    assert run_commands("demo", [(overrides, r) for r in range(3, 20)]) == [
        "mlpbench run -m study=demo dataset=ethanol architecture=toy size=tiny dataset.n_train=50 training.lr=0.01 "
        "'repetition=range(3,20)'"
    ]


def test_commands_run_these_trials_and_no_others():
    def trial(architecture, n, repetition, **more):
        named = {"dataset": "d", "architecture": architecture, "size": "tiny", "dataset.n_train": str(n)}
        return {**named, **more}, repetition

    grid = [trial(a, n, r) for a in ("mace", "schnet") for n in (50, 200) for r in (0, 1)]
    assert run_commands("s", grid) == [
        "mlpbench run -m study=s dataset=d architecture=mace,schnet size=tiny dataset.n_train=50,200 repetition=0,1"
    ]
    assert run_commands("s", grid[:1]) == [
        "mlpbench run study=s dataset=d architecture=mace size=tiny dataset.n_train=50 repetition=0"
    ]
    uneven = run_commands("s", [*grid[:-1], trial("schnet", 200, 1, **{"training.lr": "0.003"})])
    counts = [np.prod([len(word.split(",")) for word in command.split() if "=" in word]) for command in uneven]
    assert sum(counts) == 8
    assert sum("training.lr=0.003" in command for command in uneven) == 1
