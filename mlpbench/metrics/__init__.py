"""The registry of metrics: name, symbol, unit, direction and source of each, in one place.

A new metric is an entry in the ``METRICS`` list of a module of this package; modules are found by themselves.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Collection
from typing import Any

from mlpbench.errors import UserError, close_match
from mlpbench.metrics.definitions import Metric, force_mae_element

__all__ = [
    "HEADLINE", "MAIN_ERRORS", "METRICS", "Metric", "error_word", "headline", "is_linear", "metric", "metric_row",
]  # fmt: skip

HEADLINE = ("force_mae", "energy_mae")  # what a study is judged by: the first that its labels allow
MAIN_ERRORS = ("energy_mae", "force_mae", "stress_mae")


def _collect() -> dict[str, Metric]:
    found: dict[str, Metric] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        for entry in getattr(importlib.import_module(f"{__name__}.{module}"), "METRICS", []):
            if entry.name in found:
                raise ValueError(f"metric '{entry.name}' is registered twice, again in {module}")
            found[entry.name] = entry
    return found


METRICS: dict[str, Metric] = _collect()

# Families whose members depend on the data: force_mae_<element>, scan_rmse_<scan> ...
_FAMILIES = {"force_mae_": force_mae_element}


def metric(name: str) -> Metric:
    """The entry for ``name``, members of families included.

    Raises:
        UserError: there is none; the message has the close match.
    """
    if name in METRICS:
        return METRICS[name]
    for prefix, make in _FAMILIES.items():
        if name.startswith(prefix):
            return make(name.removeprefix(prefix))
    for known in METRICS:  # families registered as e.g. "scan_rmse_<name>"
        if known.endswith("_<name>") and name.startswith(known.removesuffix("<name>")):
            entry = METRICS[known]
            part = name.removeprefix(known.removesuffix("<name>"))
            return Metric(name, entry.symbol.replace("<name>", part), entry.unit, entry.direction, entry.group,
                          entry.description.replace("<name>", part), entry.source)  # fmt: skip
    raise UserError(f"there is no metric '{name}'", close_match(name, METRICS))


def metric_row(
    split: str, name: str, value: float, n: int = 1, lower: float | None = None, upper: float | None = None
) -> dict[str, Any]:
    """One row of the long table, with the registered unit of ``name``.

    Args:
        split: test split, or what stands for one (``md_500K``); empty where the metric belongs to none.
        name: of the metric.
        value: in its unit.
        n: what the interval rests on: frames, replicas, timed blocks.
        lower: lower end of the 95 % interval; None or not finite: there is none.
        upper: upper end, likewise.
    """

    def bound(end: float | None) -> float | None:
        return None if end is None or not math.isfinite(end) else float(end)

    return {
        "split": split, "metric": name, "value": float(value), "unit": metric(name).unit,
        "lower": bound(lower), "upper": bound(upper), "n": n,
    }  # fmt: skip


def headline(present: Collection[str]) -> str:
    """The metric that decides: the force error, or the energy error where there are no forces.

    Args:
        present: names of the metrics that a study (or its validation frames) has.
    """
    return next((name for name in HEADLINE if name in present), HEADLINE[-1])


def error_word(name: str) -> str:
    """What a headline error is of: ``force`` or ``energy``."""
    return name.partition("_")[0]


def is_linear(name: str) -> bool:
    """Whether a metric is averaged as it is: a share or a coefficient, of which a ratio has no meaning."""
    return name.endswith(("survival", "_r2"))
