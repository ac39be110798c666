"""What every reader gives: chunks of frames in eV and Å, what each frame's header says, and what was assumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mlpbench.frames import Frames

CHUNK = 1000  # frames converted at a time: bounds the memory of counting, hashing and describing a large set


@dataclass(frozen=True)
class Labels:
    """Names, units and conventions of the labels in a file; None: the format's own, or detected and noted."""

    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    energy_unit: str | None = None
    length_unit: str | None = None
    forces_unit: str | None = None
    stress_unit: str | None = None
    forces_sign: str | None = None
    stress_sign: str | None = None
    stress_order: str | None = None
    index: str = ":"


@dataclass(frozen=True)
class Chunk:
    """Some frames, and one header for each.

    Attributes:
        frames: labels that the file lacks are NaN.
        headers: per frame, the values that are neither geometry nor label (temperature_K, config_type ...).
    """

    frames: Frames
    headers: list[dict[str, Any]]


@dataclass
class Notes:
    """What a reader detected or assumed, each sentence once, in order."""

    sentences: dict[str, None] = field(default_factory=dict)

    def add(self, sentence: str) -> None:
        """Remember ``sentence``."""
        self.sentences.setdefault(sentence)

    def listed(self) -> list[str]:
        """All sentences."""
        return list(self.sentences)


class Reader(Protocol):
    """Reads one file (or folder) chunk by chunk; raises UserError where it cannot be understood."""

    def __call__(self, path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]: ...
