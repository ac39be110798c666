"""What a run of replicas is asked to do, how a replica can end, and the frames that are stored of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlpbench.frames import Float, Int
from mlpbench.protocol import replacing
from mlpbench.worker.dynamics.integrators import Phase, kinetic_energy, per_fs, temperature

# How a replica ended, as a number in the arrays. What a molecule died of is for the scores to find.
FINISHED, NON_FINITE, EXPLODED, WALL_LIMIT = 0, 1, 2, 3
ENDINGS = ("finished", "non_finite", "exploded", "wall_limit")

ENSEMBLES = ("nve", "langevin", "nose_hoover", "npt")


@dataclass(frozen=True)
class Settings:
    """One run of all replicas.

    Attributes:
        ensemble: ``nve``, ``langevin``, ``nose_hoover`` or ``npt``.
        length_ps: planned length of each replica.
        time_step_fs: of the integrator.
        frame_interval_fs: between stored frames; a whole number of steps.
        temperature_K: of the start velocities and of the bath.
        friction_per_ps: of Langevin dynamics, alone and under NPT.
        thermostat_time_fs: period of the Nosé–Hoover chain.
        pressure_GPa: under NPT.
        barostat_time_fs: relaxation time of the volume under NPT.
        compressibility_per_GPa: how readily the volume follows; it changes no average.
        velocity_interval_fs: between stored velocities (for the vibrational spectrum); None: none are stored.
        store_forces: keep the forces of stored frames, to hold them against a reference method later.
        wall_seconds: the run stops here and its replicas count as censored; None: no limit.
        max_extent_A: an atom of a molecule farther than this from the centre of mass ends its replica.
        max_temperature_K: a replica hotter than this has exploded and ends.
    """

    ensemble: str
    length_ps: float
    time_step_fs: float
    frame_interval_fs: float
    temperature_K: float
    friction_per_ps: float = 10.0
    thermostat_time_fs: float = 50.0
    pressure_GPa: float = 0.0
    barostat_time_fs: float = 1000.0
    compressibility_per_GPa: float = 0.01
    velocity_interval_fs: float | None = None
    store_forces: bool = False
    wall_seconds: float | None = None
    max_extent_A: float = 100.0
    max_temperature_K: float = 1e5

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise ValueError(f"ensemble '{self.ensemble}' is not known; known: {', '.join(ENSEMBLES)}")
        for name in ("length_ps", "time_step_fs", "frame_interval_fs", "temperature_K"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be positive")
        for name in ("frame_interval_fs", "velocity_interval_fs"):
            value = getattr(self, name)
            if value is not None and abs(value / self.time_step_fs - round(value / self.time_step_fs)) > 1e-6:
                raise ValueError(f"{name}={value} is not a multiple of the time step of {self.time_step_fs} fs")

    @property
    def steps(self) -> int:
        """Steps of the planned length."""
        return round(self.length_ps * 1000 / self.time_step_fs)

    @property
    def frame_every(self) -> int:
        """Steps between stored frames."""
        return round(self.frame_interval_fs / self.time_step_fs)

    @property
    def velocity_every(self) -> int:
        """Steps between stored velocities; 0: none."""
        return 0 if self.velocity_interval_fs is None else round(self.velocity_interval_fs / self.time_step_fs)

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Settings:
        """Settings from a configuration node.

        Raises:
            ValueError: a key that is not known, or a value that cannot be; names it.
        """
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ValueError(f"MD settings have no key '{unknown[0]}'; known: {', '.join(sorted(known))}")
        return cls(**options)

    def to_dict(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self)


Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class System:
    """What all replicas have in common, and where each starts.

    Attributes:
        numbers: (N,) atomic numbers.
        masses: (N,) u.
        periodic: any direction is periodic.
        positions: (R, N, 3) Å.
        velocities: (R, N, 3) Å per ASE time unit.
        cell: (R, 3, 3) Å.
    """

    numbers: Int
    masses: Float
    periodic: bool
    positions: Float
    velocities: Float
    cell: Float


class Recorder:
    """Frames of R replicas, a dead one's as NaN.

    ============= ============ ======= ========= ==================================================
    array         shape        unit    type      meaning
    ============= ============ ======= ========= ==================================================
    time_fs       (T,)         fs      float64   of each frame
    positions     (R, T, N, 3) Å       float32   unwrapped
    temperature   (R, T)       K       float32   of the internal motion
    potential     (R, T)       eV      float64   without baseline
    total         (R, T)       eV      float64   potential and kinetic energy, without baseline
    cell          (R, T, 3, 3) Å       float32   under NPT only
    forces        (R, T, N, 3) eV/Å    float32   where asked for
    velocities    (R, V, N, 3) Å/fs    float32   at their own interval, where asked for
    ============= ============ ======= ========= ==================================================
    """

    def __init__(self, folder: Path, system: System, settings: Settings) -> None:
        self.folder, self.system, self.settings = folder, system, settings
        self.count = len(system.positions)
        self.rows: list[Arrays] = []
        self.velocity_rows: list[npt.NDArray[np.float32]] = []
        self.chunks = 0

    def clear(self) -> None:
        """Forget what an earlier run has left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.npz"):
            path.unlink()
        self.chunks = 0

    def resume(self, chunks: int) -> None:
        """Go on behind ``chunks`` pieces; later ones belong to steps that are taken again."""
        for path in self.folder.glob("chunk-*.npz"):
            if int(path.stem.removeprefix("chunk-")) >= chunks:
                path.unlink()
        self.chunks = chunks

    def maybe_record(self, step: int, phase: Phase) -> None:
        """Note this step, if a frame is due."""
        if step % self.settings.frame_every == 0:
            self._record(step, phase)
        if self.settings.velocity_every and step % self.settings.velocity_every == 0:
            self.velocity_rows.append(self._spread(per_fs(phase.velocities), phase, np.float32))

    def _record(self, step: int, phase: Phase) -> None:
        system = self.system
        kelvin = temperature(phase.positions, phase.velocities, system.masses, system.periodic)
        total = phase.energy + kinetic_energy(phase.velocities, system.masses)
        row: Arrays = {
            "time_fs": np.array(step * self.settings.time_step_fs),
            "positions": self._spread(phase.positions, phase, np.float32),
            "temperature": self._spread(kelvin, phase, np.float32),
            "potential": self._spread(phase.energy, phase, np.float64),
            "total": self._spread(total, phase, np.float64),
        }
        if self.settings.ensemble == "npt":
            row["cell"] = self._spread(phase.cell, phase, np.float32)
        if self.settings.store_forces:
            row["forces"] = self._spread(phase.forces, phase, np.float32)
        self.rows.append(row)

    def _spread(self, values: Any, phase: Phase, kind: Any) -> npt.NDArray[Any]:
        """Values of the living at their places among all replicas, NaN for the dead."""
        full = np.full((self.count, *np.shape(values)[1:]), np.nan, dtype=kind)
        full[phase.ids] = values
        return full

    def flush(self) -> None:
        """Write what has gathered as one piece."""
        if not self.rows and not self.velocity_rows:
            return
        arrays: Arrays = {}
        if self.rows:
            arrays = {
                name: np.stack([row[name] for row in self.rows], axis=0 if name == "time_fs" else 1)
                for name in self.rows[0]
            }
        if self.velocity_rows:
            arrays["velocities"] = np.stack(self.velocity_rows, axis=1)
        with replacing(self.folder / f"chunk-{self.chunks:05d}.npz") as part, open(part, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stub takes **kwds for allow_pickle
        self.rows, self.velocity_rows = [], []
        self.chunks += 1

    def assemble(self) -> Arrays:
        """All pieces as whole arrays, in order of time."""
        pieces = []
        for index in range(self.chunks):
            with np.load(self.folder / f"chunk-{index:05d}.npz", allow_pickle=False) as stored:
                pieces.append({name: stored[name] for name in stored.files})
        names = list(pieces[0]) if pieces else []
        return {
            name: np.concatenate([p[name] for p in pieces if name in p], axis=0 if name == "time_fs" else 1)
            for name in names
        }
