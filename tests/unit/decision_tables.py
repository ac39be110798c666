"""Synthetic trials and metrics tables, as mlpbench.tables gives them."""

from __future__ import annotations

import numpy as np
import pandas as pd


def make(
    errors: dict[str, float],
    *,
    sizes=(50, 200),
    repetitions=3,
    speed: dict[str, float] | None = None,
    survival: dict[str, float] | None = None,
    lrs: dict[str, tuple[float, ...]] | None = None,
    noise=0.03,
    exponent=0.5,
    seed=0,
):
    """Errors at N = 50 by architecture, a power law in N; test_1000K is three times worse.

    With ``lrs`` the second learning rate is twice worse on validation, but half as bad on test: a trap.
    """
    rng = np.random.default_rng(seed)
    trials, metrics = [], []
    shift = noise * rng.standard_normal(repetitions)
    for architecture, error in errors.items():
        for n in sizes:
            for lr in (lrs or {}).get(architecture, (0.01,)):
                for r in range(repetitions):
                    trial = f"{architecture}-{n}-{lr:g}-{r}"
                    common = {"trial": trial, "dataset": "ethanol", "architecture": architecture, "size": "tiny",
                              "backend": architecture, "n_train": n, "repetition": r}  # fmt: skip
                    trials.append({
                        **common, "study": "demo", "n_valid": 50, "split_seed": r, "init_seed": 100 + r,
                        "training.lr": lr, "status": "done", "reason": "", "converged": True,
                        "train_seconds": float(n), "train_peak_memory": 500.0, "n_parameters": 1000,
                        "device": "cpu", "cpu": "a", "threads": 1,
                    })  # fmt: skip
                    value = error * (n / 50) ** -exponent * np.exp(shift[r] + noise * rng.standard_normal())
                    wrong = lr != 0.01
                    rows = [
                        ("valid", "force_mae", value * (2 if wrong else 1), "meV/Å"),
                        ("test_500K", "force_mae", value * (0.5 if wrong else 1), "meV/Å"),
                        ("test_1000K", "force_mae", 3 * value, "meV/Å"),
                        ("", "train_seconds", float(n), "s"),
                    ]
                    if speed:
                        time = speed[architecture] * np.exp(0.01 * rng.standard_normal())
                        rows.append(("", "us_per_atom", time, "µs"))
                    if survival:
                        rows.append(("500K", "md_survival", survival[architecture], ""))
                    for split, name, v, unit in rows:
                        width = 0.02 * v if name == "force_mae" else np.nan
                        metrics.append({**common, "split": split, "metric": name, "value": v, "unit": unit,
                                        "lower": v - width, "upper": v + width,
                                        "n": 16 if name == "md_survival" else 200})  # fmt: skip
    return pd.DataFrame(trials), pd.DataFrame(metrics)
