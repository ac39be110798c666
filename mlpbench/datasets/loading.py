"""From a configuration to frames: find the files, read them, check the labels, hold out test frames."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.datasets import sources
from mlpbench.datasets.dataset import Dataset
from mlpbench.datasets.holdout import BUILT_IN_KEYS, hold_out
from mlpbench.datasets.labels import (
    PROVENANCE_KEYS,
    label_seconds,
    level_of_theory,
    missing_labels,
    reference_method,
    require,
)
from mlpbench.datasets.readers import read
from mlpbench.datasets.readers.base import Labels, Notes
from mlpbench.datasets.schema import DatasetConfig
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
    notes = Notes()
    if config.path is None:
        raise UserError(f"data set {config.name} has no path", "Set dataset.path=FILE.")

    def received(name: str, done: int, total: int | None) -> None:
        progress(f"downloading {name}", done // 10**6, None if total is None else total // 10**6, "MB")

    sources.fetch_all(config, received)
    patterns = [config.path] if isinstance(config.path, str) else config.path
    files = [file for pattern in patterns for file in sources.resolve(config, pattern)]
    frames, headers = _read_files(files, config, labels_of(config), notes, progress)
    tests = {name: frames.select(_indices(config, file, len(frames))) for name, file in config.test_indices.items()}
    pool = frames
    if config.pool_indices is not None:
        chosen = _indices(config, config.pool_indices, len(frames))
        pool, headers = frames.select(chosen), [headers[i] for i in chosen] if headers else headers
    price, level = label_seconds(headers), level_of_theory(headers, config.name)
    method = config.reference_method or reference_method(headers)
    used = list(files)
    named = {**({"test": config.test_path} if config.test_path else {}), **config.test_paths}
    for name, pattern in named.items():
        test_files = sources.resolve(config, pattern)
        tests[name], _ = _read_files(test_files, config, replace(labels_of(config), index=":"), notes, progress)
        used += test_files
    missing = missing_labels(pool, list(config.labels))
    require(pool, [label for label in config.labels if label not in missing], config.name)
    for name, test in tests.items():
        require(test, ["energy"], f"{config.name}, split {name}")
    strategy = "official"
    if not tests or config.split.strategy in ("random", "blocked", "key"):
        held_out = hold_out(pool, headers, config.split, notes)
        frames, pool, strategy = held_out.pool, held_out.pool, held_out.strategy  # lets go of the whole
        tests = {**held_out.tests, **tests}
    digests = sources.digests(used)
    if config.kind == "embedded":
        sources.verify_embedded(digests)
    return Dataset(
        name=config.name,
        pool=pool,
        tests=tests,
        isolated_atoms=_isolated_atoms(config),
        info={
            "level_of_theory": level if level and config.level_of_theory == "not stated" else config.level_of_theory,
            "licence": config.licence, "citation": config.citation, "homepage": config.homepage, "sha256": digests,
            "label_seconds": price if config.label_seconds is None else config.label_seconds,
            "notes": notes.listed(), "strategy": strategy, "traps": list(config.traps),
            "missing_labels": missing, "reference_method": method,
        },
        references={name: sources.resolve(config, file)[0] for name, file in config.references.items()},
    )  # fmt: skip


def labels_of(config: DatasetConfig) -> Labels:
    """The part of the configuration that readers need."""
    return Labels(**{f.name: getattr(config, f.name) for f in fields(Labels)})


def _read_files(
    files: list[Path], config: DatasetConfig, labels: Labels, notes: Notes, progress: OnProgress
) -> tuple[Frames, Headers]:
    """All frames of ``files`` and the parts of their headers that are needed; ``group`` counts trajectories."""
    keys = {key for key in (config.group_key, config.split.key) if key}
    parts: list[Frames] = []
    headers: Headers = []
    read_so_far = 0
    for number, file in enumerate(files):
        for chunk in read(file, config.format, labels, notes):
            frames = replace(chunk.frames, group=np.full(len(chunk.frames), number, dtype=np.int64))
            if config.periodic is False:
                frames = replace(frames, cell=np.zeros_like(frames.cell), pbc=np.zeros_like(frames.pbc))
            parts.append(frames)
            if keys:
                _require_keys(file, config, chunk.headers[0])
            kept = keys.union(key for key in PROVENANCE_KEYS if key in chunk.headers[0])
            if kept or headers:  # one for each frame, or none at all
                headers += [{} for _ in range(read_so_far - len(headers))]
                headers.extend({k: v for k, v in header.items() if k in kept} for header in chunk.headers)
            read_so_far += len(chunk.frames)
            progress("reading", read_so_far, None)
    frames = Frames.concatenate(parts)
    return _group(frames, headers, config.group_key), headers


def _require_keys(file: Path, config: DatasetConfig, header: dict[str, Any]) -> None:
    """Hold the first header to the keys that the configuration names; some split keys need no header."""
    built_in = set(BUILT_IN_KEYS)
    for key, others in ((config.group_key, set()), (config.split.key, built_in)):
        if key is not None and key not in header and key not in others:
            raise UserError(f"{file}: frames have no '{key}'", close_match(key, {*header, *others}))


def _group(frames: Frames, headers: Headers, key: str | None) -> Frames:
    """``group`` from the header ``key``, counted in order of appearance; frames of different files stay apart."""
    if key is None:
        return frames
    seen: dict[tuple[int, str], int] = {}
    pairs = zip(frames.group.tolist(), (str(header.get(key)) for header in headers), strict=True)
    return replace(frames, group=np.array([seen.setdefault(pair, len(seen)) for pair in pairs], dtype=np.int64))


def _indices(config: DatasetConfig, pattern: str, count: int) -> Int:
    """Frame numbers from a text file, one a line.

    Raises:
        UserError: not numbers, or beyond the end of the file they count.
    """
    path = sources.resolve(config, pattern)[0]
    try:
        numbers: Int = np.loadtxt(path, dtype=np.int64, ndmin=1)
    except ValueError as error:
        raise UserError(f"{path}: expected one frame number a line ({error})") from error
    if len(numbers) == 0 or numbers.min() < 0 or numbers.max() >= count:
        raise UserError(f"{path}: frame numbers must lie in 0 to {count - 1}")
    return numbers


def _isolated_atoms(config: DatasetConfig) -> dict[str, float] | None:
    """Energies (eV) of free atoms, from the configuration, a JSON file, or single-atom structures."""
    source = config.isolated_atoms
    if source is None or isinstance(source, dict):
        return source
    path = sources.resolve(config, source)[0]
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
