"""What a person sees while trials run: one line a trial, moving on a terminal, still in a log."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mlpbench.numbers import duration, plural
from mlpbench.records import load_all
from mlpbench.study.artefacts import State, Status
from mlpbench.study.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

_REFRESH_SECONDS = 0.5  # on a terminal
_LINE_SECONDS = 60.0  # in a log: long simulations say now and then how far they are


def announce(standings: Sequence[Status]) -> None:
    """Say how many trials there are, how many are done already, and where results will lie."""
    states = Counter(standing.state for standing in standings)
    parts = [f"{count} {name}" for name, count in states.items()]
    trials = [standing.trial for standing in standings]
    for warning in sorted({warning for trial in trials for warning in trial.split.warnings}):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    roots = sorted({str(_short(trial.study_root)) for trial in trials})
    print(
        f"{len(trials)} trial{'s' * (len(trials) != 1)}: {', '.join(parts)}; results in {', '.join(roots)}", flush=True
    )


class Progress:
    """The line of one running trial.

    Args:
        standing: where the trial stood when the command began.
        number: its place among the command's trials, from 1.
        total: how many there are.
        shared: other trials report on the same terminal: whole lines only.
    """

    def __init__(self, standing: Status, number: int, total: int, *, shared: bool = False) -> None:
        self.standing = standing
        self.trial: Trial = standing.trial
        self.head = f"[{number}/{total}] {self.trial.name}"
        self.live = sys.stdout.isatty() and not shared
        self._last = 0.0
        self._start = time.monotonic()
        self.found: State = standing.state

    def __enter__(self) -> Self:
        todo = self.standing.outstanding
        if todo and not self.live and self.trial.skip is None:
            print(f"{self.head}: {', '.join(task.name for task in todo)}", flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self.live:
            print(flush=True)

    def event(self, event: dict[str, Any]) -> None:
        """Show an event of the worker, on a terminal at most twice a second; in a log only simulations, rarely."""
        pause = _REFRESH_SECONDS if self.live else _LINE_SECONDS
        if time.monotonic() - self._last < pause or not (self.live or event.get("event") == "md"):
            return
        self._last = time.monotonic()
        text = _describe(event, self.trial.config.budget.steps)
        if text and self.live:
            print(f"\r\x1b[2K{self.head}: {text}", end="", flush=True)
        elif text:
            print(f"{self.head}: {text}", flush=True)

    def done(self, record: dict[str, Any]) -> None:
        """The line that stays: status, the errors on the first test split, the time it took."""
        seconds = time.monotonic() - self._start
        text = record["status"] if not record["reason"] else f"{record['status']}: {record['reason']}"
        shown = {"cached": "cached", "to score": "rescored"}.get(self.found, f"{seconds:.0f} s")
        print(f"{'\r\x1b[2K' if self.live else ''}{self.head}: {text}{_headline(record)} ({shown})", flush=True)


def summary(trials: pd.DataFrame, names: Sequence[str], root: Path) -> str:
    """What came of the trials ``names`` of a study, and the commands that look at it."""
    rows = trials[trials["trial"].isin(list(names))]
    counts = ", ".join(f"{count} {status}" for status, count in rows["status"].value_counts().items())
    missing = len(set(names) - set(rows["trial"]))
    if missing:
        counts = ", ".join(part for part in (counts, f"{missing} without a record") if part)
    lines = [f"{counts} in {_short(root)}"]
    bad = rows[~rows["status"].isin(["done", "skipped"])]
    lines += [f"  {row.trial}: {row.status}: {row.reason}" for row in bad.itertuples()]
    lost = rows[rows["unfinished"] != ""]
    lines += [f"  {row.trial}: trained, but without what follows: {row.unfinished}" for row in lost.itertuples()]
    lines.append(f"tables: {_short(root)}/trials.csv, metrics.csv")
    lines.append(f"next: mlpbench table {root.name}, mlpbench report {root.name}")
    return "\n".join(lines)


def _describe(event: dict[str, Any], steps: int | None) -> str:
    kind = event.get("event")
    if kind == "epoch":
        of = f"/{steps}" if steps else ""
        force = event.get("valid_force_mae")
        valid = "" if force is None else f", valid F MAE {1e3 * force:.1f} meV/Å"
        left = ""
        if steps and event["step"]:
            left = f", about {event['seconds'] / event['step'] * max(0, steps - event['step']):.0f} s left"
        return f"step {event['step']}{of}{valid}, {event['seconds']:.0f} s{left}"
    if kind == "md":
        return _simulation(event)
    if kind == "task":
        return f"{event['task']} ..."
    if kind == "progress":
        return str(event.get("text", ""))
    return ""


def _simulation(event: dict[str, Any]) -> str:
    left = "about " + duration(event["left_seconds"]) + " left"
    if event.get("needed_seconds", 0.0) > event["left_seconds"] + 1:
        left += f" by its wall limit, {duration(event['needed_seconds'])} would be needed"
    everything = event.get("all_left_seconds", event["left_seconds"])
    more = f" ({duration(everything)} with what follows)" if everything > 1.01 * event["left_seconds"] + 1 else ""
    return f"md, {event['run']}: step {event['step']} of {event['steps']}, {event['alive']} replicas, {left}{more}"


def _headline(record: dict[str, Any]) -> str:
    split = record["split"].get("in_distribution") or ""
    values = {row["metric"]: row for row in record["metrics"] if row["split"] == split}
    parts = [
        f"{name} {values[key]['value']:.3g} {values[key]['unit']}"
        for name, key in (("E", "energy_mae"), ("F", "force_mae"))
        if key in values
    ]
    return f"; {split}: {', '.join(parts)}" if parts else ""


def _short(path: Path) -> Path:
    """Relative to here where that is shorter to read."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


class Estimate:
    """What is known of the time the trainings will take, from finished trials."""

    def __init__(self) -> None:
        self._records: dict[str, list[dict[str, Any]]] = {}
        self._seconds, self._unknown = 0.0, 0

    def of(self, trial: Trial) -> str:
        """The time of one training, in brackets; empty where it is not known."""
        root = str(trial.study_root)
        if root not in self._records:
            self._records[root] = load_all(trial.study_root)
        seconds = estimate_seconds(self._records[root], trial)
        self._unknown += seconds is None
        self._seconds += seconds or 0.0
        return f" (about {seconds:.0f} s)" if seconds is not None else ""

    def text(self) -> str:
        """Of all trainings asked for."""
        if not self._seconds and not self._unknown:
            return "nothing to train"
        known = f"about {self._seconds:.0f} s of training, from finished trials" if self._seconds else ""
        rest = (
            f"{plural(self._unknown, 'training')} without an estimate (none of that architecture and size has run)"
            if self._unknown
            else ""
        )
        return ", ".join(part for part in (known, rest) if part)


def estimate_seconds(records: Sequence[dict[str, Any]], trial: Trial) -> float | None:
    """Seconds a trial will take, from finished ones of the same architecture and size: time per training step.

    Returns None where there is none to learn from.
    """
    rates = [
        record["training"]["wall_seconds"] / record["training"]["steps"]
        for record in records
        if record["status"] == "done"
        and record["identifiers"]["architecture"] == trial.config.architecture.name
        and record["identifiers"]["size"] == trial.config.size
        and record["training"].get("steps")
    ]
    if not trial.iterates:
        return None
    budget, training = trial.config.budget, trial.config.training
    steps = budget.steps
    if steps is None and budget.epochs is not None:
        steps = budget.epochs * -(-trial.config.dataset.n_train // training.batch_size)
    if not rates or steps is None:
        return budget.seconds
    return float(median(rates) * steps)
