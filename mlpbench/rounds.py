"""Rounds of an acquisition: train, choose a batch, write down the choice, train on it, until there are enough labels.

Each round is a trial like any other, and so is each member of a committee; only the manifests are kept beside them. A
command that is repeated therefore finds every finished round, and goes on where it was stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from mlpbench.acquisition import Acquisition, Candidates, Choice, Manifest, manifest_path, read_manifest, write_manifest
from mlpbench.acquisition.manifest import FOLDER, SECONDS
from mlpbench.datasets.dataset import frame_hashes
from mlpbench.errors import UserError
from mlpbench.files import digest
from mlpbench.frames import Float, Frames, Int
from mlpbench.protocol import write_json
from mlpbench.records import RECORD, load_record
from mlpbench.statistics.committee import force_errors, rank_correlation
from mlpbench.study.acquired import member_of, next_round, random_order
from mlpbench.study.artefacts import Status
from mlpbench.study.trial import Trial

NOISE_LEVEL = 0.05  # of the test whether a round's gain lies beyond noise
CarryOut = Callable[[Trial], dict[str, Any]]
Predict = Callable[[Trial, Path, Frames], Float]


def carry_out_rounds(trial: Trial, carry_out: CarryOut, predict: Predict) -> dict[str, Any]:
    """Run ``trial``, and the rounds that follow it.

    Args:
        trial: the first round, or one without rounds.
        carry_out: runs a trial (with ``budget=converge`` the longer ones too) and returns its record.
        predict: (A, 3) forces in eV/Å of the potential in a folder on frames.

    Returns:
        The record of the last round; where a round or a member of its committee failed, that one's.

    Raises:
        UserError: candidates cannot be predicted, or a file cannot be written.
    """
    record = carry_out(trial)
    before = math.inf
    earlier: list[dict[str, Any]] = []
    while record["status"] == "done" and not _ended(trial, record, before):
        before = _valid_error(record)
        finished = [record]
        for member in members_of(trial):
            finished.append(carry_out(member))
            if finished[-1]["status"] != "done":
                return finished[-1]
        if _within_noise(trial, earlier, finished):
            return record
        earlier = finished
        trial = next_round(trial, _manifest(trial, finished, predict))
        record = carry_out(trial)
    return record


def members_of(trial: Trial) -> list[Trial]:
    """The further members of the committee that chooses the round after ``trial``."""
    if trial.rounds is None or trial.config.dataset.n_train >= int(trial.rounds.until or 0) or trial.rounds.chosen_by:
        return []
    return [member_of(trial, number) for number in range(1, trial.rounds.chooser.potentials)]


def reached_round(trial: Trial, stand: Callable[[Trial], Status]) -> tuple[Status, int | None]:
    """How far a series has come; nothing is written.

    Args:
        trial: the first round.
        stand: says where a trial stands, with ``budget=converge`` the longest of its trainings.

    Returns:
        The first unfinished trial, or that of the last round; and the training frames that rounds after it may go up
        to, None if none can follow. Where all trials of a round are done and it is not chosen yet, that round's.
    """
    before = math.inf
    earlier: list[dict[str, Any]] = []
    while True:
        standing, record = stand(trial), None
        if standing.state == "cached":
            record = standing.found.record
        until = None if trial.rounds is None else trial.rounds.until
        if record is None:
            return standing, until if trial.config.dataset.n_train < int(until or 0) else None
        if _ended(trial, record, before):
            return standing, None
        before = _valid_error(record)
        members = [stand(member) for member in members_of(trial)]
        open_ones = [one for one in members if one.state != "cached"]
        if open_ones:
            return open_ones[0], until
        finished = [record, *(one.found.record for one in members if one.found.record is not None)]
        if _within_noise(trial, earlier, finished):
            return standing, None
        earlier = finished
        if trial.rounds is not None and trial.rounds.chosen_by:
            known = _chosen_elsewhere(trial)
        else:
            known = read_manifest(*_place(trial, _asked(trial, finished)))
        if known is None:
            return standing, until
        trial = next_round(trial, known, write=False)


def _ended(trial: Trial, record: dict[str, Any], before: float) -> bool:
    """Whether no round follows: enough labels, or too little gained by the last one."""
    rounds = trial.rounds
    if rounds is None or trial.config.dataset.n_train >= int(rounds.until or 0):
        return True
    return rounds.margin is not None and _valid_error(record) > (1 - rounds.margin) * before


def _within_noise(trial: Trial, before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> bool:
    """Whether the committee's validation error did not fall beyond the scatter of its members; False if not asked for.

    Args:
        trial: of the round.
        before: records of the committee of the round before; empty: there was none.
        now: of this round.
    """
    if trial.rounds is None or not trial.rounds.beyond_noise or not before:
        return False
    errors = [[_valid_error(record) for record in records] for records in (before, now)]
    if not np.isfinite(errors).all():
        return False  # NaN ends nothing
    return not float(stats.ttest_ind(*errors, equal_var=False, alternative="greater").pvalue) < NOISE_LEVEL


def _valid_error(record: dict[str, Any]) -> float:
    """Root of the validation loss; NaN, which ends nothing, where a package knows none."""
    loss = record["training"].get("best_valid_loss")
    return math.nan if loss is None else math.sqrt(loss)


# --- the choice of one round ----------------------------------------------------------------------------------------


def _labelled(trial: Trial) -> list[int]:
    indices: list[int] = trial.split.manifest["splits"]["train"]["indices"]
    return indices


def _candidates(trial: Trial) -> Int:
    """Pool indices of the candidates, in the random order of the split."""
    order = random_order(trial)
    return order[~np.isin(order, _labelled(trial))]


def _hashes(trial: Trial) -> list[str]:
    """sha256 of each frame of the pool, computed once for a data set."""
    cache = trial.dataset.cache
    if "pool hashes" not in cache:
        cache["pool hashes"] = frame_hashes(trial.dataset.pool)
    hashes: list[str] = cache["pool hashes"]
    return hashes


def _count(trial: Trial) -> int:
    assert trial.rounds is not None
    return min(trial.rounds.batch, int(trial.rounds.until or 0) - trial.config.dataset.n_train)


def _asked(trial: Trial, finished: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the choice after ``trial`` is made from; ``finished``: records of it and its committee."""
    assert trial.rounds is not None
    chooser, hashes = trial.rounds.chooser, _hashes(trial)
    options = {name: getattr(chooser.options, name) for name in chooser.reads}
    return {
        "kind": chooser.kind,
        "version": chooser.version,
        "options": {**options, "own": dict(chooser.options.own)},
        "count": _count(trial),
        "labelled": digest([hashes[i] for i in _labelled(trial)]),
        "candidates": digest([hashes[i] for i in _candidates(trial)]),
        "potentials": [record["key"] for record in finished[: chooser.potentials]],
    }


