"""Cost against size: t = a·N^b by least squares on the logarithms, with Student's interval of the exponent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class PowerLaw:
    """A fit of t = a·N^b.

    Attributes:
        factor: a, in the unit of t.
        exponent: b.
        lower: of its 95 % interval; -inf with two points.
        upper: likewise.
        smallest: N of the first point.
        largest: N of the last point; beyond it the law is extrapolated.
        n: points.
    """

    factor: float
    exponent: float
    lower: float
    upper: float
    smallest: float
    largest: float
    n: int

    def at(self, size: float) -> float:
        """t at N = ``size``."""
        return float(self.factor * size**self.exponent)

    def reaches(self, other: PowerLaw) -> float | None:
        """N at which both laws cost the same; None if they never do between 1 and 10⁹ atoms."""
        slope = self.exponent - other.exponent
        if slope == 0:
            return None
        logarithm = (log(other.factor) - log(self.factor)) / slope
        return exp(logarithm) if 0 <= logarithm <= log(1e9) else None


def fit_power_law(sizes: Sequence[float], times: Sequence[float]) -> PowerLaw | None:
    """Fit t = a·N^b; None with fewer than two different sizes.

    Args:
        sizes: N, positive.
        times: t, positive, one for each.
    """
    x, y = np.log(np.asarray(sizes, dtype=float)), np.log(np.asarray(times, dtype=float))
    if len(np.unique(x)) < 2:
        return None
    found = stats.linregress(x, y)
    half = float(stats.t.ppf(0.975, len(x) - 2) * found.stderr) if len(x) > 2 else inf
    slope = float(found.slope)
    return PowerLaw(
        float(np.exp(found.intercept)), slope, slope - half, slope + half, float(min(sizes)), float(max(sizes)), len(x)
    )
