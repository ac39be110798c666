"""What a potential's growing systems say of runs at the size of production: plateau, memory, and the cost of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PLATEAU = 0.9  # share of the best rate from which on larger systems bring next to nothing
ATOMS, NANOSECONDS = 1000, 1.0  # of the run whose cost is given


@dataclass(frozen=True)
class Growth:
    """A series of growing systems, calls that were completed.

    Attributes:
        atoms: of each size, ascending.
        seconds: median time of a call.
        memory_mb: largest memory up to then (10⁶ bytes); NaN where it was not measured.
        ended: why there is no larger one.
    """

    atoms: tuple[float, ...]
    seconds: tuple[float, ...]
    memory_mb: tuple[float, ...]
    ended: str = ""

    @classmethod
    def of(cls, scaling: Sequence[dict[str, Any]]) -> Growth | None:
        """Of the series ``scaling`` of the task ``speed``; None where no size was completed."""
        done = sorted((one for one in scaling if "stopped" not in one), key=lambda one: float(one["n_atoms"]))
        if not done:
            return None
        ended = next((f"{s['stopped']} ({s['n_atoms']:.0f} atoms)" for s in scaling if "stopped" in s), "")
        return cls(
            tuple(float(one["n_atoms"]) for one in done),
            tuple(float(np.median(one["seconds"])) for one in done),
            tuple(float(one.get("peak_mb", math.nan)) for one in done),
            ended,
        )

    @property
    def rates(self) -> tuple[float, ...]:
        """Atoms times calls per second, of each size."""
        return tuple(n / s for n, s in zip(self.atoms, self.seconds, strict=True))

    @property
    def rate(self) -> float:
        """The best of :attr:`rates`."""
        return max(self.rates)

    @property
    def plateau(self) -> float | None:
        """Atoms from which on the rate is at least :data:`PLATEAU` of the best.

        None where that is not known: the largest size is the first, or it is still the fastest by more than that share.
        """
        rates = self.rates
        if len(rates) < 2 or rates[-2] < PLATEAU * rates[-1]:
            return None
        return next(n for n, rate in zip(self.atoms, rates, strict=True) if rate >= PLATEAU * self.rate)

    @property
    def memory_per_atom_kb(self) -> float | None:
        """Slope of the memory between the smallest size whose memory shows and the largest, 10³ bytes per atom.

        What the process takes without atoms is no part of it. None where the memory did not grow.
        """
        known = [(n, m) for n, m in zip(self.atoms, self.memory_mb, strict=True) if math.isfinite(m)]
        if len(known) < 2 or known[-1][1] <= known[0][1]:
            return None
        start = max(point for point in known if point[1] <= known[0][1])  # smaller ones fit into what was there before
        return 1e3 * (known[-1][1] - start[1]) / (known[-1][0] - start[0])

    def seconds_at(self, atoms: float) -> tuple[float, bool]:
        """Time of a call, s, and whether it is extrapolated.

        Between two sizes log-log; beyond the largest as many atoms a second as there; below the smallest as long as it.
        """
        if atoms < self.atoms[0]:
            return self.seconds[0], True
        if atoms > self.atoms[-1]:
            return self.seconds[-1] * atoms / self.atoms[-1], True
        return float(np.exp(np.interp(np.log(atoms), np.log(self.atoms), np.log(self.seconds)))), False

    def run_hours(self, time_step_fs: float, atoms: float = ATOMS, nanoseconds: float = NANOSECONDS) -> float:
        """Hours of a run of so many atoms, a call a step and nothing else."""
        return nanoseconds * 1e6 / time_step_fs * self.seconds_at(atoms)[0] / 3600
