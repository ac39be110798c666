"""Splits: test frames held out of a pool, training and validation drawn from the rest, written once with a manifest."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from mlpbench.datasets.baseline import Baseline, baseline_warnings, fit_baseline, trivial_errors
from mlpbench.datasets.dataset import Dataset, Split, frame_hashes
from mlpbench.datasets.leaks import RELATED, Fingerprinted, LeakCheck, check_leaks, lag_ratio
from mlpbench.datasets.readers.base import Notes
from mlpbench.datasets.schema import ALL, DatasetConfig, SplitConfig
from mlpbench.datasets.stages import OnProgress, silent
from mlpbench.errors import UserError, close_match
from mlpbench.files import digest as digest_of
from mlpbench.files import locked, sha256, slug, told
from mlpbench.frames import Bool, Frames, Int
from mlpbench.protocol import ProtocolError, read_json, write_json

FORMAT = 2  # of the split folder; raised when the same configuration would give other files
MANIFEST = "manifest.json"
BUILT_IN_KEYS = ("n_atoms", "composition", "group")  # for strategy key, beside the entries of the header
_FRAMES_LOOKED_AT = 2000  # to tell whether the order of the file is an order in time


@dataclass(frozen=True)
class HeldOut:
    """The pool without its test frames, the test splits, and how they were chosen."""

    pool: Frames
    tests: dict[str, Frames]
    strategy: str


def hold_out(pool: Frames, headers: list[dict[str, Any]], split: SplitConfig, notes: Notes) -> HeldOut:
    """Divide ``pool`` as ``split`` says.

    Args:
        pool: all frames in the order of the file (time order in a trajectory).
        headers: what each frame's header says; at least ``split.key``.
        split: the settings.
        notes: receives what was detected and chosen.

    Raises:
        UserError: too few frames, no such key, or a value that no frame has.
    """
    if len(pool) < 2:
        raise UserError(f"{len(pool)} frames cannot be split", "Name a test file: dataset.test_path=...")
    if split.strategy == "key":
        return _by_key(pool, headers, split, notes)
    sample = pool.select(slice(0, _FRAMES_LOOKED_AT))
    prints = Fingerprinted.of(sample)
    ratio = lag_ratio(prints)
    in_time = ratio < RELATED  # False where it cannot be told
    strategy = split.strategy
    if strategy == "auto":
        strategy = "blocked" if in_time else "random"
        why = f"consecutive frames differ {ratio:.2f} times as much as random ones"
        notes.add(f"split.strategy=auto chose {strategy}" + ("" if np.isnan(ratio) else f": {why}"))
    if strategy == "random":
        if in_time:
            notes.add(
                f"warning: a random split of consecutive frames leaks: they differ only {ratio:.2f} times as much as "
                "random pairs, so every test frame has its neighbour in time among the training frames. "
                "Use split.strategy=blocked"
            )
        test = np.zeros(len(pool), dtype=bool)
        count = min(max(1, round(split.test_fraction * len(pool))), len(pool) - 1)
        test[np.random.default_rng(split.seed).permutation(len(pool))[:count]] = True
        dropped = np.zeros(len(pool), dtype=bool)
    else:
        test, dropped = _blocks(pool, split, _gap(prints, split, notes))
    notes.add(
        f"{test.sum()} of {len(pool)} frames held out as split 'test' ({strategy})"
        + (f", {dropped.sum()} next to them dropped" if dropped.any() else "")
    )
    rest = ~test & ~dropped
    if not rest.any():
        raise UserError("no frames are left for training", "Use a smaller split.gap, fewer blocks or test_fraction.")
    return HeldOut(pool.select(np.flatnonzero(rest)), {"test": pool.select(np.flatnonzero(test))}, strategy)


def _gap(prints: Fingerprinted, split: SplitConfig, notes: Notes) -> int:
    """Frames after which a trajectory has half forgotten where it was; at most half a stretch."""
    if split.gap is not None:
        return split.gap
    longest = max(1, len(prints.frames) // (2 * split.blocks))
    lag = 1
    while lag < longest and lag_ratio(prints, lag) < 0.5:
        lag *= 2
    gap = 0 if lag == 1 else min(lag, longest)
    if gap:
        notes.add(f"split.gap: {gap} frames dropped on either side of a held-out stretch")
    return gap


def _blocks(pool: Frames, split: SplitConfig, gap: int) -> tuple[Bool, Bool]:
    """(F,) test and (F,) dropped frames: whole stretches of each trajectory, chosen by ``split.seed``."""
    generator = np.random.default_rng(split.seed)
    test, near = np.zeros(len(pool), dtype=bool), np.zeros(len(pool), dtype=bool)
    for group in np.unique(pool.group):
        members = np.flatnonzero(pool.group == group)
        stretches = np.array_split(members, min(split.blocks, len(members)))
        count = min(max(1, round(split.test_fraction * len(stretches))), max(1, len(stretches) - 1))
        for chosen in generator.permutation(len(stretches))[:count]:
            test[stretches[chosen]] = True
        for place in np.flatnonzero(test[members]):
            near[members[max(0, place - gap) : place + gap + 1]] = True
    return test, near & ~test


def _by_key(pool: Frames, headers: list[dict[str, Any]], split: SplitConfig, notes: Notes) -> HeldOut:
    key = str(split.key)
    values = key_values(pool, headers, key)
    there, counts = np.unique(values, return_counts=True)
    listed = ", ".join(f"{value} ({count})" for value, count in zip(there[:20], counts[:20], strict=True))
    if not split.test_values:
        raise UserError(
            f"split.strategy=key needs split.test_values; '{key}' has {listed}", "For example split.test_values=[...]"
        )
    tests, test = {}, np.zeros(len(pool), dtype=bool)
    for value in split.test_values:
        wanted = values == str(value)
        if not wanted.any():
            raise UserError(f"no frame has {key}={value}; there are {listed}", close_match(str(value), there.tolist()))
        tests[f"test_{re.sub(r'[^\w.+-]+', '_', str(value))}"] = pool.select(np.flatnonzero(wanted))
        test |= wanted
    notes.add(f"{test.sum()} of {len(pool)} frames held out by {key}: {', '.join(map(str, split.test_values))}")
    if test.all():
        raise UserError(f"split.test_values takes every frame; '{key}' has {listed}", "Leave some for training.")
    return HeldOut(pool.select(np.flatnonzero(~test)), tests, "key")


def key_values(pool: Frames, headers: list[dict[str, Any]], key: str) -> Any:
    """(F,) text of ``key`` for each frame: an entry of the header, else ``n_atoms``, ``composition`` or ``group``.

    Raises:
        UserError: a frame lacks it.
    """
    in_header = any(key in header for header in headers)
    if key == "n_atoms" and not in_header:
        return pool.n_atoms.astype(str)
    if key == "group" and not in_header:
        return pool.group.astype(str)
    if key == "composition" and not in_header:
        return np.array([_formula(numbers) for numbers in np.split(pool.numbers, pool.offsets[1:-1])])
    missing = [i for i, header in enumerate(headers) if key not in header]
    if missing:
        known = {*BUILT_IN_KEYS, *(name for header in headers for name in header)}
        raise UserError(f"{len(missing)} frames have no '{key}', the first is {missing[0]}", close_match(key, known))
    return np.array([str(header[key]) for header in headers])


def _formula(numbers: Int) -> str:
    symbols, counts = np.unique(numbers, return_counts=True)
    named = {chemical_symbols[z]: int(n) for z, n in zip(symbols, counts, strict=True)}
    return str(Formula.from_dict(named).format("hill"))


def prepare_split(
    dataset: Dataset,
    config: DatasetConfig,
    split_seed: int,
    root: Path,
    progress: OnProgress = silent,
    *,
    write: bool = True,
    train: Sequence[int] | None = None,
) -> Split:
    """Draw training and validation frames, fit the baseline, and write the split once under ``root``.

    The pool is permuted by ``split_seed``; validation is its first ``n_valid`` frames and training the next
    ``n_train``, so a larger training set contains every smaller one and validation does not move. What extends the
    pool is permuted by itself and follows the rest, so earlier subsets stay what they were.

    Args:
        dataset: from :func:`mlpbench.datasets.load`.
        config: the data set's configuration.
        split_seed: seed of the permutation (numpy's PCG64).
        root: folder below which splits are kept; parallel callers share it safely.
        progress: told how far it is.
        write: write the files, or rewrite them where they have changed; False: only say what they would be.
        train: pool indices of the training frames that an acquisition chose, ``n_train`` of those that
            :func:`drawable` names; None: the first of them.

    Raises:
        UserError: the pool is too small, a pool frame repeats a test frame and ``on_leak`` is ``refuse``, or an
            element of a test frame is not in the training set.
    """
    config = settle(dataset, config, progress)
    check = check_leaks(dataset, config.leak_tolerance, progress)
    valid, order = drawable(dataset, config, split_seed, progress)
    first = 0 if dataset.valid is not None else config.n_valid
    if len(order) < config.n_train or config.n_train < 1:
        raise UserError(
            f"{dataset.name}: n_train={config.n_train} and n_valid={first} need {config.n_train + first} frames, but "
            f"the pool has {len(valid) + len(order)}",
            f"Take dataset.n_train={len(order)} or fewer, or fewer for dataset.n_valid."
            if len(order)
            else f"Validation alone takes all: take dataset.n_valid={len(valid) // 5 or 1} and n_train from the rest.",
        )
    chosen = order[: config.n_train] if train is None else np.asarray(train, dtype=np.int64)
    if train is not None and (len(np.unique(chosen)) != config.n_train or not np.isin(chosen, order).all()):
        raise ValueError(f"{dataset.name}: the frames chosen are not {config.n_train} of those that may be trained on")
    indices = {"train": chosen} | ({} if dataset.valid is not None else {"valid": valid})
    parts: dict[str, Frames] = {
        name: dataset.pool.select(indices[name]) for name in ("valid", "train") if name in indices
    }
    if dataset.valid is not None:
        parts = {"valid": dataset.valid, **parts}
    parts |= dataset.tests
    _require_known_elements(dataset.name, parts)
    baseline = fit_baseline(parts["train"], dataset.isolated_atoms)
    manifest = _manifest(dataset, config, split_seed, indices, parts, baseline, check, progress)
    directory = _directory(root, dataset.name, config, split_seed, manifest["digest"])
    files = {name: directory / f"{name}.npz" for name in parts}
    if write:
        progress("writing", 0, None)
        with told():
            manifest = _write_once(directory, manifest, parts, baseline)
    return Split(directory, manifest, manifest["digest"], files)


def drawable(
    dataset: Dataset, config: DatasetConfig, split_seed: int, progress: OnProgress = silent
) -> tuple[Int, Int]:
    """Pool indices of the validation frames (none where they have a file of their own), and of all others that may be
    trained on, in the random order that ``split_seed`` gives. ``config`` is settled.
    """
    allowed = check_leaks(dataset, config.leak_tolerance, progress).allowed(dataset, config.on_leak)
    order = _permuted(dataset, allowed, split_seed)
    first = 0 if dataset.valid is not None else config.n_valid
    return order[:first], order[first:]


def settle(dataset: Dataset, config: DatasetConfig, progress: OnProgress = silent) -> DatasetConfig:
    """``config`` with the counts that the data decide: ``n_train=all``, and ``n_valid`` of an own validation file.

    Args:
        dataset: from :func:`mlpbench.datasets.load`.
        config: the data set's configuration.
        progress: told how far the leak check is, which says how many frames may be used.
    """
    if dataset.valid is None and config.n_train != ALL:
        return config
    n_valid = config.n_valid if dataset.valid is None else len(dataset.valid)
    n_train = config.n_train
    if n_train == ALL:
        allowed = check_leaks(dataset, config.leak_tolerance, progress).allowed(dataset, config.on_leak)
        n_train = max(1, len(allowed) - (n_valid if dataset.valid is None else 0))
    return config.model_copy(update={"n_train": n_train, "n_valid": n_valid})


def _permuted(dataset: Dataset, allowed: Int, seed: int) -> Int:
    """The frames that may be used, in random order; those of each extension after all before it."""
    generator = np.random.default_rng(seed)
    bounds = [0, *np.cumsum(dataset.pool_parts or (len(dataset.pool),))]
    parts = [allowed[(allowed >= low) & (allowed < high)] for low, high in pairwise(bounds)]
    return np.concatenate([part[generator.permutation(len(part))] for part in parts])


def _require_known_elements(name: str, parts: dict[str, Frames]) -> None:
    """No potential can say anything about an element that it was never trained on.

    Raises:
        UserError: names the elements, the split and its frames.
    """
    known = np.unique(parts["train"].numbers)
    for split, frames in parts.items():
        unseen = np.setdiff1d(frames.numbers, known)
        if len(unseen) == 0:
            continue
        count = len(np.unique(frames.frame_of_atom[np.isin(frames.numbers, unseen)]))
        symbols = ", ".join(chemical_symbols[z] for z in unseen)
        raise UserError(
            f"{name}: {symbols} is in split {split} ({count} of {len(frames)} frames) but in no training frame",
            "Train on more frames (dataset.n_train), or leave these frames out of the file.",
        )


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
    others = {name: frames for name, frames in parts.items() if name != "train"}
    for name, frames in parts.items():
        index = indices.get(name)
        splits[name] = {
            "frames": len(frames),
            "atoms": int(frames.n_atoms.sum()),
            "indices": None if index is None else index.tolist(),  # into the pool; None for splits of their own files
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
        "warnings": [n.removeprefix("warning: ") for n in notes if n.startswith("warning: ")]
        + check.warnings
        + baseline_warnings(baseline, parts["train"], others),
        # what a predictor without geometry is worth on each split, in the metrics' units
        "trivial_errors": {name: trivial_errors(parts["train"], frames) for name, frames in others.items()},
        "notes": notes,
        "files_sha256": {Path(k).name: v for k, v in dataset.info.get("sha256", {}).items()},
        "splits": splits,
    }


def _directory(root: Path, name: str, config: DatasetConfig, split_seed: int, digest: str) -> Path:
    return root.resolve() / f"{slug(name)}-n{config.n_train}-s{split_seed}-{digest[:8]}"


def _write_once(
    directory: Path, manifest: dict[str, Any], parts: dict[str, Frames], baseline: Baseline
) -> dict[str, Any]:
    """Write the folder under another name and rename it, so that nobody ever sees half of it; returns the manifest.

    A folder that is there is used if every file in it is as it was written, and rewritten if not.
    """
    problem = _problem(directory, manifest)
    if problem == "":
        return read_json(directory / MANIFEST)
    with locked(directory.with_name(f".{directory.name}.lock")):
        problem = _problem(directory, manifest)
        if problem == "":
            return read_json(directory / MANIFEST)
        part = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            written = {}
            for name, frames in parts.items():
                path = part / f"{name}.npz"
                frames.with_baseline(baseline.evaluate(frames)).save(path)
                written[path.name] = sha256(path)
            manifest = {**manifest, "written_sha256": written}
            write_json(part / MANIFEST, manifest)
            part.chmod(0o755)
            if problem is not None:
                print(f"warning: {directory}: {problem}; the split is rewritten", file=sys.stderr, flush=True)
                for path in part.iterdir():
                    os.replace(path, directory / path.name)
                shutil.rmtree(part)
            else:
                os.replace(part, directory)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    return manifest


def _problem(directory: Path, manifest: dict[str, Any]) -> str | None:
    """What is wrong with a split folder: None if there is none, empty if every file is as it was written."""
    if not directory.is_dir():
        return None
    try:
        stored = read_json(directory / MANIFEST)
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except ProtocolError:
        return f"{MANIFEST} cannot be read"
    if stored.get("digest") != manifest["digest"]:
        return f"{MANIFEST} describes another split"
    written = stored.get("written_sha256", {})
    for name in manifest["splits"]:
        path = directory / f"{name}.npz"
        if not path.is_file():
            return f"{path.name} is missing"
        if written.get(path.name) != sha256(path):
            return f"{path.name} is not as it was written"
    return ""
