"""What a set of frames must hold before anybody trains on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlpbench.errors import UserError
from mlpbench.frames import Frames, Int

LABEL_SECONDS = "label_seconds"  # info key: wall time of a frame's calculation, s; it prices the data
LEVEL = "level_of_theory"  # info key
METHOD = "reference_method"  # info key: code and settings that repeat the label
PROVENANCE_KEYS = (LABEL_SECONDS, LEVEL, METHOD)  # written by 'mlpbench data label'


def frames_without(frames: Frames, label: str) -> Int:
    """The frames in which ``label`` (energy, forces, stress, positions or cell) is missing or not finite."""
    values = getattr(frames, label)
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    return np.unique(frames.frame_of_atom[bad]) if len(values) == len(frames.numbers) and label in (
        "forces", "positions",
    ) else np.flatnonzero(bad)  # fmt: skip


def missing_labels(frames: Frames, labels: list[str]) -> list[str]:
    """Those of ``labels``, forces and stress, that no frame has at all."""
    return [
        label for label in labels if label in ("forces", "stress") and len(frames_without(frames, label)) == len(frames)
    ]


def why_not(missing: list[str], labels: list[str]) -> str | None:
    """Why nothing can be trained on ``labels`` of which ``missing`` are nowhere; None if it can."""
    if not missing:
        return None
    rest = ", ".join(label for label in labels if label not in missing)
    keys = " and ".join(f"dataset.{label}_key=..." for label in missing)
    return (
        f"no frame of the pool has {' or '.join(missing)}; name the key ({keys}), or train without: "
        f"dataset.labels=[{rest}]"
    )


def require(frames: Frames, labels: list[str], where: str) -> None:
    """Hold ``frames`` to finite positions, cells and labels.

    Args:
        frames: the frames.
        labels: those that every frame must have.
        where: what the message calls the frames.

    Raises:
        UserError: with the numbers of the first frames at fault and what to do.
    """
    if len(frames) == 0:
        raise UserError(f"{where}: no frames", "Check dataset.path and dataset.index.")
    for label in ("positions", "cell", *labels):
        at_fault = frames_without(frames, label)
        if len(at_fault):
            raise UserError(
                f"{where}: {label} missing or not finite in {len(at_fault)} of {len(frames)} frames: "
                f"{listed(at_fault)}",
                "Remove these frames, or choose others with dataset.index.",
            )


def label_seconds(headers: Sequence[dict[str, Any]]) -> float | None:
    """Mean wall time of a label, s, over the headers that have it; None if none has."""
    found = [float(header[LABEL_SECONDS]) for header in headers if LABEL_SECONDS in header]
    return float(np.mean(found)) if found else None


def level_of_theory(headers: Sequence[dict[str, Any]], where: str) -> str | None:
    """The level of theory that the headers name; None if they name none.

    Raises:
        UserError: they name several: such labels cannot be learnt together.
    """
    levels = sorted({str(header[LEVEL]) for header in headers if LEVEL in header})
    if len(levels) > 1:
        raise UserError(
            f"{where}: frames were labelled at {len(levels)} levels of theory: {'; '.join(levels[:4])}",
            "Label them all alike (mlpbench data label), or choose frames with dataset.index.",
        )
    return levels[0] if levels else None


def reference_method(headers: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The method that the first header names; None if it names none. They agree where :func:`level_of_theory` does."""
    named = headers[0].get(METHOD) if headers else None
    return dict(named) if isinstance(named, dict) else None


def listed(numbers: Int, limit: int = 10) -> str:
    """The first numbers, comma-separated."""
    return ", ".join(str(int(n)) for n in numbers[:limit]) + (", ..." if len(numbers) > limit else "")
