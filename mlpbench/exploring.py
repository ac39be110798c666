"""Exploration: train a committee, let its dynamics find frames, label those worth a label, train on them, and so on.

Each round writes a manifest of what it chose before a label is paid for, labels are kept in the label store, and
potentials are trials: a command that was stopped, killed too, goes on to the same manifests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from mlpbench.backends.registry import BackendConfig
from mlpbench.datasets.dataset import frame_hashes
from mlpbench.errors import UserError
from mlpbench.evaluators import Context
from mlpbench.evaluators.md.fates import fates
from mlpbench.evaluators.md.runs import atoms_of, load_run
from mlpbench.files import derive, digest, locked, told
from mlpbench.files import sha256 as file_sha256
from mlpbench.frames import Float, Frames, Int
from mlpbench.protocol import CHECKPOINT, ProtocolError, Result, Task, read_json, replacing, write_json
from mlpbench.references.labels import Label, OnLabel, label, label_file
from mlpbench.references.own import ENERGY_TOLERANCE, FORCE_TOLERANCE
from mlpbench.run import make_request, predict_forces
from mlpbench.study.acquired import member_of
from mlpbench.study.explored import Acquired, median_seconds
from mlpbench.study.trial import Trial

CarryOut = Callable[[Trial], dict[str, Any]]
OnEvent = Callable[[dict[str, Any]], None]
VERSION = 1  # raised when the same potentials would find or choose other frames
LABELS = "labels.json"  # in a round's folder: what came of its frames
CHOSEN = "chosen.xyz"
OUT_OF_TIME = "out of time"  # as mlpbench.references.labels says it
# Somewhat nearer contacts than any labelled are what exploration is for. Without this test a committee of little
# data agrees on hydrogen atoms 0.4 Å apart, and such labels ruin the next training.
LIMITS = {"limits": {"contact_A": 0.5}}
NONE = {"temperature_K": float("nan")}  # every run has stored its own


@dataclass(frozen=True)
class Labelling:
    """How labels are made.

    Attributes:
        method: complete reference method.
        backend: whose environment has the code.
        jobs: processes at once.
        threads: of the code, in each.
        on_label: see :data:`mlpbench.references.labels.OnLabel`.
    """

    method: dict[str, Any]
    backend: BackendConfig
    jobs: int = 1
    threads: int = 1
    on_label: OnLabel | None = None


@dataclass(frozen=True)
class Round:
    """A round that is through.

    Attributes:
        manifest: what it found and chose.
        labelled: frames that got a label.
        left_out: reason -> frames that got none.
        seconds: wall time of its labels' calculations.
        complete: whether every chosen frame has a label or can get none; False: the hours ran out.
    """

    manifest: RoundManifest
    labelled: int
    left_out: dict[str, int]
    seconds: float
    complete: bool


@dataclass(frozen=True)
class Explored:
    """What came of an exploration.

    Attributes:
        rounds: those that are through.
        ended: why no further round follows.
        failed: the record of a trial that failed; None: none did.
        record: of the last training, on all labels.
    """

    rounds: list[Round]
    ended: str
    failed: dict[str, Any] | None = None
    record: dict[str, Any] | None = None


def explore(
    acquired: Acquired,
    options: Exploration,
    labelling: Labelling,
    carry_out: CarryOut,
    *,
    on_event: OnEvent | None = None,
    on_round: Callable[[Round], None] | None = None,
) -> Explored:
    """Rounds until the budget of labels, hours or rounds is spent, or nothing is left to choose.

    Args:
        acquired: the data set that grows.
        options: settings.
        labelling: how labels are made.
        carry_out: runs a trial and returns its record.
        on_event: called with the progress of dynamics.
        on_round: called with each round that is through.

    Raises:
        UserError: dynamics or predictions fail, the method labels nothing, or another process explores here.
    """
    with locked(acquired.folder / ".lock", wait=False, busy=f"another process explores {acquired.name}"):
        return _explore(acquired, options, labelling, carry_out, on_event, on_round)


def _explore(
    acquired: Acquired,
    options: Exploration,
    labelling: Labelling,
    carry_out: CarryOut,
    on_event: OnEvent | None,
    on_round: Callable[[Round], None] | None,
) -> Explored:
    rounds: list[Round] = []
    ended = ""
    while not ended:
        number = len(rounds) + 1
        ended = _spent(options, rounds)
        if ended:
            break
        first = acquired.trial(number)
        trials = [first, *(member_of(first, member) for member in range(1, options.members))]
        records = []
        for trial in trials:
            records.append(carry_out(trial))
            if records[-1]["status"] != "done":
                return Explored(rounds, "a training failed", failed=records[-1])
        count = min(options.batch, options.labels - sum(len(one.manifest.chosen) for one in rounds))
        manifest = find_frames(acquired, number, options, trials, records, count, on_event)
        if not manifest.chosen:
            ended = _nothing_left(manifest)
            break
        rounds.append(_label(acquired, number, manifest, labelling, options, rounds))
        acquired.write_entry(number + 1, median_seconds(acquired.labelled_rounds(number + 1)))
        if on_round is not None:
            on_round(rounds[-1])
    acquired.write_entry(len(rounds) + 1, median_seconds(acquired.labelled_rounds(len(rounds) + 1)))
    record = carry_out(acquired.trial(len(rounds) + 1))
    return Explored(rounds, ended, None if record["status"] == "done" else record, record)


def require_method(start: Trial, labelling: Labelling) -> float:
    """Label a training frame again and compare with the data set's label.

    Returns:
        Seconds that the label took.

    Raises:
        UserError: the method does not label it, or says something else: its labels cannot be learnt with the others.
    """
    frame = Frames.load(start.split.files["train"]).select([0])
    answer = label(frame, labelling.method, labelling.backend, threads=labelling.threads)[0]
    if not isinstance(answer, Label):
        raise UserError(f"the reference method does not label the first training frame: {answer.reason}")
    energy, force = abs(answer.energy - float(frame.energy[0])), float(np.abs(answer.forces - frame.forces).max())
    if energy > ENERGY_TOLERANCE or force > FORCE_TOLERANCE:
        raise UserError(
            f"the reference method is not that of {start.dataset.name}: on its first training frame the energy differs "
            f"by {energy * 1e3:.3g} meV and the forces by up to {force * 1e3:.3g} meV/Å",
            "Give the data set's method (reference=...), or label its frames with this one: mlpbench data label.",
        )
    return answer.seconds


def relabelled(frames: Frames, labelling: Labelling) -> Frames:
    """``frames`` with the method's labels in place of their own.

    Raises:
        UserError: the method does not label one of them.
    """
    answers = label(
        frames, labelling.method, labelling.backend, threads=labelling.threads, jobs=labelling.jobs,
        on_label=labelling.on_label,
    )  # fmt: skip
    good = [answer for answer in answers if isinstance(answer, Label)]
    if len(good) < len(answers):
        reason = next(answer.reason for answer in answers if not isinstance(answer, Label))
        raise UserError(f"{len(answers) - len(good)} frames of the start have no label from the method: {reason}")
    nothing = np.full(6, np.nan)
    stress = [nothing if answer.stress is None else answer.stress for answer in good]
    return Frames.from_atoms(
        _without_labels(frames).to_atoms(), [one.energy for one in good], [one.forces for one in good], np.array(stress)
    )


def _spent(options: Exploration, rounds: Sequence[Round]) -> str:
    """Which budget is spent; empty: none."""
    if rounds and not rounds[-1].complete:
        return f"the {options.hours:g} hours of labelling are spent"
    if options.hours is not None and sum(one.seconds for one in rounds) >= 3600 * options.hours:
        return f"the {options.hours:g} hours of labelling are spent"
    chosen = sum(len(one.manifest.chosen) for one in rounds)
    if chosen >= options.labels:
        return f"the budget of {options.labels} labels is spent"
    return f"{options.rounds} rounds are through" if len(rounds) >= options.rounds else ""


def _nothing_left(manifest: RoundManifest) -> str:
    counts = manifest.counts
    return (
        f"nothing was left to choose in round {manifest.round}: of {counts['sound']} sound frames {counts['accurate']} "
        f"are accurate, {counts['failed']} too wrong, and {counts['candidates']} candidates that repeat labelled ones"
    )


# --- what a round finds ---------------------------------------------------------------------------------------------


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
    both = Frames.concatenate([frames, _without_labels(valid)])
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


def _without_labels(frames: Frames) -> Frames:
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


# --- labels ---------------------------------------------------------------------------------------------------------


def _label(
    acquired: Acquired, number: int, manifest: RoundManifest, labelling: Labelling, options: Exploration,
    before: Sequence[Round],
) -> Round:  # fmt: skip
    """The labels of a round; those that are in the label store cost nothing."""
    folder, target = acquired.round_folder(number), acquired.labelled_file(number)
    known = _known(folder, target, manifest)
    if known is not None and (known.complete or (options.hours is not None and _left(options, [*before, known]) <= 0)):
        return known
    filed = label_file(
        folder / CHOSEN, target, labelling.method, labelling.backend, jobs=labelling.jobs, threads=labelling.threads,
        seconds=_left(options, before) / max(1, labelling.jobs) if options.hours else None,
        on_label=labelling.on_label,
    )  # fmt: skip
    reasons = Counter(answer.reason for _, answer in filed.left_out)
    through = Round(
        manifest, len(filed.good), dict(sorted(reasons.items())), float(sum(one.seconds for one in filed.good)),
        not any(answer.reason == OUT_OF_TIME for _, answer in filed.left_out),
    )  # fmt: skip
    if not through.labelled and through.complete:
        raise UserError(
            f"the reference method labels none of the {len(manifest.chosen)} frames of round {number}: {reasons}"
        )
    write_json(folder / LABELS, {
        "manifest": manifest.digest, "labelled": through.labelled, "left_out": through.left_out,
        "seconds": through.seconds, "complete": through.complete,
    })  # fmt: skip
    return through


def _left(options: Exploration, rounds: Sequence[Round]) -> float:
    """Seconds of labelling that are left."""
    return 3600 * float(options.hours or 0) - sum(one.seconds for one in rounds)


def _known(folder: Path, target: Path, manifest: RoundManifest) -> Round | None:
    """What came of the round's labels, if they are there."""
    try:
        stored = read_json(folder / LABELS)
    except (FileNotFoundError, ProtocolError):
        return None
    if stored["manifest"] != manifest.digest or (stored["labelled"] and not target.is_file()):
        return None
    return Round(manifest, stored["labelled"], stored["left_out"], stored["seconds"], stored["complete"])
