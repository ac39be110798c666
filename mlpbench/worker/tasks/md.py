"""Molecular dynamics with the trained potential: many replicas at once, at constant temperature, energy, pressure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from mlpbench.frames import Float, Frames
from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Adapter, Potential
from mlpbench.worker.dynamics.engine import Engine, System, start_temperatures
from mlpbench.worker.dynamics.forces import choose, replicate
from mlpbench.worker.dynamics.settings import ENDINGS, Settings
from mlpbench.worker.dynamics.velocities import (
    check_temperature,
    degrees_of_freedom,
    masses_of,
    maxwell_boltzmann,
)
from mlpbench.worker.tasks import Skip

FOLDER = "md"
OWN = "own_trajectory.npz"
CANDIDATES_PER_FRAME = 8  # frames predicted for each one that is labelled: the core leaves out those after collapse


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: see ``conf/evaluation/dev.yaml``, node ``md``.

    Writes ``md/<run>.npz`` for ``nvt``, ``npt`` and ``nve-<dt>fs`` (arrays of
    :class:`mlpbench.worker.dynamics.record.Recorder`, and what the replicas have in common), and
    ``md/own_trajectory.npz``: energies and forces of the potential on frames of its own NVT run.
    """
    potential = adapter.load()
    starts = start_frames(adapter, options)
    system = make_system(starts, options)
    temperature = check_temperature(
        start_temperatures(system), options["temperature_K"],
        degrees_of_freedom(len(system.masses), system.periodic),
    )  # fmt: skip
    found: dict[str, Any] = {}
    for name, settings, count in plan_runs(options, system.periodic, len(system.positions)):
        part = first_replicas(system, count)
        found[name] = carry_out(name, settings, part, potential, starts, options, adapter.directory, events)
    if options.get("own_trajectory") and "nvt" in found:
        own = options["own_trajectory"]["frames"] * CANDIDATES_PER_FRAME
        found["nvt"]["candidates"] = predict_own(adapter.directory, potential, starts, own)
    return {
        "runs": found,
        "start_temperature_K": temperature,
        "formula": starts.to_atoms()[0].get_chemical_formula(),
        "options": {key: value for key, value in options.items() if key != "references"},
    }


def plan_runs(options: dict[str, Any], periodic: bool, replicas: int) -> list[tuple[str, Settings, int]]:
    """Name, settings and number of replicas of each run that the options ask for; NPT only in a periodic system.

    Raises:
        ValueError: a setting that is not known or cannot be.
    """
    common = {"temperature_K": options["temperature_K"], "time_step_fs": options["time_step_fs"]}
    runs: list[tuple[str, Settings, int]] = []
    if options.get("nvt"):
        node = dict(options["nvt"])
        runs.append(("nvt", Settings.from_options({**common, "ensemble": node.pop("thermostat"), **node}), replicas))
    if options.get("npt") and periodic:
        runs.append(("npt", Settings.from_options({**common, "ensemble": "npt", **options["npt"]}), replicas))
    if options.get("nve"):
        node = dict(options["nve"])
        count = min(int(node.pop("replicas")), replicas)
        for step in node.pop("time_steps_fs"):
            settings = Settings.from_options({**common, **node, "ensemble": "nve", "time_step_fs": step})
            runs.append((f"nve-{step:g}fs", settings, count))
    return runs


def start_frames(adapter: Adapter, options: dict[str, Any]) -> Frames:
    """``starts`` frames, evenly spaced among those of ``start_split`` with the atoms of its first frame.

    Raises:
        Skip: no such split.
    """
    splits = [name for name in adapter.request.frames if name not in ("train", "valid")]
    name = options.get("start_split") or (splits[0] if splits else "valid")
    if name not in adapter.request.frames:
        raise Skip(f"evaluation.md.start_split={name}: the data set has {', '.join(adapter.request.frames)}")
    frames = Frames.load(adapter.request.frames[name])
    offsets = frames.offsets
    first = frames.numbers[: frames.n_atoms[0]]
    same = [i for i in range(len(frames)) if np.array_equal(frames.numbers[offsets[i] : offsets[i + 1]], first)]
    picked = np.unique(np.linspace(0, len(same) - 1, min(options["starts"], len(same))).round().astype(int))
    return frames.select([same[i] for i in picked])


def make_system(starts: Frames, options: dict[str, Any]) -> System:
    """Starts × seeds replicas; each one's velocities depend on its own start and seed alone."""
    n_atoms = int(starts.n_atoms[0])
    numbers = starts.numbers[:n_atoms]
    masses = masses_of(numbers)
    periodic = bool(starts.pbc.any())
    geometries = starts.positions.reshape(-1, n_atoms, 3)
    positions, velocities, cells = [], [], []
    for start in range(len(starts)):
        for seed in range(options["seeds"]):
            generator = np.random.default_rng([options["seed"], start, seed])
            here = geometries[start][None]
            positions.append(here)
            velocities.append(maxwell_boltzmann(here, masses, options["temperature_K"], periodic, generator))
            cells.append(starts.cell[start])
    return System(numbers, masses, periodic, np.concatenate(positions), np.concatenate(velocities), np.array(cells))


