"""Table cells from means."""

from __future__ import annotations

import math

from mlpbench.numbers import interval, number, plural, ratio_text
from mlpbench.report.estimates import Estimate
from mlpbench.report.section import Cell, Mark


def mean_cell(mean: Estimate | None, mark: Mark = "") -> Cell:
    """A mean with its interval in small print; a dash where there is none."""
    if mean is None:
        return Cell("–")
    note = {
        "frames": "one repetition; the interval covers the choice of test frames only",
        "none": "one repetition; no interval",
        "repetitions": plural(mean.n, "repetition"),
    }[mean.basis]
    text = number(mean.value, mean.low, mean.high)
    return Cell(text, mean.value, interval(mean.low, mean.high), mark, note)


def ratio_cell(value: float, low: float, high: float) -> Cell:
    """A ratio with its interval; enough digits that rounding does not put an end on the wrong side of 1."""
    if not math.isfinite(low):
        return Cell(number(value), value)
    text, ends = ratio_text(value, low, high)
    return Cell(text, value, ends)
