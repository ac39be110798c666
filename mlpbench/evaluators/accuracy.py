"""Accuracy on every split, from raw predictions: values with frame-level block-bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from mlpbench.evaluators import Context, Row
from mlpbench.frames import Float, Frames
from mlpbench.metrics import metric_row
from mlpbench.protocol import PREDICTIONS
from mlpbench.statistics.bootstrap import (
    Interval,
    Statistic,
    block_interval,
    mean,
    one_minus_ratio,
    r_squared,
    ratio,
    root_mean,
    root_ratio,
)
from mlpbench.units import GPA

MEV = 1e3
STRESS_TO_GPA = 1 / GPA


def score(directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """Rows for every split in ``predictions.npz``.

    Args:
        directory: the trial's folder.
        values: the ``predict`` task's result (``splits``).
        context: reference frames of each split.

    Raises:
        ValueError: predictions of another shape than the reference, or not finite.
    """
    rows: list[Row] = []
    with np.load(directory / PREDICTIONS, allow_pickle=False) as arrays:
        for split in values["splits"]:
            energy, forces, stress = (arrays.get(f"{split}.{name}") for name in ("energy", "forces", "stress"))
            rows += score_split(split, context.frames[split], energy, forces, stress)
    return rows


def score_split(split: str, frames: Frames, energy: Float, forces: Float, stress: Float | None = None) -> list[Row]:
    """Every accuracy metric of one split for which it has labels.

    Args:
        split: name of the split.
        frames: reference, with baseline.
        energy: (F,) eV, predicted, without the baseline.
        forces: (A, 3) eV/Å, predicted.
        stress: (F, 6) eV/Å³, predicted, or None; NaN in frames without one.

    Frames that lack a label are left out of its metrics: ``n`` says how many there were.

    Raises:
        ValueError: shapes that do not match, or predictions that are not finite.
    """
    _check(split, frames, energy, forces)
    rows: list[Row] = []
    labelled = np.isfinite(frames.energy)
    if labelled.any():
        rows += _energy_rows(split, frames, energy, labelled)
    rows += _force_rows(split, *_with_forces(frames, forces))
    if stress is not None:
        # A package gives no stress, NaN, where a cell has no volume: a slab, a molecule.
        known = np.isfinite(stress).all(axis=1) & np.isfinite(frames.stress).all(axis=1)
        error = np.abs(stress - frames.stress)[known].mean(axis=1) * STRESS_TO_GPA
        if known.any():
            rows.append(_estimate(split, "stress_mae", block_interval(error, frames.group[known], mean)))
    return rows


def _with_forces(frames: Frames, predicted: Float) -> tuple[Frames, Float]:
    """The frames whose forces are all labelled but for held atoms, and their part of (A, 3) ``predicted``."""
    labelled = np.isfinite(frames.forces).all(axis=1) | frames.held
    labelled &= ~np.repeat(np.logical_and.reduceat(frames.held, frames.offsets[:-1]), frames.n_atoms)
    whole = np.array([bool(labelled[a:b].all()) for a, b in pairwise(frames.offsets)], dtype=bool)
    if whole.all():
        return frames, predicted
    atoms = np.repeat(whole, frames.n_atoms)
    return frames.select(np.flatnonzero(whole)), predicted[atoms]


def _energy_rows(split: str, frames: Frames, predicted: Float, labelled: Any) -> list[Row]:
    errors = {name: values[labelled] for name, values in energy_errors(predicted, frames).items()}
    group = frames.group[labelled]
    total, per_atom = errors["total"] * MEV, errors["per_atom"] * MEV
    columns: dict[str, tuple[Float, Statistic]] = {
        "energy_mae": (np.abs(per_atom), mean),
        "energy_rmse": (per_atom**2, root_mean),
        "energy_mae_total": (np.abs(total), mean),
        "energy_rmse_total": (total**2, root_mean),
    }
    reference = errors["reference"] * MEV
    if np.ptp(reference) > 0:
        columns["energy_r2"] = (np.stack([per_atom, reference], axis=1), r_squared)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may hold one frame only: its R² has no bound
        return [_estimate(split, name, block_interval(array, group, how)) for name, (array, how) in columns.items()]


def _force_rows(split: str, frames: Frames, predicted: Float) -> list[Row]:
    if not len(frames):
        return []
    known = ~frames.held  # the other atoms' true forces are not known: no error, and no count
    error = np.where(known[:, None], predicted - frames.forces, 0.0) * MEV
    reference = np.where(known[:, None], frames.forces, 0.0) * MEV
    count = 3.0 * _per_frame(frames, known.astype(float))
    absolute, square = _per_frame(frames, np.abs(error).sum(axis=1)), _per_frame(frames, (error**2).sum(axis=1))
    columns: dict[str, tuple[Float, Statistic]] = {
        "force_mae": (np.stack([absolute, count], axis=1), ratio),
        "force_rmse": (np.stack([square, count], axis=1), root_ratio),
    }
    if reference.any():  # a perfect crystal, a free atom: with no force to explain there is no share of it
        spread = _per_frame(frames, (reference**2).sum(axis=1))
        columns["force_r2"] = (np.stack([square, spread], axis=1), one_minus_ratio)
    angles = force_angles(predicted, reference / MEV)
    usable = np.isfinite(angles)
    per_frame_angles = np.stack(
        [_per_frame(frames, np.where(usable, angles, 0.0)), _per_frame(frames, usable.astype(float))], axis=1
    )
    if usable.any():
        columns["force_angle"] = (per_frame_angles, ratio)
    for number, symbol in elements(frames.numbers):
        mine = ((frames.numbers == number) & known).astype(float)
        if not mine.any():
            continue
        summed, atoms = _per_frame(frames, np.abs(error).sum(axis=1) * mine), _per_frame(frames, mine)
        columns[f"force_mae_{symbol}"] = (np.stack([summed, 3 * atoms], axis=1), ratio)
    rows = []
    for name, (array, how) in columns.items():
        # A resample may hold none of a rare element's frames, so those that have none are left out of the drawing.
        kept = array[:, 1] > 0 if how in (ratio, root_ratio) else np.ones(len(array), bool)
        with np.errstate(divide="ignore", invalid="ignore"):
            rows.append(_estimate(split, name, block_interval(array[kept], frames.group[kept], how)))
    flat = np.abs(error[known]).ravel()
    points = {"force_p95": np.percentile(flat, 95), "force_p99": np.percentile(flat, 99), "force_max": flat.max()}
    return rows + [metric_row(split, name, float(value), len(frames)) for name, value in points.items()]


def _per_frame(frames: Frames, per_atom: Float) -> Float:
    """(F,) sums of (A,) values."""
    return np.asarray(np.add.reduceat(per_atom, frames.offsets[:-1]), dtype=np.float64)


def _check(split: str, frames: Frames, energy: Float, forces: Float) -> None:
    if energy.shape != (len(frames),) or forces.shape != frames.forces.shape:
        raise ValueError(
            f"{split}: predicted energies {energy.shape} and forces {forces.shape}, "
            f"expected {(len(frames),)} and {frames.forces.shape}"
        )
    if not (np.isfinite(energy).all() and np.isfinite(forces).all()):
        bad = int((~np.isfinite(energy)).sum() + (~np.isfinite(forces)).any(axis=1).sum())
        raise ValueError(f"{split}: {bad} predicted energies or atoms' forces are not finite: the training diverged")


def energy_errors(predicted: Float, frames: Frames) -> dict[str, Float]:
    """Per-frame energy quantities, (F,) each.

    Args:
        predicted: (F,) eV, energies without the baseline.
        frames: the reference.

    Returns:
        ``total`` eV and ``per_atom`` eV/atom, signed; ``reference`` eV/atom without the baseline.
    """
    error = predicted - frames.target_energy
    return {
        "total": error,
        "per_atom": error / frames.n_atoms,
        "reference": frames.target_energy / frames.n_atoms,
    }


def force_angles(predicted: Float, reference: Float, threshold: float = 1e-3) -> Float:
    """(A,) degrees between (A, 3) vectors; NaN where the reference is below ``threshold`` eV/Å or either is zero."""
    norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(reference, axis=1)
    usable = (np.linalg.norm(reference, axis=1) > threshold) & (norms > 0)
    angles = np.full(len(reference), np.nan)
    cosine = np.sum(predicted * reference, axis=1)[usable] / norms[usable]
    angles[usable] = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    return angles


def elements(numbers: npt.NDArray[np.int64]) -> Sequence[tuple[int, str]]:
    """(atomic number, symbol) of each element present, by atomic number."""
    return [(int(z), chemical_symbols[int(z)]) for z in np.unique(numbers)]


def _estimate(split: str, name: str, interval: Interval) -> Row:
    return metric_row(split, name, interval.value, interval.n, interval.lower, interval.upper)
