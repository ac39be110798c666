"""From a configuration to frames: find the files, read them, check the labels, hold out test frames."""

from __future__ import annotations

import glob
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlpbench.datasets import embedded
from mlpbench.datasets.dataset import (
    PROVENANCE_KEYS,
    Dataset,
    frames_without,
    free_atoms,
    label_seconds,
    level_of_theory,
    listed,
    missing_labels,
    reference_method,
    require,
)
from mlpbench.datasets.download import Progress, cache_root, fetch, is_cached
from mlpbench.datasets.readers import check_format, read, require_file
from mlpbench.datasets.readers.base import Labels, Notes
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.datasets.splits import BUILT_IN_KEYS, hold_out
from mlpbench.datasets.stages import OnProgress, silent
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Frames, Int

Headers = list[dict[str, Any]]


def load(config: DatasetConfig, progress: OnProgress = silent) -> Dataset:
    """Read the data set that ``config`` describes, fetching it first if it is to be downloaded.

    A label that no frame of the pool has is listed in ``info["missing_labels"]``: nothing can be trained on it.

    Args:
        config: the data set.
        progress: told how far it is.

    Raises:
        UserError: a file is missing, altered or unreadable; a label is missing or not finite; a key is unknown.
    """
    if config.path is None:
        raise UserError(f"data set {config.name} has no path", "Set dataset.path=FILE.")
    check_format(config.format)
    fetch_all(config, lambda name, done, total: progress(f"downloading {name}", done // 10**6, _mb(total), "MB"))
    notes = Notes()
    reading = _Reading(config, notes, progress)
    pool, headers, valid, tests = _parts(config, reading)
    price, level = label_seconds(headers), level_of_theory(headers, config.name)
    method = config.reference_method or reference_method(headers)
    pool, headers, energies = _without_free_atoms(pool, headers, notes)
    missing = missing_labels(pool, list(config.labels))
    wanted: list[str] = [label for label in config.labels if label not in missing]
    _require_labels(config, wanted, pool, valid, tests, notes)
    _warn_of_units(config, pool, headers, notes)
    strategy = "official"
    if not tests or config.split.strategy in ("random", "blocked", "key"):
        held_out = hold_out(pool, headers, config.split, notes)
        pool, strategy = held_out.pool, held_out.strategy  # lets go of the whole
        tests = {**held_out.tests, **tests}
    if config.kind == "embedded":
        verify_embedded(digests_of(reading.files))  # what extends it is the user's own
    extensions = [reading.all_of([pattern])[0] for pattern in config.extend_paths]
    for part in extensions:
        require(part, wanted, f"{config.name}, extension")
    digests = digests_of(reading.files)
    return Dataset(
        name=config.name,
        pool=Frames.concatenate([pool, *extensions]) if extensions else pool,
        tests=tests,
        isolated_atoms=_isolated_atoms(config) or energies,
        valid=valid,
        pool_parts=tuple(len(part) for part in (pool, *extensions)) if extensions else (),
        info={
            "level_of_theory": level if level and config.level_of_theory == "not stated" else config.level_of_theory,
            "licence": config.licence, "citation": config.citation, "homepage": config.homepage, "sha256": digests,
            "label_seconds": price if config.label_seconds is None else config.label_seconds,
            "notes": notes.listed(), "strategy": strategy, "traps": list(config.traps),
            "missing_labels": missing, "reference_method": method,
        },
        references={name: resolve(config, file)[0].resolve() for name, file in config.references.items()},
    )  # fmt: skip


def _mb(size: int | None) -> int | None:
    return None if size is None else size // 10**6


def _parts(config: DatasetConfig, reading: _Reading) -> tuple[Frames, Headers, Frames | None, dict[str, Frames]]:
    """Pool with its headers, validation frames where they are given, and test splits from numbers and files."""
    frames, headers = reading.all_of([config.path] if isinstance(config.path, str) else config.path or [], config.index)
    numbers = {name: _indices(config, file, len(frames)) for name, file in config.test_indices.items()}
    tests = {name: frames.select(chosen) for name, chosen in numbers.items()}
    pool, headers, valid = _pool(config, frames, headers)
    for name, pattern in {**({"test": config.test_path} if config.test_path else {}), **config.test_paths}.items():
        tests[name], _ = reading.all_of([pattern])
    if config.valid_path is not None:
        valid, _ = reading.all_of([config.valid_path])
    return pool, headers, valid, tests


def _require_labels(
    config: DatasetConfig, wanted: list[str], pool: Frames, valid: Frames | None, tests: dict[str, Frames], notes: Notes
) -> None:
    """Every frame to train on has the labels that are wanted, and every test frame an energy.

    Raises:
        UserError: one has not.
    """
    require(pool, wanted, config.name)
    if valid is not None:
        require(valid, wanted, f"{config.name}, validation")
    for name, test in tests.items():
        require(test, ["energy"], f"{config.name}, split {name}")
        _say_partly_labelled(test, name, notes)


def _warn_of_units(config: DatasetConfig, pool: Frames, headers: Headers, notes: Notes) -> None:
    from mlpbench.datasets.validation.labels import unit_warnings  # which reads files through this module

    for text in unit_warnings(pool, config, headers):
        notes.add(f"warning: {text}")


def labels_of(config: DatasetConfig) -> Labels:
    """The part of the configuration that readers need."""
    return Labels(**{f.name: getattr(config, f.name) for f in fields(Labels)})


class _Reading:
    """Reads files of one data set one after another, and remembers which.

    Attributes:
        files: all that were read.
    """

    def __init__(self, config: DatasetConfig, notes: Notes, progress: OnProgress) -> None:
        self.config, self.notes, self.progress = config, notes, progress
        self.files: list[Path] = []

    def all_of(self, patterns: list[str], index: str = ":") -> tuple[Frames, Headers]:
        """All frames of the files, and the parts of their headers that are needed; ``group`` counts trajectories."""
        config = self.config
        files = [file for pattern in patterns for file in resolve(config, pattern)]
        self.files += files
        keys = {key for key in (config.group_key, config.split.key) if key}
        parts: list[Frames] = []
        headers: Headers = []
        for number, file in enumerate(files):
            for chunk in read(file, config.format, replace(labels_of(config), index=index), self.notes):
                parts.append(of_file(chunk.frames, number, config))
                kept = keys.union(PROVENANCE_KEYS, ("config_type",))
                headers.extend({k: v for k, v in header.items() if k in kept} for header in chunk.headers)
                self.progress("reading", len(headers), None)
        _require_keys(files, config, headers)
        return _group(Frames.concatenate(parts), headers, config.group_key), headers


def of_file(frames: Frames, number: int, config: DatasetConfig) -> Frames:
    """``frames`` of the ``number``-th file of a data set, a trajectory of its own; without cells if so asked."""
    frames = replace(frames, group=np.full(len(frames), number, dtype=np.int64))
    if config.periodic is False:
        frames = replace(frames, cell=np.zeros_like(frames.cell), pbc=np.zeros_like(frames.pbc))
    return frames


def _pool(config: DatasetConfig, frames: Frames, headers: Headers) -> tuple[Frames, Headers, Frames | None]:
    """The pool, its headers, and the validation frames if they are given by number."""
    chosen: Int = np.arange(len(frames))
    if config.pool_indices is not None:
        chosen = _indices(config, config.pool_indices, len(frames))
    valid = None
    if config.valid_indices is not None:
        numbers = _indices(config, config.valid_indices, len(frames))
        valid, chosen = frames.select(numbers), chosen[~np.isin(chosen, numbers)]
    for numbers in (_indices(config, file, len(frames)) for file in config.test_indices.values()):
        if config.pool_indices is None:  # what is tested on cannot be trained on, if nobody says otherwise
            chosen = chosen[~np.isin(chosen, numbers)]
    if len(chosen) == len(frames) and (chosen == np.arange(len(frames))).all():
        return frames, headers, valid
    return frames.select(chosen), [headers[i] for i in chosen], valid


def _without_free_atoms(
    pool: Frames, headers: Headers, notes: Notes
) -> tuple[Frames, Headers, dict[str, float] | None]:
    """Free atoms marked as such leave the pool; their energies are the reference energies, if none is missing."""
    free = free_atoms(pool, headers)
    if len(free) == 0 or len(free) == len(pool):
        return pool, headers, None
    atoms = {str(a.symbols): float(e) for a, e in zip(pool.select(free).to_atoms(), pool.energy[free], strict=True)}
    rest = np.setdiff1d(np.arange(len(pool)), free)
    remaining = pool.select(rest)
    symbols = {chemical_symbols[z] for z in np.unique(remaining.numbers)}
    complete = symbols <= set(atoms) and all(np.isfinite(list(atoms.values())))
    use = "their energies are the reference energies" if complete else (
        f"no reference energies, since {', '.join(sorted(symbols - set(atoms)))} is missing"
    )  # fmt: skip
    notes.add(f"{len(free)} frames of config_type IsolatedAtom ({', '.join(atoms)}) left out of the pool: {use}")
    return remaining, [headers[i] for i in rest], atoms if complete else None


def _say_partly_labelled(test: Frames, name: str, notes: Notes) -> None:
    """Frames without a label are left out of its errors; that must not happen in silence."""
    for label in ("forces", "stress"):
        without = frames_without(test, label)
        if 0 < len(without) < len(test):
            notes.add(
                f"warning: split {name}: {label} missing in {len(without)} of {len(test)} frames: {listed(without)}; "
                f"errors of {label} are those of the other {len(test) - len(without)}"
            )


def _require_keys(files: list[Path], config: DatasetConfig, headers: Headers) -> None:
    """Require the keys that the configuration names; some split keys need no header."""
    built_in = set(BUILT_IN_KEYS)
    for key, others in ((config.group_key, set[str]()), (config.split.key, built_in)):
        if key is not None and key not in others and not any(key in header for header in headers):
            first = next(iter(read(files[0], config.format, labels_of(config), Notes())))
            there = {name for header in first.headers for name in header}
            raise UserError(f"{files[0]}: frames have no '{key}'", close_match(key, {*there, *others}))


def _group(frames: Frames, headers: Headers, key: str | None) -> Frames:
    """``group`` from the header ``key``, counted in order of appearance; frames of different files stay apart."""
    if key is None:
        return frames
    seen: dict[tuple[int, str], int] = {}
    pairs = zip(frames.group.tolist(), (str(header.get(key)) for header in headers), strict=True)
    return replace(frames, group=np.array([seen.setdefault(pair, len(seen)) for pair in pairs], dtype=np.int64))


def _indices(config: DatasetConfig, source: str | list[int], count: int) -> Int:
    """Frame numbers from a list, or from a text file, one a line.

    Raises:
        UserError: not numbers, beyond the end of the file they count, or one twice.
    """
    where: object = "dataset indices"
    if isinstance(source, str):
        where = resolve(config, source)[0]
        try:
            numbers: Int = np.loadtxt(str(where), dtype=np.int64, ndmin=1)
        except (ValueError, OSError) as error:
            raise UserError(f"{where}: expected one frame number a line ({error})") from error
    else:
        numbers = np.array(source, dtype=np.int64)
    if len(numbers) == 0 or numbers.ndim != 1 or numbers.min() < 0 or numbers.max() >= count:
        raise UserError(f"{where}: frame numbers must lie in 0 to {count - 1}")
    if len(np.unique(numbers)) < len(numbers):
        raise UserError(f"{where}: a frame number occurs twice")
    return numbers


def _isolated_atoms(config: DatasetConfig) -> dict[str, float] | None:
    """Energies (eV) of free atoms, from the configuration, a JSON file, or single-atom structures."""
    source = config.isolated_atoms
    if source is None or isinstance(source, dict):
        return source
    path = resolve(config, source)[0]
    if path.suffix == ".json":
        try:
            return {str(k): float(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: expected JSON of element -> eV ({error})") from error
    atoms: dict[str, float] = {}
    for chunk in read(path, "auto", replace(labels_of(config), index=":"), Notes()):
        if (chunk.frames.n_atoms != 1).any():
            raise UserError(f"{path}: isolated atoms are frames of one atom; this file has larger ones")
        for structure, energy in zip(chunk.frames.to_atoms(), chunk.frames.energy, strict=True):
            atoms[str(structure.symbols)] = float(energy)
    return atoms


def folder_of(config: DatasetConfig) -> Path:
    """The folder that relative paths of ``config`` start from."""
    if config.kind == "embedded":
        return embedded.ROOT
    if config.kind == "download":
        return cache_root() / (config.collection or config.name)
    return Path()


def fetch_all(
    config: DatasetConfig, progress: Progress | None = None, say: Callable[[str], None] | None = None
) -> list[Path]:
    """Every file of a ``download`` set, verified and unpacked; nothing for the other kinds.

    Args:
        config: the data set.
        progress: called with name, bytes so far and bytes in all.
        say: receives sentences for the user; None: standard error.

    Raises:
        UserError: see :func:`mlpbench.datasets.download.fetch`.
    """
    folder = folder_of(config)
    tell = say or (lambda text: print(text, file=sys.stderr))
    return [fetch(item, folder, progress, tell) for item in config.downloads]


def state(config: DatasetConfig) -> str:
    """``ships``, ``yours``, ``cached`` or ``to fetch``."""
    if config.kind != "download":
        return {"embedded": "ships", "file": "yours"}[config.kind]
    folder = folder_of(config)
    return "cached" if all(is_cached(item, folder) for item in config.downloads) else "to fetch"


def resolve(config: DatasetConfig, pattern: str) -> list[Path]:
    """The files or folders that ``pattern`` means.

    Raises:
        UserError: no such file; with the close match in its folder.
    """
    path = folder_of(config) / Path(pattern).expanduser()
    if path.exists():
        require_file(path)
        return [path]
    files = sorted(glob.glob(str(path), recursive=True))
    if files:
        return [Path(name) for name in files]
    if not path.parent.is_dir():
        raise UserError(f"{path}: no such file; the folder {path.parent} does not exist either", "Check dataset.path.")
    raise UserError(f"{path}: no such file", close_match(path.name, (p.name for p in path.parent.iterdir())))


def digests_of(paths: list[Path]) -> dict[str, str]:
    """path -> sha256 (hex), read in blocks; of a folder, every file below it."""
    files = [f for p in paths for f in (sorted(x for x in p.rglob("*") if x.is_file()) if p.is_dir() else [p])]
    result = {}
    for file in files:
        with open(file, "rb") as stream:
            result[str(file)] = hashlib.file_digest(stream, "sha256").hexdigest()
    return result


def verify_embedded(digests: dict[str, str]) -> None:
    """Compare files of the package with their SHA256SUMS.

    Raises:
        UserError: one was altered, or is not one of the package's.
    """
    for name, digest in digests.items():
        path = Path(name)
        if not path.resolve().is_relative_to(embedded.ROOT.resolve()):
            raise UserError(f"{path} does not ship with mlpbench", "A file of your own needs dataset=file.")
        if embedded.expected_digests(path.parent).get(path.name) != digest:
            raise UserError(f"{path} differs from its SHA256SUMS", "Reinstall mlpbench; the file was changed.")
