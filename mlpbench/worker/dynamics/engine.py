"""Carries all replicas of one run through their steps: stops the dead, stores frames, resumes, keeps to its time."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.frames import Float, Int
from mlpbench.protocol import replacing
from mlpbench.units import ASE_TIME_IN_FS, BOLTZMANN, GPA
from mlpbench.worker.dynamics.forces import Forces, Labels
from mlpbench.worker.dynamics.integrators import (
    Langevin,
    NoseHoover,
    Phase,
    StochasticCell,
    Verlet,
    degrees_of_freedom,
    temperature,
)
from mlpbench.worker.dynamics.record import EXPLODED, FINISHED, NON_FINITE, WALL_LIMIT, Recorder, Settings, System

Progress = Callable[[dict[str, Any]], None]

WALL_CHECK_EVERY = 16  # steps; a look at the clock costs next to nothing, a long step does not wait for it
REPORT_SECONDS = 5.0  # between progress events
SAVE_SECONDS = 60.0  # a killed run loses no more than this


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        ended: (R,) codes of :data:`mlpbench.worker.dynamics.record.ENDINGS`.
        ended_step: (R,) step at which each replica stopped.
        seconds: wall time of the steps taken in this process.
        replica_steps: replica-steps taken in this process.
        resumed: True if it went on from a stored state.
    """

    ended: Int
    ended_step: Int
    seconds: float
    replica_steps: int
    resumed: bool


def make_integrator(settings: Settings, masses: Float, periodic: bool) -> Verlet:
    """The integrator of ``settings``, in ASE's units of time."""
    dt = settings.time_step_fs / ASE_TIME_IN_FS
    kelvin = settings.temperature_K
    rate = settings.friction_per_ps * ASE_TIME_IN_FS / 1000
    if settings.ensemble == "nve":
        return Verlet(masses, dt)
    if settings.ensemble == "langevin":
        return Langevin(masses, dt, kelvin, rate)
    if settings.ensemble == "nose_hoover":
        tau = settings.thermostat_time_fs / ASE_TIME_IN_FS
        return NoseHoover(masses, dt, kelvin, tau, degrees_of_freedom(len(masses), periodic))
    tau = settings.barostat_time_fs / ASE_TIME_IN_FS
    return StochasticCell(
        masses, dt, kelvin, rate, settings.pressure_GPa * GPA, tau, settings.compressibility_per_GPa / GPA
    )


