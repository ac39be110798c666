"""What a potential costs: error against training seconds, the price of computing, and when it is paid back.

The potential of a trial is the checkpoint with the lowest validation loss, so at any moment of the training there is
one already: the best so far. Its validation error is recorded with the seconds that the package's own loop had run by
then, validation included. It is the error on the validation frames, by which the checkpoint was chosen; not on test
frames.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlpbench.config.setup import conf_dirs
from mlpbench.errors import UserError
from mlpbench.evaluators.training import Payback, payback
from mlpbench.frames import Float
from mlpbench.metrics import metric
from mlpbench.numbers import number, seconds
from mlpbench.report import facts
from mlpbench.report.estimates import geometric
from mlpbench.report.section import Cell, Column, Table
from mlpbench.report.timings import Timed, Way, beside, unlike
from mlpbench.study.study import Study, remembered, rows_of, select

KEYS = {"force_mae": "valid_force_mae", "energy_mae": "valid_energy_mae"}
POINTS = 60
MOST_TRIALS = 300  # curves are read one by one; of a larger study, those of its largest training size


@dataclass(frozen=True)
class Pace:
    """The trials of one candidate at one number of training frames.

    Attributes:
        candidate: its label.
        n_train: training frames.
        curves: for each trial (2, n): seconds, and the validation error of the best checkpoint so far, eV/Å or
            eV/atom; an error may rise where the loss, which also counts the energies, fell.
        rested: how many of the trials came to rest.
    """

    candidate: str
    n_train: int
    curves: tuple[Float, ...]
    rested: int

    def mean(self) -> Float:
        """(4, m): seconds, geometric mean over the trials, lowest and highest; where all trials have an error."""
        start, end = max(c[0, 0] for c in self.curves), min(c[0, -1] for c in self.curves)
        if not 0 < start < end:
            return np.empty((4, 0))
        at = np.geomspace(start, end, POINTS)
        errors = np.array([_at(curve, at) for curve in self.curves])
        return np.array([at, np.exp(np.log(errors).mean(axis=0)), errors.min(axis=0), errors.max(axis=0)])

    def seconds_to(self, target: float) -> list[float | None]:
        """For each trial the seconds after which its error first was at most ``target``; None where it never was."""
        reached = []
        for at, error in self.curves:
            below = np.flatnonzero(error <= target)
            reached.append(float(at[below[0]]) if len(below) else None)
        return reached

    @property
    def last(self) -> float:
        """Geometric mean of the errors at the end."""
        return float(np.exp(np.mean([np.log(curve[1, -1]) for curve in self.curves])))


def _at(curve: Float, at: Float) -> Float:
    """The error of the last validation at or before each moment."""
    return np.asarray(curve[1][np.searchsorted(curve[0], at, side="right") - 1], dtype=np.float64)


def best_so_far(points: list[dict[str, Any]], key: str) -> Float:
    """(2, n): seconds, and ``key`` at the epoch with the lowest validation loss so far."""
    known = [p for p in points if all(p.get(k) is not None for k in ("seconds", "valid_loss", key)) and p[key] > 0]
    best, lowest, error = [], np.inf, np.nan
    for point in known:
        if point["valid_loss"] < lowest:
            lowest, error = point["valid_loss"], float(point[key])
        best.append((float(point["seconds"]), error))
    return np.array(best, dtype=np.float64).reshape(-1, 2).T


@remembered
def paces(study: Study, dataset: str, metric: str) -> list[Pace]:
    """Chosen candidates at each number of training frames, finished trials only, the largest size first."""
    done = select(study.table, dataset=dataset, status="done")
    done = done[done["candidate"].isin(study.lines(dataset))]
    if len(done) > MOST_TRIALS:
        done = done[done["n_train"] == done["n_train"].max()].head(MOST_TRIALS)
    paces_of_trials = []
    for (candidate, n_train), part in done.groupby(["candidate", "n_train"], sort=False):
        curves, rested = [], 0
        for row in rows_of(part):
            curve = best_so_far(study.curve(str(row["trial"])), KEYS[metric])
            if curve.shape[1] > 1:
                curves.append(curve)
                rested += row["at_rest"] == True  # noqa: E712  # NaN is neither
        if curves:
            paces_of_trials.append(Pace(str(candidate), int(str(n_train)), tuple(curves), rested))
    return sorted(paces_of_trials, key=lambda one: (-one.n_train, one.last))


FILE = "prices.yaml"


class Prices(BaseModel):
    """The content of ``conf/prices.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    currency: str = "EUR"
    cpu_core_hour: float | None = Field(default=None, ge=0, description="one core or thread for one hour")
    gpu_hour: float | None = Field(default=None, ge=0, description="one GPU for one hour")
    source: str | None = Field(default=None, description="where the prices come from")

    def per_second(self, on_gpu: bool, threads: int) -> float | None:
        """Price of one second on one GPU, or on ``threads`` threads of a CPU; None if it is not known."""
        price = self.gpu_hour if on_gpu else self.cpu_core_hour
        return None if price is None else price * (1 if on_gpu else threads) / 3600


