"""Trajectories as extended XYZ, for ASE, OVITO and MDAnalysis: whole ones on request, the end of every dead one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlpbench.evaluators.md_deaths import Fate
from mlpbench.evaluators.md_frames import Run

LAST_FRAMES = 20  # kept of a replica that died, so that one can look at how


def last_frames(folder: Path, run: Run, found: list[Fate]) -> None:
    """``death-<run>-<replica>.xyz``: the frames up to and with the one that failed; of an earlier scoring none stay."""
    _clear(folder, f"death-{run.name}")
    for index, fate in enumerate(found):
        if fate.died:
            stop = min(fate.frames + 1, run.replica(index).frames)
            frames = atoms_of(run, index, range(max(0, stop - LAST_FRAMES), stop))
            frames[-1].info["cause"] = fate.cause
            write(folder / f"death-{run.name}-{index:03d}.xyz", frames, format="extxyz")


def whole_trajectories(folder: Path, run: Run) -> None:
    """``trajectory-<run>-<replica>.xyz``: every stored frame."""
    _clear(folder, f"trajectory-{run.name}")
    for index in range(len(run)):
        frames = atoms_of(run, index, range(run.replica(index).frames))
        write(folder / f"trajectory-{run.name}-{index:03d}.xyz", frames, format="extxyz")


def atoms_of(run: Run, index: int, frames: range) -> list[Atoms]:
    """Stored frames of one replica, with the potential's energy (baseline included) and forces where they are kept.

    ``info`` has ``time_fs`` and ``temperature_K``.
    """
    replica, cells = run.replica(index), run.cells(index, frames.stop)
    baseline = float(run.arrays.get("baseline", 0.0))
    found = []
    for t in frames:
        atoms = Atoms(run.numbers, positions=replica.positions[t], cell=cells[t], pbc=run.arrays["pbc"])
        atoms.info = {"time_fs": float(replica.time_fs[t]), "temperature_K": float(replica.temperature[t])}
        labels = {"energy": float(replica.potential[t]) + baseline}
        if "forces" in run.arrays:
            labels["forces"] = run.arrays["forces"][index, t].astype(np.float64)
        atoms.calc = SinglePointCalculator(atoms, **labels)
        found.append(atoms)
    return found


def _clear(folder: Path, stem: str) -> None:
    for old in folder.glob(f"{stem}-[0-9][0-9][0-9].xyz"):
        old.unlink()