def _place(trial: Trial, asked: dict[str, Any]) -> tuple[Path, str]:
    """Where the manifest of the round after ``trial`` lies, and its key."""
    key, after = digest(asked), trial.config.dataset.n_train + asked["count"]
    name = trial.dataset.name
    return manifest_path(trial.study_root, name, asked["kind"], after, trial.config.repetition, key), key


def _manifest(trial: Trial, finished: Sequence[dict[str, Any]], predict: Predict) -> Manifest:
    """The manifest of the round after ``trial``: as it was written, else chosen now and written."""
    assert trial.rounds is not None
    if trial.rounds.chosen_by:
        elsewhere = _chosen_elsewhere(trial)
        if elsewhere is None:
            raise UserError(
                f"acquisition.chosen_by={trial.rounds.chosen_by}: in this study no potentials of that architecture "
                f"chose frames after these {trial.config.dataset.n_train}, repetition {trial.config.repetition}",
                f"Run its rounds first: architecture={trial.rounds.chosen_by}, all else the same.",
            )
        return elsewhere
    asked = _asked(trial, finished)
    path, key = _place(trial, asked)
    known = read_manifest(path, key)
    if known is not None:
        return known
    chooser, pool = trial.rounds.chooser, trial.dataset.pool
    potentials = [trial.study_root / record["trial"] for record in finished[: chooser.potentials]]
    indices = _candidates(trial)
    started = time.perf_counter()
    candidates, truth = _seen(chooser, trial, potentials, indices, predict)
    predicted = time.perf_counter()
    choice = chooser.choose(candidates, asked["count"])
    _require_choice(chooser, choice, len(indices), asked["count"])
    chosen = indices[choice.indices].tolist()
    hashes = _hashes(trial)
    manifest = Manifest(
        kind=chooser.kind, round=1 + (trial.config.dataset.n_train - trial.rounds.start) // trial.rounds.batch,
        repetition=trial.config.repetition, asked=asked, train=[*_labelled(trial), *chosen], chosen=chosen,
        scores=[None if math.isnan(score) else score for score in choice.scores.tolist()], score=chooser.score,
        frames_sha256=[hashes[i] for i in chosen],
        potentials=[
            {"trial": folder.name, "key": record["key"], "forces_sha256": sha256(forces.tobytes()).hexdigest()}
            for folder, record, forces in zip(potentials, finished, candidates.forces, strict=False)
        ],
        facts={
            "candidates": len(indices), "groups": _counted(pool.group[indices]), "chosen": _counted(pool.group[chosen]),
            **_calibration(candidates.forces, truth, choice),
        },
    )  # fmt: skip
    write_manifest(path, manifest)
    seconds = {"predicting": predicted - started, "choosing": time.perf_counter() - predicted}
    write_json(path.with_name(path.name + SECONDS), seconds)
    return manifest


