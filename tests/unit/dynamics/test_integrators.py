"""The integrators against known answers."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.units import ASE_TIME_IN_FS, BOLTZMANN, GPA
from mlpbench.worker.dynamics.engine import Engine
from mlpbench.worker.dynamics.integrators import NoseHoover, Phase
from mlpbench.worker.dynamics.record import Settings, System
from tests.unit.dynamics.toys import Dimer, LennardJones, Nothing, Springs, cluster, free


def go(tmp_path, system, forces, seed=1, **settings):
    full = {"temperature_K": 300.0, **settings}
    engine = Engine(system, forces, Settings(**full), tmp_path / "run", seed)
    outcome = engine.run()
    return engine.recorder.assemble(), outcome


def test_frequency_of_a_harmonic_oscillator(tmp_path) -> None:
    """N2-like dimer: ν = sqrt(k/μ)/2π, exact up to the O(dt²) shift of velocity Verlet, which is known as well."""
    constant, mass = 140.0, 14.0
    system = System(
        np.array([7, 7]), np.array([mass, mass]), False,
        np.array([[[0.0, 0, 0], [0, 0, 1.15]]]), np.zeros((1, 2, 3)), np.zeros((1, 3, 3)),
    )  # fmt: skip
    dt = 0.5
    arrays, _ = go(
        tmp_path, system, Dimer(constant, 1.10), ensemble="nve", length_ps=1.0, time_step_fs=dt, frame_interval_fs=dt
    )
    r = np.linalg.norm(arrays["positions"][0, :, 1] - arrays["positions"][0, :, 0], axis=-1) - 1.10
    crossings = np.flatnonzero((r[:-1] > 0) & (r[1:] <= 0))
    # zero crossings, linearly interpolated
    times = (crossings + r[crossings] / (r[crossings] - r[crossings + 1])) * dt
    period = np.diff(times).mean()
    omega = np.sqrt(constant / (mass / 2)) / ASE_TIME_IN_FS  # rad/fs
    shifted = 2 / dt * np.arcsin(omega * dt / 2)
    assert 2 * np.pi / period == pytest.approx(shifted, rel=1e-5)
    assert shifted == pytest.approx(omega, rel=3e-3)  # ω²dt²/24


def test_energy_fluctuation_falls_as_the_square_of_the_step(tmp_path) -> None:
    spread, drift = [], []
    for dt in (8.0, 4.0, 2.0):
        arrays, _ = go(tmp_path / str(dt), cluster(), LennardJones(), ensemble="nve", length_ps=8.0, time_step_fs=dt,
                       frame_interval_fs=16.0, temperature_K=20.0)  # fmt: skip
        total = arrays["total"]
        spread.append(total.std(axis=1).mean())
        drift.append(abs(np.polyfit(arrays["time_fs"], total.mean(axis=0), 1)[0]) * 8000)
    assert spread[0] / spread[1] == pytest.approx(4.0, rel=0.15)
    assert spread[1] / spread[2] == pytest.approx(4.0, rel=0.15)
    assert drift[2] < spread[2]


def test_langevin_samples_the_canonical_ensemble(tmp_path) -> None:
    """Harmonic wells: ⟨½k·x²⟩ = ½kT for each coordinate, and the kinetic temperature is the bath's."""
    generator = np.random.default_rng(3)
    home = generator.uniform(0, 20, (20, 3))
    system = free(16, 20, 20.0, 300.0)
    system.positions = np.repeat(home[None], 16, axis=0)
    arrays, _ = go(tmp_path, system, Springs(home, 2.0), ensemble="langevin", length_ps=6.0, time_step_fs=2.0,
                   frame_interval_fs=40.0, friction_per_ps=20.0)  # fmt: skip
    late = slice(30, None)
    potential = arrays["potential"][:, late].mean() / (3 * 20)
    assert potential == pytest.approx(0.5 * BOLTZMANN * 300, rel=0.02)
    assert arrays["temperature"][:, late].mean() == pytest.approx(300, rel=0.02)


