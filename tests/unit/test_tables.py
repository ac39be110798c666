"""Records on disk: read without their curves, and as tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mlpbench import records, tables
from mlpbench.errors import UserError
from mlpbench.protocol import write_json
from tests.unit.report.fabricate import Plan, fabricate


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Four records and their curves as a run writes them; one curve is empty."""
    root = tmp_path / "study"
    plan = Plan(architectures=("mace", "schnet"), n_train=(50, 200), repetitions=1, epochs=5, predictions=False)
    for index, record in enumerate(fabricate(root, plan).records):
        curve = record.pop("curve")
        records.write_curve(root / record["trial"], [] if index == 1 else curve)
        write_json(root / record["trial"] / records.RECORD, record)
    return root


def test_curves_are_read_on_demand_and_all_else_at_once(study: Path) -> None:
    found = records.load_all(study)
    assert len(found) == 4
    for record in found:
        whole = records.load_record(study / record["trial"])
        assert record == whole
        assert "curve" not in record
    assert sorted(len(records.load_curve(study / record["trial"])) for record in found) == [0, 5, 5, 5]
    assert records.load_curve(study / "nowhere") == []
    # What they have in common is held once.
    assert found[0]["provenance"]["hardware"] is found[1]["provenance"]["hardware"]


@pytest.mark.parametrize("content", [b'{"format": 2,\n  "trial": {', b'{"format": 1}', b"\xff\xfe", b"[]"])
def test_an_unreadable_record_is_named_and_the_others_stand(
    study: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study / f"mace-half{len(content)}" / records.RECORD
    path.parent.mkdir()
    path.write_bytes(content)
    assert len(records.load_all(study)) == 4
    assert path.parent.name in capsys.readouterr().err
    assert len(tables.write(study)[0]) == 4


def test_a_study_without_one_readable_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s" / "t").mkdir(parents=True)
    (tmp_path / "s" / "t" / records.RECORD).write_text("{")
    with pytest.raises(UserError, match="no record in"):
        records.load_all(tmp_path / "s")


def test_the_tables_hold_every_value_of_every_record(study: Path) -> None:
    trials, metrics, slim = tables.write_all(study)
    assert all("metrics" not in record for record in slim)
    whole = [records.load_record(study / name) for name in trials["trial"]]
    assert len(metrics) == sum(len(record["metrics"]) for record in whole)
    for record in whole:
        mine = metrics[metrics["trial"] == record["trial"]]
        assert mine["value"].tolist() == [row["value"] for row in record["metrics"]]
        assert set(mine["architecture"]) == {record["identifiers"]["architecture"]}
    built = tables.build(whole)
    pd.testing.assert_frame_equal(built[0], trials)
    pd.testing.assert_frame_equal(built[1], metrics)
    pd.testing.assert_frame_equal(pd.read_parquet(study / "metrics.parquet"), metrics)


def test_settings_that_some_trials_swept_have_a_value_in_all(study: Path) -> None:
    swept = records.load_all(study)
    swept[0]["swept"] = {"training.lr": 0.002}
    trials, metrics = tables.build(swept)
    assert trials["training.lr"].tolist() == [0.002, 0.01, 0.01, 0.01]
    assert set(metrics["training.lr"]) == {0.002, 0.01}
    assert list(trials.columns).index("training.lr") == list(trials.columns).index("status") - 1
    assert tables.build(swept, [])[0].columns.tolist() == [c for c in trials.columns if c != "training.lr"]


def test_no_record_makes_empty_tables() -> None:
    trials, metrics = tables.build([])
    assert trials.empty
    assert {"trial", "metric", "value"} <= set(metrics.columns)
