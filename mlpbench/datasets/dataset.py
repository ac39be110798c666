"""A data set and its splits as values, and what its frames must hold before anybody trains on them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.datasets.stages import OnProgress, silent
from mlpbench.errors import UserError
from mlpbench.files import digest
from mlpbench.frames import Frames, Int

LABEL_SECONDS = "label_seconds"  # info key: wall time of a frame's calculation, s; it prices the data
LEVEL = "level_of_theory"  # info key
METHOD = "reference_method"  # info key: code and settings that repeat the label
_SHORTEST, _LONGEST = 0.5, 1e6  # Å, of a lattice vector
_FLATTEST = 1e-3  # volume spanned by the unit vectors of a cell
PROVENANCE_KEYS = (LABEL_SECONDS, LEVEL, METHOD)  # written by 'mlpbench data label'


@dataclass(frozen=True)
class Dataset:
    """A data set in eV and Å.

    Attributes:
        name: as in every table.
        pool: the frames that training and validation are drawn from.
        tests: test split name -> frames.
        valid: frames of an own validation file; None: validation is drawn from the pool.
        pool_parts: frames of the pool proper and of each extension, in order; empty: it was not extended.
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
    valid: Frames | None = None
    pool_parts: tuple[int, ...] = ()
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


def frames_without(frames: Frames, label: str) -> Int:
    """The frames in which ``label`` (energy, forces, stress, positions or cell) is missing or not finite.

    Positions and cells beyond 10⁶ Å count as not finite: neighbours cannot be found there.
    """
    values = getattr(frames, label)
    with np.errstate(invalid="ignore"):
        fine = np.abs(values) < (_LONGEST if label in ("positions", "cell") else np.inf)
    bad = ~fine.reshape(len(values), -1).all(axis=1)
    if label == "forces":  # of atoms that a constraint holds no force is expected, but of another atom of the frame
        whole = np.logical_and.reduceat(frames.held, frames.offsets[:-1]) if len(frames) else np.zeros(0, dtype=bool)
        bad &= ~frames.held | whole[frames.frame_of_atom]
    return np.unique(frames.frame_of_atom[bad]) if label in ("forces", "positions") else np.flatnonzero(bad)


def broken_cells(frames: Frames) -> Int:
    """Frames that are periodic along a vector shorter than 0.5 Å or longer than 10⁶ Å, or in a cell without volume.

    Nothing that looks for neighbours ends on them.
    """
    lengths = np.linalg.norm(frames.cell, axis=2)
    with np.errstate(over="ignore", invalid="ignore"):
        volume = np.abs(np.linalg.det(frames.cell / np.where(lengths > 0, lengths, 1.0)[:, :, None]))
    bad = (frames.pbc & ((lengths < _SHORTEST) | ~(lengths < _LONGEST))).any(axis=1)
    return np.flatnonzero(bad | (frames.pbc.all(axis=1) & ~(volume > _FLATTEST)))


def free_atoms(frames: Frames, headers: Sequence[dict[str, Any]]) -> Int:
    """Frames of one atom whose header says ``config_type=IsolatedAtom``: MACE's place for reference energies."""
    marked = [str(header.get("config_type", "")).lower() == "isolatedatom" for header in headers]
    return np.flatnonzero(np.array(marked, dtype=bool) & (frames.n_atoms == 1)) if marked else np.zeros(0, np.int64)


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
    """Require finite positions, proper cells and finite labels.

    Args:
        frames: the frames.
        labels: those that every frame must have.
        where: what the message calls the frames.

    Raises:
        UserError: with the numbers of the first frames at fault and what to do.
    """
    if len(frames) == 0:
        raise UserError(f"{where}: no frames", "Check dataset.path and dataset.index.")
    flat = broken_cells(frames)
    if len(flat):
        text = f"{where}: periodic without a proper cell in {len(flat)} of {len(frames)} frames: {listed(flat)}"
        raise UserError(text, "Give the cell, or set dataset.periodic=false.")
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
    seconds = [float(header[LABEL_SECONDS]) for header in headers if LABEL_SECONDS in header]
    return float(np.mean(seconds)) if seconds else None


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


def frames_digest(dataset: Dataset) -> str:
    """12 hex digits of every frame of the pool and of the tests, labels included, in eV and Å.

    Files of one name with other content, or read in another unit, never look the same.
    """
    return _all_frames(dataset)[:12]


def data_digest(dataset: Dataset, labels: Sequence[str]) -> str:
    """12 hex digits of what the numbers of a trial rest on: :func:`frames_digest` and the labels trained on."""
    return digest([_all_frames(dataset), sorted(labels)])[:12]


def _all_frames(dataset: Dataset) -> str:
    known: str | None = dataset.cache.get("data")
    if known is None:
        content = hashlib.sha256()
        own = [] if dataset.valid is None else [("valid", dataset.valid)]
        # An extension leaves the tests and earlier subsets as they were: the data are those that it extends.
        base = dataset.pool.select(slice(0, dataset.pool_parts[0])) if dataset.pool_parts else dataset.pool
        for name, frames in [("", base), *own, *sorted(dataset.tests.items())]:
            content.update(f"{name}\0".encode())
            _add_content(content, frames)
        known = dataset.cache["data"] = content.hexdigest()
    return known


def _add_content(content: Any, frames: Frames) -> None:
    content.update(f"{len(frames)}\0".encode())
    for values in (
        frames.n_atoms, frames.numbers, frames.positions, frames.cell, frames.pbc,
        frames.energy, frames.forces, frames.stress,
    ):  # fmt: skip
        content.update(np.ascontiguousarray(values).data)


def extension_digests(dataset: Dataset, splits: Mapping[str, Any]) -> list[str]:
    """12 hex digits of each extension of the pool that training or validation frames were drawn from, in order.

    ``splits`` are those of the split's manifest.

    An extension is drawn from after all before it, so one list is the start of another where the data grew, and two
    lists that part are different data.
    """
    drawn = [part["indices"] for name, part in splits.items() if name in ("train", "valid")]
    last = max((index for indices in drawn for index in indices or []), default=-1)
    digests = []
    start = dataset.pool_parts[0] if dataset.pool_parts else 0
    for length in dataset.pool_parts[1:]:
        if last < start:
            break
        content = hashlib.sha256()
        _add_content(content, dataset.pool.select(slice(start, start + length)))
        digests.append(content.hexdigest()[:12])
        start += length
    return digests
