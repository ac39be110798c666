"""Which seed the spread between repetitions comes from: the split's, or that of initialisation and batch order.

Seeds that are crossed (``split_seed=0,1,2 init_seed=0,1,2``) tell it, but nine trials of three splits are not nine
repetitions: those that share a split go together (:func:`independent_repetitions`), and an interval that took them as
independent would be far too short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats
from scipy.optimize import nnls

Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VarianceShares:
    """Parts of the variance of the log error between trials of one setting.

    Attributes:
        design: ``crossed`` (the same initialisation seeds in several splits), ``nested in split`` (several
            initialisations in each split), ``nested in initialisation``, or ``not identifiable``.
        split: share of the split seed, 0 to 1; NaN where it cannot be told.
        initialisation: share of the initialisation seed. In a design nested in split it holds the residual
            too.
        residual: share of neither (interaction, nondeterminism); NaN where the two cannot be separated.
        total: variance of one trial, relative error squared.
        dominant: ``split``, ``initialisation`` or ``unclear`` (equal shares would look like this in more
            than 5 % of studies of this design).
        reason: what to do where the design does not tell.
    """

    design: str
    split: float
    initialisation: float
    residual: float
    total: float
    dominant: str
    reason: str = ""


def variance_shares(
    log_error: npt.ArrayLike,
    split_seed: npt.ArrayLike,
    init_seed: npt.ArrayLike,
    setting: npt.ArrayLike,
    *,
    n_draws: int = 400,
    seed: int = 0,
) -> VarianceShares:
    """Shares of the split and the initialisation seed, pooled over settings.

    Half the squared difference of two trials of a setting estimates the variances of the seeds in which
    they differ (Hartley & Rao's sums of squared differences; it needs no balance). Pairs that differ in one
    seed only, and pairs that differ in both, give as many equations as there are kinds of pairs; shares are
    held at zero from below.

    Args:
        log_error: (T,) logarithm of each trial's error.
        split_seed: (T,) any labels.
        init_seed: (T,) any labels.
        setting: (T,) which setting a trial belongs to; only trials of one setting are compared.
        n_draws: simulated studies with equal shares, for ``dominant``.
        seed: of the simulation.
    """
    values = np.asarray(log_error, dtype=np.float64)
    codes = [np.unique(np.asarray(x).astype(str), return_inverse=True)[1] for x in (split_seed, init_seed, setting)]
    splits, inits, settings = codes
    first, second = np.triu_indices(len(values), 1)
    same = (settings[first] == settings[second]) & np.isfinite(values[first] + values[second])
    first, second = first[same], second[same]
    by_split, by_init = splits[first] != splits[second], inits[first] != inits[second]
    design = _design(by_split, by_init)
    if design == "not identifiable":
        total = float(np.mean((values[first] - values[second]) ** 2) / 2) if len(first) else np.nan
        reason = "every repetition has a split and an initialisation of its own: cross them, e.g. mlpbench run -m split_seed=0,1,2 init_seed=0,1,2"  # noqa: E501
        return VarianceShares(design, np.nan, np.nan, np.nan, total, "unclear", reason)
    parts = _components(values, first, second, by_split, by_init, design)
    total = float(parts.sum())
    shares = parts / total if total > 0 else np.full(3, np.nan)
    dominant = "unclear"
    if total > 0:
        # Effects are drawn per setting and seed, as in the data; shares as unequal as ours must be rare
        # among them.
        rng = np.random.default_rng(seed)
        gaps = []
        for _ in range(n_draws):
            drawn = _equal_effects(rng, splits, settings) + _equal_effects(rng, inits, settings)
            simulated = _components(drawn, first, second, by_split, by_init, design)
            gaps.append((simulated[0] - simulated[1]) / max(simulated.sum(), 1e-300))
        gap = shares[0] - shares[1]
        if np.mean(np.array(gaps) * np.sign(gap) >= abs(gap)) < 0.025:
            dominant = "split" if gap > 0 else "initialisation"
    residual = float(shares[2]) if design == "crossed" else np.nan
    return VarianceShares(design, float(shares[0]), float(shares[1]), residual, total, dominant)


def _design(by_split: npt.NDArray[np.bool_], by_init: npt.NDArray[np.bool_]) -> str:
    only_split, only_init = bool((by_split & ~by_init).any()), bool((~by_split & by_init).any())
    both = bool((by_split & by_init).any())
    if only_split and only_init:
        return "crossed"
    if only_init and both:
        return "nested in split"
    if only_split and both:
        return "nested in initialisation"
    return "not identifiable"


def _components(
    values: Float,
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    by_split: npt.NDArray[np.bool_],
    by_init: npt.NDArray[np.bool_],
    design: str,
) -> Float:
    """(3,) variances of split, initialisation, residual (zero where the design does not hold it apart)."""
    half = (values[first] - values[second]) ** 2 / 2
    rows, targets = [], []
    for in_split, in_init in ((True, False), (False, True), (True, True)):
        pairs = (by_split == in_split) & (by_init == in_init)
        if pairs.any():
            rows.append([float(in_split), float(in_init), float(design == "crossed")])
            targets.append(half[pairs].mean())
    solution: Float = nnls(np.array(rows), np.array(targets))[0]
    return solution


def _equal_effects(rng: np.random.Generator, seeds: npt.NDArray[np.int64], settings: npt.NDArray[np.int64]) -> Float:
    effects = rng.standard_normal((settings.max() + 1, seeds.max() + 1))
    return np.asarray(effects[settings, seeds], dtype=np.float64)


@dataclass(frozen=True)
class SharedVariance:
    """How much of the variance between repetitions all architectures have in common.

    Attributes:
        share: of the variance of one trial's log error, 0 to 1; NaN where it cannot be told.
        lower: lower end of its 95 % interval, held at 0.
        upper: upper end.
        total: variance of one trial, relative error squared.
        n_blocks: training sizes with at least two architectures and two repetitions in common.
    """

    share: float
    lower: float
    upper: float
    total: float
    n_blocks: int


def shared_variance(blocks: Sequence[npt.ArrayLike]) -> SharedVariance:
    """The part of the variance between repetitions that is common to architectures trained on the same splits.

    Repetition k has the same split for all architectures, but an initialisation of its own for each. What their
    errors do in common from one repetition to the next can only come from the split; the rest is initialisation, and
    how each architecture takes to a split. Two-way analysis of variance without replication; the share is the
    intraclass correlation for consistency, ICC(C,1), with McGraw and Wong's interval (Psychol. Methods 1, 30 (1996)).
    Sums of squares and degrees of freedom are added over blocks (training sizes).

    Args:
        blocks: (k, R) logarithms of the errors of k architectures in R repetitions each; blocks with fewer than two
            of either, or with a value missing, take no part. k is taken from the block with the most degrees of freedom
            where blocks differ.
    """
    shared, rest, shared_df, rest_df, members, used = 0.0, 0.0, 0, 0, [], 0
    for block in blocks:
        values = np.asarray(block, dtype=np.float64)
        if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
            continue
        k, repetitions = values.shape
        residual = values - values.mean(axis=1, keepdims=True)
        common = residual.mean(axis=0)
        shared += float(k * (common**2).sum())
        rest += float(((residual - common) ** 2).sum())
        shared_df += repetitions - 1
        rest_df += (repetitions - 1) * (k - 1)
        members += [k] * (repetitions - 1)
        used += 1
    if not used or rest <= 0:
        return SharedVariance(np.nan, np.nan, np.nan, np.nan, used)
    k = float(np.mean(members))
    ratio = (shared / shared_df) / (rest / rest_df)
    ends = [ratio / stats.f.ppf(q, shared_df, rest_df) for q in (0.975, 0.025)]
    share, lower, upper = (float(np.clip((f - 1) / (f + k - 1), 0.0, 1.0)) for f in (ratio, *ends))
    total = (shared / shared_df - rest / rest_df) / k + rest / rest_df
    return SharedVariance(share, lower, upper, float(total), used)


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
    repetitions = [place[key] if counts else None for key, counts in zip(keys, counted, strict=True)]
    return pd.Series(repetitions, index=trials.index, dtype="Int64")
