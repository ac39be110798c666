"""Potentials with known answers, as the engine wants its forces."""

from __future__ import annotations

import numpy as np

from mlpbench.worker.dynamics.forces import Labels
from mlpbench.worker.dynamics.integrators import maxwell_boltzmann
from mlpbench.worker.dynamics.record import System


class Springs:
    """Every atom on a spring of its own to where it started: 3N independent harmonic oscillators."""

    name = "springs"

    def __init__(self, home, constant):
        self.home, self.constant = home, constant

    def __call__(self, positions, cell):
        shift = positions - self.home[None]
        energy = 0.5 * self.constant * (shift**2).sum(axis=(1, 2))
        return Labels(energy, -self.constant * shift, np.full((len(positions), 6), np.nan))


class Dimer:
    """Two atoms on one spring of length r0."""

    name = "dimer"

    def __init__(self, constant, r0):
        self.constant, self.r0 = constant, r0

    def __call__(self, positions, cell):
        bond = positions[:, 1] - positions[:, 0]
        r = np.linalg.norm(bond, axis=1)
        pull = (self.constant * (r - self.r0) / r)[:, None] * bond
        energy = 0.5 * self.constant * (r - self.r0) ** 2
        return Labels(energy, np.stack([pull, -pull], axis=1), np.full((len(r), 6), np.nan))


class Nothing:
    """Free particles, with zero stress."""

    name = "nothing"

    def __call__(self, positions, cell):
        return Labels(np.zeros(len(positions)), np.zeros(positions.shape), np.zeros((len(positions), 6)))


class LennardJones:
    """All pairs, no cutoff, open boundaries."""

    name = "lj"

    def __init__(self, epsilon=0.0104, sigma=3.4):
        self.epsilon, self.sigma = epsilon, sigma

    def __call__(self, positions, cell):
        bond = positions[:, :, None] - positions[:, None]
        square = (bond**2).sum(-1)
        n = positions.shape[1]
        square[:, np.arange(n), np.arange(n)] = np.inf
        sixth = (self.sigma**2 / square) ** 3
        energy = 2 * self.epsilon * (sixth**2 - sixth).sum(axis=(1, 2))
        slope = 24 * self.epsilon * (2 * sixth**2 - sixth) / square
        return Labels(energy, (slope[..., None] * bond).sum(axis=2), np.full((len(positions), 6), np.nan))


def cluster(replicas=3, kelvin=20.0, seed=0, side=2, spacing=3.8):
    """Argon on a small cubic grid."""
    grid = np.array([[i, j, k] for i in range(side) for j in range(side) for k in range(side)], float) * spacing
    positions = np.repeat(grid[None], replicas, axis=0)
    masses = np.full(len(grid), 39.948)
    velocities = np.concatenate(
        [
            maxwell_boltzmann(positions[:1], masses, kelvin, False, np.random.default_rng([seed, r]))
            for r in range(replicas)
        ]
    )
    return System(np.full(len(grid), 18), masses, False, positions, velocities, np.zeros((replicas, 3, 3)))


def free(replicas, n_atoms, mass, kelvin, cell=20.0, seed=0, spread=10.0):
    """Particles at random places of a periodic box."""
    generator = np.random.default_rng(seed)
    positions = generator.uniform(0, spread, (replicas, n_atoms, 3))
    masses = np.full(n_atoms, mass)
    velocities = maxwell_boltzmann(positions, masses, kelvin, True, generator)
    cells = np.repeat(np.eye(3)[None] * cell, replicas, axis=0)
    return System(np.full(n_atoms, 18), masses, True, positions, velocities, cells)
