"""Velocities: Maxwell–Boltzmann, without overall motion, and the temperature they stand for.

Arrays are (R, N, 3) for R replicas of N atoms. Velocities are in Å per ASE time unit, Å·sqrt(u/eV) = 10.18 fs, in
which m·v² is eV when m is in u; :func:`per_fs` turns them into Å/fs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlpbench.frames import Float
from mlpbench.units import ASE_TIME_IN_FS, BOLTZMANN


def per_fs(velocities: Float) -> Float:
    """Velocities in Å/fs."""
    return velocities / ASE_TIME_IN_FS


def kinetic_energy(velocities: Float, masses: Float) -> Float:
    """(R,) eV, all motion included."""
    return np.asarray(0.5 * np.einsum("rni,rni,n->r", velocities, velocities, masses), dtype=np.float64)


def degrees_of_freedom(n_atoms: int, periodic: bool) -> int:
    """Of internal motion: 3N−3 in a periodic cell, 3N−6 for a molecule, 1 for a diatomic one."""
    if periodic:
        return 3 * n_atoms - 3
    return {1: 0, 2: 1}.get(n_atoms, 3 * n_atoms - 6)


def without_overall_motion(positions: Float, velocities: Float, masses: Float, periodic: bool) -> Float:
    """Velocities without the motion of the centre of mass and, for a molecule, without overall rotation."""
    total = masses.sum()
    velocities = velocities - np.einsum("n,rni->ri", masses, velocities)[:, None] / total
    if periodic or len(masses) < 2:
        return np.asarray(velocities, dtype=np.float64)
    arms = positions - np.einsum("n,rni->ri", masses, positions)[:, None] / total
    momentum = np.einsum("n,rni->ri", masses, np.cross(arms, velocities))
    # pinv: a linear molecule has no moment of inertia along its axis, and no angular momentum there either.
    spin = np.einsum("rij,rj->ri", np.linalg.pinv(inertia(arms, masses), rcond=1e-8), momentum)
    return np.asarray(velocities - np.cross(spin[:, None], arms), dtype=np.float64)


def inertia(arms: Float, masses: Float) -> Float:
    """(R, 3, 3) u·Å² tensors of inertia; ``arms`` are positions from the centre of mass."""
    square = np.einsum("n,rni,rni->r", masses, arms, arms)
    outer = np.einsum("n,rni,rnj->rij", masses, arms, arms)
    return np.asarray(square[:, None, None] * np.eye(3) - outer, dtype=np.float64)


def temperature(positions: Float, velocities: Float, masses: Float, periodic: bool) -> Float:
    """(R,) K, of the internal motion: an overall drift or spin is not heat, whatever the ensemble."""
    inner = without_overall_motion(positions, velocities, masses, periodic)
    freedom = degrees_of_freedom(len(masses), periodic)
    return 2.0 * kinetic_energy(inner, masses) / (max(freedom, 1) * BOLTZMANN)


def maxwell_boltzmann(
    positions: Float, masses: Float, kelvin: float, periodic: bool, generator: np.random.Generator
) -> Float:
    """Velocities drawn at ``kelvin`` with zero total momentum and, for a molecule, zero angular momentum.

    The projection takes degrees of freedom away and leaves the others as they were drawn, so the kinetic temperature
    over the remaining ones is ``kelvin`` on average and nothing is rescaled.
    """
    width = np.sqrt(BOLTZMANN * kelvin / masses)[None, :, None]
    drawn = generator.standard_normal(positions.shape) * width
    return without_overall_motion(positions, drawn, masses, periodic)


def check_temperature(temperatures: Float, kelvin: float, freedom: int) -> float:
    """The mean start temperature over the replicas, in K, held to what chance allows.

    Raises:
        RuntimeError: more than six standard errors off: velocities that were never set, or wrong units.
    """
    found = float(np.mean(temperatures))
    error = kelvin * np.sqrt(2.0 / (max(freedom, 1) * len(temperatures)))
    if not abs(found - kelvin) < 6 * error:
        raise RuntimeError(
            f"the replicas start at {found:.1f} K, but {kelvin:g} K was asked for (standard error {error:.1f} K): "
            "their velocities were not set as meant"
        )
    return found


def masses_of(numbers: Any) -> Float:
    """(N,) u, standard atomic weights as ASE has them."""
    from ase.data import atomic_masses

    return np.asarray(atomic_masses[np.asarray(numbers, dtype=int)], dtype=np.float64)
