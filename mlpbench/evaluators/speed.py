"""Speed from block timings: medians with intervals, the noise floor, the reference method beside them, and the table
of every deployment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from mlpbench.evaluators import Context, Row
from mlpbench.evaluators.production import ATOMS, Growth
from mlpbench.metrics import metric_row
from mlpbench.protocol import read_json

REFERENCE = "speed_reference.json"  # what the reference method took on the same frames, measured by the core
SECONDS_PER_DAY = 86400.0


def score(directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """Rows of the speed metrics; those against the reference only where its time per frame is known.

    Args:
        directory: the trial's folder; ``speed_reference.json`` there says what the reference took.
        values: what the ``speed`` task returned: lists of seconds, one a block.
        context: ``training`` (seconds, labels).
    """
    n_atoms = values["n_atoms"]
    latency = np.array(values["latency"] + values["latency_again"])
    rows = [
        _measured("ms_per_call", latency * 1e3),
        _measured("us_per_atom", latency * 1e6 / n_atoms),
        _measured("timing_noise", noise_floor(values["latency"], values["latency_again"])),
    ]
    if values.get("neighbours"):
        rows.append(_measured("ms_neighbours", np.array(values["neighbours"]) * 1e3))
    if values.get("conditions", {}).get("others_cores") is not None:
        rows.append(_measured("other_load", float(values["conditions"]["others_cores"])))
    if "peak_memory_mb" in values:
        rows.append(_measured("peak_memory", float(values["peak_memory_mb"])))
    if values["batched"]:
        rows.append(_measured("throughput", 1 / np.array(best_batch(values["batched"]))))
    step = np.array(values["md"])
    rows.append(_measured("ms_per_md_step", step * 1e3))
    rows.append(_measured("ns_per_day", SECONDS_PER_DAY / step * values["timestep_fs"] * 1e-6))
    if values.get("conditions", {}).get("threads") is not None:
        rows.append(_measured("threads", float(values["conditions"]["threads"])))
    reached = [item["n_atoms"] for item in values["scaling"] if "stopped" not in item]
    if reached:
        rows.append(_measured("max_atoms", float(max(reached))))
    reference = reference_timing(directory)
    seconds = [float(value) for value in reference.get("seconds", [])]
    if seconds and reference.get("threads") is not None:
        rows.append(_measured("reference_threads", float(reference["threads"])))
    return rows + reference_rows(latency, step, seconds, context)


def best_batch(batched: list[dict[str, Any]]) -> list[float]:
    """Seconds per frame, one value a block, in the batch size with the lowest median."""
    best = min(batched, key=lambda item: float(np.median(item["seconds_per_frame"])))
    seconds: list[float] = best["seconds_per_frame"]
    return seconds


def reference_timing(directory: Path) -> dict[str, Any]:
    """The reference method beside this trial: ``seconds`` (one a frame), ``threads`` ...; empty if it was not timed."""
    if not (directory / REFERENCE).is_file():
        return {}
    timing = read_json(directory / REFERENCE)
    return timing if timing["status"] == "done" else {}


def reference_rows(latency: Any, step: Any, frames: list[float], context: Context) -> list[Row]:
    """Speed-up over the reference and break-even, where the reference's seconds per frame are known.

    Args:
        latency: (n,) s per call of the potential, one value a block.
        step: (n,) s per MD step.
        frames: s per frame of the reference, one value a frame.
        context: ``training`` with ``wall_seconds`` and ``n_labels``.

    The interval of the speed-up spans the slowest potential over the fastest reference frame and the reverse.
    Break-even in MD steps: (labels × reference + training) / (reference − MD step), all in seconds.
    """
    if not frames:
        return []
    seconds, low, high = median_interval(frames)
    call, call_low, call_high = median_interval(latency)
    speedup = _measured("speedup_vs_reference", seconds / call)
    rows = [
        _measured("reference_seconds_per_frame", np.array(frames)),
        {**speedup, "lower": low / call_high, "upper": high / call_low, "n": len(frames)},
    ]
    saved = seconds - float(np.median(step))
    spent = context.training.get("n_labels", 0) * seconds + context.training.get("wall_seconds", 0.0)
    if saved > 0 and spent > 0:
        rows.append(_measured("breakeven_steps", spent / saved))
    return rows


def noise_floor(first: list[float], second: list[float]) -> float:
    """95 % half-width, in percent, of the mean log-ratio of two interleaved timings of the same thing.

    Args:
        first: (n,) seconds.
        second: (n,) seconds, measured in turn with ``first``.
    """
    ratios = np.log(np.array(first) / np.array(second))
    half = stats.t.ppf(0.975, len(ratios) - 1) * ratios.std(ddof=1) / np.sqrt(len(ratios))
    return float(100 * np.expm1(half))


def differ(first: tuple[list[float], list[float]], second: tuple[list[float], list[float]]) -> bool:
    """Whether two timings may be called different: beyond the 95 % interval of their ratio and both noise floors.

    Args:
        first: block times of one thing and of its twin, s; at least two blocks each.
        second: of the other thing and its twin.

    The interval is Welch's, of the difference of the mean logarithms; the floors are :func:`noise_floor`'s.
    """
    logs = [np.log(np.concatenate(pair)) for pair in (first, second)]
    parts = [values.var(ddof=1) / len(values) for values in logs]
    error = float(np.sqrt(sum(parts)))
    if error == 0:
        return bool(logs[0].mean() != logs[1].mean())
    df = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, logs, strict=True))
    floors = [float(np.log1p(noise_floor(*pair) / 100)) for pair in (first, second)]
    return bool(abs(logs[0].mean() - logs[1].mean()) > max(stats.t.ppf(0.975, df) * error, *floors))


def median_interval(values: Any) -> tuple[float, float, float]:
    """Median of (n,) values with the distribution-free 95 % interval from order statistics (all of them for n < 6).

    Source: Conover, Practical Nonparametric Statistics, section 3.2.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    low = max(int(stats.binom.ppf(0.025, n, 0.5)) - 1, 0)
    return float(np.median(ordered)), float(ordered[low]), float(ordered[n - 1 - low])


