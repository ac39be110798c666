"""Scores: pure functions of what a worker wrote. Every scorer is declared here, with the version of its formulas."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlpbench.frames import Frames

Row = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What a score may need beside the worker's output.

    Attributes:
        frames: split name -> reference frames with baseline.
        in_distribution: the test split from the training distribution, if there is one.
        references: name -> path of reference files the data set carries (minimum, hessian, scans ...).
        info: what the data set says of itself (level of theory, seconds per label ...).
        training: of the record, with ``n_labels`` and ``threads``.
        curve: the training curve, one entry a validation.
    """

    frames: dict[str, Frames]
    in_distribution: str | None = None
    references: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Scorer:
    """Formulas that turn the result of one task into metrics.

    Attributes:
        name: in messages, and in the rows it makes.
        version: raised by hand whenever a formula changes or a metric joins; finished trials are then rescored.
            ``tests/unit/evaluators/test_scorers.py`` notices a changed answer under an unchanged version.
        task: whose result and arrays it reads.
        function: ``module:function``, called with the trial's folder, the task's values and a :class:`Context`;
            returns rows of split, metric, value, unit, lower, upper, n.
        options: of the task that only these formulas read: another value only rescores.
        later: those of ``options`` that joined since: nothing is made from them while they are null.
        frames: whether it reads the data set's frames.
        references: whether it reads the data set's reference files.
        only_with: name of the reference file without which it has nothing to do, or with ``*`` how such names begin;
            empty: none.
    """

    name: str
    version: int
    task: str
    function: str
    options: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    frames: bool = True
    references: bool = False
    only_with: str = ""

    def applies(self, references: Mapping[str, Any]) -> bool:
        """Whether a data set with these reference files gives it something to do."""
        if self.only_with.endswith("*"):
            return any(name.startswith(self.only_with[:-1]) for name in references)
        return not self.only_with or self.only_with in references

    def __call__(self, directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
        """The rows, each with the scorer's name."""
        module, _, name = self.function.partition(":")
        rows: list[Row] = getattr(importlib.import_module(module), name)(directory, values, context)
        return [{**row, "scorer": self.name} for row in rows]


_LATER = ("write_trajectories",)
_MD_OPTIONS = ("limits", "reference_splits", "reference_interval_fs", "own_trajectory", "write_extxyz", *_LATER)

SCORERS = {
    scorer.name: scorer
    for scorer in (
        Scorer("cost", 1, "train", f"{__name__}.training:score", frames=False),
        Scorer("accuracy", 2, "predict", f"{__name__}.accuracy:score"),
        Scorer("forgetting", 1, "forgetting", f"{__name__}.forgetting:score", frames=False),
        Scorer("physics", 2, "physics", f"{__name__}.physics:score", frames=False, references=True),
        Scorer("properties", 4, "physics", f"{__name__}.properties:score", frames=False, references=True,
               only_with="properties"),
        Scorer("paths", 2, "predict", f"{__name__}.properties:score_paths", references=True, only_with="path_*"),
        Scorer("md", 2, "md", f"{__name__}.md:score", options=_MD_OPTIONS, later=_LATER),
        Scorer("speed", 2, "speed", f"{__name__}.speed:score", frames=False),
    )
}  # fmt: skip
