"""What is not a number becomes a failure with a name, never a traceback that ends the sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlpbench.scoring import finite_rows, training_curve


def row(metric: str, value: float, split: str = "test", lower: float | None = None) -> dict[str, Any]:
    return {"split": split, "metric": metric, "value": value, "unit": "", "lower": lower, "upper": None, "n": 1}


def test_rows_that_are_not_finite_are_named_and_the_others_kept() -> None:
    nan = float("nan")
    kept, lost = finite_rows(
        [row("force_mae", 1.5, lower=nan), row("nve_drift", nan, ""), row("energy_mae", float("inf"))]
    )
    assert lost == ["nve_drift", "energy_mae on test"]
    assert kept == [row("force_mae", 1.5)]
    assert json.dumps(kept, allow_nan=False)


def test_a_curve_with_nan_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "epoch", "epoch": 1, "time": 0.0, "train_loss": NaN, "valid_loss": 2.0}\n')
    assert training_curve(path) == [{"epoch": 1, "train_loss": None, "valid_loss": 2.0}]
