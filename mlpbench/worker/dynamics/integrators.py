"""Start velocities, and integrators over many replicas at once: Verlet, Langevin, Nosé–Hoover chain, a barostat.

Arrays are (R, N, 3) for R replicas of N atoms. Each step is split at the force evaluation: ``before`` moves the atoms,
``after`` finishes with the new forces. Units: Å, u, eV and ASE's time, Å·sqrt(u/eV) = 10.18 fs, in which m·v² is eV
when m is in u; :func:`per_fs` turns velocities into Å/fs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from mlpbench.frames import Float, Int
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
    """The mean start temperature over the replicas, in K, checked against what chance allows.

    Raises:
        RuntimeError: more than six standard errors off: velocities that were never set, or wrong units.
    """
    mean = float(np.mean(temperatures))
    error = kelvin * np.sqrt(2.0 / (max(freedom, 1) * len(temperatures)))
    if not abs(mean - kelvin) < 6 * error:
        raise RuntimeError(
            f"the replicas start at {mean:.1f} K, but {kelvin:g} K was asked for (standard error {error:.1f} K): "
            "their velocities were not set as meant"
        )
    return mean


def masses_of(numbers: Any) -> Float:
    """(N,) u, standard atomic weights as ASE has them."""
    from ase.data import atomic_masses

    return np.asarray(atomic_masses[np.asarray(numbers, dtype=int)], dtype=np.float64)


@dataclass
class Phase:
    """The living replicas: R of them, N atoms each.

    ========== ========= =============================================
    positions  (R, N, 3) Å
    velocities (R, N, 3) Å per ASE time unit
    forces     (R, N, 3) eV/Å
    energy     (R,)      eV, potential
    stress     (R, 6)    eV/Å³, Voigt, ASE's sign; NaN where not asked for
    cell       (R, 3, 3) Å
    friction   (R, M)    velocities of the thermostat chain, 1/time
    chain      (R, M)    positions of the thermostat chain, no unit
    ids        (R,)      number of each replica, from 0
    ========== ========= =============================================
    """

    positions: Float
    velocities: Float
    forces: Float
    energy: Float
    stress: Float
    cell: Float
    friction: Float
    chain: Float
    ids: Int

    def select(self, kept: Any) -> Phase:
        """The replicas where ``kept`` is true."""
        return replace(self, **{f.name: getattr(self, f.name)[kept] for f in fields(self)})


class Verlet:
    """Velocity Verlet: constant energy, second order in ``dt``."""

    def __init__(self, masses: Float, dt: float) -> None:
        self.masses = masses[None, :, None]
        self.dt = dt

    def before(self, phase: Phase, noise: Float | None) -> None:
        """Half a kick and a whole drift, in place."""
        phase.velocities += (0.5 * self.dt) * phase.forces / self.masses
        phase.positions += self.dt * phase.velocities

    def after(self, phase: Phase) -> None:
        """The other half kick, in place."""
        phase.velocities += (0.5 * self.dt) * phase.forces / self.masses

    needs_noise = False


class Langevin(Verlet):
    """BAOAB splitting of Langevin dynamics (Leimkuhler & Matthews, Appl. Math. Res. Express 2013, 34).

    Args:
        masses: (N,) u.
        dt: time step.
        kelvin: temperature of the bath.
        rate: friction, 1/time.
    """

    needs_noise = True

    def __init__(self, masses: Float, dt: float, kelvin: float, rate: float) -> None:
        super().__init__(masses, dt)
        self.kept = float(np.exp(-rate * dt))
        self.width = np.sqrt((1 - self.kept**2) * BOLTZMANN * kelvin / self.masses)

    def before(self, phase: Phase, noise: Float | None) -> None:
        """Half kick, half drift, the bath, half drift, in place."""
        assert noise is not None
        phase.velocities += (0.5 * self.dt) * phase.forces / self.masses
        phase.positions += (0.5 * self.dt) * phase.velocities
        phase.velocities *= self.kept
        phase.velocities += self.width * noise
        phase.positions += (0.5 * self.dt) * phase.velocities


class NoseHoover(Verlet):
    """Nosé–Hoover chain (Martyna, Tuckerman, Tobias & Klein, Mol. Phys. 87, 1117 (1996)), one Trotter factor.

    Args:
        masses: (N,) u.
        dt: time step.
        kelvin: temperature of the bath.
        tau: period of the thermostat, time.
        freedom: degrees of freedom that carry the heat.
    """

    length = 3

    def __init__(self, masses: Float, dt: float, kelvin: float, tau: float, freedom: int) -> None:
        super().__init__(masses, dt)
        self.kt = BOLTZMANN * kelvin
        self.freedom = freedom
        self.inertia = np.full(self.length, self.kt * tau**2)
        self.inertia[0] *= freedom

    def before(self, phase: Phase, noise: Float | None) -> None:
        """Half a step of the chain, then as velocity Verlet."""
        self._chain(phase)
        super().before(phase, noise)

    def after(self, phase: Phase) -> None:
        """As velocity Verlet, then half a step of the chain."""
        super().after(phase)
        self._chain(phase)

    def _chain(self, phase: Phase) -> None:
        """exp(iL_NHC·dt/2), from the far end of the chain to the atoms and back."""
        half, last = 0.5 * self.dt, self.length - 1
        kinetic2 = np.einsum("rni,rni,n->r", phase.velocities, phase.velocities, self.masses[0, :, 0])
        speed = phase.friction

        def push(k: int, twice_kinetic: Float) -> Float:
            """Acceleration of the ``k``-th thermostat of the chain."""
            if k == 0:
                return np.asarray((twice_kinetic - self.freedom * self.kt) / self.inertia[0])
            return np.asarray((self.inertia[k - 1] * speed[:, k - 1] ** 2 - self.kt) / self.inertia[k])

        speed[:, last] += 0.5 * half * push(last, kinetic2)
        for k in range(last - 1, -1, -1):
            damp = np.exp(-0.25 * half * speed[:, k + 1])
            speed[:, k] = (speed[:, k] * damp + 0.5 * half * push(k, kinetic2)) * damp
        scale = np.exp(-half * speed[:, 0])
        phase.velocities *= scale[:, None, None]
        kinetic2 = kinetic2 * scale**2
        phase.chain += half * speed
        for k in range(last):
            damp = np.exp(-0.25 * half * speed[:, k + 1])
            speed[:, k] = (speed[:, k] * damp + 0.5 * half * push(k, kinetic2)) * damp
        speed[:, last] += 0.5 * half * push(last, kinetic2)

    def conserved(self, phase: Phase) -> Float:
        """(R,) eV: potential, kinetic and thermostat energy, constant up to the error of the time step."""
        kinetic = 0.5 * np.einsum("rni,rni,n->r", phase.velocities, phase.velocities, self.masses[0, :, 0])
        bath = 0.5 * (self.inertia * phase.friction**2).sum(axis=1)
        heat = self.kt * (self.freedom * phase.chain[:, 0] + phase.chain[:, 1:].sum(axis=1))
        return np.asarray(phase.energy + kinetic + bath + heat, dtype=np.float64)


class StochasticCell(Langevin):
    """Constant pressure: Langevin dynamics and stochastic cell rescaling, isotropic.

    Bernetti & Bussi, J. Chem. Phys. 153, 114107 (2020). With ε = ln V and the internal pressure P,
    dε = −(β/τ)·(P₀ − P)·dt + sqrt(2·kT·β/(V·τ))·dW; positions scale by exp(dε/3), velocities by exp(−dε/3).

    Args:
        masses: (N,) u.
        dt: time step.
        kelvin: temperature of the bath.
        rate: friction of the atoms, 1/time.
        pressure: P₀, eV/Å³.
        tau: relaxation time of the volume, time.
        compressibility: β, Å³/eV; it only sets how fast the volume follows.
    """

    def __init__(
        self, masses: Float, dt: float, kelvin: float, rate: float, pressure: float, tau: float, compressibility: float
    ) -> None:
        super().__init__(masses, dt, kelvin, rate)
        self.kt = BOLTZMANN * kelvin
        self.pressure, self.tau, self.compressibility = pressure, tau, compressibility

    def before(self, phase: Phase, noise: Float | None) -> None:
        """Rescale the cell with the last stress, then as Langevin. ``noise`` has one atom more: the cell's."""
        assert noise is not None
        self._rescale(phase, noise[:, -1, 0])
        super().before(phase, noise[:, :-1])

    def _rescale(self, phase: Phase, noise: Float) -> None:
        volume = np.abs(np.linalg.det(phase.cell))
        kinetic = 0.5 * np.einsum("rni,rni,n->r", phase.velocities, phase.velocities, self.masses[0, :, 0])
        inner = 2.0 * kinetic / (3.0 * volume) - phase.stress[:, :3].mean(axis=1)
        rate = self.compressibility / self.tau
        growth = -rate * (self.pressure - inner) * self.dt
        growth += np.sqrt(2.0 * self.kt * rate * self.dt / volume) * noise
        scale = np.exp(growth / 3.0)[:, None, None]
        phase.positions *= scale
        phase.cell *= scale
        phase.velocities /= scale
