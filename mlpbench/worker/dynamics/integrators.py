"""Integrators over many replicas at once: velocity Verlet, Langevin, Nosé–Hoover chain, and a barostat.

Each step is split at the force evaluation: ``before`` moves the atoms, ``after`` finishes with the new forces. Units:
Å, u, eV and ASE's time, Å·sqrt(u/eV).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from mlpbench.frames import Float, Int
from mlpbench.units import BOLTZMANN


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
