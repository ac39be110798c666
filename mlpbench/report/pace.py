"""Error against training seconds, from the validation after each epoch: what a training would have given if it had been
stopped earlier.

The potential of a trial is the checkpoint with the lowest validation loss, so at any moment of the training there is
one already: the best so far. Its validation error is recorded with the seconds that the package's own loop had run by
then, validation included. It is the error on the validation frames, by which the checkpoint was chosen; not on test
frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlpbench.frames import Float
from mlpbench.study.study import Study, remembered, rows_of, select

KEYS = {"force_mae": "valid_force_mae", "energy_mae": "valid_energy_mae"}
POINTS = 60
MOST_TRIALS = 300  # curves are read one by one; of a larger study, those of its largest training size


@dataclass(frozen=True)
class Pace:
    """The trials of one candidate at one number of training frames.

    Attributes:
        candidate: its label.
        n_train: training frames.
        curves: for each trial (2, n): seconds, and the validation error of the best checkpoint so far, eV/Å or
            eV/atom; an error may rise where the loss, which also counts the energies, fell.
        rested: how many of the trials came to rest.
    """

    candidate: str
    n_train: int
    curves: tuple[Float, ...]
    rested: int

    def mean(self) -> Float:
        """(4, m): seconds, geometric mean over the trials, lowest and highest; where all trials have an error."""
        start, end = max(c[0, 0] for c in self.curves), min(c[0, -1] for c in self.curves)
        if not 0 < start < end:
            return np.empty((4, 0))
        at = np.geomspace(start, end, POINTS)
        errors = np.array([_at(curve, at) for curve in self.curves])
        return np.array([at, np.exp(np.log(errors).mean(axis=0)), errors.min(axis=0), errors.max(axis=0)])

    def seconds_to(self, target: float) -> list[float | None]:
        """For each trial the seconds after which its error first was at most ``target``; None where it never was."""
        found = []
        for seconds, error in self.curves:
            below = np.flatnonzero(error <= target)
            found.append(float(seconds[below[0]]) if len(below) else None)
        return found

    @property
    def last(self) -> float:
        """Geometric mean of the errors at the end."""
        return float(np.exp(np.mean([np.log(curve[1, -1]) for curve in self.curves])))


def _at(curve: Float, at: Float) -> Float:
    """The error of the last validation at or before each moment."""
    return np.asarray(curve[1][np.searchsorted(curve[0], at, side="right") - 1], dtype=np.float64)


def best_so_far(points: list[dict[str, Any]], key: str) -> Float:
    """(2, n): seconds, and ``key`` at the epoch with the lowest validation loss so far."""
    known = [p for p in points if all(p.get(k) is not None for k in ("seconds", "valid_loss", key)) and p[key] > 0]
    found, lowest, error = [], np.inf, np.nan
    for point in known:
        if point["valid_loss"] < lowest:
            lowest, error = point["valid_loss"], float(point[key])
        found.append((float(point["seconds"]), error))
    return np.array(found, dtype=np.float64).reshape(-1, 2).T


@remembered
def paces(study: Study, dataset: str, metric: str) -> list[Pace]:
    """Chosen candidates at each number of training frames, finished trials only, the largest size first."""
    done = select(study.table, dataset=dataset, status="done")
    done = done[done["candidate"].isin(study.lines(dataset))]
    if len(done) > MOST_TRIALS:
        done = done[done["n_train"] == done["n_train"].max()].head(MOST_TRIALS)
    found = []
    for (candidate, n_train), part in done.groupby(["candidate", "n_train"], sort=False):
        curves, rested = [], 0
        for row in rows_of(part):
            curve = best_so_far(study.curve(str(row["trial"])), KEYS[metric])
            if curve.shape[1] > 1:
                curves.append(curve)
                rested += row["at_rest"] == True  # noqa: E712  # NaN is neither
        if curves:
            found.append(Pace(str(candidate), int(str(n_train)), tuple(curves), rested))
    return sorted(found, key=lambda one: (-one.n_train, one.last))
