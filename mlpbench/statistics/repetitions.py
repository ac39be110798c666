"""Which trials of a setting are repetitions of each other, where seeds were swept by hand.

Seeds that are crossed (``split_seed=0,1,2 init_seed=0,1,2``) tell where the spread comes from, but nine trials of three
splits are no nine repetitions: those that share a split go together, and an interval that took them as independent
would be far too short.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def independent_repetitions(trials: pd.DataFrame, setting: Sequence[str]) -> pd.Series:
    """Number of the repetition that each trial counts as; missing where it shares a seed with one that counts.

    Where no setting has a repetition twice, the numbers are those of ``repetition``. Else the trials of a setting are
    taken in the order of their seeds, and each counts that shares neither seed with one before it. Where one of the two
    seeds is the same in all of a setting's trials, each value of the other counts: the interval then holds for that
    split (or initialisation) alone. Numbers follow the seeds, so that architectures stay paired.

    Args:
        trials: one row a trial, with ``dataset``, ``repetition``, ``split_seed`` and ``init_seed``.
        setting: columns whose values make a setting.
    """
    numbers = trials["repetition"].astype("Int64")
    if not {"split_seed", "init_seed"} <= set(trials.columns):
        return numbers
    settings = ["|".join(row) for row in zip(*(trials[name].astype(str) for name in setting), strict=True)]
    seeds = trials.assign(setting=settings)[["setting", "dataset", "repetition", "split_seed", "init_seed"]]
    several = seeds.drop_duplicates().duplicated(["setting", "repetition"], keep=False)
    if not several.any():
        return numbers
    counted = pd.Series(False, index=trials.index)
    single: set[str] = set()  # settings in which one seed never changes
    for label, part in seeds.groupby("setting", sort=False):
        part = part.sort_values(["repetition", "split_seed", "init_seed"])
        if 1 in (part["split_seed"].nunique(), part["init_seed"].nunique()):
            counted[part.index] = True
            single.add(str(label))
            continue
        kept: set[tuple[object, object]] = set()
        for index, split, init in zip(part.index, part["split_seed"], part["init_seed"], strict=True):
            if (split, init) in kept or all(split != s and init != i for s, i in kept):
                kept.add((split, init))
                counted[index] = True
    # The split tells repetitions apart; where there is one split only, the initialisation does.
    init = seeds["init_seed"].where(seeds["setting"].isin(single), 0)
    keys = list(zip(seeds["dataset"], seeds["repetition"], seeds["split_seed"], init, strict=True))
    known = sorted({key for key, counts in zip(keys, counted, strict=True) if counts})
    place = {key: sum(other[0] == key[0] for other in known[:index]) for index, key in enumerate(known)}
    found = [place[key] if counts else None for key, counts in zip(keys, counted, strict=True)]
    return pd.Series(found, index=trials.index, dtype="Int64")