def test_langevin_diffusion_of_free_particles(tmp_path) -> None:
    """D = kT/(m·γ), from the mean square displacement at times long against 1/γ."""
    system = free(8, 100, 20.0, 300.0)
    rate = 50.0  # 1/ps
    arrays, _ = go(tmp_path, system, Nothing(), ensemble="langevin", length_ps=4.0, time_step_fs=2.0,
                   frame_interval_fs=40.0, friction_per_ps=rate)  # fmt: skip
    expected = BOLTZMANN * 300 / 20.0 / ASE_TIME_IN_FS**2 * 1e6 / rate  # Å²/ps
    lag = 50  # 2 ps
    step = arrays["positions"][:, lag:] - arrays["positions"][:, :-lag]
    # MSD = 6·D·(t − (1 − e^(−γt))/γ)
    msd = (step**2).sum(-1).mean()
    assert msd / 6 / (2.0 - 1 / rate) == pytest.approx(expected, rel=0.1)


def test_nose_hoover_conserves_its_energy_and_keeps_the_temperature(tmp_path) -> None:
    system = cluster(replicas=4, kelvin=40.0)
    settings = Settings("nose_hoover", 24.0, 4.0, 40.0, 40.0, thermostat_time_fs=400.0)
    engine = Engine(system, LennardJones(), settings, tmp_path / "run", 0)
    thermostat = engine.integrator
    assert isinstance(thermostat, NoseHoover)
    conserved = []
    original = thermostat.after

    def after(phase: Phase) -> None:
        original(phase)
        conserved.append(thermostat.conserved(phase))

    thermostat.after = after
    engine.run()
    arrays = engine.recorder.assemble()
    conserved = np.array(conserved)
    assert np.ptp(conserved, axis=0).max() < 2e-3 * np.ptp(arrays["total"], axis=1).max() + 5e-4
    assert arrays["temperature"][:, 200:].mean() == pytest.approx(40.0, rel=0.05)


def test_pressure_of_an_ideal_gas(tmp_path) -> None:
    """⟨V⟩ of a free gas at constant pressure is (N + 1)·kT/P."""
    n_atoms, kelvin, pressure = 50, 300.0, 0.05
    expected = (n_atoms + 1) * BOLTZMANN * kelvin / (pressure * GPA)
    side = expected ** (1 / 3)
    system = free(32, n_atoms, 20.0, kelvin, cell=side, spread=side)
    arrays, _ = go(
        tmp_path, system, Nothing(), ensemble="npt", length_ps=40.0, time_step_fs=10.0, frame_interval_fs=100.0,
        friction_per_ps=5.0, pressure_GPa=pressure, barostat_time_fs=500.0, compressibility_per_GPa=20.0,
    )  # fmt: skip
    volume = np.linalg.det(arrays["cell"].astype(float))[:, 50:]
    assert volume.mean() == pytest.approx(expected, rel=0.03)
    assert volume.std() / volume.mean() == pytest.approx(1 / np.sqrt(n_atoms + 1), rel=0.15)


def test_settings_refuse_what_cannot_be() -> None:
    good = {"ensemble": "nve", "length_ps": 1.0, "time_step_fs": 0.5, "frame_interval_fs": 10.0, "temperature_K": 300.0}
    assert Settings.from_options(good).steps == 2000
    with pytest.raises(ValueError, match="not a multiple"):
        Settings.from_options({**good, "frame_interval_fs": 0.7})
    with pytest.raises(ValueError, match="lengthps"):
        Settings.from_options({**good, "lengthps": 3})
    with pytest.raises(ValueError, match="ensemble 'nvt'"):
        Settings.from_options({**good, "ensemble": "nvt"})
    with pytest.raises(ValueError, match="must be positive"):
        Settings.from_options({**good, "length_ps": 0.0})
