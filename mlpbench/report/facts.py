"""Conditions of a study in words: budget, hardware, level of theory, data; and what went wrong."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from mlpbench.numbers import THIN, listing, number, plural, seconds
from mlpbench.study.study import Study, remembered, rows_of, unique
from mlpbench.study.words import natural

MACHINE = ["device", "device_name", "cpu", "threads"]
UNSTATED = "not stated"
WRONG = ("failed", "timeout", "out_of_memory", "interrupted", "skipped")


def budget(config: dict[str, Any]) -> str:
    """The training budget of one trial, e.g. ``100 epochs, at most 3600 s``."""
    limits = config.get("budget") or {}
    parts = [plural(int(limits[key]), key.removesuffix("s")) for key in ("epochs", "steps") if limits.get(key)]
    if limits.get("seconds"):
        parts.append(seconds(float(limits["seconds"])))
    text = ("at most " if len(parts) > 1 or limits.get("patience") else "") + " or ".join(parts)
    if limits.get("patience"):
        text += f", ended early after {limits['patience']} epochs without improvement"
    return text or "no stated limit"


@remembered
def budgets(study: Study, dataset: str | None = None) -> list[str]:
    """The different budgets of the study's trials."""
    return sorted({budget(config) for config in study.config(dataset)}, key=natural)


def level_of_theory(study: Study, dataset: str) -> str:
    """Functional, basis and code of the labels, as the configuration states it, else the file's headers."""
    stated = [(config.get("dataset") or {}).get("level_of_theory") for config in study.config(dataset)]
    found = [level for level in unique([*stated, *study.split_info(dataset, "level_of_theory")]) if level != UNSTATED]
    return " / ".join(found) if found else UNSTATED


def hardware(row: dict[str, Any]) -> str:
    """One trial's hardware, e.g. ``1 thread of Example CPU 3000``."""
    name, device = row.get("device_name"), str(row.get("device") or "cpu")
    cpu = row.get("cpu") if isinstance(row.get("cpu"), str) and row.get("cpu") else "a CPU"
    cpu = re.sub(r"\((R|TM)\)", "", str(cpu))
    threads = row.get("threads")
    count = plural(int(threads), "thread") if threads is not None and threads == threads else "threads not recorded"
    if device.startswith("cuda"):
        return f"{name if isinstance(name, str) and name else device} (with {count} of {cpu})"
    return f"{count} of {cpu}"


def machines(table: pd.DataFrame) -> list[str]:
    """The different hardware that rows of the trials table ran on; trials that never started count as
    none.
    """
    known = table[table["status"].isin(["done"])] if "status" in table and (table["status"] == "done").any() else table
    return sorted({hardware(row) for row in rows_of(known[MACHINE].drop_duplicates())})


def train_sizes(study: Study, dataset: str) -> list[int]:
    """Numbers of training frames, ascending."""
    return sorted(int(n) for n in study.trials.loc[study.trials["dataset"] == dataset, "n_train"].unique())


def statuses(study: Study) -> str:
    """How many trials ended how, e.g. ``33 of 36 trials done; 2 failed, 1 interrupted``."""
    counts = study.trials["status"].value_counts()
    total, done = len(study.trials), int(counts.get("done", 0))
    rest = [f"{int(counts[s])} {s.replace('_', ' ')}" for s in WRONG if counts.get(s, 0)]
    return f"{done} of {plural(total, 'trial')} done" + (f"; {listing(rest)}" if rest else "")


def unrested(table: pd.DataFrame) -> pd.DataFrame:
    """The trials that are done, but whose training had not come to rest."""
    open_ended = (table["status"] == "done").to_numpy() & ~table["at_rest"].map(rested).to_numpy(dtype=bool)
    found: pd.DataFrame = table[open_ended]
    return found


def rested(at_rest: Any) -> bool:
    """Whether a training is known to have come to rest."""
    return at_rest is True or bool(at_rest == True)  # noqa: E712


@remembered
def split_words(study: Study, dataset: str, split: str) -> str:
    """A split with its role, e.g. ``test_500K (in distribution, 200 frames)``."""
    role = "in distribution" if split == study.in_distribution(dataset) else "out of distribution"
    counts = unique([
        (r.get("split") or {}).get("counts", {}).get(split) for r in study.records
        if (r.get("identifiers") or {}).get("dataset") == dataset
    ])  # fmt: skip
    frames = f", {number(int(counts[0]))}{THIN}frames" if counts else ""
    return f"{split} ({role if split != 'valid' else 'validation'}{frames})"
