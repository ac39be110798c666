"""What a fair comparison has to say: a trivial baseline, the order at equal cost, and nothing beyond the evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpbench.report import facts
from mlpbench.report.costs import Pace
from mlpbench.report.drawing import looks
from mlpbench.report.equal import by_md_cost, by_seconds, by_steps, equal_cost, error_at, nearest
from mlpbench.report.fronts import unfitted
from mlpbench.report.section import Bullets, Commands, Details, Table
from mlpbench.report.sections import accuracy, answer, summary, transfer
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, fabricate, make_records
from tests.unit.report.test_speed import speed_task

QUICK: dict[str, Any] = {"troubles": {}, "restless": frozenset()}


def table_of(blocks: Any, name: str) -> Table:
    return next(block for block in blocks if isinstance(block, Table) and block.name == name)


def test_errors_by_element_and_beside_published_values_are_held_against_it_too(tmp_path: Path) -> None:
    records = make_records(tmp_path, Plan(("schnet", "mace"), n_train=(50,), repetitions=2, **QUICK))
    for record in records:
        (error,) = (r["value"] for r in record["metrics"] if (r["metric"], r["split"]) == ("force_mae", "test_500K"))
        rows = [dict(r) for r in record["metrics"] if (r["metric"], r["split"]) == ("force_mae", "test_500K")]
        record["metrics"] += [{**row, "metric": f"force_mae_{e}", "value": k * error} for row in rows for e, k in
                              (("H", 0.5), ("O", 2.0))]  # fmt: skip
        record["split"]["trivial_errors"] = {
            "test_500K": {"force_mae": 150.0, "force_mae_H": 1e4, "force_mae_O": 200.0}
        }
    section = accuracy.elements_section(Study("s", tmp_path, records))
    assert section is not None
    table = table_of(section.blocks, "elements-ethanol")
    rows = {row[0].text: row for row in table.rows}
    columns = [column.label for column in table.columns]
    hydrogen, oxygen = columns.index("F MAE on H"), columns.index("F MAE on O")
    assert (rows[facts.TRIVIAL][hydrogen].value, rows[facts.TRIVIAL][oxygen].value) == (1e4, 200.0)
    assert (rows["SchNet"][oxygen].mark, rows["SchNet"][hydrogen].mark) == ("bad", "")
    assert rows["MACE"][oxygen].mark == ""
    assert facts.TRIVIAL_WORDS in table.caption


def test_the_trivial_predictor_is_a_row_and_what_does_not_beat_it_is_flagged(tmp_path: Path) -> None:
    records = make_records(tmp_path, Plan(("schnet", "mace"), n_train=(50,), repetitions=2, **QUICK))
    for record in records:  # SchNet lies near 219 meV/Å at N = 50, MACE near 67
        record["split"]["trivial_errors"] = {"test_500K": {"force_mae": 150.0}, "test_1000K": {"force_mae": 1e5}}
    study = Study("s", tmp_path, records)
    section = summary.summary_section(study)
    assert section is not None
    rows = {row[0].text: row for row in table_of(section.blocks, "summary-ethanol").rows}
    head = [column.label for column in table_of(section.blocks, "summary-ethanol").columns].index("F MAE")
    assert rows[facts.TRIVIAL][head].value == 150.0
    assert "no better than trivial" in rows["SchNet"][head].detail
    assert (rows["SchNet"][head].mark, rows["MACE"][head].mark == "bad") == ("bad", False)
    further = transfer.transfer_section(study)
    assert further is not None
    shown = [row for row in table_of(further.blocks, "transfer-ethanol").rows if row[0].text == facts.TRIVIAL]
    assert [cell.text for cell in shown[0]][1:3] == ["F MAE", "150"]
    first = answer.answer_section(study)
    assert first is not None
    said = [item for block in first.blocks for item in getattr(block, "items", [])]
    assert any("No better than a predictor without geometry: SchNet" in item for item in said)


def test_equal_seconds_compares_where_every_training_has_been(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "s", Plan(("schnet", "nequip"), n_train=(200,), noise=0.01, **QUICK))
    steps, time = by_steps(study, "ethanol"), by_seconds(study, "ethanol")
    assert steps is not None
    assert time is not None
    assert "At 2000 optimiser steps each" in steps.words
    # NequIP's training takes about 8 times as long: at SchNet's end it has done an eighth of its own.
    assert list(steps.errors) == ["NequIP", "SchNet"]
    assert list(time.errors) == ["SchNet", "NequIP"]
    assert "NequIP was cut off" in time.caveat
    (shown,) = equal_cost(study, "ethanol")
    assert isinstance(shown, Details)
    assert "depends on what is held equal" in shown.summary


def test_the_error_at_a_time_is_that_of_the_last_validation_before() -> None:
    one = Pace("A", 50, (np.array([[1.0, 2.0, 4.0], [0.4, 0.2, 0.1]]), np.array([[1.0, 3.0], [0.1, 0.05]])), 2)
    assert error_at(one, 3.9) == pytest.approx(np.sqrt(0.2 * 0.05))
    assert error_at(one, 0.5) is None


def test_the_sizes_nearest_in_cost_are_compared() -> None:
    names, common = nearest({"a": {"a tiny": 1.0, "a small": 9.0}, "b": {"b tiny": 10.0, "b small": 80.0}})
    assert (names, common) == (["a small", "b tiny"], pytest.approx(np.sqrt(90.0)))


def test_equal_cost_in_md_takes_one_size_of_each_and_says_when_none_is_near(tmp_path: Path) -> None:
    times = {("schnet", "tiny"): 10.0, ("schnet", "small"): 40.0, ("mace", "tiny"): 44.0, ("mace", "small"): 200.0}
    plan = Plan(("schnet", "mace"), ("tiny", "small"), n_train=(200,), frames=False, **QUICK)
    records = make_records(tmp_path, plan)
    for record in records:
        own = times[record["identifiers"]["architecture"], record["identifiers"]["size"]]
        record["tasks"]["speed"] = speed_task(own)
    found = by_md_cost(Study("s", tmp_path, records), "ethanol")
    assert found is not None
    assert set(found.errors) == {"SchNet small", "MACE tiny"}
    assert found.caveat == ""
    few = [r for r in records if r["identifiers"]["size"] == "tiny"]
    apart = by_md_cost(Study("s", tmp_path, few), "ethanol")
    assert apart is not None
    assert "Not equal" in apart.caveat


def test_more_steps_with_more_labels_are_no_learning_curve_and_what_adds_one_is_said(tmp_path: Path) -> None:
    plan = Plan(("schnet",), n_train=(50, 200), steps=None, frames=False, **QUICK)
    reasons, command = unfitted(fabricate(tmp_path / "s", plan), "ethanol", "test_500K")
    assert isinstance(reasons, Bullets)
    assert isinstance(command, Commands)
    assert "from 500 to 2000 optimiser steps" in reasons.items[0]
    assert "dataset.n_train=50,200 repetition=0,1,2 budget=default budget.steps=2000" in command.lines[0]


def test_steps_of_a_training_that_has_converged_do_not_matter(tmp_path: Path) -> None:
    plan = Plan(("schnet",), n_train=(50, 200), steps=None, frames=False, **QUICK)
    records = make_records(tmp_path / "s", plan)
    for record in records:  # those with fewer steps: twice as many would change nothing
        record["training"]["converged"] = record["identifiers"]["n_train"] == 50
    study = Study("s", tmp_path / "s", records)
    assert unfitted(study, "ethanol", "test_500K") == []
    assert not [limit for limit in answer._limits(study) if "More labels also meant" in limit]


def test_convergence_is_said_also_where_all_is_well(tmp_path: Path) -> None:
    study = fabricate(tmp_path / "s", Plan(("schnet",), n_train=(50,), repetitions=3, frames=False, **QUICK))
    assert facts.rest_words(study.table) == "all 3 at rest; converged: not tested (budget=converge does that)"
    one = study.table.assign(converged=[True, False, None])
    assert facts.rest_words(one) == "all 3 at rest; converged: 1 of 3 (1 not tested)"


def test_what_the_last_doubling_changed_stands_on_the_first_screen(tmp_path: Path) -> None:
    plan = Plan(("schnet", "mace"), n_train=(50,), repetitions=1, frames=False, **QUICK)
    records = make_records(tmp_path / "s", plan)
    study = Study("s", tmp_path / "s", records)
    assert [limit for limit in answer._limits(study) if "was not tried: budget=converge" in limit]
    for record, (before, after, converged) in zip(records, ((0.2, 0.15, False), (0.1, 0.099, True)), strict=True):
        rungs = [
            {"trial": "", "steps": steps, "error": e, "at_rest": True} for steps, e in ((50, before), (100, after))
        ]
        record["training"] |= {"converged": converged, "rungs": rungs}
    (line,) = [limit for limit in answer._limits(Study("s", tmp_path / "s", records)) if "had converged" in limit]
    assert line.startswith("1 of 2 trainings that were repeated with twice the steps had converged")
    assert "lowered validation errors by 1 to 25 %" in line
    records[0]["training"]["rungs"][-1]["error"] = 0.22  # longer is worse
    (line,) = [limit for limit in answer._limits(Study("s", tmp_path / "s", records)) if "had converged" in limit]
    assert "lowered validation errors by up to 1 % and raised them by up to 10 %" in line
    records[1]["training"]["rungs"] = []  # solved at once, as GAP is: converged, and nothing was repeated
    (line,) = [limit for limit in answer._limits(Study("s", tmp_path / "s", records)) if "had converged" in limit]
    assert line.startswith("0 of 1 training that was repeated")
    assert "raised validation errors by 10 %" in line
    for record in records:
        record["training"]["converged"] = True
    assert not [limit for limit in answer._limits(Study("s", tmp_path / "s", records)) if "converge" in limit]


def test_sizes_of_one_architecture_have_symbols_of_their_own(tmp_path: Path) -> None:
    plan = Plan(("schnet", "mace"), ("tiny", "small"), n_train=(50,), repetitions=1, frames=False, **QUICK)
    found = looks(fabricate(tmp_path / "s", plan))
    assert len({(look.color, look.marker) for look in found.values()}) == 4
    assert all(look.filled for look in found.values())
