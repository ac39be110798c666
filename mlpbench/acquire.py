"""Choose, from structures without labels, those to label next: with the potentials that a study has trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

from mlpbench.acquisition import Candidates, Options, find_acquisition
from mlpbench.datasets.leaks import Fingerprinted, compare, duplicates
from mlpbench.errors import UserError
from mlpbench.files import told
from mlpbench.frames import Frames
from mlpbench.potentials import Potential
from mlpbench.protocol import replacing
from mlpbench.study.settings import is_member
from mlpbench.study.study import Study, select

TOLERANCE = 1e-3  # Å; frames closer than this are the same, as in dataset.leak_tolerance


@dataclass(frozen=True)
class Suggestion:
    """A structure to label.

    Attributes:
        frame: its number in the file, from 0.
        atoms: the structure.
        score: by which it was chosen; NaN where there is none.
    """

    frame: int
    atoms: Atoms
    score: float


@dataclass(frozen=True)
class Suggested:
    """What was chosen, in the order of choice.

    Attributes:
        kind: of the acquisition.
        score: what the scores are, and their unit.
        suggestions: the structures.
        trials: whose potentials were asked.
        known: structures left out, which repeat a frame that was trained on or an earlier one of the file.
        candidates: that were chosen from.
    """

    kind: str
    score: tuple[str, str]
    suggestions: list[Suggestion]
    trials: list[str]
    known: int
    candidates: int


def committee_of(study: Study, dataset: str, candidate: str) -> list[str]:
    """The finished trials of a candidate at its largest training size: its repetitions and the members beside them."""
    done = select(study.table, dataset=dataset, candidate=candidate, status="done")
    trials = [str(t) for t in select(done, n_train=int(done["n_train"].max()))["trial"]] if len(done) else []
    places = {(study.record[t]["split"]["directory"], str(study.record[t]["config"]["architecture"])) for t in trials}
    beside = [
        str(record["trial"]) for record in study.records
        if is_member(record) and record["status"] == "done"
        and (record["split"]["directory"], str(record["config"]["architecture"])) in places
    ]  # fmt: skip
    return [*trials, *beside]


def suggest(
    study: Study, trials: Sequence[str], structures: Sequence[Atoms], count: int, kind: str, device: str = "cpu"
) -> Suggested:
    """Choose ``count`` of ``structures``.

    Args:
        study: with the trials.
        trials: names of finished trials: the committee.
        structures: without labels, or with labels that are not looked at.
        count: how many.
        kind: of the acquisition; one that needs no labels of candidates.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``, of the potentials.

    Raises:
        UserError: an acquisition that cannot be used here, too few potentials or structures, an element that the
            potentials do not know, or training frames that are gone.
    """
    acquisition = find_acquisition(kind, Options(members=max(2, len(trials))))
    if acquisition.sees_labels:
        raise UserError(f"--acquisition {kind} needs the labels of the candidates", "Choose committee or farthest.")
    if acquisition.potentials > len(trials):
        raise UserError(
            f"--acquisition {kind} needs {acquisition.potentials} potentials, and there are {len(trials)}",
            "Run more: mlpbench run -m ... repetition=0,1,2; or choose --acquisition farthest.",
        )
    frames, labelled = Frames.from_atoms(structures), _labelled(study, trials)
    fresh = _fresh(labelled, frames)
    if len(fresh) < count or count < 1:
        raise UserError(
            f"--n {count}: of {len(frames)} structures {len(fresh)} are new: neither trained on nor twice in the file",
            "Ask for fewer, at least 1, or give more structures.",
        )
    chosen_from = [structures[i] for i in fresh]
    forces = []
    for trial in trials[: acquisition.potentials]:
        with Potential((study.root / trial).resolve(), device) as potential:
            forces.append(np.concatenate(potential.predict(chosen_from).forces))
    candidates = frames.select(fresh)
    stacked = np.stack(forces) if forces else np.zeros((0, len(candidates.numbers), 3))
    choice = acquisition.choose(Candidates(candidates, labelled, stacked), count)
    picked = [int(fresh[i]) for i in choice.indices]
    suggestions = [Suggestion(i, structures[i], float(score)) for i, score in zip(picked, choice.scores, strict=True)]
    asked = list(trials[: acquisition.potentials])
    return Suggested(kind, acquisition.score, suggestions, asked, len(frames) - len(fresh), len(fresh))


def _labelled(study: Study, trials: Sequence[str]) -> Frames:
    """The frames that the potentials were trained and validated on."""
    places = {study.record[trial]["split"]["directory"]: trial for trial in trials}
    parts = [study.frames(trial, name) for trial in places.values() for name in ("train", "valid")]
    there = [part for part in parts if part is not None]
    if len(there) < len(parts):
        raise UserError(
            f"training frames of {study.name} are gone: {study.root}/splits", "mlpbench run writes them again."
        )
    return Frames.concatenate(there)


def _fresh(labelled: Frames, frames: Frames) -> list[int]:
    """The frames that repeat neither a labelled one nor one before them."""
    prints = Fingerprinted.of(frames)
    repeated = {copy.second for copy in compare(Fingerprinted.of(labelled), prints, TOLERANCE).copies}
    repeated |= {max(copy.first, copy.second) for copy in duplicates(prints, TOLERANCE)}
    return [i for i in range(len(frames)) if i not in repeated]


def write_suggestions(suggested: Suggested, path: Path) -> None:
    """The structures without labels, as extended XYZ; the header says the number in the file, the score and the way."""
    frames = []
    words = ", ".join(part for part in suggested.score if part)
    for one in suggested.suggestions:
        atoms = Atoms(one.atoms.numbers, positions=one.atoms.positions, cell=one.atoms.cell, pbc=one.atoms.pbc)
        atoms.info = {"frame": one.frame, "acquisition": suggested.kind}
        if one.score == one.score:
            atoms.info |= {"score": one.score, "score_is": words}
        frames.append(atoms)
    with told():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            write(part, frames, format="extxyz")
