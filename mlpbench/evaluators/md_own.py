"""Errors on the potential's own trajectory, from labels of the reference method (see ``mlpbench.references``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.evaluators import Context, Row
from mlpbench.evaluators.md_frames import FOLDER
from mlpbench.evaluators.md_rows import row
from mlpbench.frames import Float
from mlpbench.protocol import read_json

OWN = "own_trajectory.npz"
LABELS = "own_labels.npz"
STATUS = "own_labels.json"
MEV = 1e3


def own_rows(directory: Path, split: str, context: Context) -> tuple[list[Row], dict[str, Any]]:
    """Rows of the labelled frames, and the status of the labelling for the report; both empty if there was none."""
    folder = directory / FOLDER
    if not (folder / STATUS).is_file():
        return [], {}
    status = read_json(folder / STATUS)
    if status["status"] != "done":
        return [], status
    with np.load(folder / OWN, allow_pickle=False) as own, np.load(folder / LABELS, allow_pickle=False) as labels:
        picked = labels["picked"]
        energy = own["energy"][picked] + own["baseline"][0] - labels["energy"]
        force = own["forces"][picked] - labels["forces"]
        status["replica"], status["frame"] = own["replica"][picked].tolist(), own["frame"][picked].tolist()
        n_atoms = len(own["numbers"])
    per_frame = np.abs(force).mean(axis=(1, 2)) * MEV
    status["force_mae_meV_per_A"] = per_frame.tolist()
    return error_rows(split, np.abs(energy) * MEV / n_atoms, per_frame), status


def error_rows(split: str, energy: Float, force: Float) -> list[Row]:
    """Means over frames of (K,) per-frame errors; with three or more frames, the range of a t interval of the mean."""
    return [
        row(split, "own_trajectory_force_mae", force.mean(), len(force), *_interval(force)),
        row(split, "own_trajectory_energy_mae", energy.mean(), len(energy), *_interval(energy)),
    ]


def _interval(values: Float) -> tuple[float | None, float | None]:
    from scipy import stats

    if len(values) < 3:
        return None, None
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return max(float(values.mean()) - half, 0.0), float(values.mean()) + half