COLUMNS = [
    "engine", "deployment", "means", "dtype", "tf32", "ranks", "n_atoms", "status", "reason", "metric", "value", "unit",
    "lower", "upper", "n", "notice",
]  # fmt: skip


def rows(record: dict[str, Any]) -> list[Row]:
    """One row for each path or engine and metric of a trial, in :data:`COLUMNS`; what did not run has one, with why.

    The path that every trial has, eager in its own dtype, comes first; ``engine`` is empty where a path was timed by
    itself, with ASE's velocity Verlet for its MD steps.

    Args:
        record: of a trial, as :func:`mlpbench.records.load_record` reads it.
    """
    task = record["tasks"].get("speed")
    if task is None or task["status"] != "done":
        return []
    values = task["values"]
    first = {
        "deployment": "eager", "means": "", "dtype": record["config"]["dtype"], "tf32": False, "status": "done",
        "reason": "", "peak_memory_mb": task.get("peak_device_memory_mb") or task.get("peak_memory_mb"), **values,
    }  # fmt: skip
    paths = [first, *values.get("paths", [])]
    found = [row for path in paths for row in _path_rows(path, values["n_atoms"], values["timestep_fs"])]
    found += _production_rows(first)
    dtype = record["config"]["dtype"]
    return found + [r for one in values.get("engines", []) for r in _engine_rows(one, dtype, values["timestep_fs"])]


NOT_RUN = {"metric": None, "value": None, "unit": "", "lower": None, "upper": None, "n": 0, "notice": ""}


EXTRAPOLATED = "1 ns of 1,000 atoms: extrapolated"


