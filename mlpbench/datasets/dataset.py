"""What :func:`mlpbench.datasets.load` and :func:`mlpbench.datasets.prepare_split` give back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.datasets.stages import OnProgress, silent
from mlpbench.frames import Frames


@dataclass(frozen=True)
class Dataset:
    """A data set in eV and Å.

    Attributes:
        name: as in every table.
        pool: the frames that training and validation are drawn from.
        tests: test split name -> frames.
        isolated_atoms: element symbol -> energy of the free atom (eV); None if the set has none.
        info: level_of_theory, licence, citation, homepage, label_seconds, sha256 (file -> digest), notes
            (sentences on what was detected), strategy (how the test frames came about), traps, missing_labels (that
            no frame of the pool has), reference_method (that repeats the labels, or None).
        references: name -> file with the minimum, Hessian or scans at the same level of theory.
        cache: what is derived from the frames and wanted again (leak checks); never part of the data.
    """

    name: str
    pool: Frames
    tests: dict[str, Frames]
    isolated_atoms: dict[str, float] | None = None
    info: dict[str, Any] = field(default_factory=dict)
    references: dict[str, Path] = field(default_factory=dict)
    cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Split:
    """One training/validation/test split on disk, shared by every trial that asks for it.

    Attributes:
        directory: holds the split files and ``manifest.json``.
        manifest: what the file says: frame indices and hashes, counts, baseline, leak check.
        digest: sha256 over the part of the manifest that determines the result.
        files: ``train``, ``valid`` and every test split -> ``.npz`` of Frames with the baseline set.
    """

    directory: Path
    manifest: dict[str, Any]
    digest: str
    files: dict[str, Path]

    @property
    def warnings(self) -> list[str]:
        """What the user should know before trusting an error measured on this split."""
        return list(self.manifest["warnings"])


def frame_hashes(frames: Frames, progress: OnProgress = silent) -> list[str]:
    """sha256 (hex) of each frame's exact content, bit for bit: atoms, positions, cell, periodicity, labels."""
    offsets = frames.offsets
    result = []
    per_atom = [np.ascontiguousarray(a) for a in (frames.numbers, frames.positions, frames.forces)]
    fields = (frames.n_atoms, frames.cell, frames.pbc, frames.energy, frames.stress)
    per_frame = [np.ascontiguousarray(a) for a in fields]
    for i in range(len(frames)):
        part = slice(offsets[i], offsets[i + 1])
        content = hashlib.sha256()
        for values in per_frame:
            content.update(values[i].tobytes())
        for values in per_atom:
            content.update(values[part].tobytes())
        result.append(content.hexdigest())
        if i % 10_000 == 0:
            progress("checksums", i, len(frames))
    return result
