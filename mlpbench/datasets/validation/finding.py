"""What a check says, what the checks are given, and what order and headers of the frames tell by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mlpbench.datasets.dataset import LEVEL, label_seconds
from mlpbench.datasets.leaks import RELATED, Fingerprinted
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.frames import Frames

Severity = Literal["error", "warning", "note", "unmade"]

_TEMPERATURES = ("temperature_K", "temperature", "Temperature", "T")
_KINDS = (LEVEL, "config_type", "trajectory", "group")
_LISTED = 8  # values; beyond that their range


@dataclass(frozen=True)
class Finding:
    """One fault, or one thing worth knowing.

    Attributes:
        check: name of the check, as in ``CHECKS``.
        severity: error (training on this goes wrong), warning (look at it), note (good to know), unmade (what the
            check needs is not there; the message says what).
        message: what was found, with numbers and units.
        frames: the frames concerned, from 0 in the order of the file.
        hint: what to do.
    """

    check: str
    severity: Severity
    message: str
    frames: list[int] = field(default_factory=list)
    hint: str = ""


def unmade(check: str, reason: str) -> list[Finding]:
    """The check could not be made, and why."""
    return [Finding(check, "unmade", reason)]


@dataclass(frozen=True)
class Subject:
    """What every check looks at.

    Attributes:
        frames: in eV and Å as the reader gave them.
        prints: their fingerprints.
        config: the data set's configuration.
        headers: what each frame's header says.
        lag_ratio: difference of consecutive frames over that of random pairs; NaN if not known.
        stress_order: order in which the reader took the file's stress components.
        is_pool: training uses these frames.
    """

    frames: Frames
    prints: Fingerprinted
    config: DatasetConfig
    headers: list[dict[str, Any]]
    lag_ratio: float
    stress_order: str = "xx yy zz yz xz xy"
    is_pool: bool = True


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
        meaning = "they follow one another in time" if lag < RELATED else "no order in time is visible"
        text = f"consecutive ones differ {lag:.2f} times as much as random pairs: {meaning}"
        rows.append(("order of the frames", text))
    price = label_seconds(headers)
    rows += [("cost of a label", f"{price:.3g} s (mean)")] if price is not None else []
    copies = {frame for finding in findings if finding.check == "duplicates" for frame in finding.frames}
    return [*rows, ("copies", f"{len(copies)} frames, see below" if copies else "none")]


def _temperatures(values: Sequence[Any]) -> str:
    """``300 K (100), 500 K (200)``, or a range; empty where the header holds no numbers."""
    try:
        kelvin = [float(value) for value in values]
    except (TypeError, ValueError):
        return ""
    counts = Counter(kelvin)
    if len(counts) > _LISTED:
        return f"{min(kelvin):g} to {max(kelvin):g} K, as the headers say"
    return ", ".join(f"{value:g} K ({count:,})" for value, count in sorted(counts.items()))


def _kinds(values: Sequence[str]) -> str:
    counts = Counter(values)
    if len(counts) > _LISTED:
        return f"{len(counts):,} different"
    return ", ".join(f"{value} ({count:,})" for value, count in counts.most_common())
