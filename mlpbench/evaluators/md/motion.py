"""What needs time: energy drift, vibrational spectrum, self-diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from mlpbench.evaluators import Row
from mlpbench.evaluators.md.runs import Fate, Run
from mlpbench.evaluators.md.structure import Curves, Distribution, wasserstein
from mlpbench.frames import Float
from mlpbench.metrics import metric_row
from mlpbench.statistics.intervals import interval

INVERSE_FS_IN_CM1 = 1e15 / 2.99792458e10  # cm⁻¹ of one oscillation per fs


DRIFT_PS = 1.0  # from shorter runs no drift is given: it would be the fluctuation's phase at their ends
LAGS = 0.25  # of the frames, over which the fluctuation's autocorrelation is summed
LAGS_DF = 2.0  # degrees of freedom of a slope's error from so many lags


@dataclass(frozen=True)
class Drift:
    """Energy conservation of one replica under NVE.

    Attributes:
        slope: meV/atom/ps, signed, by least squares.
        slope_error: its standard error, the fluctuation's autocorrelation taken into account.
        ratio: |slope · length| / std(kinetic energy); above 1 the drift is no longer small.
        ratio_error: its standard error.
        fluctuation: meV/atom, standard deviation about the line; falls as dt² with a sound integrator and potential.
        length_ps: from the first to the last frame.
    """

    slope: float
    slope_error: float
    ratio: float
    ratio_error: float
    fluctuation: float
    length_ps: float


def nve_drift(time_fs: Float, total: Float, potential: Float, n_atoms: int) -> Drift | None:
    """Drift of one replica from (T,) ``total`` and ``potential`` energy in eV; None below four frames.

    The error of the slope is Newey and West's (Econometrica 55, 703 (1987)), Bartlett's window over a quarter of the
    frames. The fluctuation of velocity Verlet oscillates, and its slope is more certain than independent noise would
    have it; slow motion makes it less certain.
    """
    if len(time_fs) < 4:
        return None
    ps = (time_fs - time_fs.mean()) / 1000.0
    square = float(ps @ ps)
    slope = float(ps @ (total - total.mean())) / square
    rest = total - total.mean() - slope * ps
    scores, lags = ps * rest, max(1, int(LAGS * len(ps)))
    variance = float(scores @ scores)
    variance += 2 * sum((1 - k / (lags + 1)) * float(scores[k:] @ scores[:-k]) for k in range(1, lags + 1))
    error = float(np.sqrt(max(variance, 0.0) * len(ps) / (len(ps) - 2))) / square
    spread, length = float(np.std(total - potential)), float(ps[-1] - ps[0])
    scale = length / max(spread, 1e-12)  # eV; free particles have no spread at all
    return Drift(
        slope * 1e3 / n_atoms, error * 1e3 / n_atoms, abs(slope) * scale, error * scale,
        float(np.std(rest)) * 1e3 / n_atoms, length,
    )  # fmt: skip


def over_replicas(values: Float, errors: Float, df: float = LAGS_DF) -> tuple[float, float, float]:
    """Root mean square of (R,) true values, and its 95 % interval, from ``values`` with standard ``errors``.

    By the triangle inequality the root mean square of the truth differs from that of the values by at most that of the
    errors, whose 95 % quantile follows from F(R, R·df). The lower end is 0 where the errors alone explain the values.
    """
    value, count = float(np.sqrt(np.mean(values**2))), len(values)
    reach = float(np.sqrt(np.mean(errors**2) * stats.f.ppf(0.95, count, count * df)))
    return value, max(value - reach, 0.0), value + reach


def order_of(fluctuations: Float, time_steps: Float) -> float:
    """Slope of log(fluctuation) against log(time step): 2 for velocity Verlet on a smooth potential."""
    return float(np.polyfit(np.log(time_steps), np.log(fluctuations), 1)[0])


def vibrational_spectrum(
    velocities: Float, interval_fs: float, masses: Float, max_cm1: float = 5000.0, bins: int = 500
) -> Distribution:
    """Mass-weighted vibrational density of states, in cm⁻¹, ∫ = 1 (Wiener–Khinchin: |FFT of the velocities|²).

    Args:
        velocities: (R, T, N, 3), any unit.
        interval_fs: between two of them.
        masses: (N,) u.
        max_cm1: upper end of the spectrum.
        bins: number of bins.

    Raises:
        ValueError: the interval is too long for ``max_cm1`` (Nyquist).
    """
    length = velocities.shape[1]
    # Padded with zeros so that every bin holds a frequency; it adds no resolution.
    points = max(length, int(np.ceil(INVERSE_FS_IN_CM1 / interval_fs / (max_cm1 / bins))))
    frequencies = np.fft.rfftfreq(points, d=interval_fs) * INVERSE_FS_IN_CM1
    if frequencies[-1] < max_cm1 and interval_fs * max_cm1 / INVERSE_FS_IN_CM1 > 0.5:
        raise ValueError(f"velocities every {interval_fs} fs show nothing above {frequencies[-1]:.0f} cm⁻¹")
    window = np.hanning(length)[None, :, None, None]
    power = np.abs(np.fft.rfft(velocities * window, n=points, axis=1)) ** 2
    spectrum = np.einsum("rfni,n->f", power, masses)
    edges = np.linspace(0.0, max_cm1, bins + 1)
    # The power between two edges, not the number of grid points that happen to lie there.
    power = np.concatenate([[0.0], np.cumsum(0.5 * (spectrum[1:] + spectrum[:-1]) * np.diff(frequencies))])
    density = np.diff(np.interp(edges, frequencies, power))
    return Distribution(edges, density / density.sum() / np.diff(edges))


def vdos_error(simulated: Distribution, reference: Distribution) -> float:
    """W1 between the spectra over the reference's standard deviation, in %, band clipped at 99.9 % of its power."""
    power = np.cumsum(reference.density * np.diff(reference.edges))
    last = int(np.searchsorted(power, 0.999 * power[-1])) + 1
    edges = reference.edges[: last + 1]
    ours = Distribution(edges, simulated.density[:last])
    theirs = Distribution(edges, reference.density[:last])
    weight = theirs.density / theirs.density.sum()
    mean = float(weight @ theirs.centres)
    width = float(np.sqrt(weight @ (theirs.centres - mean) ** 2))
    return 100.0 * wasserstein(ours, theirs) / width


