"""The tables of a study: as files, and on the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlpbench import records, tables
from mlpbench.cli import main
from mlpbench.errors import UserError
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, make_records, write_study

PLAN = Plan(architectures=("mace", "schnet"), n_train=(50, 200), repetitions=2, epochs=5, predictions=False)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return write_study(tmp_path / "results" / "study", PLAN)


def test_the_tables_hold_every_value_of_every_record(study: Study) -> None:
    tables.write(study)
    assert all("metrics" not in record for record in study.records)
    whole = [records.load_record(study.root / name) for name in study.trials["trial"]]
    assert len(study.metrics) == sum(len(record["metrics"]) for record in whole)
    for record in whole:
        mine = study.metrics[study.metrics["trial"] == record["trial"]]
        assert mine["value"].tolist() == [row["value"] for row in record["metrics"]]
        assert set(mine["architecture"]) == {record["identifiers"]["architecture"]}
    pd.testing.assert_frame_equal(pd.read_parquet(study.root / "metrics.parquet"), study.metrics)
    assert len(pd.read_csv(study.root / "trials.csv")) == 8


def test_the_wide_table_has_every_value_of_the_long_one_in_one_row_a_trial(study: Study) -> None:
    tables.write(study)
    wide = pd.read_csv(study.root / "metrics_wide.csv").set_index("trial")
    assert sorted(wide.index) == sorted(study.trials["trial"])
    assert list(wide.columns[:4]) == ["dataset", "architecture", "size", "backend"]
    for row in study.metrics.dropna(subset=["value"]).to_dict("records"):
        head = f"{row['split']} {row['metric']}".strip() + (f" ({row['unit']})" if row["unit"] else "")
        assert wide.loc[row["trial"], head] == pytest.approx(row["value"], rel=1e-12)


def test_the_table_of_trials_holds_their_main_errors(study: Study) -> None:
    for record in (records.load_record(study.root / name) for name in study.trials["trial"]):
        row = study.trials.set_index("trial").loc[record["trial"]]
        values = {(m["metric"], m["split"]): m["value"] for m in record["metrics"]}
        assert row["force_mae@test_1000K (meV/Å)"] == values["force_mae", "test_1000K"]
        assert row["energy_mae@valid (meV/atom)"] == values["energy_mae", "valid"]


def test_keys_that_differ_are_columns_with_a_value_in_every_row(tmp_path: Path) -> None:
    made = make_records(tmp_path / "study", PLAN)
    made[0]["config"]["training"] = {"batch_size": 10, "lr": 0.002}
    study = Study("study", tmp_path / "study", made)
    assert study.trials["training.lr"].tolist() == [0.002] + 7 * [0.01]
    assert set(study.metrics["training.lr"]) == {0.002, 0.01}
    assert set(study.trials["setting"]) == {"lr=0.002", "lr=0.01", ""}  # only MACE has two settings


def test_a_setting_that_is_a_number_or_a_word_can_be_written_as_parquet(tmp_path: Path) -> None:
    table = pd.DataFrame({"budget.steps": [600, "until converged", None], "n_train": [50, 100, 200]})
    tables.one_type_a_column(table).to_parquet(tmp_path / "trials.parquet", index=False)
    read = pd.read_parquet(tmp_path / "trials.parquet")
    assert read["budget.steps"].tolist() == ["600", "until converged", None]
    assert read["n_train"].tolist() == [50, 100, 200]


def test_no_record_makes_empty_tables(tmp_path: Path) -> None:
    study = Study("none", tmp_path, [])
    assert study.trials.empty
    assert study.candidates == study.datasets == []
    assert {"trial", "metric", "value"} <= set(study.metrics.columns)


def test_an_evaluation_that_did_not_finish_takes_no_errors_away(study: Study) -> None:
    name = study.trials["trial"][0]
    path = study.root / name / records.RECORD
    record = json.loads(path.read_text())
    done = {"status": "done", "reason": "", "wall_seconds": 1.0}
    tasks = {"train": done, "predict": done, "speed": {**done, "status": "interrupted", "reason": "by the user"}}
    path.write_text(json.dumps({**record, "status": "interrupted", "reason": "speed: by the user", "tasks": tasks}))
    row = Study.load(study.name, study.root.parent).trials.set_index("trial").loc[name]
    assert (row["status"], row["reason"], row["unfinished"]) == ("done", "", "speed: by the user")
    del tasks["predict"]
    path.write_text(json.dumps({**record, "status": "interrupted", "reason": "predict: by the user", "tasks": tasks}))
    row = Study.load(study.name, study.root.parent).trials.set_index("trial").loc[name]
    assert (row["status"], row["reason"], row["unfinished"]) == ("interrupted", "predict: by the user", "")
    path.write_text(json.dumps({**record, "status": "failed", "reason": "scoring accuracy: not a finite number"}))
    assert not records.usable(records.load_record(path.parent))


def test_means_are_those_of_the_page_and_rounded_with_their_spread(study: Study) -> None:
    table = tables.settings_table(study).set_index(["candidate", "n_train"])
    values = study.part("ethanol", "force_mae", "test_500K").query("candidate == 'MACE' and n_train == 200")["value"]
    mean, spread = table.loc[("MACE", 200), "force_mae / meV/Å"].split(" ± ")
    assert float(mean) == pytest.approx(np.exp(np.log(values).mean()), rel=0.05)
    assert len(mean.partition(".")[2]) == len(spread.partition(".")[2])
    assert tables._mean(pd.DataFrame({"value": [350.0, 830.0]}), linear=True) == "590 ± 339"  # not 3.4e+02


def test_a_record_that_cannot_be_read_is_named_and_left_out(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(study.root.parents[1])
    path = study.root / str(study.trials["trial"].iloc[0]) / records.RECORD
    path.write_text('{"format": 2,\n  "trial": [\n    {')
    assert main(["table", "study"]) == 0
    streams = capsys.readouterr()
    assert str(path.parent.name) in streams.err
    assert "1 done" in streams.out
    path.write_text(json.dumps({"format": records.FORMAT, "trial": "x"}))
    assert main(["table", "study"]) == 0
    assert "lacks status" in capsys.readouterr().err


def test_mistakes_have_a_close_match(study: Study) -> None:
    with pytest.raises(UserError, match="Did you mean 'test_500K'"):
        tables.settings_table(study, "test_500")
    with pytest.raises(UserError, match="no 'md_survival'"):
        tables.settings_table(study, None, ["md_survival"])
