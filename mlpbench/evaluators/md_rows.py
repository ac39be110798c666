"""A row of the long table, as the MD scores make it."""

from __future__ import annotations

import math

from mlpbench.evaluators import Row
from mlpbench.metrics import metric


def split_of(kelvin: float, ensemble: str = "") -> str:
    """What stands for a test split in the tables: ``md_500K``, ``md_500K_npt``."""
    return f"md_{kelvin:g}K" + (f"_{ensemble}" if ensemble else "")


def row(split: str, name: str, value: float, n: int, lower: float | None = None, upper: float | None = None) -> Row:
    """One row with the registered unit of ``name``; a bound that is not finite is left out."""

    def bound(x: float | None) -> float | None:
        return float(x) if x is not None and math.isfinite(x) else None

    return {
        "split": split, "metric": name, "value": float(value), "unit": metric(name).unit,
        "lower": bound(lower), "upper": bound(upper), "n": n,
    }  # fmt: skip
