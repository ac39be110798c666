"""Errors on the potential's own trajectory, from labels of the reference method (see ``mlpbench.references``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from mlpbench.evaluators import Row
from mlpbench.evaluators.md_deaths import Fate
from mlpbench.evaluators.md_frames import FOLDER, Run
from mlpbench.evaluators.md_rows import row, split_of
from mlpbench.frames import Float
from mlpbench.protocol import read_json

LABELS = "own_labels.npz"
STATUS = "own_labels.json"
OWN, LAST = "own", "last"  # kinds of labelled frames: of the sound trajectory, and the last one before a death
MEV = 1e3


def own_rows(
    directory: Path, runs: dict[str, tuple[Run, list[Fate]]], options: dict[str, Any]
) -> tuple[list[Row], dict[str, Any]]:
    """Rows of the labelled frames, and the status of the labelling for the report; both empty if there was none.

    Args:
        directory: the trial's folder.
        runs: name -> run at constant temperature, and the fate of its replicas.
        options: the ``md`` node.
    """
    folder = directory / FOLDER
    if not options.get("own_trajectory") or not (folder / STATUS).is_file():
        return [], {}
    status = read_json(folder / STATUS)
    if status["status"] != "done":
        return [], status
    with np.load(folder / LABELS, allow_pickle=False) as stored:
        labels = {name: stored[name] for name in stored.files}
    if "kind" not in labels:
        return [], {"status": "skipped", "reason": "labels of an earlier version", "retry": True}
    status["labelled"] = [_compared(labels, k, *runs[str(labels["run"][k])]) for k in range(len(labels["kind"]))]
    rows: list[Row] = []
    for name, (run, _) in runs.items():
        for kind, metrics in ((OWN, ("own_trajectory_force_mae", "own_trajectory_energy_mae")),
                              (LAST, ("death_force_mae", "death_energy_mae"))):  # fmt: skip
            part = [one for one in status["labelled"] if (one["run"], one["kind"]) == (name, kind)]
            if part:
                split = split_of(run.kelvin(options))
                rows += [
                    mean_row(split, metrics[0], np.array([one["force_mae_meV_per_A"] for one in part])),
                    mean_row(split, metrics[1], np.array([one["energy_error_meV_per_atom"] for one in part])),
                ]
    return rows, status


def _compared(labels: dict[str, Any], k: int, run: Run, found: list[Fate]) -> dict[str, Any]:
    """The potential beside the reference on one labelled frame."""
    replica, frame = int(labels["replica"][k]), int(labels["frame"][k])
    ours = run.arrays["forces"][replica, frame].astype(np.float64)
    theirs = labels["forces"][k]
    energy = float(run.arrays["potential"][replica, frame] + run.arrays["baseline"] - labels["energy"][k])
    kind, fate = str(labels["kind"][k]), found[replica]
    one = {
        "run": run.name, "kind": kind, "replica": replica, "frame": frame,
        "time_ps": float(run.arrays["time_fs"][frame]) / 1000,
        "force_mae_meV_per_A": float(np.abs(ours - theirs).mean()) * MEV,
        "energy_error_meV_per_atom": abs(energy) * MEV / len(run.numbers),
    }  # fmt: skip
    if kind == LAST:
        one |= {"cause": fate.cause, "detail": fate.detail}
        if fate.pair is not None:
            positions = run.arrays["positions"][replica, frame].astype(np.float64)
            pulls = [pull(positions, forces, fate.pair) for forces in (ours, theirs)]
            one |= {"pull_eV_per_A": pulls[0], "reference_pull_eV_per_A": pulls[1]}
    return one


def pull(positions: Float, forces: Float, pair: tuple[int, int]) -> float:
    """½(F_i − F_j)·u in eV/Å with u from i to j: above zero, the forces bring the two atoms together."""
    i, j = pair
    u = positions[j] - positions[i]
    return float(0.5 * (forces[i] - forces[j]) @ u / np.linalg.norm(u))


def mean_row(split: str, name: str, errors: Float) -> Row:
    """Mean over frames of (K,) per-frame errors; with three or more frames, the range of a t interval of the mean."""
    return row(split, name, errors.mean(), len(errors), *_interval(errors))


def _interval(values: Float) -> tuple[float | None, float | None]:
    if len(values) < 3:
        return None, None
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return max(float(values.mean()) - half, 0.0), float(values.mean()) + half