WEAK_PER_PS = 0.1  # a Langevin bath up to this leaves diffusion as it is; 10/ps makes it 4 to 5 times too small
BLOCKS = 8  # of trajectory; the interval from four of them covers 79 %


@dataclass(frozen=True)
class Diffusion:
    """Self-diffusion in Å²/ps with an interval over blocks of trajectory."""

    value: float
    lower: float
    upper: float
    n_blocks: int


def mean_square_displacement(positions: Float, max_lag: int) -> Float:
    """(max_lag+1,) Å², over atoms and time origins, of (T, N, 3) unwrapped positions."""
    msd = np.zeros(max_lag + 1)
    for lag in range(1, max_lag + 1):
        step = positions[lag:] - positions[:-lag]
        msd[lag] = np.einsum("tni,tni->", step, step) / (step.shape[0] * step.shape[1])
    return msd


def diffusion(
    trajectories: list[Float],
    interval_fs: float,
    masses: Float,
    *,
    block_ps: float = 5.0,
    min_blocks: int = BLOCKS,
    min_msd: float = 1.0,
) -> Diffusion | str:
    """Slope of MSD/6t, or the words for why there is not enough data.

    The slope is fitted between 20 % and 60 % of a block: after the ballistic start, before the statistics run out.
    Overall drift is removed. The interval is Student's t over the blocks.

    It is the diffusion in the periodic cell: the infinite system's is larger by 2.837·kT/(6πηL), with the viscosity η
    and the edge L of a cubic cell (Yeh & Hummer, J. Phys. Chem. B 108, 15873 (2004)); not added, as η is unknown.

    Args:
        trajectories: (T, N, 3) Å, unwrapped, before collapse only.
        interval_fs: between frames.
        masses: (N,) u.
        block_ps: length of a block.
        min_blocks: fewer than this are not enough data.
        min_msd: Å²; if atoms have not moved this far within a block they still rattle in their cages.
    """
    frames = round(block_ps * 1000 / interval_fs)
    low, high = max(1, round(0.2 * frames)), round(0.6 * frames)
    slopes, reach = [], []
    for positions in trajectories:
        centre = np.einsum("n,tni->ti", masses, positions) / masses.sum()
        inner = positions - centre[:, None]
        for begin in range(0, len(inner) - frames, frames):
            msd = mean_square_displacement(inner[begin : begin + frames + 1], high)
            ps = np.arange(low, high + 1) * interval_fs / 1000
            slopes.append(np.polyfit(ps, msd[low : high + 1], 1)[0] / 6.0)
            reach.append(msd[high])
    if len(slopes) < min_blocks:
        return f"not enough data: {len(slopes)} blocks of {block_ps:g} ps, {min_blocks} are needed"
    if np.mean(reach) < min_msd:
        return f"not enough data: atoms move {np.mean(reach):.2g} Å² in a block, {min_msd:g} Å² are needed"
    mean = interval(slopes, scale="linear")  # their mean is the diffusion constant; a geometric one falls short of it
    return Diffusion(mean.value, mean.lower, mean.upper, len(slopes))


