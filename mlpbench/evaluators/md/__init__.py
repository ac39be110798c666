"""Scores of molecular dynamics: survival first, and everything else on what came before collapse."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.evaluators import Context, Row
from mlpbench.evaluators.md.fates import fates
from mlpbench.evaluators.md.motion import (
    DRIFT_PS,
    Drift,
    diffusion_rows,
    nve_drift,
    order_of,
    over_replicas,
    spectrum_rows,
)
from mlpbench.evaluators.md.runs import (
    FOLDER,
    Fate,
    Run,
    load_run,
    reference_frames,
    split_of,
)
from mlpbench.evaluators.md.structure import CURVES, Curves, observable_rows, save_curves
from mlpbench.evaluators.md.trajectories import last_frames, whole_trajectories
from mlpbench.frames import Float
from mlpbench.metrics import metric_row
from mlpbench.protocol import read_json, write_json
from mlpbench.statistics.intervals import t_interval
from mlpbench.statistics.survival import kaplan_meier, restricted_mean, survival_interval

SCORES = "scores.json"  # beside the arrays: the fate of each replica, for reports


def score(directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """Rows of the ``md`` task; also writes ``md/scores.json`` and the last frames of the dead as extended XYZ.

    Args:
        directory: the trial's folder, with ``md/<run>.npz``.
        values: what the task returned.
        context: reference frames.

    Raises:
        ValueError: a reference split that the data set does not have.
        TypeError: a limit that is not known.
    """
    options = values["options"]
    split = split_of(options["temperature_K"])
    kept: dict[str, Any] = {
        "temperature_K": options["temperature_K"], "runs": {}, "not_run": values.get("not_run", {}), "not_scored": {},
    }  # fmt: skip
    curves: Curves = {}
    runs = {name: load_run(directory, name) for name in values["runs"]}
    ends = {name: fates(run, context, options) for name, run in runs.items()}
    bath = {name: (run, ends[name]) for name, run in runs.items() if name.startswith("nvt")}
    rows = bath_rows(directory, runs, ends, options, kept)
    if "nvt" in runs:
        reference = reference_frames(context, options.get("reference_splits", []), runs["nvt"].numbers)
        rows += observable_rows(split, runs["nvt"], ends["nvt"], reference, kept["not_scored"], curves)
    settings = {name: run.get("settings") or {} for name, run in values["runs"].items()}
    nve = [name for name in runs if name.startswith("nve-")]
    known = [(runs[name], ends[name], settings[name]) for name in ("nvt", *nve) if name in runs]
    rows += diffusion_rows(split, known, kept["not_scored"])
    rows += nve_rows(split, {name: runs[name] for name in nve}, kept)
    rows += velocity_rows(split, runs, ends, settings, context, options, kept["not_scored"], curves)
    save_curves(directory / FOLDER / CURVES, curves)
    own, kept["own_trajectory"] = own_rows(directory, bath, options)
    write_json(directory / FOLDER / SCORES, kept)
    return rows + own


def bath_rows(
    directory: Path, runs: dict[str, Run], ends: dict[str, list[Fate]], options: dict[str, Any], kept: dict[str, Any]
) -> list[Row]:
    """Survival and temperature of the runs at constant temperature or pressure; the last frames of their dead."""
    rows: list[Row] = []
    for name, run in runs.items():
        if name.startswith("nve-"):
            continue
        kelvin, fates_of_run = run.kelvin(options), ends[name]
        length = float(run.arrays["length_fs"]) / 1000
        replicas = [asdict(fate) for fate in fates_of_run]
        kept["runs"][name] = {"length_ps": length, "temperature_K": kelvin, "replicas": replicas}
        last_frames(directory / FOLDER, run, fates_of_run)
        formats = [*(["extxyz"] if options.get("write_extxyz") else []), *(options.get("write_trajectories") or [])]
        if formats:
            whole_trajectories(directory / FOLDER, run, formats)
        rows += survival_rows(split_of(kelvin, "npt" if name == "npt" else ""), run, fates_of_run)
        if name != "npt":
            rows += temperature_rows(split_of(kelvin), run, fates_of_run, kelvin)
    return rows


def survival_rows(split: str, run: Run, fates: list[Fate]) -> list[Row]:
    """Survival at the planned length and restricted mean stable time; neither where all were censored before."""
    planned = float(run.arrays["length_fs"]) / 1000
    curve = kaplan_meier([f.time_ps for f in fates], [f.died for f in fates])
    if not curve.known_at(planned * (1 - 1e-9)):
        return []  # a slow potential is not an unstable one: the record says how far it came
    mean, low, high = restricted_mean(curve, planned)
    survival = survival_interval(curve, planned)
    return [
        metric_row(split, "md_survival", curve.at(planned), len(fates), *survival),
        metric_row(split, "md_stable_time", mean, len(fates), low, high),
    ]


def temperature_rows(split: str, run: Run, fates: list[Fate], kelvin: float) -> list[Row]:
    """How far the thermostat is from its target, over the second half of every replica's sound frames."""
    parts = [run.arrays["temperature"][r, f.frames // 2 : f.frames] for r, f in enumerate(fates)]
    kelvins = np.concatenate(parts).astype(np.float64)
    if not len(kelvins):
        return []
    return [metric_row(split, "md_temperature_error", 100 * abs(kelvins.mean() - kelvin) / kelvin, len(fates))]


def nve_rows(split: str, runs: dict[str, Run], kept: dict[str, Any]) -> list[Row]:
    """Drift at the largest time step, its ratio, and the order in the time step where there are several.

    Args:
        split: as in the table.
        runs: ``nve-<step>fs`` -> run at constant energy.
        kept: ``nve`` (time step -> drifts of the replicas) and reasons in ``not_scored`` are filled here.
    """
    drifts: dict[float, list[Drift]] = {}
    for name, run in runs.items():
        slopes = [run_drift(run, r) for r in range(len(run))]
        drifts[float(name.removeprefix("nve-").removesuffix("fs"))] = [d for d in slopes if d is not None]
    steps = sorted(drifts)
    kept["nve"] = {f"{step:g}": [asdict(drift) for drift in drifts[step]] for step in steps}
    if not steps or not drifts[steps[-1]]:
        return []
    main = drifts[steps[-1]]
    rows: list[Row] = []
    long = [drift for drift in main if drift.length_ps > DRIFT_PS * (1 - 1e-6)]
    if long:
        for name, part in (("nve_drift", "slope"), ("nve_drift_ratio", "ratio")):
            numbers = np.array([[getattr(d, part), getattr(d, f"{part}_error")] for d in long])
            value, lower, upper = over_replicas(numbers[:, 0], numbers[:, 1])
            rows.append(metric_row(split, name, value, len(long), lower, upper))
    else:
        longest = max(drift.length_ps for drift in main)
        reason = f"{longest:.3g} ps at constant energy are too short: under {DRIFT_PS:g} ps the slope is fluctuation"
        kept["not_scored"] |= dict.fromkeys(("nve_drift", "nve_drift_ratio"), f"{reason} (evaluation.md.nve.length_ps)")
    means = [float(np.mean([d.fluctuation for d in drifts[step]])) if drifts[step] else 0.0 for step in steps]
    if len(steps) > 1 and min(means) > 0:
        rows.append(metric_row(split, "nve_order", order_of(np.array(means), np.array(steps)), len(main)))
    return rows


def velocity_rows(
    split: str,
    runs: dict[str, Run],
    ends: dict[str, list[Fate]],
    settings: dict[str, dict[str, Any]],
    context: Context,
    options: dict[str, Any],
    not_scored: dict[str, str],
    curves: Curves,
) -> list[Row]:
    """The vibrational spectrum of the run that stored velocities: at constant energy, where there is one."""
    intervals = {name: settings[name].get("velocity_interval_fs") for name in runs}
    steps = {name: float(interval) for name, interval in intervals.items() if interval}
    name = next((name for name in sorted(steps) if name.startswith(("nve-", "nvt"))), None)
    if name is None:
        not_scored["vdos_error"] = "no velocities were stored (evaluation.md.nve.velocity_interval_fs)"
        return []
    reference = reference_frames(context, options.get("reference_splits", []), runs[name].numbers)
    return spectrum_rows(
        split, runs[name], ends[name], steps[name], None if reference is None else reference[0],
        options.get("reference_interval_fs"), not_scored, curves,
    )  # fmt: skip


def run_drift(run: Run, replica: int) -> Drift | None:
    """Drift of one replica over its frames before anything was not finite."""
    frames = run.replica(replica).frames
    a = run.arrays
    return nve_drift(
        a["time_fs"][:frames], a["total"][replica, :frames], a["potential"][replica, :frames], len(run.numbers)
    )


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


def _compared(labels: dict[str, Any], k: int, run: Run, fates: list[Fate]) -> dict[str, Any]:
    """The potential beside the reference on one labelled frame."""
    replica, frame = int(labels["replica"][k]), int(labels["frame"][k])
    ours = run.arrays["forces"][replica, frame].astype(np.float64)
    theirs = labels["forces"][k]
    energy = float(run.arrays["potential"][replica, frame] + run.arrays["baseline"] - labels["energy"][k])
    kind, fate = str(labels["kind"][k]), fates[replica]
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
    return metric_row(split, name, errors.mean(), len(errors), *t_interval(errors, least=3))
