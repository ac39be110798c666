"""Records on disk: read without their curves, and as tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mlpbench import records, tables
from mlpbench.protocol import ProtocolError, write_json
from tests.unit.report.fabricate import Plan, fabricate

TRAP = 'a log that says\n  "curve": [\n and goes on\n  ], {'


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Four records as a run writes them; the curve of one is empty, the reason of another looks like a curve."""
    root = tmp_path / "study"
    plan = Plan(architectures=("mace", "schnet"), n_train=(50, 200), repetitions=1, epochs=5, predictions=False)
    for index, record in enumerate(fabricate(root, plan).records):
        record["curve"] = [] if index == 1 else record["curve"]
        record["reason"] = TRAP if index == 2 else record["reason"]
        write_json(root / record["trial"] / records.RECORD, record)
    return root


def test_curves_are_read_on_demand_and_all_else_at_once(study: Path) -> None:
    found = records.load_all(study)
    assert len(found) == 4
    for record in found:
        whole = records.load_record(study / record["trial"])
        assert {**record, "curve": whole["curve"]} == whole
        assert "curve" not in record
        assert records.load_curve(study / record["trial"]) == whole["curve"]
    assert sorted(len(records.load_curve(study / record["trial"])) for record in found) == [0, 5, 5, 5]
    assert records.load_curve(study / "nowhere") == []
    # What they have in common is held once.
    assert found[0]["provenance"]["hardware"] is found[1]["provenance"]["hardware"]


def test_a_record_that_is_no_json_is_named(study: Path) -> None:
    path = study / "mace-half" / records.RECORD
    path.parent.mkdir()
    path.write_text('{"format": 1,\n  "curve": [\n    {')
    with pytest.raises(ProtocolError, match="mace-half"):
        records.load_all(study)


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