NAME = "vibrational spectrum"
MAX_CM1 = 5000.0
# What must be seen, or it would be folded back into the spectrum: stretches of hydrogen, of anything else.
NEEDED_CM1 = {True: 4000.0, False: 2500.0}
SHORTEST_FS = 200.0  # a stretch of this length resolves 170 cm⁻¹; from shorter ones no spectrum is made
JUMP = 5.0  # frames further apart than this multiple of the median step are not consecutive


def spectrum_rows(
    split: str,
    run: Run,
    fates: list[Fate],
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
        fates: the fate of its replicas; velocities behind a collapse are not used.
        step: fs between stored velocities.
        reference: (T, N, 3) Å, frames of reference MD.
        interval_fs: between two of them; None where they are not consecutive.
        not_scored: metric -> reason, filled here.
        curves: filled here.
    """
    parts = [run.arrays["velocities"][r, : _sound(run, fate, step)] for r, fate in enumerate(fates)]
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
    return [metric_row(split, "vdos_error", vdos_error(ours, expected), sum(len(part) > 0 for part in parts))]


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
    spectrum = vibrational_spectrum(np.stack(windows), step, masses, max_cm1=limit)
    if not differences:
        return spectrum
    # A central difference sees sin(ωΔt)/(ωΔt) of a velocity; the power has its square.
    phase = spectrum.centres / INVERSE_FS_IN_CM1 * step  # ωΔt / 2π
    density = spectrum.density / np.sinc(2 * phase) ** 2
    return Distribution(spectrum.edges, density / (density * np.diff(spectrum.edges)).sum())


def _centred(velocities: Float, masses: Float) -> Float:
    """Without the motion of the centre of mass."""
    centre = np.einsum("n,tni->ti", masses, velocities) / masses.sum()
    return np.asarray(velocities - centre[:, None], dtype=np.float64)


def diffusion_rows(
    split: str, runs: Sequence[tuple[Run, list[Fate], dict[str, Any]]], not_scored: dict[str, str]
) -> list[Row]:
    """The row of ``diffusion``, or its reason in ``not_scored``.

    Args:
        split: as in the table.
        runs: runs at constant temperature or energy, with the fate of the replicas and the settings of each.
        not_scored: metric -> reason, filled here.
    """
    if not runs:
        return []
    if not all(run.periodic for run, _, _ in runs):
        not_scored["diffusion"] = "a single molecule does not diffuse through anything"
        return []
    undamped = [(run, fates) for run, fates, settings in runs if not _damps(settings)]
    if not undamped:
        not_scored["diffusion"] = (
            f"a Langevin bath of more than {WEAK_PER_PS:g}/ps slows diffusion down (Basconi & Shirts, J. Chem. Theory "
            "Comput. 9, 2887 (2013)): it takes constant energy (evaluation.md.nve), "
            "evaluation.md.nvt.thermostat=nose_hoover or a friction_per_ps below"
        )
        return []
    answers = []
    for run, fates in undamped:
        positions = run.arrays["positions"]
        parts = [positions[r, fate.frames // 5 : fate.frames].astype(np.float64) for r, fate in enumerate(fates)]
        answers.append(diffusion(parts, run.interval_fs, run.masses))
    known = [answer for answer in answers if isinstance(answer, Diffusion)]
    if not known:
        not_scored["diffusion"] = str(answers[0])
        return []
    best = max(known, key=lambda answer: answer.n_blocks)
    return [metric_row(split, "diffusion", best.value, best.n_blocks, best.lower, best.upper)]


def _damps(settings: dict[str, Any]) -> bool:
    """Whether a run's thermostat takes so much momentum from the atoms that they diffuse too slowly."""
    return settings.get("ensemble") == "langevin" and float(settings["friction_per_ps"]) > WEAK_PER_PS
