"""Harmonic frequencies from a Hessian, the same way for the potential and for the reference."""

from __future__ import annotations

import numpy as np

from mlpbench.frames import Float
from mlpbench.units import ASE_TIME_IN_FS

SPEED_OF_LIGHT_CM_PER_FS = 2.99792458e-5


def frequencies(hessian: Float, positions: Float, masses: Float) -> Float:
    """(3N−6,) cm⁻¹, ascending; an imaginary one as a negative number.

    Translation and rotation are projected out of the mass-weighted Hessian, so what is left are the internal modes
    (3N−5 for a linear molecule), whatever the Hessian's own residue along the others.

    Args:
        hessian: (3N, 3N) eV/Å².
        positions: (N, 3) Å, where it was taken.
        masses: (N,) u.
    """
    root = np.repeat(np.sqrt(masses), 3)
    weighted = hessian / np.outer(root, root)
    overall = _overall_motion(positions, masses)
    left, sizes, _ = np.linalg.svd(overall, full_matrices=True)
    inner = left[:, int((sizes > 1e-6 * sizes[0]).sum()) :]  # orthonormal complement
    eigenvalues = np.linalg.eigvalsh(inner.T @ (0.5 * (weighted + weighted.T)) @ inner)
    per_time = np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues))  # rad per Å·sqrt(u/eV)
    return np.asarray(per_time / ASE_TIME_IN_FS / (2 * np.pi * SPEED_OF_LIGHT_CM_PER_FS), dtype=np.float64)


def _overall_motion(positions: Float, masses: Float) -> Float:
    """(3N, 6) mass-weighted translations and rotations."""
    arms = positions - masses @ positions / masses.sum()
    root = np.sqrt(masses)[:, None]
    columns = [(root * axis).ravel() for axis in np.eye(3)]
    columns += [(root * np.cross(axis, arms)).ravel() for axis in np.eye(3)]
    return np.stack(columns, axis=1)


def superposed_rmsd(found: Float, reference: Float) -> float:
    """RMSD in Å after the best rotation (Kabsch, Acta Cryst. A32, 922 (1976)); proper rotations only."""
    a, b = found - found.mean(axis=0), reference - reference.mean(axis=0)
    left, _, right = np.linalg.svd(a.T @ b)
    sign = np.sign(np.linalg.det(left @ right))
    turn = left @ np.diag([1.0, 1.0, sign]) @ right
    return float(np.sqrt(((a @ turn - b) ** 2).sum(axis=1).mean()))
