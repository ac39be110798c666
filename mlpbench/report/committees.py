"""The repetitions of a candidate as a committee: what its members predicted, and where they disagree most."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.io import write
from ase.io.formats import UnknownFileTypeError

from mlpbench.errors import UserError
from mlpbench.frames import Float
from mlpbench.statistics.committee import FrameErrors, energy_errors, force_errors, most_uncertain
from mlpbench.study.study import Errors, Study, remembered, select


@dataclass(frozen=True)
class Committee:
    """The finished repetitions of one candidate at its largest training size, on one split.

    Attributes:
        candidate: its label.
        n_train: training frames of each member.
        split: the split they predicted.
        members: predictions, all of the same frames.
        forces: (R, A, 3) eV/Å; None where the data or a member have none.
        errors: disagreement and error of each frame, eV/Å (root mean square over the components of the frame's forces)
            or eV/atom where there are no forces.
    """

    candidate: str
    n_train: int
    split: str
    members: tuple[Errors, ...]
    forces: Float | None
    errors: FrameErrors

    @property
    def unit(self) -> str:
        """Of disagreement and error, times 1000."""
        return "meV/atom" if self.forces is None else "meV/Å"


@remembered
def committee(study: Study, dataset: str, candidate: str, split: str) -> Committee | None:
    """The committee of a candidate; None with fewer than two members, or where they predicted different frames."""
    done = select(study.table, dataset=dataset, candidate=candidate, status="done")
    if done.empty:
        return None
    n_train = int(done["n_train"].max())
    trials = select(done, n_train=n_train)["trial"]
    members = tuple(e for e in (study.errors(str(trial), split) for trial in trials) if e is not None)
    if len(members) < 2 or not all(np.array_equal(m.frames.energy, members[0].frames.energy) for m in members):
        return None
    frames = members[0].frames
    known = [m.forces for m in members if m.force is not None and m.forces is not None]
    forces = np.stack(known) if len(known) == len(members) else None
    if forces is not None:
        errors = force_errors(forces, frames.forces, frames.frame_of_atom)
    else:  # baselines differ between splits of the training frames: compare what was predicted in all
        total = np.stack([m.energy + m.frames.baseline for m in members])
        errors = energy_errors(total, frames.energy, frames.n_atoms)
    return Committee(candidate, n_train, split, members, forces, errors)


@dataclass(frozen=True)
class Uncertain:
    """A frame on which a committee disagrees.

    Attributes:
        committee: whose members disagree.
        frame: index in the split's file, from 0.
        disagreement: in the committee's unit over 1000.
        error: of the members' mean, likewise.
    """

    committee: Committee
    frame: int
    disagreement: float
    error: float


def most_disagreed(study: Study, dataset: str, candidate: str, splits: list[str], count: int) -> list[Uncertain]:
    """The frames with the largest disagreement over all the splits, the largest first."""
    committees = [c for c in (committee(study, dataset, candidate, split) for split in splits) if c is not None]
    frames = [
        Uncertain(c, int(i), float(c.errors.disagreement[i]), float(c.errors.error[i]))
        for c in committees
        for i in most_uncertain(c.errors.disagreement, count)
    ]
    return sorted(frames, key=lambda one: -one.disagreement)[:count]


def committees_of(study: Study, dataset: str) -> list[str]:
    """The chosen candidates that have a committee on the split in distribution."""
    split = study.in_distribution(dataset)
    return [c for c in study.lines(dataset) if split is not None and committee(study, dataset, c, split) is not None]


def write_frames(uncertain: list[Uncertain], path: Path) -> None:
    """The frames as geometries without labels, in any format that ASE writes; extended XYZ keeps the disagreement.

    Raises:
        UserError: ASE cannot write such a file there.
    """
    frames = []
    for one in uncertain:
        (atoms,) = one.committee.members[0].frames.select([one.frame]).to_atoms()
        atoms.calc = None
        atoms.info = {
            "committee_disagreement": 1e3 * one.disagreement,
            "committee_unit": one.committee.unit,
            "split": one.committee.split,
            "frame": one.frame,
        }
        frames.append(atoms)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, frames)
    except (OSError, UnknownFileTypeError, ValueError) as error:
        raise UserError(f"{path} cannot be written: {error}", "Name a file such as frames.xyz.") from error
