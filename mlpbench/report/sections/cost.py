"""Accuracy against what the training cost in seconds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlpbench.metrics import metric
from mlpbench.report import facts
from mlpbench.report.drawing import canvas, legend, logarithmic, looks, point
from mlpbench.report.estimates import cells, chosen, main_metric
from mlpbench.report.section import Block, Figure, Panel, Section
from mlpbench.report.study import Study, rows_of, select

ORDER = 35


def build(study: Study) -> Section | None:
    """One figure for each data set and each kind of hardware: times from different machines are never drawn
    together.
    """
    blocks: list[Block] = []
    for dataset in study.datasets:
        rows = select(study.table, dataset=dataset, status="done").dropna(subset=["train_seconds"])
        split = study.in_distribution(dataset)
        if rows.empty or split is None:
            continue
        rows = rows.assign(machine=[facts.hardware(row) for row in rows_of(rows)])
        panels = [
            _panel(study, dataset, split, str(machine), part, index)
            for index, (machine, part) in enumerate(rows.groupby("machine"))
        ]
        caption = (
            f"{metric(main_metric(study, dataset)).symbol} on {facts.split_words(study, dataset, split)} "
            f"against the wall time of "
            "one training (validation included). Each point is a candidate at one number of training "
            "frames, written beside "
            "it; lines join the training sizes. Lower left is better. An open symbol: at least one of its "
            "trials had not "
            "converged, so that its error would fall with a larger budget."
        )
        blocks.append(Figure(caption, panels))
    return Section("cost", "Error against training time", "", blocks) if blocks else None


def _panel(study: Study, dataset: str, split: str, machine: str, rows: pd.DataFrame, index: int) -> Panel:
    name = main_metric(study, dataset)
    entry, style = metric(name), looks(study)
    errors = cells(study, dataset, name, split)
    names = [c for c in chosen(study, dataset) if c in set(rows["candidate"])]
    with canvas(5.6, 3.5) as (figure, axes):
        for candidate in names:
            look, places = style[candidate], []
            for n_train, part in select(rows, candidate=candidate).groupby("n_train"):
                mean = errors.get((candidate, int(str(n_train))))
                if mean is not None:
                    time = float(np.exp(np.log(part["train_seconds"].astype(float)).mean()))
                    rested = len(facts.unconverged(part)) == 0
                    point(axes, time, mean, look, str(n_train), filled=rested)
                    places.append((time, mean.value))
            x, y = np.array(places).reshape(-1, 2).T
            axes.plot(x, y, color=look.color, linestyle=look.dash, linewidth=1.1)
            axes.plot([], [], color=look.color, linestyle=look.dash, marker=look.marker, label=candidate)
        logarithmic(axes, "xy")
        axes.set_xlabel("training time (s)")
        axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
        legend(axes)
    alt = f"{entry.symbol} against training seconds on {machine} for {', '.join(names)}."
    return Panel(f"cost-{dataset}-{index}", figure, alt, machine)
