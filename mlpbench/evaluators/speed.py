"""Speed from block timings: medians with intervals, the noise floor, and the reference method beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from mlpbench.evaluators import Context, Row
from mlpbench.metrics import metric
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
        _row("ms_per_call", latency * 1e3),
        _row("us_per_atom", latency * 1e6 / n_atoms),
        _row("timing_noise", noise_floor(values["latency"], values["latency_again"])),
    ]
    if values.get("neighbours"):
        rows.append(_row("ms_neighbours", np.array(values["neighbours"]) * 1e3))
    if values.get("conditions", {}).get("others_cores") is not None:
        rows.append(_row("other_load", float(values["conditions"]["others_cores"])))
    if "peak_memory_mb" in values:
        rows.append(_row("peak_memory", float(values["peak_memory_mb"])))
    if values["batched"]:
        rows.append(_row("throughput", 1 / np.array(best_batch(values["batched"]))))
    step = np.array(values["md"])
    rows.append(_row("ms_per_md_step", step * 1e3))
    rows.append(_row("ns_per_day", SECONDS_PER_DAY / step * values["timestep_fs"] * 1e-6))
    reached = [item["n_atoms"] for item in values["scaling"] if "stopped" not in item]
    if reached:
        rows.append(_row("max_atoms", float(max(reached))))
    return rows + reference_rows(latency, step, reference_seconds(directory), context)


def best_batch(batched: list[dict[str, Any]]) -> list[float]:
    """Seconds per frame, one value a block, in the batch size with the lowest median."""
    best = min(batched, key=lambda item: float(np.median(item["seconds_per_frame"])))
    seconds: list[float] = best["seconds_per_frame"]
    return seconds


def reference_seconds(directory: Path) -> list[float]:
    """Seconds per frame of the reference method beside this trial; empty where it was not timed."""
    if not (directory / REFERENCE).is_file():
        return []
    found = read_json(directory / REFERENCE)
    return [float(value) for value in found["seconds"]] if found["status"] == "done" else []


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
    speedup = _row("speedup_vs_reference", seconds / call)
    rows = [
        _row("reference_seconds_per_frame", np.array(frames)),
        {**speedup, "lower": low / call_high, "upper": high / call_low, "n": len(frames)},
    ]
    saved = seconds - float(np.median(step))
    spent = context.training.get("n_labels", 0) * seconds + context.training.get("wall_seconds", 0.0)
    if saved > 0 and spent > 0:
        rows.append(_row("breakeven_steps", spent / saved))
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


def _row(name: str, values: Any) -> Row:
    """A row from block values (median and interval) or from a single number (no interval)."""
    if np.ndim(values) == 0:
        value, lower, upper, n = float(values), None, None, 1
    else:
        value, lower, upper = median_interval(values)
        n = len(values)
    return {
        "split": "", "metric": name, "value": value, "unit": metric(name).unit, "lower": lower, "upper": upper, "n": n,
    }  # fmt: skip
