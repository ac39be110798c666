"""What a check of a data set says, and what the checks are given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mlpbench.datasets.leaks import Fingerprinted
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.frames import Frames

Severity = Literal["error", "warning", "note", "unmade"]


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
