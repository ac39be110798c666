"""What fine-tuning forgot: the force error on the start's own labels, before and after."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.evaluators import Context, Row
from mlpbench.metrics import metric_row
from mlpbench.protocol import FORGETTING
from mlpbench.statistics.bootstrap import block_interval, ratio

MEV = 1e3


def score(directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """Force MAE of the start and of the fine-tuned potential on the start's own test frames, and their ratio.

    Args:
        directory: the trial's folder.
        values: of the task.
        context: not used: the labels lie beside the predictions.
    """
    with np.load(directory / FORGETTING, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    offsets = np.concatenate([[0], np.cumsum(arrays["n_atoms"])])
    summed = {
        name: np.array([np.abs(arrays[name][a:b] - arrays["reference"][a:b]).sum() * MEV for a, b in pairwise(offsets)])
        for name in ("before", "after")
    }
    columns = {
        "start_force_mae": (summed["before"], 3.0 * arrays["n_atoms"]),
        "kept_force_mae": (summed["after"], 3.0 * arrays["n_atoms"]),
        "forgetting": (summed["after"], summed["before"]),
    }
    rows = []
    for name, pair in columns.items():
        interval = block_interval(np.stack(pair, axis=1), arrays["group"], ratio)
        rows.append(metric_row("", name, interval.value, interval.n, interval.lower, interval.upper))
    return rows
