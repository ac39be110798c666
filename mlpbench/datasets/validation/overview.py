"""What the order and the headers of the frames say: temperatures, trajectories, copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlpbench.datasets.dataset import LEVEL, label_seconds
from mlpbench.datasets.leaks import RELATED
from mlpbench.datasets.validation.finding import Finding

_TEMPERATURES = ("temperature_K", "temperature", "Temperature", "T")
_KINDS = (LEVEL, "config_type", "trajectory", "group")
_LISTED = 8  # values; beyond that their range


def overview(lag: float, headers: Sequence[dict[str, Any]], findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Name and value of each line, for terminal and HTML.

    Args:
        lag: what consecutive frames differ by, over random pairs (see :func:`mlpbench.datasets.leaks.lag_ratio`).
        headers: of the frames that were checked.
        findings: of which those on copies are counted.
    """
    rows = [
        ("temperature", text) for key in _TEMPERATURES if (text := _temperatures([h[key] for h in headers if key in h]))
    ][:1]
    for key in _KINDS:
        text = _kinds([str(header[key]) for header in headers if key in header])
        rows += [(key.replace("_", " "), text)] if text else []
    if np.isfinite(lag):
        meaning = "they follow one another in time" if lag < RELATED else "no order in time to be seen"
        text = f"consecutive ones differ {lag:.2f} times as much as random pairs: {meaning}"
        rows.append(("order of the frames", text))
    price = label_seconds(headers)
    rows += [("cost of a label", f"{price:.3g} s (mean)")] if price is not None else []
    copies = {frame for finding in findings if finding.check == "duplicates" for frame in finding.frames}
    return [*rows, ("copies", f"{len(copies)} frames, see below" if copies else "none")]


def _temperatures(values: Sequence[Any]) -> str:
    """``300 K (100), 500 K (200)``, or a range; empty where the header holds no numbers."""
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError):
        return ""
    counts = Counter(found)
    if len(counts) > _LISTED:
        return f"{min(found):g} to {max(found):g} K, as the headers say"
    return ", ".join(f"{value:g} K ({count:,})" for value, count in sorted(counts.items()))


def _kinds(values: Sequence[str]) -> str:
    counts = Counter(values)
    if len(counts) > _LISTED:
        return f"{len(counts):,} different"
    return ", ".join(f"{value} ({count:,})" for value, count in counts.most_common())
