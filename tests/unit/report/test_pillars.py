"""The four cards of the first screen, from made-up studies with known answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from mlpbench.evaluators.md import SCORES
from mlpbench.evaluators.md.runs import FOLDER
from mlpbench.protocol import write_json
from mlpbench.report import pillars
from mlpbench.report.pillars import accuracy, answer, labels, sentence, speed, stability
from mlpbench.report.section import Bullets
from mlpbench.report.sections import answer as section
from mlpbench.statistics.extrapolation import DataMultiplier
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, fabricate, make_records
from tests.unit.report.test_speed import speed_task

QUICK: dict[str, Any] = {"troubles": {}, "restless": frozenset(), "frames": False}


def test_a_clear_winner_is_beyond_doubt_and_the_runner_up_has_its_price(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "s", Plan(("schnet", "mace"), n_train=(200,), noise=0.02, **QUICK))
    found = accuracy(study, "ethanol", "test_500K", 200)
    assert (found.best, found.certain, found.card.mark) == ("MACE", True, "best")
    assert "beyond doubt" in found.card.doubt
    assert found.card.instead.startswith("SchNet instead: ")
    assert "times the error" in found.card.instead


def test_one_repetition_is_never_beyond_doubt(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "s", Plan(("schnet", "mace"), n_train=(200,), repetitions=1, **QUICK))
    found = accuracy(study, "ethanol", "test_500K", 200)
    assert not found.certain
    assert "one repetition decides nothing" in found.card.doubt
    whole = answer(study, "ethanol")
    assert whole is not None
    assert "though not beyond doubt" in sentence(study, "ethanol", whole)


def test_labels_need_three_sizes_and_trainings_at_rest(tmp_path: Path) -> None:
    one = fabricate(tmp_path / "one", Plan(("schnet", "mace"), n_train=(200,), **QUICK))
    card = labels(one, "ethanol", "test_500K").card
    assert card.answer == "not measured"
    assert "dataset.n_train=50,100,200" in card.commands[0]
    sizes, repetitions = (50, 100, 200), range(3)
    plan = Plan(("schnet", "mace"), n_train=sizes, **QUICK)
    plan.restless = frozenset((a, n, r) for a in plan.architectures for n in sizes for r in repetitions)
    card = labels(fabricate(tmp_path / "restless", plan), "ethanol", "test_500K").card
    assert f"budget.steps={2 * plan.steps}" in card.commands[0]  # longer, and no further sizes
    assert card.answer == "not measured"
    assert "optimiser steps" in card.lines[0]


def test_labels_at_rest_give_frames_and_the_data_multiplier(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "s", Plan(("schnet", "mace"), n_train=(50, 100, 200, 400), noise=0.02, **QUICK))
    found = labels(study, "ethanol", "test_500K")
    assert found.best == "MACE"
    assert found.card.instead.startswith("SchNet instead: ")


def test_what_was_not_measured_says_how_to_measure_it(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "made", Plan(("schnet", "mace"), n_train=(200,), **QUICK))
    pillars = {"evaluation=dev": stability(study, "ethanol"), "evaluation=speed": speed(study, "ethanol")}
    for wanted, pillar in pillars.items():
        assert (pillar.best, pillar.card.answer) == ("", "not measured")
        assert pillar.card.commands[0].startswith("mlpbench run -m study=made dataset=ethanol architecture=schnet,mace")
        assert wanted in pillar.card.commands[0]


def simulated(study: Study, sound: dict[str, int], replicas: int = 16) -> None:
    """Write MD scores beside each trial: so many replicas of an architecture are sound at 500 K."""
    for record in study.records:
        alive = sound[record["identifiers"]["architecture"]]
        fates = [
            {"time_ps": 5.0 if i < alive else 1.0, "cause": "survived" if i < alive else "overlap", "detail": ""}
            for i in range(replicas)
        ]
        run = {"length_ps": 5.0, "replicas": fates}
        write_json(study.root / record["trial"] / FOLDER / SCORES, {"temperature_K": 500.0, "runs": {"nvt": run}})


def test_stability_compares_counts_of_replicas(tmp_path: Path) -> None:
    plan = Plan(("schnet", "mace"), n_train=(200,), repetitions=1, **QUICK)
    clear = fabricate(tmp_path / "clear", plan)
    simulated(clear, {"schnet": 2, "mace": 16})
    found = stability(clear, "ethanol")
    assert (found.best, found.certain) == ("MACE", True)
    assert found.card.answer == "MACE: 16 of 16"
    assert found.card.instead == "SchNet instead: 2 of 16"
    close = fabricate(tmp_path / "close", plan)
    simulated(close, {"schnet": 14, "mace": 16})  # Fisher's exact test, two-sided: p = 0.48
    found = stability(close, "ethanol")
    assert not found.certain
    assert "SchNet may be as stable" in found.card.doubt


def test_speed_names_the_fastest_and_the_factor_of_the_runner_up(tmp_path: Path) -> None:
    records = make_records(tmp_path / "s", Plan(("schnet", "mace"), n_train=(200,), repetitions=1, **QUICK))
    for record in records:
        record["tasks"]["speed"] = speed_task({"schnet": 2e-3, "mace": 10e-3}[record["identifiers"]["architecture"]])
    found = speed(Study("s", tmp_path / "s", records), "ethanol")
    assert (found.best, found.certain) == ("SchNet", True)
    assert found.card.instead == "MACE instead: 5.00 times the time"  # both compiled: half of 2 and of 10 ms


def test_more_steps_with_more_labels_stand_in_the_headline(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "s", Plan(("schnet", "mace"), n_train=(50, 200), steps=None, **QUICK))
    built = section.answer_section(study)
    assert built is not None
    warnings = [item for block in built.blocks if isinstance(block, Bullets) for item in block.items]
    assert any("more optimiser steps" in item and "500 to 2000" in item for item in warnings)


def test_the_sentence_claims_nothing_that_its_cards_doubt(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "s", Plan(("schnet", "mace"), n_train=(200,), repetitions=1, **QUICK))
    simulated(study, {"schnet": 16, "mace": 16})
    found = answer(study, "ethanol")
    assert found is not None
    said = sentence(study, "ethanol", found)
    assert "stays stable longest" not in said
    assert "No candidate is singled out beyond doubt by stability in MD." in said


def test_a_single_candidate_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "s", Plan(("mace",), n_train=(200,), **QUICK))
    found = answer(study, "ethanol")
    assert found is not None
    assert "nothing to compare it with" in sentence(study, "ethanol", found)


def test_a_multiplier_of_labels_that_the_curves_hardly_tell_has_no_interval_of_many_digits():
    hardly = DataMultiplier(2.0, 0.007, 351.128, "")
    assert pillars._times(hardly) == "about 2.0 times the labels, though these curves hardly tell"
    assert pillars._times(DataMultiplier(2.04, 1.52, 2.71, "")) == "2.0 times the labels (1.5–2.7)"
    assert pillars._times(DataMultiplier(2.0, 0.5, 8.0, "")) == "2.0 times the labels (0.50–8.0)"
    assert pillars._times(DataMultiplier(2.0, math.nan, math.nan, "")) == "2.00 times the labels (interval unknown)"
