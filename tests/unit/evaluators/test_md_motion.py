"""Drift, spectrum and diffusion, with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.evaluators.md.motion import (
    INVERSE_FS_IN_CM1,
    diffusion,
    mean_square_displacement,
    nve_drift,
    order_of,
    over_replicas,
    vdos_error,
    vibrational_spectrum,
)


def test_drift_is_in_ps_and_per_atom() -> None:
    """1 eV over 10 ps of 9 atoms is 11.1 meV/atom/ps, in whatever time unit the integrator works (ASE's: 10.18 off)."""
    times = np.linspace(0, 10_000.0, 201)
    generator = np.random.default_rng(0)
    kinetic = 0.4 + 0.05 * generator.standard_normal(201)
    total = 5.0 + 1e-4 * times + 1e-3 * generator.standard_normal(201)
    found = nve_drift(times, total, total - kinetic, 9)
    assert found is not None
    assert found.slope == pytest.approx(1000 / 9 / 10, rel=0.01)
    assert found.ratio == pytest.approx(1.0 / 0.05, rel=0.1)
    assert found.fluctuation == pytest.approx(1.0 / 9, rel=0.15)
    assert nve_drift(times[:3], total[:3], total[:3] - kinetic[:3], 9) is None


def test_falling_energy_has_a_negative_slope() -> None:
    times = np.linspace(0, 1000.0, 11)
    found = nve_drift(times, -1e-5 * times, np.sin(times), 1)
    assert found is not None
    assert found.slope == pytest.approx(-10.0, rel=1e-6)
    assert found.ratio > 0


MODES = [209, 259, 413, 796, 875, 1026, 1087, 1145, 1252, 1268, 1363, 1408, 1440, 1461, 1482, 2896, 2923, 2952, 3010,
         3020, 3740]  # fmt: skip  # cm⁻¹


def fluctuation(generator: np.random.Generator, length_fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Times every 5 fs, and the total energy (eV) of ethanol's modes under velocity Verlet: (ωΔt)²/8 of each at 2ω."""
    omega = 2 * np.pi * 2.998e-5 * np.array(MODES)
    times = np.arange(0, length_fs + 1e-9, 5.0)
    size = (omega * 0.5) ** 2 / 8 * generator.exponential(0.086, 21)
    phase = 2 * omega[:, None] * times + generator.uniform(0, 2 * np.pi, (21, 1))
    return times, (size[:, None] * np.cos(phase)).sum(axis=0)


@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_the_interval_of_the_drift_covers(drift: float) -> None:
    """Four replicas of 1 ps that drift up or down by as much; none is told from the fluctuation where there is none."""
    generator, inside, zero = np.random.default_rng(0), 0, 0
    for _ in range(100):
        found = []
        for sign in (1, -1, 1, -1):
            times, total = fluctuation(generator, 1000.0)
            one = nve_drift(times, total + sign * drift * 9 * times * 1e-6, np.zeros_like(total), 9)
            assert one is not None
            found.append((one.slope, one.slope_error))
        _, lower, upper = over_replicas(*np.array(found).T)
        inside += lower <= drift <= upper
        zero += lower == 0
        assert upper > 0
    assert inside >= 95
    assert zero >= 95 if drift == 0 else zero <= 5


def test_order() -> None:
    steps = np.array([0.25, 0.5, 1.0])
    assert order_of(3.0 * steps**2, steps) == pytest.approx(2.0)


def oscillation(wavenumber: float, interval: float, length: int = 4000) -> np.ndarray:
    t = np.arange(length) * interval
    return np.cos(2 * np.pi * wavenumber / INVERSE_FS_IN_CM1 * t)


def test_spectrum_peaks_at_the_frequency() -> None:
    """1000 cm⁻¹ is a period of 33.36 fs."""
    assert pytest.approx(33.356, abs=0.001) == 1 / (1000 / INVERSE_FS_IN_CM1)
    velocities = np.zeros((1, 4000, 1, 3))
    velocities[0, :, 0, 0] = oscillation(1000.0, 2.0)
    found = vibrational_spectrum(velocities, 2.0, np.array([1.0]))
    assert found.centres[np.argmax(found.density)] == pytest.approx(1000, abs=6)
    assert (found.density * np.diff(found.edges)).sum() == pytest.approx(1.0)


def test_spectrum_needs_velocities_often_enough() -> None:
    with pytest.raises(ValueError, match="show nothing above 1668"):
        vibrational_spectrum(np.ones((1, 100, 1, 3)), 10.0, np.array([1.0]))


def test_spectrum_error_grows_with_the_shift() -> None:
    """An L1 overlap saturates once peaks no longer touch; the Wasserstein distance goes on."""

    def spectrum(*wavenumbers: float):
        velocities = np.zeros((1, 4000, 2, 3))
        velocities[0, :, 0, 0] = oscillation(wavenumbers[0], 2.0)
        velocities[0, :, 1, 0] = oscillation(wavenumbers[1], 2.0)
        return vibrational_spectrum(velocities, 2.0, np.ones(2))

    reference = spectrum(1000.0, 3000.0)
    errors = [vdos_error(spectrum(1000.0 + d, 3000.0), reference) for d in (0.0, 50.0, 200.0, 800.0)]
    assert errors[0] == 0.0
    assert errors[1] == pytest.approx(100 * 25 / 1000, rel=0.15)  # half the power, 50 cm⁻¹ off, width 1000
    assert errors[1] < errors[2] < errors[3]


def walk(steps: int, atoms: int, d: float, interval_fs: float, seed: int) -> np.ndarray:
    """Brownian motion with diffusion constant ``d`` in Å²/ps."""
    width = np.sqrt(2 * d * interval_fs / 1000)
    return np.cumsum(np.random.default_rng(seed).standard_normal((steps, atoms, 3)) * width, axis=0)


def test_diffusion_of_brownian_motion() -> None:
    trajectories = [walk(2000, 60, 0.8, 20.0, seed) for seed in range(4)]
    found = diffusion(trajectories, 20.0, np.ones(60))
    assert not isinstance(found, str)
    expected = 0.8 * (1 - 1 / 60)  # the centre of mass is held
    assert found.value == pytest.approx(expected, rel=0.06)
    assert found.lower < expected < found.upper
    assert found.n_blocks == 4 * 7


def test_diffusion_ignores_drift() -> None:
    moving = walk(2000, 60, 0.8, 20.0, 0) + np.arange(2000)[:, None, None] * 0.05
    found = diffusion([moving], 20.0, np.ones(60), min_blocks=2)
    assert not isinstance(found, str)
    assert found.value == pytest.approx(0.8, rel=0.1)


def test_not_enough_data_is_said() -> None:
    short = diffusion([walk(200, 20, 0.8, 20.0, 0)], 20.0, np.ones(20))
    assert isinstance(short, str)
    assert short.startswith("not enough data: 0 blocks")
    seven = diffusion([walk(1801, 20, 0.8, 20.0, 0)], 20.0, np.ones(20))
    assert seven == "not enough data: 7 blocks of 5 ps, 8 are needed"
    rattling = [0.1 * np.random.default_rng(0).standard_normal((2200, 20, 3))]
    answer = diffusion(rattling, 20.0, np.ones(20))
    assert isinstance(answer, str)
    assert "atoms move" in answer


def test_mean_square_displacement_of_straight_motion() -> None:
    positions = np.arange(10.0)[:, None, None] * np.array([1.0, 0, 0])[None, None]
    assert mean_square_displacement(positions, 3).tolist() == [0.0, 1.0, 4.0, 9.0]
