"""A synthetic study without files, as records give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.study.study import Study


def make(
    errors: dict[str, float],
    *,
    sizes: tuple[int, ...] = (50, 200),
    repetitions: int = 3,
    speed: dict[str, float] | None = None,
    survival: dict[str, float] | None = None,
    lrs: dict[str, tuple[float, ...]] | None = None,
    noise: float = 0.03,
    exponent: float = 0.5,
    seed: int = 0,
    failed: frozenset[str] = frozenset(),
    restless: frozenset[str] = frozenset(),
    validated: bool = True,
) -> Study:
    """Errors at N = 50 by architecture, a power law in N; test_1000K is three times worse.

    With ``lrs`` the second learning rate is twice worse on validation, but half as bad on test: a trap.
    """
    rng = np.random.default_rng(seed)
    records = []
    shift = noise * rng.standard_normal(repetitions)
    for architecture, error in errors.items():
        for n in sizes:
            for lr in (lrs or {}).get(architecture, (0.01,)):
                for r in range(repetitions):
                    value = error * (n / 50) ** -exponent * np.exp(shift[r] + noise * rng.standard_normal())
                    wrong = lr != 0.01
                    rows = [
                        ("test_500K", "force_mae", value * (0.5 if wrong else 1), "meV/Å"),
                        ("test_1000K", "force_mae", 3 * value, "meV/Å"),
                        ("", "train_seconds", float(n), "s"),
                    ]
                    if validated:
                        rows.append(("valid", "force_mae", value * (2 if wrong else 1), "meV/Å"))
                    if speed:
                        time = speed[architecture] * np.exp(0.01 * rng.standard_normal())
                        rows.append(("", "us_per_atom", time, "µs"))
                    if survival:
                        rows.append(("500K", "md_survival", survival[architecture], ""))
                    done = architecture not in failed
                    records.append(
                        record(architecture, n, r, lr, rows if done else [], "done" if done else "failed",
                               at_rest=architecture not in restless)
                    )  # fmt: skip
    return Study("demo", Path("nowhere"), records)


def record(
    architecture: str,
    n_train: int,
    repetition: int,
    lr: float,
    rows: list[tuple[str, str, float, str]],
    status: str = "done",
    *,
    at_rest: bool = True,
) -> dict[str, Any]:
    """A trial's record with nothing but what decisions read."""
    metrics = []
    for split, name, value, unit in rows:
        width = 0.02 * value if name == "force_mae" else np.nan
        metrics.append({
            "split": split, "metric": name, "value": value, "unit": unit, "lower": value - width,
            "upper": value + width, "n": 16 if name == "md_survival" else 200,
        })  # fmt: skip
    done = status == "done"
    return {
        "trial": f"{architecture}-{n_train}-{lr:g}-{repetition}", "study": "demo", "key": "k", "status": status,
        "reason": "" if done else "RuntimeError: no", "started": "", "finished": "", "metrics": metrics, "tasks": {},
        "identifiers": {"dataset": "ethanol", "architecture": architecture, "size": "tiny", "backend": architecture,
                        "n_train": n_train, "n_valid": 50, "repetition": repetition},
        "config": {"dtype": "float32", "training": {"lr": lr}, "dataset": {"n_train": n_train, "n_valid": 50}},
        "split": {"directory": "splits/r0", "split_seed": repetition, "in_distribution": "test_500K"},
        "training": {"at_rest": at_rest, "wall_seconds": float(n_train), "steps": 100} if done else {},
        "provenance": {"mlpbench": "0", "commit": "c", "init_seed": 100 + repetition,
                       "hardware": {"device": "cpu", "cpu": "a", "threads": 1},
                       "backend": {"lock": "", "python": "3", "versions": {}}},
    }  # fmt: skip