def _production_rows(path: dict[str, Any]) -> list[Row]:
    """What the growing systems of the eager path say; ``n_atoms`` is that of the run whose cost is given."""
    series = Growth.of(path.get("scaling", ()))  # a path that could not run has none
    if series is None:
        return []
    head = {key: path[key] for key in ("deployment", "means", "dtype", "tf32", "status", "reason")}
    head |= {"engine": "", "ranks": 1}
    measured = {
        "atom_steps_per_second": (series.rate, None, ""), "plateau_atoms": (series.plateau, None, ""),
        "memory_per_atom": (series.memory_per_atom_kb, None, ""),
        "hours_per_ns": (series.run_hours(path["timestep_fs"]), ATOMS,
                         EXTRAPOLATED if series.seconds_at(ATOMS)[1] else ""),
    }  # fmt: skip
    return [
        {**head, "n_atoms": atoms, "reason": reason, **_measured(name, value), "notice": ""}
        for name, (value, atoms, reason) in measured.items() if value is not None
    ]  # fmt: skip


def _engine_rows(one: dict[str, Any], dtype: str, timestep_fs: float) -> list[Row]:
    head = {key: one[key] for key in ("engine", "means", "ranks", "status", "reason")}
    head |= {"deployment": "eager", "dtype": dtype, "tf32": False, "n_atoms": one.get("n_atoms")}
    if one["status"] != "done":
        return [{**head, **NOT_RUN}]
    step, bare = np.array(one["md"]), np.array(one["bare"])
    measured: dict[str, Any] = {
        "ms_per_md_step": step * 1e3,
        "ns_per_day": SECONDS_PER_DAY / step * timestep_fs * 1e-6,
        "ms_per_call": bare * 1e3,
        "engine_overhead": float(np.median(step) - np.median(bare)) * 1e3,
        "engine_energy_difference": one["energy_difference"] * 1e3,
        "peak_memory": one.get("peak_memory_mb"),
    }
    notice = (one.get("conditions") or {}).get("notice", "")
    known = {name: value for name, value in measured.items() if value is not None}
    return [{**head, **_measured(name, value), "notice": notice} for name, value in known.items()]


def _path_rows(path: dict[str, Any], n_atoms: float, timestep_fs: float) -> list[Row]:
    head = {key: path[key] for key in ("deployment", "means", "dtype", "tf32", "status", "reason")}
    head |= {"engine": "", "ranks": 1, "n_atoms": n_atoms}
    notice = (path.get("conditions") or {}).get("notice", "")
    if path["status"] != "done":
        return [{**head, **NOT_RUN}]
    latency = np.array(path["latency"] + path["latency_again"])
    step = np.array(path["md"])
    measured: dict[str, Any] = {
        "us_per_atom": latency * 1e6 / n_atoms,
        "ms_per_call": latency * 1e3,
        "ms_per_md_step": step * 1e3,
        "ns_per_day": SECONDS_PER_DAY / step * timestep_fs * 1e-6,
        "ms_neighbours": np.array(path["neighbours"]) * 1e3 if path.get("neighbours") else None,
        "throughput": 1 / np.array(best_batch(path["batched"])) if path.get("batched") else None,
        "timing_noise": noise_floor(path["latency"], path["latency_again"]),
        "peak_memory": path.get("peak_memory_mb"),
        "prepare_seconds": path.get("prepare_seconds"),
        "path_energy_difference": _scaled(path.get("energy_difference"), 1e3),
        "path_force_difference": _scaled(path.get("force_difference"), 1e3),
    }
    return [
        {**head, **_measured(name, value), "notice": notice} for name, value in measured.items() if value is not None
    ]


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _measured(name: str, values: Any) -> Row:
    """A row from block values (median and interval) or from a single number (no interval)."""
    if np.ndim(values) == 0:
        return metric_row("", name, values)
    middle, lower, upper = median_interval(values)
    return metric_row("", name, middle, len(values), lower, upper)