def load_prices() -> Prices:
    """The prices of the first configuration folder that has them; without any nothing is said in money.

    Raises:
        UserError: the file is no YAML, or says something else than prices.
    """
    own = Path(os.environ.get("MLPBENCH_CONF") or "conf")  # one with nothing but prices in it is no Hydra folder
    path = next((folder / FILE for folder in [own, *conf_dirs()] if (folder / FILE).is_file()), None)
    if path is None:
        return Prices()
    try:
        return Prices.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, ValidationError) as error:
        text = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read: {text}", "Mend it, or remove it.") from error


def payback_table(study: Study, dataset: str, ran: list[Way], references: list[Timed]) -> Table | None:
    """Break-even of the eager and the fastest way of each candidate, in steps, core-hours and money."""
    prices = load_prices()
    rows = []
    for way in _shown(ran):
        reference = beside(way, references)
        if reference is None:
            return None
        wall = _payback(study, way, reference, 1.0, 1.0)
        on_cpu = not (way.on_gpu or reference.on_gpu)
        cores = _payback(study, way, reference, reference.threads / 3600, way.threads / 3600) if on_cpu else None
        row = [
            Cell(way.candidate), Cell(f"{way.run_as}, {way.precision}"),
            Cell(seconds(wall.labels), wall.labels), Cell(seconds(wall.training), wall.training),
            *_steps(study, way, wall),
            *([Cell(number(cores.invested), cores.invested), _count(cores)] if cores is not None else [Cell("–")] * 2),
        ]  # fmt: skip
        rates = prices.per_second(reference.on_gpu, reference.threads), prices.per_second(way.on_gpu, way.threads)
        if None not in rates:
            money = _payback(study, way, reference, float(rates[0] or 0.0), float(rates[1] or 0.0))
            row += [Cell(number(money.invested), money.invested), _count(money)]
        elif prices.cpu_core_hour is not None or prices.gpu_hour is not None:
            row += [Cell("–", note="no price for this hardware in conf/prices.yaml")] * 2
        rows.append([*row, Cell(f"{reference.name}{unlike(way, reference)}")])
    if not rows:
        return None
    columns = [
        Column("Potential", numeric=False), Column("run as", numeric=False),
        Column("labels", note="training and validation frames × measured seconds of the reference"),
        Column("training", note="wall time"),
        Column("paid back after", "MD steps", metric("breakeven_steps").description),
        Column("that is", "ps"),
        Column("invested", "core-hours", "labels and training, times the cores that each held; CPU only"),
        Column("paid back after", "steps, in core-hours", "when core-hours are counted and not wall time"),
    ]  # fmt: skip
    if len(rows[0]) > len(columns) + 1:
        columns += [Column("invested", prices.currency), Column("paid back after", f"steps, in {prices.currency}")]
    columns.append(Column("against", numeric=False))
    caption = (
        f"Break-even against the reference method, {dataset}: after so many MD steps the labels and the training are "
        "paid back, (labels × reference + training) / (reference − MD step). "
        + (f"Prices: {prices.source or 'conf/prices.yaml, no source stated'}." if len(columns) > 9 else
           "With prices in conf/prices.yaml it is given in money too.")
    )  # fmt: skip
    return Table(f"payback-{dataset}", caption, columns, rows)


def _shown(ran: list[Way]) -> list[Way]:
    """Of each candidate on each machine the eager way, and the fastest where that is another."""
    ways: list[Way] = []
    for place in dict.fromkeys((way.candidate, way.machine) for way in ran):
        mine = [way for way in ran if (way.candidate, way.machine) == place]
        eager = [way for way in mine if way.deployment == "eager"][:1]
        ways += [*eager, *(way for way in mine[:1] if way not in eager)]
    return ways


