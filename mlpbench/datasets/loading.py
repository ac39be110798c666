"""From a configuration to frames: find the files, read them, check the labels, hold out test frames."""

from __future__ import annotations

import glob
import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.datasets import embedded
from mlpbench.datasets.dataset import Dataset
from mlpbench.datasets.holdout import hold_out
from mlpbench.datasets.readers import read
from mlpbench.datasets.readers.base import Labels, Notes
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Frames


def load(config: DatasetConfig) -> Dataset:
    """Read the data set that ``config`` describes.

    Raises:
        UserError: a file is missing, altered or unreadable; a label is missing or not finite; a key is unknown.
    """
    notes = Notes()
    labels = labels_of(config)
    if config.path is None:
        raise UserError(f"data set {config.name} has no path", "Set dataset.path=FILE.")
    patterns = [config.path] if isinstance(config.path, str) else config.path
    files = [file for pattern in patterns for file in resolve(config, pattern)]
    pool, headers = _read_files(files, labels, notes, config)
    pool = _group(pool, headers, config.group_key)
    tests, digests = {}, {str(file): sha256(file) for file in files if file.is_file()}
    named = dict(config.test_paths) | ({"test": config.test_path} if config.test_path else {})
    for name, pattern in named.items():
        test_files = resolve(config, pattern)
        test, test_headers = _read_files(test_files, replace(labels, index=":"), notes, config)
        tests[name] = _group(test, test_headers, config.group_key)
        digests.update({str(file): sha256(file) for file in test_files if file.is_file()})
    require_labels(pool, config.labels, config.name)
    for name, test in tests.items():
        require_labels(test, ["energy"], f"{config.name}, split {name}", complete=False)
    strategy = "official"
    if not tests:
        pool, tests, strategy = hold_out(pool, headers, config.split, notes)
    _verify_embedded(config, digests)
    return Dataset(
        name=config.name,
        pool=pool,
        tests=tests,
        isolated_atoms=_isolated_atoms(config),
        info={
            "level_of_theory": config.level_of_theory, "licence": config.licence, "citation": config.citation,
            "homepage": config.homepage, "label_seconds": config.label_seconds, "sha256": digests,
            "notes": notes.listed(), "strategy": strategy, "traps": list(config.traps),
        },
        references={name: resolve(config, file)[0] for name, file in config.references.items()},
    )  # fmt: skip


def labels_of(config: DatasetConfig) -> Labels:
    """The part of the configuration that readers need."""
    return Labels(**{f.name: getattr(config, f.name) for f in fields(Labels)})


def resolve(config: DatasetConfig, pattern: str) -> list[Path]:
    """The files that ``pattern`` means: below the embedded sets, the download cache, or the working directory.

    Raises:
        UserError: no such file; with the close match in its folder.
    """
    path = Path(pattern).expanduser()
    if config.kind == "embedded":
        path = embedded.ROOT / path
    if path.exists():
        return [path]
    found = sorted(glob.glob(str(path), recursive=True))
    if found:
        return [Path(name) for name in found]
    parent = path.parent
    if not parent.is_dir():
        raise UserError(f"{path}: no such file; the folder {parent} does not exist either", "Check dataset.path.")
    raise UserError(f"{path}: no such file", close_match(path.name, (p.name for p in parent.iterdir())))


def sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_files(
    files: list[Path], labels: Labels, notes: Notes, config: DatasetConfig
) -> tuple[Frames, list[dict[str, Any]]]:
    """All frames of ``files`` and their headers; ``group`` counts the files."""
    parts, headers = [], []
    for number, file in enumerate(files):
        for chunk in read(file, config.format, labels, notes):
            frames = replace(chunk.frames, group=np.full(len(chunk.frames), number, dtype=np.int64))
            parts.append(_without_cell(frames) if config.periodic is False else frames)
            headers.extend(chunk.headers)
    return Frames.concatenate(parts), headers


def _without_cell(frames: Frames) -> Frames:
    return replace(frames, cell=np.zeros_like(frames.cell), pbc=np.zeros_like(frames.pbc))


def _group(frames: Frames, headers: list[dict[str, Any]], key: str | None) -> Frames:
    """``group`` from the header ``key``, counted in order of appearance; each file stays apart."""
    if key is None:
        return frames
    missing = [i for i, header in enumerate(headers) if key not in header]
    if missing:
        raise UserError(
            f"group_key '{key}' is not in the header of {len(missing)} frames, first {missing[0]}",
            close_match(key, headers[missing[0]]),
        )
    seen: dict[tuple[int, str], int] = {}
    values = [seen.setdefault((int(g), str(h[key])), len(seen)) for g, h in zip(frames.group, headers, strict=True)]
    return replace(frames, group=np.array(values, dtype=np.int64))


def require_labels(frames: Frames, labels: list[Any], where: str, *, complete: bool = True) -> None:
    """Hold ``frames`` to finite positions and labels.

    Args:
        frames: the frames.
        labels: those that must be there.
        where: what the message calls the frames.
        complete: a label that no frame has is an error too; else only one that some frames have and others lack.

    Raises:
        UserError: with the numbers of the first frames at fault and what to do.
    """
    of_atom = frames.frame_of_atom
    for name in ("energy", "forces", "stress"):
        values = getattr(frames, name)
        bad = ~np.isfinite(values) if values.ndim == 1 else ~np.isfinite(values).all(axis=1)
        at_fault = np.unique(of_atom[bad]) if name == "forces" else np.flatnonzero(bad)
        asked = name in labels
        if len(at_fault) == 0 or not asked:
            continue
        if len(at_fault) == len(frames):
            raise UserError(
                f"{where}: no frame has {name}",
                f"Name it with dataset.{name}_key=..., or leave it out of training: dataset.labels=[energy]."
                if name != "energy" else "Name it with dataset.energy_key=...",
            )  # fmt: skip
        raise UserError(
            f"{where}: {name} missing or not finite in {len(at_fault)} of {len(frames)} frames: {_list(at_fault)}",
            "Remove these frames, or choose others with dataset.index.",
        )
    unfinite = np.unique(of_atom[~np.isfinite(frames.positions).all(axis=1)])
    if len(unfinite):
        raise UserError(f"{where}: positions not finite in frames {_list(unfinite)}", "Remove these frames.")


def _list(numbers: Any) -> str:
    shown = ", ".join(str(int(n)) for n in numbers[:10])
    return shown + (", ..." if len(numbers) > 10 else "")


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
            atoms[structure.get_chemical_symbols()[0]] = float(energy)
    return atoms


def _verify_embedded(config: DatasetConfig, digests: dict[str, str]) -> None:
    if config.kind != "embedded":
        return
    for name, digest in digests.items():
        path = Path(name)
        if embedded.expected_digests(path.parent).get(path.name) != digest:
            raise UserError(f"{path} differs from its SHA256SUMS", "Install mlpbench again; the file was changed.")
