"""What the ``md`` task stored, as the scores want it, and what they leave beside it: end frames, distributions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mlpbench.evaluators import Context
from mlpbench.frames import Float, Frames, Int

CAUSES = ("non_finite", "exploded", "too_cold", "too_hot", "bond", "overlap", "fragment", "structure")
SURVIVED, WALL_LIMIT = "survived", "wall_limit"


@dataclass(frozen=True)
class Replica:
    """One replica as it was stored; NaN behind the end of a dead one.

    Attributes:
        time_fs: (T,).
        positions: (T, N, 3) Å.
        temperature: (T,) K.
        potential: (T,) eV.
        ended: ``finished``, ``non_finite``, ``exploded`` or ``wall_limit``, as the engine left it.
        ended_fs: when.
        length_fs: planned length.
    """

    time_fs: Float
    positions: Float
    temperature: Float
    potential: Float
    ended: str
    ended_fs: float
    length_fs: float

    @property
    def frames(self) -> int:
        """Stored frames before the first one that is not finite."""
        good = (
            np.isfinite(self.positions).all(axis=(1, 2)) & np.isfinite(self.temperature) & np.isfinite(self.potential)
        )
        return len(good) if good.all() else int(np.argmin(good))


@dataclass(frozen=True)
class Fate:
    """What became of a replica.

    Attributes:
        cause: one of :data:`CAUSES`, ``survived`` or ``wall_limit``.
        time_ps: until when it was sound: the time of death, of the wall limit, or the planned length.
        frames: stored frames that observables may use, all before collapse.
        detail: e.g. which bond broke and how long it was.
        pair: atoms (i, j), from 0, that the cause is about: of a broken bond, of an overlap, the one that left and its
            nearest; for another cause the first bond that broke, None if none did.
    """

    cause: str
    time_ps: float
    frames: int
    detail: str = ""
    pair: tuple[int, int] | None = None

    @property
    def died(self) -> bool:
        """False if it survived or was censored."""
        return self.cause in CAUSES


FOLDER = "md"
ENDINGS = ("finished", "non_finite", "exploded", "wall_limit")  # as mlpbench.worker.dynamics.record has them


@dataclass(frozen=True)
class Run:
    """One run of R replicas, as :class:`mlpbench.worker.dynamics.record.Recorder` describes its arrays."""

    name: str
    arrays: dict[str, Any]

    @property
    def numbers(self) -> Int:
        """(N,) atomic numbers."""
        return np.asarray(self.arrays["numbers"])

    @property
    def masses(self) -> Float:
        """(N,) u."""
        return np.asarray(self.arrays["masses"])

    @property
    def periodic(self) -> bool:
        """Whether any direction is periodic."""
        return bool(self.arrays["pbc"].any())

    @property
    def interval_fs(self) -> float:
        """Between stored frames."""
        times = self.arrays["time_fs"]
        return float(times[1] - times[0]) if len(times) > 1 else float(self.arrays["length_fs"])

    def kelvin(self, options: dict[str, Any]) -> float:
        """Target temperature; the configuration's where an earlier version did not store the run's own."""
        return float(self.arrays.get("temperature_K", options["temperature_K"]))

    def __len__(self) -> int:
        return len(self.arrays["positions"])

    def replica(self, index: int) -> Replica:
        """Frames and end of one replica."""
        a = self.arrays
        return Replica(
            a["time_fs"], a["positions"][index].astype(np.float64), a["temperature"][index].astype(np.float64),
            a["potential"][index], ENDINGS[int(a["ended"][index])], float(a["ended_fs"][index]),
            float(a["length_fs"]),
        )  # fmt: skip

    def cells(self, index: int, frames: int) -> Float:
        """(frames, 3, 3) Å of one replica."""
        if "cell" in self.arrays:
            return np.asarray(self.arrays["cell"][index, :frames], dtype=np.float64)
        return np.repeat(self.arrays["start_cell"][index][None], frames, axis=0)


def load_run(directory: Path, name: str) -> Run:
    """The run called ``name`` of the trial in ``directory``."""
    with np.load(directory / FOLDER / f"{name}.npz", allow_pickle=False) as stored:
        return Run(name, {key: stored[key] for key in stored.files})


def matching(frames: Frames, numbers: Int) -> tuple[Float, Float]:
    """(T, N, 3) Å and (T, 3, 3) Å of the frames that have exactly these atoms in this order."""
    offsets = frames.offsets
    same = [
        i for i in range(len(frames))
        if frames.n_atoms[i] == len(numbers) and np.array_equal(frames.numbers[offsets[i] : offsets[i + 1]], numbers)
    ]  # fmt: skip
    part = frames.select(same)
    return part.positions.reshape(-1, len(numbers), 3), part.cell


def reference_frames(context: Context, splits: list[str], numbers: Int) -> tuple[Float, Float] | None:
    """Frames of reference MD, from the splits that the configuration says are such; None if there are none.

    Raises:
        ValueError: a split that the data set does not have.
    """
    if not splits:
        return None
    unknown = [name for name in splits if name not in context.frames]
    if unknown:
        raise ValueError(f"evaluation.md.reference_splits: there is no split '{unknown[0]}'; "
                         f"known: {', '.join(context.frames)}")  # fmt: skip
    positions, cells = zip(*(matching(context.frames[name], numbers) for name in splits), strict=True)
    joined = np.concatenate(positions), np.concatenate(cells)
    return joined if len(joined[0]) else None


def atoms_of(run: Run, index: int, frames: range) -> list[Atoms]:
    """Stored frames of one replica, with the potential's energy (baseline included) and forces where they are kept.

    ``info`` has ``time_fs`` and ``temperature_K``.
    """
    replica, cells = run.replica(index), run.cells(index, frames.stop)
    baseline = float(run.arrays.get("baseline", 0.0))
    structures = []
    for t in frames:
        atoms = Atoms(run.numbers, positions=replica.positions[t], cell=cells[t], pbc=run.arrays["pbc"])
        atoms.info = {"time_fs": float(replica.time_fs[t]), "temperature_K": float(replica.temperature[t])}
        labels = {"energy": float(replica.potential[t]) + baseline}
        if "forces" in run.arrays:
            labels["forces"] = run.arrays["forces"][index, t].astype(np.float64)
        atoms.calc = SinglePointCalculator(atoms, **labels)
        structures.append(atoms)
    return structures


def split_of(kelvin: float, ensemble: str = "") -> str:
    """What stands for a test split in the tables: ``md_500K``, ``md_500K_npt``."""
    return f"md_{kelvin:g}K" + (f"_{ensemble}" if ensemble else "")
