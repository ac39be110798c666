"""Stores what the scores need, in pieces, so that a killed run loses little and memory stays small."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlpbench.worker.dynamics.integrators import Phase
from mlpbench.worker.dynamics.settings import Settings
from mlpbench.worker.dynamics.velocities import kinetic_energy, per_fs, temperature

if TYPE_CHECKING:
    from mlpbench.worker.dynamics.engine import System

Arrays = dict[str, npt.NDArray[Any]]


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
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / "piece.part"
        with open(part, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stub takes **kwds for allow_pickle
        part.replace(self.folder / f"chunk-{self.chunks:05d}.npz")
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


