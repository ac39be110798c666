"""The vibrational spectrum of a run, and its distance from that of a DFT-MD trajectory in the data set."""

from __future__ import annotations

import numpy as np

from mlpbench.evaluators import Row
from mlpbench.evaluators.md_curves import Curves
from mlpbench.evaluators.md_deaths import Fate
from mlpbench.evaluators.md_frames import Run
from mlpbench.evaluators.md_motion import INVERSE_FS_IN_CM1, vdos_error, vibrational_spectrum
from mlpbench.evaluators.md_rows import row
from mlpbench.evaluators.md_structure import Distribution
from mlpbench.frames import Float

NAME = "vibrational spectrum"
MAX_CM1 = 5000.0
# What must be seen, or it would be folded back into the spectrum: stretches of hydrogen, of anything else.
NEEDED_CM1 = {True: 4000.0, False: 2500.0}
SHORTEST_FS = 200.0  # a stretch of this length resolves 170 cm⁻¹; from shorter ones no spectrum is made
JUMP = 5.0  # frames further apart than this multiple of the median step are not consecutive


def spectrum_rows(
    split: str,
    run: Run,
    found: list[Fate],
    step: float,
    reference: Float | None,
    interval_fs: float | None,
    not_scored: dict[str, str],
    curves: Curves,
) -> list[Row]:
    """The row of ``vdos_error`` where it can be had; the spectrum itself goes into ``curves`` in any case.

    Both spectra are averages over windows of the same length, so that they are equally broad.

    Args:
        split: as in the table.
        run: with velocities, best at constant energy.
        found: the fate of its replicas; velocities behind a collapse are not used.
        step: fs between stored velocities.
        reference: (T, N, 3) Å, frames of reference MD.
        interval_fs: between two of them; None where they are not consecutive.
        not_scored: metric -> reason, filled here.
        curves: filled here.
    """
    parts = [run.arrays["velocities"][r, : _sound(run, fate, step)] for r, fate in enumerate(found)]
    theirs: list[Float] = []
    if reference is not None and interval_fs is not None:
        theirs = [velocities_of(part, interval_fs) for part in stretches(reference)]
        theirs = [part for part in theirs if len(part) * interval_fs >= SHORTEST_FS]
    window = min((len(part) * (interval_fs or 0.0) for part in theirs), default=float(run.arrays["length_fs"]))
    slowest = max(step, interval_fs or 0.0)
    highest = INVERSE_FS_IN_CM1 / (2 * slowest)
    if highest < NEEDED_CM1[bool((run.masses < 3).any())]:
        not_scored["vdos_error"] = f"velocities every {slowest:g} fs show nothing above {highest:.0f} cm⁻¹"
        return []
    limit = min(MAX_CM1, highest)
    ours = _spectrum(parts, step, window, run.masses, limit)
    expected = _spectrum(theirs, interval_fs, window, run.masses, limit, differences=True) if interval_fs else None
    if ours is None:
        not_scored["vdos_error"] = f"no replica was sound for {window:.0f} fs"
        return []
    curves[NAME] = (ours, expected)
    if expected is None:
        not_scored["vdos_error"] = (
            "the data set has no consecutive reference MD of "
            f"{SHORTEST_FS:g} fs or more (evaluation.md.reference_splits, reference_interval_fs)"
        )
        return []
    return [row(split, "vdos_error", vdos_error(ours, expected), sum(len(part) > 0 for part in parts))]


def stretches(positions: Float) -> list[Float]:
    """(T, N, 3) cut where two frames are too far apart to be neighbours in time: blocks of a split, other runs."""
    if len(positions) < 3:
        return []
    step = np.sqrt(((positions[1:] - positions[:-1]) ** 2).mean(axis=(1, 2)))
    cuts = np.flatnonzero(step > JUMP * np.median(step)) + 1
    return np.split(positions, cuts)


def velocities_of(positions: Float, interval_fs: float) -> Float:
    """(T−2, N, 3) Å/fs, central differences."""
    return np.asarray((positions[2:] - positions[:-2]) / (2 * interval_fs), dtype=np.float64)


def _sound(run: Run, fate: Fate, step: float) -> int:
    """Stored velocities before the collapse of a replica."""
    return int((fate.frames - 1) * run.interval_fs / step) + 1 if fate.frames else 0


def _spectrum(
    parts: list[Float], step: float, window_fs: float, masses: Float, limit: float, *, differences: bool = False
) -> Distribution | None:
    """Mean over windows of (T, N, 3) velocities; None where none is as long as the window."""
    length = round(window_fs / step)
    windows = [
        _centred(part[begin : begin + length].astype(np.float64), masses)
        for part in parts
        for begin in range(0, len(part) - length + 1, length)
    ]
    if not windows or length < 2:
        return None
    found = vibrational_spectrum(np.stack(windows), step, masses, max_cm1=limit)
    if not differences:
        return found
    # A central difference sees sin(ωΔt)/(ωΔt) of a velocity; the power has its square.
    phase = found.centres / INVERSE_FS_IN_CM1 * step  # ωΔt / 2π
    density = found.density / np.sinc(2 * phase) ** 2
    return Distribution(found.edges, density / (density * np.diff(found.edges)).sum())


def _centred(velocities: Float, masses: Float) -> Float:
    """Without the motion of the centre of mass."""
    centre = np.einsum("n,tni->ti", masses, velocities) / masses.sum()
    return np.asarray(velocities - centre[:, None], dtype=np.float64)
