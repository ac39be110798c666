"""Ready ``mlpbench run`` commands for trials of a study: its data set, its settings, its evaluations."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlpbench.config.overrides import overrides_of
from mlpbench.statistics.settings import BASE

_AXES = ("repetition", "dataset.n_train", "size", "architecture")  # what one command may run several values of
_FIRST = ("dataset", "architecture", "size", "dataset.n_train")
_SEEDS = ("split_seed", "init_seed")
_COLUMNS = {"n_train": "dataset.n_train"}
_MOST = 6  # consecutive repetitions that are listed; more are a range
Overrides = dict[str, str]
Grid = dict[str, tuple[str, ...]]


def overrides_of_trial(
    row: Mapping[Any, Any], config: Mapping[str, Any] | None, swept: Sequence[str], *, without: tuple[str, ...] = ()
) -> Overrides:
    """What makes a trial, but for its repetition.

    Args:
        row: of the trials table.
        config: of its record; None: only what the table holds is known (data set, architecture, size and settings).
        swept: names of settings in ``row``.
        without: groups or keys to leave at their default.
    """
    if config is not None:
        return overrides_of(config, without=(*without, *_SEEDS))
    found = {_COLUMNS.get(name, name): str(row[name]) for name in BASE}
    given = [name for name in swept if _given(row.get(name)) and name not in (*_COLUMNS, *_SEEDS)]
    return found | {name: _plain(row[name]) for name in given}


def run_commands(study: str, trials: Sequence[tuple[Overrides, int]]) -> list[str]:
    """The fewest commands, found by merging, that run exactly these trials.

    Args:
        study: its name.
        trials: overrides and repetition of each.
    """
    grids: list[Grid] = []
    for overrides, repetition in trials:
        grid: Grid = {key: (value,) for key, value in {**overrides, "repetition": str(repetition)}.items()}
        if grid not in grids:
            grids.append(grid)
    for axis in _AXES:
        merged: dict[tuple[Any, ...], Grid] = {}
        for grid in grids:
            rest = tuple((key, value) for key, value in sorted(grid.items()) if key != axis)
            known = merged.setdefault(rest, grid)
            if known is not grid:
                merged[rest] = {**grid, axis: tuple(dict.fromkeys([*known[axis], *grid[axis]]))}
        grids = list(merged.values())
    return [_text(study, grid) for grid in grids]


def _text(study: str, grid: Grid) -> str:
    ordered = [key for key in _FIRST if key in grid]
    ordered += [key for key in grid if key not in (*_FIRST, "repetition")] + ["repetition"]
    several = any(len(values) > 1 for values in grid.values())
    parts = [f"{key}={_listed(key, grid[key])}" for key in ordered]
    words = ["mlpbench", "run", *(["-m"] if several else []), f"study={study}", *parts]
    return " ".join(shlex.quote(word) for word in words)


def _listed(key: str, values: tuple[str, ...]) -> str:
    if key not in ("repetition", "dataset.n_train"):
        return ",".join(sorted(values))
    numbers = sorted({int(value) for value in values})
    if key == "repetition" and len(numbers) > _MOST and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"range({numbers[0]},{numbers[-1] + 1})"
    return ",".join(str(number) for number in numbers)


def _given(value: object) -> bool:
    return value is not None and value == value


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)
