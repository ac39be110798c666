"""Scores: pure functions of what a worker wrote. One module a task, each with ``score(directory, values, context)``."""

from __future__ import annotations

import importlib
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
        training: seconds, labels and so on of the trial's training.
    """

    frames: dict[str, Frames]
    in_distribution: str | None = None
    references: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


# Which module scores which task; a task without a score (train, verify) only leaves its result.
SCORED_BY = {"predict": "accuracy", "physics": "physics", "md": "md", "speed": "speed"}


def score(task: str, directory: Path, values: dict[str, Any], context: Context) -> list[Row]:
    """Rows of ``split, metric, value, unit, lower, upper, n`` for a finished task.

    Args:
        task: the task's name.
        directory: the trial's folder.
        values: what the task returned.
        context: reference data.
    """
    if task not in SCORED_BY:
        return []
    module = importlib.import_module(f"{__name__}.{SCORED_BY[task]}")
    rows: list[Row] = module.score(directory, values, context)
    return rows
