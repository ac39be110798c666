"""The ways to choose a batch: at random, by disagreement, by distance, both, by the true error, by date of collection.

One class each. A package of one's own adds another through an entry point of the group ``mlpbench.acquisitions`` whose
value is ``module:Class``; ``mlpbench.testing.acquisitions`` has the tests that it must pass.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any, ClassVar

import numpy as np

from mlpbench.acquisition.descriptor import describe, farthest_points
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Float, Frames, Int
from mlpbench.statistics.committee import force_disagreement, force_errors

ENTRY_POINTS = "mlpbench.acquisitions"
NONE = "none"  # no rounds: dataset.n_train frames at random


@dataclass(frozen=True)
class Candidates:
    """What a batch is chosen from.

    Attributes:
        frames: the C candidates, in the random order of the split. Their labels are NaN, unless the acquisition
            declares ``sees_labels``; ``group`` counts the files (or what ``dataset.group_key`` names) they come from.
        labelled: the frames that have been trained on so far.
        forces: (R, A, 3) eV/Å on the candidates, of the R potentials that the acquisition asked for.
    """

    frames: Frames
    labelled: Frames
    forces: Float


@dataclass(frozen=True)
class Choice:
    """A batch.

    Attributes:
        indices: (n,) of the candidates, in the order of their choice.
        scores: (n,) by which each was chosen, in :attr:`Acquisition.score`'s unit; NaN where there is none.
    """

    indices: Int
    scores: Float


@dataclass(frozen=True)
class Options:
    """The settings of a choice: ``acquisition`` of a configuration, as far as it decides what is chosen.

    Attributes:
        members: potentials of a committee.
        shortlist: candidates that a first criterion leaves to a second, in batches.
        own: options of an acquisition from outside.
    """

    members: int = 4
    shortlist: float = 5.0
    own: Mapping[str, Any] = field(default_factory=dict)


class Acquisition(ABC):
    """A way to choose. Subclasses give a :meth:`choose`, and the rest where it differs.

    Attributes:
        kind: the name in ``acquisition=``.
        version: raised when the same candidates would be chosen otherwise.
        score: what a candidate's score is, and its unit.
        reads: the options that decide what is chosen.
        sees_labels: whether it looks at the labels of candidates, which only a replay has.
    """

    kind: ClassVar[str] = ""
    version: ClassVar[int] = 1
    score: ClassVar[tuple[str, str]] = ("", "")
    reads: ClassVar[tuple[str, ...]] = ()
    sees_labels: ClassVar[bool] = False

    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    def potentials(self) -> int:
        """How many trained potentials predict the candidates: none, 1, or a committee."""
        return 0

    def require(self, pool: Frames, labels: list[str]) -> None:  # noqa: B027  # most have nothing to refuse
        """Look at the data before anything is trained.

        Args:
            pool: all frames that may ever be chosen.
            labels: those that are trained on.

        Raises:
            UserError: nothing could be chosen from them.
        """

    @abstractmethod
    def choose(self, candidates: Candidates, count: int) -> Choice:
        """The next ``count`` frames, which are no more than there are candidates. The same input, the same choice."""


class Random(Acquisition):
    """The next frames of the random order: nested random subsets, the baseline."""

    kind = "random"

    def choose(self, candidates: Candidates, count: int) -> Choice:
        """See :meth:`Acquisition.choose`."""
        return Choice(np.arange(count), np.full(count, np.nan))


class Committee(Acquisition):
    """The largest disagreement on forces among potentials that differ in their initialisation alone.

    Query by committee (Seung, Opper & Sompolinsky, COLT 1992); root mean square over a frame's force components of the
    members' sample standard deviation. Frames of a batch may resemble each other.
    """

    kind = "committee"
    score = ("disagreement", "eV/Å")
    reads: ClassVar[tuple[str, ...]] = ("members",)

    @property
    def potentials(self) -> int:
        """See :attr:`Acquisition.potentials`."""
        return self.options.members

    def require(self, pool: Frames, labels: list[str]) -> None:
        """See :meth:`Acquisition.require`."""
        _need_forces(self.kind, labels)

    def choose(self, candidates: Candidates, count: int) -> Choice:
        """See :meth:`Acquisition.choose`."""
        return _largest(force_disagreement(candidates.forces, candidates.frames.frame_of_atom), count)


class Farthest(Acquisition):
    """Farthest-point sampling: each frame is the one farthest from all frames labelled or chosen before it.

    Distances in the space of :func:`mlpbench.acquisition.descriptor.describe`. Needs no potential.
    """

    kind = "farthest"
    score = ("distance to what is labelled", "")

    def choose(self, candidates: Candidates, count: int) -> Choice:
        """See :meth:`Acquisition.choose`."""
        points = describe(Frames.concatenate([candidates.labelled, candidates.frames]))
        known = len(candidates.labelled)
        return Choice(*farthest_points(points[known:], points[:known], count))


class CommitteeFarthest(Committee):
    """Disagreement first, then diversity: the farthest points among the candidates of largest disagreement."""

    kind = "committee_farthest"
    reads = ("members", "shortlist")

    def choose(self, candidates: Candidates, count: int) -> Choice:
        """See :meth:`Acquisition.choose`."""
        frames = candidates.frames
        disagreement = force_disagreement(candidates.forces, frames.frame_of_atom)
        listed = min(len(frames), max(count, math.ceil(self.options.shortlist * count)))
        best = np.sort(_largest(disagreement, listed).indices)
        points = describe(Frames.concatenate([candidates.labelled, frames]))
        known = len(candidates.labelled)
        chosen, _ = farthest_points(points[known:][best], points[:known], count)
        return Choice(best[chosen], disagreement[best[chosen]])


class Oracle(Acquisition):
    """The largest true error of the forces of the potential trained so far. It knows the labels: for replay alone.

    What a perfect estimate of the error would choose. No upper bound on what choosing can do: the frames of largest
    error need not be those that teach the most.
    """

    kind = "oracle"
    score = ("true error", "eV/Å")
    sees_labels = True

    @property
    def potentials(self) -> int:
        """See :attr:`Acquisition.potentials`."""
        return 1

    def require(self, pool: Frames, labels: list[str]) -> None:
        """See :meth:`Acquisition.require`."""
        _need_forces(self.kind, labels)

    def choose(self, candidates: Candidates, count: int) -> Choice:
        """See :meth:`Acquisition.choose`."""
        frames = candidates.frames
        twice = np.concatenate([candidates.forces, candidates.forces])  # the error of a mean of one
        return _largest(force_errors(twice, frames.forces, frames.frame_of_atom).error, count)


class Campaign(Acquisition):
    """The order in which the data were collected: file after file, or in the order of ``dataset.group_key``.

    Within a file (or group) at random.
    """

    kind = "campaign"

    def require(self, pool: Frames, labels: list[str]) -> None:
        """See :meth:`Acquisition.require`."""
        if len(np.unique(pool.group)) < 2:
            raise UserError(
                "acquisition=campaign: nothing says in which order the frames were collected",
                "Name the files in their order, dataset.path=[first.xyz,second.xyz], or the entry of the header that "
                "tells rounds apart: dataset.group_key=...",
            )

    def choose(self, candidates: Candidates, count: int) -> Choice:
        """See :meth:`Acquisition.choose`."""
        order = np.argsort(candidates.frames.group, kind="stable")
        return Choice(order[:count], np.full(count, np.nan))


def _need_forces(kind: str, labels: list[str]) -> None:
    if "forces" not in labels:
        raise UserError(
            f"acquisition={kind} goes by forces, and the training uses {', '.join(labels)} alone",
            "Choose acquisition=farthest or random, or train on forces too.",
        )


def _largest(scores: Float, count: int) -> Choice:
    """The ``count`` largest; of equal ones the first."""
    order = np.argsort(-scores, kind="stable")[:count]
    return Choice(order, scores[order])


_OWN = (Random, Committee, Farthest, CommitteeFarthest, Oracle, Campaign)


def known_acquisitions() -> dict[str, type[Acquisition]]:
    """Every acquisition by its name, those of other packages included.

    Raises:
        UserError: an entry point cannot be loaded, or is no :class:`Acquisition` of that name.
    """
    return dict(_known())


@cache
def _known() -> dict[str, type[Acquisition]]:
    known: dict[str, type[Acquisition]] = {one.kind: one for one in _OWN}
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        said = f"entry point '{point.name}' ({point.value}) of {ENTRY_POINTS}"
        try:
            one = point.load()
        except (ImportError, AttributeError) as error:
            raise UserError(f"{said} cannot be loaded: {error}", "Repair or uninstall that package.") from error
        if not (isinstance(one, type) and issubclass(one, Acquisition)) or one.kind != point.name:
            raise UserError(f"{said} is no Acquisition whose 'kind' is '{point.name}'", "Repair that package.")
        if inspect.isabstract(one):
            lacking = ", ".join(sorted(one.__abstractmethods__))
            raise UserError(f"{said} does not define {lacking}", "Complete or uninstall that package.")
        if point.name in known or point.name == NONE:
            raise UserError(f"{said}: there is another acquisition of that name", "Rename it in that package.")
        known[point.name] = one
    return known


def find_acquisition(kind: str, options: Options) -> Acquisition:
    """The acquisition ``kind`` with its options.

    Raises:
        UserError: there is none of that name; has the close match.
    """
    known = known_acquisitions()
    if kind not in known:
        raise UserError(f"acquisition={kind}: there is no such acquisition", close_match(kind, [NONE, *known]))
    return known[kind](options)