def _payback(study: Study, way: Way, reference: Timed, reference_rate: float, own_rate: float) -> Payback:
    records = [study.record[trial] for trial in way.trials]
    identifiers = records[0]["identifiers"]
    return payback(
        int(identifiers["n_train"]) + int(identifiers["n_valid"]),
        reference.seconds.value,
        geometric(record["training"]["wall_seconds"] for record in records),
        way.values["ms_per_md_step"].value / 1e3,
        reference_rate=reference_rate,
        training_rate=own_rate,
        step_rate=own_rate,
    )


def _steps(study: Study, way: Way, payback: Payback) -> list[Cell]:
    if payback.steps is None:
        return [Cell("never", math.inf, note="a step with the reference is not slower"), Cell("–")]
    timestep = float(study.record[way.trials[0]]["tasks"]["speed"]["values"]["timestep_fs"])
    picoseconds = payback.steps * timestep / 1e3
    return [_count(payback), Cell(number(picoseconds), picoseconds)]


def _count(payback: Payback) -> Cell:
    return Cell("never", math.inf) if payback.steps is None else Cell(number(round(payback.steps)), payback.steps)


def cost_table(study: Study, dataset: str, references: list[Timed]) -> Table | None:
    """What the trainings cost, one row a candidate and training size; means over repetitions on the same hardware."""
    done = select(study.table, dataset=dataset, status="done")
    done = done[done["candidate"].isin(study.lines(dataset))].dropna(subset=["train_seconds"])
    if done.empty:
        return None
    done = done.assign(machine=[facts.hardware(row) for row in rows_of(done)])
    energy = study.part(dataset, "train_energy", "").set_index("trial")["value"]
    step = study.part(dataset, "best_step", "").set_index("trial")["value"]
    rows = []
    for (candidate, n_train, machine), part in done.groupby(["candidate", "n_train", "machine"], sort=False):
        labels = int(part["n_train"].iloc[0] + part["n_valid"].iloc[0])
        spent = geometric(energy.reindex(part["trial"]))
        rows.append([
            Cell(str(candidate)), Cell(str(n_train), float(str(n_train))), Cell(str(machine)),
            _mean(part["train_seconds"], text=True),
            _mean(_device_seconds(study, dataset, part), text=True),
            _mean(part["train_peak_device_memory"].astype(float).fillna(part["train_peak_memory"])),
            Cell("–") if math.isnan(spent) else Cell(number(float(spent)), float(spent)),
            _mean(part["n_parameters"], whole=True), _mean(part["epochs"], whole=True),
            _mean(part["best_epoch"], whole=True), _mean(step.reindex(part["trial"]), whole=True),
            Cell(str(labels), labels), *_label_cost(labels, references),
        ])  # fmt: skip
    columns = [
        Column("Potential", numeric=False), Column("n_train", "frames"), Column("hardware", numeric=False),
        Column("training", note=metric("train_seconds").description),
        Column("on devices", note=metric("train_device_seconds").description),
        Column("memory", "MB", metric("train_peak_memory").description),
        Column("energy", "Wh", metric("train_energy").description),
        Column("parameters"), Column("epochs"), Column("best epoch"), Column("best step", "", "of the optimiser"),
        Column("labels", "frames", "training and validation"),
        Column("labels cost", "", "labels × measured time of the reference method"),
    ]  # fmt: skip
    return Table(
        f"training-cost-{dataset}",
        f"What one training cost, {dataset}; geometric means over repetitions on the same hardware. Energy: on NVIDIA "
        "GPUs only.",
        columns,
        rows,
        headers=2,
    )


def _mean(values: pd.Series, *, text: bool = False, whole: bool = False) -> Cell:
    mean = geometric(values.astype(float))
    if math.isnan(mean):
        return Cell("–")
    return Cell(seconds(mean) if text else number(round(mean) if whole else mean), mean)


def _device_seconds(study: Study, dataset: str, part: pd.DataFrame) -> pd.Series:
    known = study.part(dataset, "train_device_seconds", "").set_index("trial")["value"]
    return known.reindex(part["trial"])


def _label_cost(labels: int, references: list[Timed]) -> list[Cell]:
    if not references:
        return [Cell("–", note="the reference method was not timed")]
    total = labels * references[0].seconds.value
    return [Cell(seconds(total), total, note=f"{references[0].name} on {references[0].machine}")]