def first_replicas(system: System, count: int) -> System:
    """``count`` of the replicas, spread over the starts."""
    if count == len(system.positions):
        return system
    picked = np.linspace(0, len(system.positions) - 1, count).round().astype(int)
    return System(
        system.numbers, system.masses, system.periodic,
        system.positions[picked], system.velocities[picked], system.cell[picked],
    )  # fmt: skip


def carry_out(
    name: str,
    settings: Settings,
    system: System,
    potential: Potential,
    starts: Frames,
    options: dict[str, Any],
    directory: Path,
    events: EventLog,
) -> dict[str, Any]:
    """One run from start to the assembled ``md/<name>.npz``; returns what the record keeps of it."""
    folder = directory / FOLDER / f".{name}"
    atoms = starts.to_atoms()[0]
    forces = choose(potential, atoms, options["engine"], stress=settings.ensemble == "npt")
    engine = Engine(
        system, forces, settings, folder, seed=options["seed"],
        progress=lambda values: events.write("md", run=name, **values),
    )  # fmt: skip
    outcome = engine.run()
    arrays = engine.recorder.assemble()
    ended_fs = outcome.ended_step * settings.time_step_fs
    save(
        directory / FOLDER / f"{name}.npz", **arrays, numbers=system.numbers, masses=system.masses,
        start_cell=system.cell, pbc=starts.pbc[0], ended=outcome.ended, ended_fs=ended_fs,
        length_fs=np.array(settings.steps * settings.time_step_fs),
    )  # fmt: skip
    if options.get("write_extxyz"):
        write_trajectories(directory / FOLDER, name, atoms, arrays)
    shutil.rmtree(folder)
    rate = outcome.replica_steps / outcome.seconds if outcome.seconds > 0 else None
    return {
        "settings": settings.to_dict(), "replicas": len(system.positions), "engine": forces.name,
        "seconds": outcome.seconds, "replica_steps": outcome.replica_steps, "replica_steps_per_second": rate,
        "resumed": outcome.resumed, "ended": [ENDINGS[code] for code in outcome.ended], "ended_fs": ended_fs.tolist(),
    }  # fmt: skip


def predict_own(directory: Path, potential: Potential, starts: Frames, count: int) -> int:
    """Energies and forces on ``count`` frames spread over all replicas and times of the NVT run.

    Positions are those that were stored, in single precision, so that a label belongs to exactly this geometry.
    ``own_trajectory.npz`` has ``replica`` (K,), ``frame`` (K,), ``positions`` (K, N, 3) Å, ``cell`` (K, 3, 3) Å,
    ``energy`` (K,) eV without baseline, ``forces`` (K, N, 3) eV/Å, ``baseline``, ``numbers`` and ``pbc``.
    """
    with np.load(directory / FOLDER / "nvt.npz", allow_pickle=False) as arrays:
        positions, cells = arrays["positions"], arrays["start_cell"]
    replica, frame = np.nonzero(np.isfinite(positions).all(axis=(2, 3)))
    later = frame > 0  # frame 0 is a test frame, not the potential's own
    replica, frame = replica[later], frame[later]
    if not len(replica):
        return 0
    # In order of time and, within it, of replica, so that an even choice spreads over both.
    order = np.lexsort((replica, frame))
    picked = order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))]
    replica, frame = replica[picked], frame[picked]
    geometry = positions[replica, frame].astype(np.float64)
    atoms = starts.to_atoms()[0]
    found = potential.predict(replicate(atoms, geometry, cells[replica]), len(geometry))
    save(
        directory / FOLDER / OWN, replica=replica, frame=frame, positions=geometry, cell=cells[replica],
        energy=found.energy, forces=found.forces.reshape(geometry.shape), baseline=starts.baseline[:1],
        numbers=atoms.numbers, pbc=atoms.pbc,
    )  # fmt: skip
    return len(replica)


def write_trajectories(folder: Path, name: str, atoms: Atoms, arrays: dict[str, Any]) -> None:
    """``<name>-<replica>.xyz``, extended XYZ with the time in fs and the temperature in K of each frame."""
    positions: Float = arrays["positions"]
    for r in range(len(positions)):
        frames: list[Atoms] = []
        for t in range(positions.shape[1]):
            if not np.isfinite(positions[r, t]).all():
                break
            cell = arrays["cell"][r, t] if "cell" in arrays else atoms.cell
            info = {"time_fs": float(arrays["time_fs"][t]), "temperature_K": float(arrays["temperature"][r, t])}
            frames.append(Atoms(atoms.numbers, positions=positions[r, t], cell=cell, pbc=atoms.pbc, info=info))
        write(folder / f"{name}-{r:03d}.xyz", frames, format="extxyz")


def save(path: Path, **arrays: Any) -> None:
    """Write ``arrays`` to ``path``, compressed, by atomic rename."""
    part = path.with_suffix(".part")
    with open(part, "wb") as stream:
        np.savez_compressed(stream, **arrays)
    os.replace(part, path)


