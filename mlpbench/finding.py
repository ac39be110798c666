"""What one round of an exploration finds: dynamics with the round's potential, and the frames its committee doubts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from mlpbench.acquisition import Candidates
from mlpbench.acquisition.exploring import (
    Exploration,
    RoundManifest,
    deviations,
    distinct,
    read_round,
    trust_levels,
    trusted,
    write_round,
)
from mlpbench.backends.launcher import launch
from mlpbench.datasets.dataset import frame_hashes
from mlpbench.errors import UserError
from mlpbench.evaluators import Context
from mlpbench.evaluators.md.fates import fates
from mlpbench.evaluators.md.runs import atoms_of, load_run
from mlpbench.files import derive, digest, told
from mlpbench.files import sha256 as file_sha256
from mlpbench.frames import Float, Frames, Int
from mlpbench.protocol import CHECKPOINT, ProtocolError, Result, Task, replacing
from mlpbench.run import make_request, predict_forces
from mlpbench.study.explored import Acquired
from mlpbench.study.trial import Trial

OnEvent = Callable[[dict[str, Any]], None]
VERSION = 1  # raised when the same potentials would find or choose other frames
CHOSEN = "chosen.xyz"
# Somewhat nearer contacts than any labelled are what exploration is for. Without this test a committee of little
# data agrees on hydrogen atoms 0.4 Å apart, and such labels ruin the next training.
LIMITS = {"limits": {"contact_A": 0.5}}
NONE = {"temperature_K": float("nan")}  # every run has stored its own


def find_frames(
    acquired: Acquired,
    number: int,
    options: Exploration,
    trials: Sequence[Trial],
    records: Sequence[dict[str, Any]],
    count: int,
    on_event: OnEvent | None = None,
) -> RoundManifest:
    """The manifest of round ``number``: as it was written, else found by dynamics now and written.

    Args:
        acquired: the data set so far.
        number: of the round, from 1.
        options: settings.
        trials: of the committee; the first one's potential is simulated.
        records: of their trainings (with ``budget=converge`` the longest).
        count: frames to choose, at most.
        on_event: called with the progress of dynamics.
    """
    first, folder = trials[0], acquired.round_folder(number)
    labelled = Frames.load(first.split.files["train"])
    asked = {
        "version": VERSION, "settings": options.deciding, "count": count, "chooser_version": options.chooser.version,
        "labelled": digest(frame_hashes(labelled)), "potentials": [record["key"] for record in records],
    }  # fmt: skip
    known = read_round(folder, asked)
    if known is not None and (not known.chosen or _is(folder / CHOSEN, known.chosen_sha256)):
        return known
    acquired.labelled_file(number).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    places = [first.study_root / record["trial"] for record in records]
    seed = derive("explore", first.config.repetition, number) % 2**31
    _simulate(first, places[0], folder, options, seed, digest(asked), on_event)
    structures, counts, deaths = _sound_frames(folder, options, labelled)
    frames = Frames.from_atoms(structures)
    valid = Frames.load(first.split.files["valid"])
    both = Frames.concatenate([frames, without_labels(valid)])
    stacked = np.stack([predict_forces(trial, place, both) for trial, place in zip(trials, places, strict=True)])
    forces = stacked[:, : len(frames.numbers)]
    levels = trust_levels(options, deviations(stacked[:, len(frames.numbers) :], valid)[1])
    atoms, deviation = deviations(forces, frames)
    accurate, candidate, failed = trusted(deviation, *levels)
    order = np.argsort(-deviation, kind="stable")
    left = np.sort(distinct(labelled, frames, order[candidate[order]], options.near_A))
    picked = _choose(options, frames, forces, labelled, left, count)
    counts |= {
        "accurate": int(accurate.sum()), "candidates": int(candidate.sum()), "failed": int(failed.sum()),
        "distinct": len(left),
    }  # fmt: skip
    chosen = [
        {**{key: structures[i].info[key] for key in ("temperature_K", "replica", "time_fs")},
         "deviation_eV_A": float(deviation[i]),
         "atom_deviations_eV_A": [round(float(d), 5) for d in atoms[frames.offsets[i] : frames.offsets[i + 1]]]}
        for i in picked.tolist()
    ]  # fmt: skip
    manifest = RoundManifest(
        number, asked, levels, counts, dict(sorted(deaths.items())), len(options.temperatures_K) * _starts(folder),
        chosen, _write_chosen(folder / CHOSEN, [structures[i] for i in picked], chosen) if chosen else "",
        [{"trial": place.name, "key": record["key"], "forces_sha256": sha256(part.tobytes()).hexdigest()}
         for place, record, part in zip(places, records, forces, strict=True)],
    )  # fmt: skip
    write_round(folder, manifest)
    return manifest


def _is(path: Path, said: str) -> bool:
    return path.is_file() and file_sha256(path) == said


def without_labels(frames: Frames) -> Frames:
    """The same geometries with NaN for every label, and no baseline."""
    gone = {name: np.full_like(getattr(frames, name), np.nan) for name in ("energy", "forces", "stress")}
    return replace(frames, **gone, baseline=np.zeros(len(frames)))


def _simulate(
    trial: Trial, place: Path, folder: Path, options: Exploration, seed: int, made_from: str, on_event: OnEvent | None
) -> None:
    """All replicas at all temperatures, ``md/*.npz`` in ``folder``; goes on where an earlier process was killed.

    Raises:
        UserError: the dynamics could not be run.
    """
    environment = trial.environment
    assert environment is not None, "trials of an exploration are planned with their environment"
    first, *others = options.temperatures_K
    task = Task("md", made_from, {
        "temperature_K": first, "further_temperatures_K": others, "time_step_fs": options.time_step_fs,
        "start_split": "start", "starts": options.replicas, "seeds": 1, "seed": seed, "engine": "auto",
        "nvt": {"thermostat": "langevin", "friction_per_ps": options.friction_per_ps, "length_ps": options.length_ps,
                "frame_interval_fs": options.interval_fs, "wall_seconds": None},
        "npt": None, "nve": None,
    })  # fmt: skip
    if _finished(folder, task):
        return
    link = folder / CHECKPOINT
    link.unlink(missing_ok=True)
    link.symlink_to(place / CHECKPOINT)
    start = folder / "start.npz"
    Frames.load(trial.split.files["train"]).save(start)
    request = make_request(trial, environment, [task])
    request = replace(request, directory=str(folder.resolve()), frames={"start": str(start.resolve())})
    result = launch(request, environment, timeout=trial.config.timeout, on_event=on_event)["md"]
    if result.status != "done":
        raise UserError(f"the dynamics of {place.name} cannot be run: {result.reason}")


def _finished(folder: Path, task: Task) -> bool:
    try:
        stored = Result.read(folder, task.name)
    except (FileNotFoundError, ProtocolError):
        return False
    return stored.status == "done" and stored.key == task.key


def _run_names(options: Exploration) -> list[str]:
    return ["nvt", *(f"nvt-{kelvin:g}K" for kelvin in options.temperatures_K[1:])]


def _starts(folder: Path) -> int:
    return len(load_run(folder, "nvt"))


def _sound_frames(
    folder: Path, options: Exploration, labelled: Frames
) -> tuple[list[Atoms], dict[str, int], Counter[str]]:
    """The frames before any collapse, how many there are and were lost, and what replicas died of."""
    structures: list[Atoms] = []
    deaths: Counter[str] = Counter()
    planned = 0
    for name in _run_names(options):
        run = load_run(folder, name)
        ends = fates(run, Context({"labelled": labelled}, "labelled"), {**LIMITS, "temperature_K": run.kelvin(NONE)})
        for replica, fate in enumerate(ends):
            planned += len(run.arrays["time_fs"]) - 1
            if fate.died:
                deaths[fate.cause] += 1
            for atoms in atoms_of(run, replica, range(1, fate.frames)) if fate.frames > 1 else []:
                info = {"temperature_K": run.kelvin(NONE), "replica": replica, "time_fs": atoms.info["time_fs"]}
                structures.append(
                    Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)
                )
    if not structures:
        causes = ", ".join(f"{n} {cause}" for cause, n in deaths.items())
        raise UserError(
            f"every replica collapsed before its first frame: {causes}",
            "Begin with more training frames or steps, lower explore.temperatures_K, or a shorter explore.interval_fs.",
        )
    return structures, {"frames": planned, "sound": len(structures), "collapsed": planned - len(structures)}, deaths


def _choose(options: Exploration, frames: Frames, forces: Float, labelled: Frames, left: Int, count: int) -> Int:
    """Indices of at most ``count`` of the frames ``left``, in the order of choice."""
    if not len(left):
        return left
    atoms = np.isin(frames.frame_of_atom, left)
    candidates = Candidates(frames.select(left), labelled, forces[:, atoms])
    choice = options.chooser.choose(candidates, min(count, len(left)))
    return np.asarray(left[choice.indices])


def _write_chosen(path: Path, structures: Sequence[Atoms], said: Sequence[dict[str, Any]]) -> str:
    """The geometries that are to be labelled; returns the digest of the file."""
    for atoms, facts in zip(structures, said, strict=True):
        atoms.info |= {"deviation_eV_A": facts["deviation_eV_A"]}
    with told(), replacing(path) as part:
        write(part, structures, format="extxyz")
    return file_sha256(path)