def _chosen_elsewhere(trial: Trial) -> Manifest | None:
    """What the potentials of ``acquisition.chosen_by`` chose after the same frames, by the same settings.

    Raises:
        UserError: several committees of that architecture did, of other sizes or trainings.
    """
    assert trial.rounds is not None
    same = {key: value for key, value in _asked(trial, []).items() if key != "potentials"}
    matching: dict[str, Manifest] = {}
    for path in sorted((trial.study_root / FOLDER).glob("*.json")):
        one = None if path.name.endswith(SECONDS) else read_manifest(path)
        if one is None or {key: value for key, value in one.asked.items() if key != "potentials"} != same:
            continue
        asked = trial.study_root / one.potentials[0]["trial"]
        if (asked / RECORD).is_file() and load_record(asked)["identifiers"]["architecture"] == trial.rounds.chosen_by:
            matching[one.key] = one
    if len(matching) > 1:
        names = ", ".join(sorted(one.potentials[0]["trial"] for one in matching.values()))
        raise UserError(
            f"acquisition.chosen_by={trial.rounds.chosen_by}: several committees chose after the same frames: {names}",
            "Keep rounds of other sizes or trainings of that architecture in a study of their own.",
        )
    return next(iter(matching.values()), None)


def _seen(
    chooser: Acquisition, trial: Trial, potentials: Sequence[Path], indices: Int, predict: Predict
) -> tuple[Candidates, Frames]:
    """What the acquisition sees of the candidates, and the candidates with their labels."""
    pool = trial.dataset.pool
    truth = pool.select(indices)
    hidden = _unlabelled(truth)
    forces = [predict(trial, folder, hidden) for folder in potentials]
    stacked = np.stack(forces) if forces else np.zeros((0, len(truth.numbers), 3))
    frames = truth if chooser.sees_labels else hidden
    return Candidates(frames, pool.select(_labelled(trial)), stacked), truth


def _unlabelled(frames: Frames) -> Frames:
    return replace(
        frames, energy=np.full(len(frames), np.nan), forces=np.full_like(frames.forces, np.nan),
        stress=np.full_like(frames.stress, np.nan),
    )  # fmt: skip


def _require_choice(chooser: Acquisition, choice: Choice, there: int, count: int) -> None:
    """Raises ValueError where a class (of another package, say) does not do what it must."""
    indices = choice.indices
    good = len(indices) == len(choice.scores) == count == len(np.unique(indices))
    if not good or indices.min() < 0 or indices.max() >= there:
        raise ValueError(f"{type(chooser).__name__} did not choose {count} different ones of {there} candidates")


def _counted(groups: Int) -> dict[str, int]:
    names, counts = np.unique(groups, return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def _calibration(forces: Float, truth: Frames, choice: Choice) -> dict[str, Any]:
    """Of a replay: how disagreement goes with the true error (eV/Å, root mean squares over a frame)."""
    if not len(forces) or not truth.has_forces:
        return {}
    members = forces if len(forces) > 1 else np.concatenate([forces, forces])
    errors = force_errors(members, truth.forces, truth.frame_of_atom)
    facts: dict[str, Any] = {
        "error_rms": float(np.sqrt(np.mean(errors.error**2))),
        "error_rms_chosen": float(np.sqrt(np.mean(errors.error[choice.indices] ** 2))),
    }
    if len(forces) > 1:
        rank = rank_correlation(errors, truth.group)
        facts["disagreement_rms"] = float(np.sqrt(np.mean(errors.disagreement**2)))
        facts["atom_disagreement"] = _by_atom(forces, truth, choice)
        facts["rank_correlation"] = [None if math.isnan(x) else x for x in (rank.value, rank.lower, rank.upper)]
    return facts


def _by_atom(forces: Float, frames: Frames, choice: Choice) -> list[list[float]]:
    """Of each chosen frame, eV/Å: how far the members' forces on each atom lie apart (root mean square distance)."""
    apart = np.sqrt(((forces - forces.mean(axis=0)) ** 2).sum(axis=2).mean(axis=0))
    parts = [apart[frames.offsets[i] : frames.offsets[i + 1]] for i in choice.indices]
    return [[round(float(value), 5) for value in part] for part in parts]