class Engine:
    """One run of R replicas of one system.

    Args:
        system: the replicas.
        forces: where forces come from.
        settings: what to do.
        folder: for stored frames and the state to resume from.
        seed: of the thermostat's noise.
        progress: called every few seconds with ``step, steps, seconds, alive``, ``left_seconds`` until the wall limit
            and ``needed_seconds`` to the planned length.
        chunk_frames: frames between two writes of the state, which is written after a minute at the latest.
    """

    def __init__(
        self,
        system: System,
        forces: Forces,
        settings: Settings,
        folder: Path,
        seed: int,
        progress: Progress | None = None,
        chunk_frames: int = 200,
    ) -> None:
        self.system, self.forces, self.settings = system, forces, settings
        self.integrator = make_integrator(settings, system.masses, system.periodic)
        self.generator = np.random.Generator(np.random.PCG64(seed))
        self.progress = progress
        self.chunk_steps = chunk_frames * settings.frame_every
        self.recorder = Recorder(folder, system, settings)
        self.state_file = folder / "state.npz"
        self.count = len(system.positions)
        self.ended = np.full(self.count, FINISHED, dtype=np.int64)
        self.ended_step = np.full(self.count, settings.steps, dtype=np.int64)
        self.spent = 0.0  # wall seconds of earlier processes

    def run(self) -> Outcome:
        """Go to the end, or to the wall limit.

        Raises:
            ValueError: the potential's energies or forces are not finite at the very start.
        """
        step, phase, resumed = self._begin()
        start, first = time.perf_counter(), step
        replica_steps, reported, saved = 0, start, start
        while step < self.settings.steps and len(phase.ids):
            if step % WALL_CHECK_EVERY == 0 and self._over_time(start):
                self._end(phase, np.ones(len(phase.ids), bool), WALL_LIMIT, step)
                phase = phase.select(np.zeros(len(phase.ids), bool))
                break
            phase = self._step(phase, step + 1)
            step += 1
            replica_steps += len(phase.ids)
            self.recorder.maybe_record(step, phase)
            now = time.perf_counter()
            if self.progress is not None and now - reported > REPORT_SECONDS:
                reported = now
                self._report(step, first, now - start, len(phase.ids))
            if step % self.chunk_steps == 0 or now - saved > SAVE_SECONDS:
                saved = now
                self.recorder.flush()
                self._save(step, phase, now - start)
        self.recorder.flush()
        seconds = time.perf_counter() - start
        return Outcome(self.ended, self.ended_step, seconds, replica_steps, resumed)

    def is_of(self, fingerprint: str, start_energy: Any) -> bool:
        """Whether a finished run that left these two was this one: same settings, same start, same potential."""
        if fingerprint != self._fingerprint():
            return False
        return _same_potential(start_energy, self.forces(self.system.positions, self.system.cell).energy)

    def _step(self, phase: Phase, step: int) -> Phase:
        noise = None
        if self.integrator.needs_noise:
            # Drawn for all replicas, the dead included: what befalls one leaves the noise of the others as it was.
            extra = 1 if self.settings.ensemble == "npt" else 0
            shape = (self.count, len(self.system.masses) + extra, 3)
            noise = self.generator.standard_normal(shape)[phase.ids]
        with np.errstate(all="ignore"):  # what is not finite is looked for just below
            self.integrator.before(phase, noise)
        phase = self._drop_lost(phase, step)
        if not len(phase.ids):
            return phase
        labels = self.forces(phase.positions, phase.cell)
        good = np.isfinite(labels.energy) & np.isfinite(labels.forces).all(axis=(1, 2))
        if not good.all():
            self._end(phase, ~good, NON_FINITE, step)
            phase = phase.select(good)
            labels = Labels(*(part[good] for part in labels))
        phase.energy, phase.forces, phase.stress = labels
        self.integrator.after(phase)
        return phase

    def _drop_lost(self, phase: Phase, step: int) -> Phase:
        """Without replicas whose atoms are nowhere, before their positions reach a neighbour list."""
        finite = np.isfinite(phase.positions).all(axis=(1, 2)) & np.isfinite(phase.velocities).all(axis=(1, 2))
        square = np.einsum("rni,rni,n->r", phase.velocities, phase.velocities, self.system.masses)
        # 3N kT of all motion: a bound, not a measurement
        limit = 3 * len(self.system.masses) * BOLTZMANN * self.settings.max_temperature_K
        lost = finite & ~(square < limit)
        if not self.system.periodic:
            arms = phase.positions - phase.positions.mean(axis=1, keepdims=True)
            lost |= finite & ~((np.abs(arms) < self.settings.max_extent_A).all(axis=(1, 2)))
        if finite.all() and not lost.any():
            return phase
        self._end(phase, ~finite, NON_FINITE, step)
        self._end(phase, lost, EXPLODED, step)
        return phase.select(finite & ~lost)

    def _end(self, phase: Phase, which: Any, code: int, step: int) -> None:
        self.ended[phase.ids[which]] = code
        self.ended_step[phase.ids[which]] = step

    def _over_time(self, start: float) -> bool:
        limit = self.settings.wall_seconds
        return limit is not None and self.spent + time.perf_counter() - start > limit

    def _report(self, step: int, first: int, seconds: float, alive: int) -> None:
        assert self.progress is not None
        needed = left = seconds / max(step - first, 1) * (self.settings.steps - step)
        if self.settings.wall_seconds is not None:
            left = min(left, self.settings.wall_seconds - self.spent - seconds)
        self.progress({"step": step, "steps": self.settings.steps, "seconds": self.spent + seconds,
                       "left_seconds": left, "needed_seconds": needed, "alive": alive})  # fmt: skip

    def _begin(self) -> tuple[int, Phase, bool]:
        system = self.system
        labels = self.forces(system.positions, system.cell)
        if not (np.isfinite(labels.energy).all() and np.isfinite(labels.forces).all()):
            raise ValueError("the potential gives energies or forces that are not finite at the start frames of MD")
        self.print = self._fingerprint()
        stored = self._load(labels)
        if stored is not None:
            return (*stored, True)
        self.recorder.clear()
        links = np.zeros((self.count, NoseHoover.length))
        phase = Phase(
            system.positions.copy(), system.velocities.copy(), labels.forces, labels.energy, labels.stress,
            system.cell.copy(), links, links.copy(), np.arange(self.count),
        )  # fmt: skip
        self.start_energy = labels.energy.copy()
        self.recorder.maybe_record(0, phase)
        return 0, phase, False

    def _fingerprint(self) -> str:
        """What the stored state belongs to: these settings and these start frames."""
        text = json.dumps({**self.settings.to_dict(), "wall_seconds": None}, sort_keys=True)
        arrays = (self.system.numbers, self.system.positions, self.system.velocities, self.system.cell)
        return hashlib.sha256(text.encode() + b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()

    def _save(self, step: int, phase: Phase, seconds: float) -> None:
        with replacing(self.state_file) as part, open(part, "wb") as stream:
            np.savez(
                stream, **{name: getattr(phase, name) for name in phase.__dataclass_fields__},
                step=step, ended=self.ended, ended_step=self.ended_step, spent=self.spent + seconds,
                start_energy=self.start_energy, fingerprint=np.array(self.print), chunks=self.recorder.chunks,
                random=np.array(json.dumps(self.generator.bit_generator.state)),
            )  # fmt: skip

    def _load(self, labels: Labels) -> tuple[int, Phase] | None:
        """The stored state, if it is of this run and of this potential."""
        if not self.state_file.exists():
            return None
        with np.load(self.state_file, allow_pickle=False) as stored:
            if str(stored["fingerprint"]) != self.print or not _same_potential(stored["start_energy"], labels.energy):
                return None
            self.ended, self.ended_step = stored["ended"], stored["ended_step"]
            self.start_energy, self.spent = stored["start_energy"], float(stored["spent"])
            self.generator.bit_generator.state = json.loads(str(stored["random"]))
            self.recorder.resume(int(stored["chunks"]))
            return int(stored["step"]), Phase(**{name: stored[name] for name in Phase.__dataclass_fields__})


def _same_potential(before: Any, now: Float) -> bool:
    """By the energies at the start, eV: the same weights in another process differ by rounding only, others by more."""
    return np.shape(before) == now.shape and bool(np.allclose(before, now, rtol=0, atol=1e-3))


def start_temperatures(system: System) -> Float:
    """(R,) K of the start velocities."""
    return temperature(system.positions, system.velocities, system.masses, system.periodic)
