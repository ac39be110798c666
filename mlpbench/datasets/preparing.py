"""Splits on disk: drawn once, described by a manifest, shared by every trial that asks for the same."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from mlpbench.datasets.baseline import Baseline, fit_baseline
from mlpbench.datasets.dataset import Dataset, Split, frame_hashes
from mlpbench.datasets.leak_check import LeakCheck, check_leaks
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.datasets.stages import OnProgress, silent
from mlpbench.errors import UserError
from mlpbench.frames import Frames, Int
from mlpbench.protocol import read_json, write_json
from mlpbench.seeds import digest as digest_of

FORMAT = 1  # of the split folder; raised when the same configuration would give other files
MANIFEST = "manifest.json"


def prepare_split(
    dataset: Dataset, config: DatasetConfig, split_seed: int, root: Path, progress: OnProgress = silent
) -> Split:
    """Draw training and validation frames, fit the baseline, and write the split once under ``root``.

    The pool is permuted by ``split_seed``; validation is its first ``n_valid`` frames and training the next
    ``n_train``, so a larger training set contains every smaller one and validation does not move.

    Args:
        dataset: from :func:`mlpbench.datasets.load`.
        config: the data set's configuration.
        split_seed: seed of the permutation (numpy's PCG64).
        root: folder below which splits are kept; parallel callers share it safely.
        progress: told how far it is.

    Raises:
        UserError: the pool is too small, a pool frame repeats a test frame and ``on_leak`` is ``refuse``, or an
            element of a test frame is not in the training set.
    """
    check = check_leaks(dataset, config.leak_tolerance, progress)
    allowed = check.allowed(dataset, config.on_leak)
    order = allowed[np.random.default_rng(split_seed).permutation(len(allowed))]
    if len(order) < config.n_train + config.n_valid:
        raise UserError(
            f"{dataset.name}: n_train={config.n_train} and n_valid={config.n_valid} need "
            f"{config.n_train + config.n_valid} frames, but the pool has {len(order)}",
            f"Take dataset.n_train={max(1, len(order) - config.n_valid)} or fewer, or fewer for dataset.n_valid.",
        )
    indices = {
        "valid": order[: config.n_valid],
        "train": order[config.n_valid : config.n_valid + config.n_train],
    }
    parts = {name: dataset.pool.select(index) for name, index in indices.items()} | dataset.tests
    baseline = fit_baseline(parts["train"], dataset.isolated_atoms)
    manifest = _manifest(dataset, config, split_seed, indices, parts, baseline, check, progress)
    directory = _directory(root, dataset.name, config, split_seed, manifest["digest"])
    progress("writing", 0, None)
    _write_once(directory, manifest, parts, baseline)
    files = {name: directory / f"{name}.npz" for name in parts}
    return Split(directory, read_json(directory / MANIFEST), manifest["digest"], files)


def _manifest(
    dataset: Dataset,
    config: DatasetConfig,
    split_seed: int,
    indices: dict[str, Int],
    parts: dict[str, Frames],
    baseline: Baseline,
    check: LeakCheck,
    progress: OnProgress,
) -> dict[str, Any]:
    splits = {}
    notes = list(dataset.info.get("notes", []))
    for name, frames in parts.items():
        index = indices.get(name)
        splits[name] = {
            "frames": len(frames),
            "atoms": int(frames.n_atoms.sum()),
            "indices": None if index is None else index.tolist(),  # into the pool; None for test splits
            "sha256": frame_hashes(frames, progress),
        }
    hashes = {name: split["sha256"] for name, split in splits.items()}
    fit = {name: hashes[name] for name in ("train", "valid")}
    train_digest = digest_of({"format": FORMAT, "baseline": baseline.describe(), **fit})
    return {
        "format": FORMAT,
        "digest": digest_of({"train_digest": train_digest, **hashes}),
        "train_digest": train_digest,  # a change of the test frames alone leaves it as it is
        "dataset": dataset.name,
        "n_train": config.n_train,
        "n_valid": config.n_valid,
        "split_seed": split_seed,
        "strategy": dataset.info.get("strategy"),
        "pool_frames": len(dataset.pool),
        "baseline": baseline.describe(),
        "leak_check": check.describe(config.on_leak),
        "warnings": [n.removeprefix("warning: ") for n in notes if n.startswith("warning: ")] + check.warnings,
        "notes": notes,
        "files_sha256": {Path(k).name: v for k, v in dataset.info.get("sha256", {}).items()},
        "splits": splits,
    }


def _directory(root: Path, name: str, config: DatasetConfig, split_seed: int, digest: str) -> Path:
    safe = re.sub(r"[^\w.+-]+", "-", name)[:80]
    return root.resolve() / f"{safe}-n{config.n_train}-s{split_seed}-{digest[:8]}"


def _write_once(directory: Path, manifest: dict[str, Any], parts: dict[str, Frames], baseline: Baseline) -> None:
    """Write the folder under another name and rename it, so that nobody ever sees half of it."""
    if (directory / MANIFEST).is_file():
        return
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.with_name(f".{directory.name}.lock")):
        if (directory / MANIFEST).is_file():
            return
        part = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            for name, frames in parts.items():
                frames.with_baseline(baseline.evaluate(frames)).save(part / f"{name}.npz")
            write_json(part / MANIFEST, manifest)
            part.chmod(0o755)
            os.replace(part, directory)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
