"""What a metric is called, in which unit it is given, which way is better, and where its definition comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One entry of the registry.

    Attributes:
        name: as in the long table, e.g. ``force_mae``.
        symbol: as a reader sees it, e.g. ``F MAE``.
        unit: as in the long table, e.g. ``meV/Å``; empty for a pure number.
        direction: which way is better.
        group: ``accuracy``, ``physics``, ``md``, ``speed``, ``cost``.
        description: one sentence that defines it.
        source: where the definition comes from.
    """

    name: str
    symbol: str
    unit: str
    direction: Literal["lower", "higher", "none"]
    group: str
    description: str
    source: str = ""
