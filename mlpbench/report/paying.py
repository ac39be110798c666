"""Tables of what a potential cost, and when that is paid back by the steps that the reference method need not take."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from mlpbench.evaluators.cost import Payback, payback
from mlpbench.metrics import metric
from mlpbench.numbers import number, seconds
from mlpbench.report import facts
from mlpbench.report.prices import load_prices
from mlpbench.report.section import Cell, Column, Table
from mlpbench.report.timed import Timed, beside, unlike
from mlpbench.report.ways import Way
from mlpbench.study.study import Study, rows_of, select


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
    found: list[Way] = []
    for place in dict.fromkeys((way.candidate, way.machine) for way in ran):
        mine = [way for way in ran if (way.candidate, way.machine) == place]
        eager = [way for way in mine if way.deployment == "eager"][:1]
        found += [*eager, *(way for way in mine[:1] if way not in eager)]
    return found


def _payback(study: Study, way: Way, reference: Timed, reference_rate: float, own_rate: float) -> Payback:
    records = [study.record[trial] for trial in way.trials]
    identifiers = records[0]["identifiers"]
    return payback(
        int(identifiers["n_train"]) + int(identifiers["n_valid"]),
        reference.seconds.value,
        float(np.mean([record["training"]["wall_seconds"] for record in records])),
        way.values["ms_per_md_step"].value / 1e3,
        reference_rate=reference_rate,
        training_rate=own_rate,
        step_rate=own_rate,
    )


def _steps(study: Study, way: Way, found: Payback) -> list[Cell]:
    if found.steps is None:
        return [Cell("never", math.inf, note="a step with the reference is not slower"), Cell("–")]
    timestep = float(study.record[way.trials[0]]["tasks"]["speed"]["values"]["timestep_fs"])
    picoseconds = found.steps * timestep / 1e3
    return [_count(found), Cell(number(picoseconds), picoseconds)]


def _count(found: Payback) -> Cell:
    return Cell("never", math.inf) if found.steps is None else Cell(number(round(found.steps)), found.steps)


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
        spent = energy.reindex(part["trial"]).mean()
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
        f"What one training cost, {dataset}; means over repetitions on the same hardware. Energy is counted on NVIDIA "
        "GPUs only.",
        columns,
        rows,
        headers=2,
    )


def _mean(values: pd.Series, *, text: bool = False, whole: bool = False) -> Cell:
    mean = float(values.astype(float).mean())
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
