"""Accuracy: pure functions of per-frame and per-atom errors, and the metrics they give.

Each function takes arrays that can be resampled frame by frame, so that the interval of every metric comes from one
block bootstrap. Units inside: eV, Å; :data:`SCALE` turns a value into the unit of the table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from ase.data import chemical_symbols

from mlpbench.frames import Float, Frames
from mlpbench.metrics.metric import Metric
from mlpbench.units import GPA

MEV = 1e3

METRICS = [
    Metric("energy_mae", "E MAE", "meV/atom", "lower", "accuracy",
           "Mean over frames of |E_pred − E_ref| / N_atoms.", "metrics of MACE, NequIP, SchNetPack"),
    Metric("energy_rmse", "E RMSE", "meV/atom", "lower", "accuracy",
           "Root of the mean over frames of ((E_pred − E_ref) / N_atoms)²."),
    Metric("energy_r2", "E R²", "", "higher", "accuracy",
           "1 − Σ(Δe)² / Σ(e_ref − mean e_ref)², e the energy per atom less the baseline."),
    Metric("energy_mae_total", "E MAE, total", "meV", "lower", "accuracy",
           "Mean over frames of |E_pred − E_ref|, the whole frame.",
           "rMD17 tables (Christensen & von Lilienfeld 2020)"),
    Metric("energy_rmse_total", "E RMSE, total", "meV", "lower", "accuracy",
           "Root of the mean over frames of (E_pred − E_ref)².", "3BPA and AcAc tables (Kovács 2021; Batatia 2022)"),
    Metric("force_mae", "F MAE", "meV/Å", "lower", "accuracy",
           "Mean of |F_pred − F_ref| over all Cartesian components of all atoms."),
    Metric("force_rmse", "F RMSE", "meV/Å", "lower", "accuracy",
           "Root of the mean of (F_pred − F_ref)² over all components of all atoms."),
    Metric("force_r2", "F R²", "", "higher", "accuracy",
           "1 − Σ(ΔF)² / ΣF_ref² over all components (the mean force is zero)."),
    Metric("force_p95", "F 95 %", "meV/Å", "lower", "accuracy",
           "95th percentile of |F_pred − F_ref| over components."),
    Metric("force_p99", "F 99 %", "meV/Å", "lower", "accuracy",
           "99th percentile of |F_pred − F_ref| over components."),
    Metric("force_max", "F max", "meV/Å", "lower", "accuracy",
           "Largest |F_pred − F_ref| of any component."),
    Metric("force_angle", "F angle", "degree", "lower", "accuracy",
           "Mean angle between predicted and reference force vectors, atoms with |F_ref| > 1 meV/Å."),
    Metric("stress_mae", "σ MAE", "GPa", "lower", "accuracy",
           "Mean of |σ_pred − σ_ref| over the six Voigt components."),
]  # fmt: skip


def force_mae_element(symbol: str) -> Metric:
    """The per-element force error, e.g. ``force_mae_O``."""
    return Metric(
        f"force_mae_{symbol}", f"F MAE on {symbol}", "meV/Å", "lower", "accuracy",
        f"Mean of |F_pred − F_ref| over the components of the {symbol} atoms.",
    )  # fmt: skip


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


STRESS_TO_GPA = 1 / GPA
