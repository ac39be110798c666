"""``logging=tensorboard``: event files that TensorBoard reads back, with each point of the record's curve once."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpbench.records import load_curve
from tests.integration.conftest import Run
from tests.integration.test_run import TOY


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """tag -> (step, value), in order, as TensorBoard itself reads them."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.util import tensor_util

    reader: Any = accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0})
    reader.Reload()
    return {
        tag: [(event.step, float(tensor_util.make_ndarray(event.tensor_proto))) for event in reader.Tensors(tag)]
        for tag in reader.Tags()["tensors"]
    }


def the_trial(root: Path) -> Path:
    (record,) = (root / "results" / "s").glob("*/record.json")
    return record.parent


@pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="tensorboard is not installed")
def test_event_files_hold_the_curve_of_the_record_once(tmp_path: Path, mlpbench: Run) -> None:
    command = ["run", "study=s", *TOY, "budget.steps=60", "budget.interval=10", "logging=tensorboard"]
    done = mlpbench(*command)
    assert done.returncode == 0, done.stderr
    trial = the_trial(tmp_path)
    folder = tmp_path / "results" / "s" / "logs" / "tensorboard" / trial.name
    curve, read = load_curve(trial), scalars(folder)
    assert len(curve) == 6
    for key, (tag, factor) in {
        "valid_loss": ("loss/valid", 1.0), "lr": ("training/lr", 1.0),
        "valid_force_mae": ("valid/force_mae_meV_per_A", 1e3), "seconds": ("training/seconds", 1.0),
    }.items():  # fmt: skip
        assert [step for step, _ in read[tag]] == [point["step"] for point in curve]
        np.testing.assert_allclose([v for _, v in read[tag]], [factor * p[key] for p in curve], rtol=1e-6)
    record = json.loads((trial / "record.json").read_text())
    known = {f"{row['split']}/{row['metric']}": row["value"] for row in record["metrics"] if row["split"]}
    assert known
    for tag, value in known.items():
        assert read[tag] == [(60, pytest.approx(value, rel=1e-6))]
    # The same command again writes nothing twice; without its logs a finished trial is written once more, untrained.
    assert "cached" in mlpbench(*command).stdout
    assert scalars(folder) == read
    shutil.rmtree(folder)
    assert "cached" in mlpbench(*command).stdout
    assert scalars(folder) == read


def test_nothing_is_logged_unless_asked_for_and_a_missing_package_is_a_mistake(tmp_path: Path, mlpbench: Run) -> None:
    assert mlpbench("run", "study=s", *TOY).returncode == 0
    assert not (tmp_path / "results" / "s" / "logs").exists()
    if importlib.util.find_spec("wandb") is None:
        done = mlpbench("run", "study=s", *TOY, "logging=wandb")
        assert done.returncode == 2
        assert "pip install 'mlpbench[wandb]'" in done.stderr
    assert mlpbench("run", "study=s", *TOY, "logging=paper").returncode == 2
