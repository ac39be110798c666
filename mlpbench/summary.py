"""One row for each setting, averaged over its repetitions only: what ``mlpbench table`` prints."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from mlpbench.errors import UserError, close_match
from mlpbench.metrics import metric

SETTING = ["dataset", "architecture", "size", "n_train"]
DEFAULT_METRICS = (
    "energy_mae", "energy_mae_total", "force_mae", "force_rmse", "frequency_mae", "md_survival",
    "own_trajectory_force_mae", "us_per_atom", "speedup_vs_reference", "train_seconds", "train_peak_memory",
)  # fmt: skip


def settings_of(metrics: pd.DataFrame) -> list[str]:
    """Columns that tell one setting from another: the identifiers and every swept setting."""
    known = {"trial", "backend", "repetition", "split", "metric", "value", "unit", "lower", "upper", "n"}
    return SETTING + [column for column in metrics.columns if column not in known and column not in SETTING]


def comparison(
    trials: pd.DataFrame, metrics: pd.DataFrame, split: str | None = None, names: Sequence[str] | None = None
) -> pd.DataFrame:
    """Settings as rows, metrics as columns with their unit in the header; the spread is over repetitions.

    Args:
        trials: the trials table.
        metrics: the long metrics table.
        split: test split; None: the first one.
        names: metrics to show; None: those of :data:`DEFAULT_METRICS` that the study has.

    Raises:
        UserError: no such split or metric in this study; has the close match.
    """
    splits = sorted(s for s in metrics["split"].unique() if s and s != "valid" and not s.startswith("md"))
    split = split or (splits[0] if splits else "")
    if split and split not in splits and split != "valid":
        raise UserError(f"no split '{split}' in this study", close_match(split, [*splits, "valid"]))
    here = metrics[metrics["split"].isin(["", split]) | metrics["split"].str.startswith("md")]
    present = set(here["metric"])
    for name in names or ():
        metric(name)
        if name not in present:
            raise UserError(f"this study has no '{name}' on {split}", f"It has: {', '.join(sorted(present))}")
    shown = [name for name in (names or DEFAULT_METRICS) if name in present]
    keys = settings_of(metrics)
    rows = trials.groupby(keys, dropna=False)["status"].agg(_statuses).rename("trials").to_frame()
    for name in shown:
        values = here[here["metric"] == name].groupby(keys, dropna=False)["value"]
        unit = metric(name).unit
        rows[f"{name}{f' / {unit}' if unit else ''}"] = values.apply(_spread)
    return rows.fillna("").reset_index()


SPEED = ("us_per_atom", "ms_per_md_step", "ns_per_day", "prepare_seconds", "peak_memory", "timing_noise")
WAY = ["dataset", "architecture", "size", "deployment", "means", "dtype", "tf32"]


def speeds(table: pd.DataFrame) -> pd.DataFrame:
    """Ways of running each potential as rows, speed metrics as columns; what did not run has its reason as remark.

    Args:
        table: the speed table (see :func:`mlpbench.tables.build_speed`); means over its trials.
    """
    rows = []
    for key, part in table.groupby(WAY, sort=False):
        row: dict[str, object] = dict(zip(WAY, key, strict=True))
        for name in SPEED:
            values = part.loc[part["metric"] == name, "value"].astype(float)
            if len(values):
                row[f"{name} / {metric(name).unit}"] = _spread(values)
        said = [*part["reason"], *(f"busy machine: {notice}" for notice in part["notice"] if notice)]
        rows.append({**row, "remark": next((str(text) for text in said if text), "")})
    wide = pd.DataFrame(rows)
    return wide[[*(c for c in wide.columns if c != "remark"), "remark"]].fillna("")


def _statuses(status: pd.Series) -> str:
    counts = status.value_counts()
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _spread(values: pd.Series) -> str:
    """Mean, and the standard deviation over repetitions where there are several."""
    mean = values.mean()
    if len(values) < 2:
        return f"{mean:.4g}"
    return f"{mean:.4g} ± {values.std(ddof=1):.2g}"
