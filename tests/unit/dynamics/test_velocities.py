"""Velocities have the temperature that was asked for, and no overall motion."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.units import ASE_TIME_IN_FS, BOLTZMANN
from mlpbench.worker.dynamics.integrators import (
    check_temperature,
    degrees_of_freedom,
    maxwell_boltzmann,
    per_fs,
    temperature,
)
from tests.support import ethanol_frames

MASSES = np.array([12.011, 12.011, 15.999, 1.008, 1.008, 1.008, 1.008, 1.008, 1.008])


def many(periodic: bool, count: int = 4000) -> tuple:
    start = ethanol_frames("test_500K", 1).positions[None]
    positions = np.repeat(start, count, axis=0)
    return positions, maxwell_boltzmann(positions, MASSES, 500.0, periodic, np.random.default_rng(0))


@pytest.mark.parametrize("periodic", [False, True])
def test_mean_temperature_is_the_one_asked_for(periodic: bool) -> None:
    positions, velocities = many(periodic)
    kelvins = temperature(positions, velocities, MASSES, periodic)
    freedom = degrees_of_freedom(9, periodic)
    assert freedom == (24 if periodic else 21)
    error = 500 * np.sqrt(2 / (freedom * len(kelvins)))
    assert abs(kelvins.mean() - 500) < 4 * error
    # The width of the canonical distribution too: rescaled velocities would have none.
    assert kelvins.std() == pytest.approx(500 * np.sqrt(2 / freedom), rel=0.05)


def test_no_overall_motion() -> None:
    positions, velocities = many(False, 10)
    momentum = np.einsum("n,rni->ri", MASSES, velocities)
    arms = positions - np.einsum("n,rni->ri", MASSES, positions)[:, None] / MASSES.sum()
    angular = np.einsum("n,rni->ri", MASSES, np.cross(arms, velocities))
    assert np.abs(momentum).max() < 1e-12
    assert np.abs(angular).max() < 1e-12


def test_overall_motion_is_not_heat() -> None:
    positions, velocities = many(False, 10)
    spin = np.cross(np.array([0.0, 0.0, 0.3]), positions)
    assert temperature(positions, velocities + 5.0 + spin, MASSES, False) == pytest.approx(
        temperature(positions, velocities, MASSES, False), rel=1e-9
    )


def test_unit_of_velocity() -> None:
    """The thermal speed of hydrogen at 500 K is sqrt(kT/m) = 2031 m/s = 0.02031 Å/fs along each axis."""
    speed = np.sqrt(BOLTZMANN * 500 / 1.008)
    assert per_fs(np.array(speed)) == pytest.approx(0.02031, rel=1e-3)
    assert per_fs(np.array(1.0)) * ASE_TIME_IN_FS == pytest.approx(1.0)


def test_velocities_that_were_never_set_are_noticed() -> None:
    with pytest.raises(RuntimeError, match=r"0\.0 K, but 1000 K was asked for"):
        check_temperature(np.zeros(8), 1000.0, 21)
    with pytest.raises(RuntimeError, match="asked for"):
        check_temperature(np.full(8, np.nan), 1000.0, 21)
    with pytest.raises(RuntimeError):
        check_temperature(np.full(8, 1000 * ASE_TIME_IN_FS), 1000.0, 21)
    assert check_temperature(np.full(8, 980.0), 1000.0, 21) == 980.0


def test_diatomic_and_single_atom() -> None:
    assert degrees_of_freedom(2, False) == 1
    assert degrees_of_freedom(1, False) == 0
    positions = np.array([[[0.0, 0, 0], [0, 0, 1.1]]])
    velocities = maxwell_boltzmann(positions, np.array([1.0, 1.0]), 300, False, np.random.default_rng(1))
    assert np.abs(velocities[:, :, :2]).max() < 1e-12  # only the bond stretches
