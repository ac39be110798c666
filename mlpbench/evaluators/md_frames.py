"""What the ``md`` task stored, as the scores want it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.evaluators import Context
from mlpbench.evaluators.md_deaths import Fate, Limits, Replica, classify, distances
from mlpbench.evaluators.md_structure import largest_r, rdf, rdf_distance
from mlpbench.frames import Float, Frames, Int

FOLDER = "md"
ENDINGS = ("finished", "non_finite", "exploded", "wall_limit")  # as mlpbench.worker.dynamics.settings has them


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


def mean_distances(context: Context, numbers: Int) -> Float | None:
    """(N, N) Å over the reference frames with these atoms: of the in-distribution split, else of all that there are."""
    chosen = context.in_distribution
    parts = [context.frames[chosen]] if chosen in context.frames else list(context.frames.values())
    positions = np.concatenate([matching(part, numbers)[0] for part in parts])
    return None if not len(positions) else distances(positions).mean(axis=0)


def closest_distances(context: Context, numbers: Int) -> Float | None:
    """(N, N) Å over the frames of all splits with these atoms, whatever their temperature."""
    positions = np.concatenate([matching(part, numbers)[0] for part in context.frames.values()])
    if not len(positions):
        return None
    smallest = np.full((len(numbers), len(numbers)), np.inf)
    for begin in range(0, len(positions), 1000):  # in pieces, to keep memory small
        smallest = np.minimum(smallest, distances(positions[begin : begin + 1000]).min(axis=0))
    return smallest


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


def fates(run: Run, context: Context, options: dict[str, Any]) -> list[Fate]:
    """What became of each replica.

    Args:
        run: a run at constant temperature or pressure.
        context: reference frames, for mean bond lengths and g(r).
        options: the ``md`` node: ``temperature_K, limits, reference_splits``.

    Raises:
        TypeError: a limit that is not known.
    """
    limits = Limits(**options.get("limits", {}))
    mean = None if run.periodic else mean_distances(context, run.numbers)
    closest = None if run.periodic else closest_distances(context, run.numbers)
    reference = reference_frames(context, options.get("reference_splits", []), run.numbers)
    found = []
    for index in range(len(run)):
        test = None
        if run.periodic and reference is not None and limits.structure is not None:
            test = _structure_test(run, index, reference, limits)
        found.append(
            classify(
                run.replica(index), run.numbers, run.kelvin(options), limits,
                molecule=not run.periodic, mean_distances=mean, closest=closest, structure=test,
            )
        )  # fmt: skip
    return found


def _structure_test(run: Run, index: int, reference: tuple[Float, Float], limits: Limits) -> Any:
    """The first frame that ends a window whose g(r) is too far from the reference's; windows overlap by half."""
    every = np.arange(len(run.numbers))
    assert limits.structure is not None
    threshold = limits.structure

    def test(positions: Float) -> int | None:
        cells = run.cells(index, len(positions))
        r_max = min(limits.structure_r_A, *(largest_r(c) for c in (*reference[1], *cells)))
        bins = max(20, round(r_max / 0.1))
        expected = rdf(*reference, every, every, r_max, bins)
        width = max(1, round(limits.structure_window_ps * 1000 / run.interval_fs))
        for end in range(width, len(positions) + 1, max(1, width // 2)):
            window = slice(end - width, end)
            if rdf_distance(rdf(positions[window], cells[window], every, every, r_max, bins), expected) > threshold:
                return end - 1
        return None

    return test
