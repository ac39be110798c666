"""Molecular dynamics with the trained potential: many replicas at once, at constant temperature, energy, pressure."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.frames import Frames
from mlpbench.protocol import EventLog, read_json, replacing, write_json
from mlpbench.worker.adapter import Adapter, Potential
from mlpbench.worker.dynamics.engine import Engine, Progress, start_temperatures
from mlpbench.worker.dynamics.forces import choose
from mlpbench.worker.dynamics.integrators import (
    check_temperature,
    degrees_of_freedom,
    masses_of,
    maxwell_boltzmann,
)
from mlpbench.worker.dynamics.record import ENDINGS, Settings, System
from mlpbench.worker.tasks import Skip

FOLDER = "md"
FINISHED = "finished.json"  # in a run's hidden folder, until the whole task is done


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: see ``conf/evaluation/dev.yaml``, node ``md``.

    Writes ``md/<run>.npz`` for ``nvt``, ``nvt-<T>K``, ``npt`` and ``nve-<dt>fs``: arrays of
    :class:`mlpbench.worker.dynamics.record.Recorder`, and what the replicas have in common.
    """
    potential = adapter.load()
    starts = start_frames(adapter, options)
    outcomes: dict[str, Any] = {}
    runs = plan_runs(options, bool(starts.pbc.any()), len(starts) * options["seeds"])
    not_run = {}
    hindrance = npt_hindrance(potential, starts) if any(name == "npt" for name, _, _ in runs) else ""
    if hindrance:
        runs, not_run = [one for one in runs if one[0] != "npt"], {"npt": hindrance}
    clear(adapter.directory / FOLDER, {name for name, _, _ in runs})
    for place, (name, settings, count) in enumerate(runs):
        system = first_replicas(make_system(starts, options, settings.temperature_K), count)
        progress = tell(events, name, count, [(later, number) for _, later, number in runs[place + 1 :]])
        outcomes[name] = carry_out(name, settings, system, potential, starts, options, adapter.directory, progress)
    clear(adapter.directory / FOLDER, set(outcomes), hidden=True)
    return {
        "runs": outcomes,
        "not_run": not_run,
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
        node = {**options["nvt"], "store_forces": True}
        node["ensemble"] = node.pop("thermostat")
        runs.append(("nvt", Settings.from_options({**common, **node}), replicas))
        for kelvin in options.get("further_temperatures_K") or ():
            settings = Settings.from_options({**common, **node, "temperature_K": kelvin})
            runs.append((f"nvt-{kelvin:g}K", settings, replicas))
    if options.get("npt") and periodic:
        runs.append(("npt", Settings.from_options({**common, "ensemble": "npt", **options["npt"]}), replicas))
    if options.get("nve"):
        node = dict(options["nve"])
        count = min(int(node.pop("replicas")), replicas)
        for step in node.pop("time_steps_fs"):
            settings = Settings.from_options({**common, **node, "ensemble": "nve", "time_step_fs": step})
            runs.append((f"nve-{step:g}fs", settings, count))
            node["velocity_interval_fs"] = None  # one spectrum is enough
    return runs


def npt_hindrance(potential: Potential, starts: Frames) -> str:
    """Why constant pressure cannot be simulated from ``starts``; empty if it can.

    Without a stress the cell would be NaN after one step, and every replica would count as killed by the potential.
    """
    if not starts.pbc.all():
        return "constant pressure needs a cell that is periodic in all three directions"
    stress = potential.predict(starts, len(starts), stress=True).stress
    if stress is None or not np.isfinite(stress).all():
        return "the potential gives no stress, which constant pressure needs"
    return ""


def tell(events: EventLog, name: str, count: int, later: list[tuple[Settings, int]]) -> Progress:
    """Writes the engine's progress as ``md`` events, with ``all_left_seconds`` of this run and the ``later`` ones.

    They are taken to cost as much per replica and step as this one has so far, and to end at their wall limits.
    """

    def write(values: dict[str, Any]) -> None:
        """One progress event, with what all runs together still need."""
        each = values["seconds"] / max(values["step"] * count, 1)
        more = [min(s.steps * number * each, s.wall_seconds or float("inf")) for s, number in later]
        events.write("md", run=name, **values, all_left_seconds=values["left_seconds"] + sum(more))

    return write


def start_frames(adapter: Adapter, options: dict[str, Any]) -> Frames:
    """``starts`` frames, evenly spaced among those of ``start_split`` with the atoms of its first frame.

    A single atom has no internal motion, and so no temperature: frames of one are left out.

    Raises:
        Skip: no such split, or all its frames are of one atom.
    """
    splits = [name for name in adapter.request.frames if name not in ("train", "valid")]
    name = options.get("start_split") or (splits[0] if splits else "valid")
    if name not in adapter.request.frames:
        raise Skip(f"evaluation.md.start_split={name}: the data set has {', '.join(adapter.request.frames)}")
    frames = Frames.load(adapter.request.frames[name])
    moving = np.flatnonzero(frames.n_atoms > 1)
    if not len(moving):
        raise Skip(f"every frame of {name} is one atom, which has no temperature: set evaluation.md.start_split")
    frames = frames.select(moving)
    offsets = frames.offsets
    first = frames.numbers[: frames.n_atoms[0]]
    same = [i for i in range(len(frames)) if np.array_equal(frames.numbers[offsets[i] : offsets[i + 1]], first)]
    picked = np.unique(np.linspace(0, len(same) - 1, min(options["starts"], len(same))).round().astype(int))
    return frames.select([same[i] for i in picked])


def make_system(starts: Frames, options: dict[str, Any], kelvin: float) -> System:
    """Starts × seeds replicas at ``kelvin``; each one's velocities depend on its own start and seed alone.

    Raises:
        RuntimeError: the velocities do not have that temperature.
    """
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
            velocities.append(maxwell_boltzmann(here, masses, kelvin, periodic, generator))
            cells.append(starts.cell[start])
    system = System(numbers, masses, periodic, np.concatenate(positions), np.concatenate(velocities), np.array(cells))
    check_temperature(start_temperatures(system), kelvin, degrees_of_freedom(n_atoms, periodic))
    return system


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
    progress: Progress,
) -> dict[str, Any]:
    """One run from start to the assembled ``md/<name>.npz``; returns what the record keeps of it.

    A run that an interrupted task had finished already is not done again.
    """
    folder, path = directory / FOLDER / f".{name}", directory / FOLDER / f"{name}.npz"
    atoms = starts.to_atoms()[0]
    forces = choose(potential, atoms, options["engine"], stress=settings.ensemble == "npt")
    engine = Engine(system, forces, settings, folder, seed=options["seed"], progress=progress)
    if path.is_file() and (folder / FINISHED).is_file():
        before = read_json(folder / FINISHED)
        same_limit = before["summary"]["settings"]["wall_seconds"] == settings.wall_seconds
        if same_limit and engine.is_of(before["fingerprint"], before["start_energy"]):
            kept: dict[str, Any] = before["summary"]
            return kept
    outcome = engine.run()
    arrays = engine.recorder.assemble()
    ended_fs = outcome.ended_step * settings.time_step_fs
    save(
        path, **arrays, numbers=system.numbers, masses=system.masses,
        start_cell=system.cell, pbc=starts.pbc[0], baseline=starts.baseline[0], ended=outcome.ended, ended_fs=ended_fs,
        length_fs=np.array(settings.steps * settings.time_step_fs), temperature_K=np.array(settings.temperature_K),
    )  # fmt: skip
    shutil.rmtree(folder)
    rate = outcome.replica_steps / outcome.seconds if outcome.seconds > 0 else None
    summary = {
        "settings": settings.to_dict(), "replicas": len(system.positions), "engine": forces.name,
        "start_temperature_K": float(start_temperatures(system).mean()),
        "seconds": outcome.seconds, "replica_steps": outcome.replica_steps, "replica_steps_per_second": rate,
        "resumed": outcome.resumed, "ended": [ENDINGS[code] for code in outcome.ended], "ended_fs": ended_fs.tolist(),
    }  # fmt: skip
    marker = {"summary": summary, "fingerprint": engine.print, "start_energy": engine.start_energy.tolist()}
    write_json(folder / FINISHED, marker)
    return summary


def clear(folder: Path, names: set[str], hidden: bool = False) -> None:
    """Forget what earlier configurations left: everything but the arrays of runs called ``names``; with ``hidden``,
    nothing but what those would resume from.
    """
    for path in folder.glob("*"):
        if path.is_dir() and (hidden or path.name.removeprefix(".") not in names):
            shutil.rmtree(path)
        elif not hidden and path.is_file() and (path.suffix != ".npz" or path.stem not in names):
            path.unlink()


def save(path: Path, **arrays: Any) -> None:
    """Write ``arrays`` to ``path``, compressed, by atomic rename."""
    with replacing(path) as part, open(part, "wb") as stream:
        np.savez_compressed(stream, **arrays)
