"""Test frames held out of a pool that brings none of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula

from mlpbench.datasets.leaks import RELATED, Fingerprinted, lag_ratio
from mlpbench.datasets.readers.base import Notes
from mlpbench.datasets.schema import SplitConfig
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Bool, Frames, Int

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
    in_header = bool(headers) and key in headers[0]
    if key == "n_atoms" and not in_header:
        return pool.n_atoms.astype(str)
    if key == "group" and not in_header:
        return pool.group.astype(str)
    if key == "composition" and not in_header:
        return np.array([_formula(numbers) for numbers in np.split(pool.numbers, pool.offsets[1:-1])])
    missing = [i for i, header in enumerate(headers) if key not in header]
    if missing:
        known = {*BUILT_IN_KEYS, *headers[missing[0]]}
        raise UserError(f"{len(missing)} frames have no '{key}', the first is {missing[0]}", close_match(key, known))
    return np.array([str(header[key]) for header in headers])


def _formula(numbers: Int) -> str:
    symbols, counts = np.unique(numbers, return_counts=True)
    named = {chemical_symbols[z]: int(n) for z, n in zip(symbols, counts, strict=True)}
    return str(Formula.from_dict(named).format("hill"))
