"""Training curves: validation error against epochs, trial by trial."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mlpbench.report import facts
from mlpbench.report.drawing import canvas, legend, logarithmic, looks
from mlpbench.report.section import Block, Figure, Panel, Section
from mlpbench.study.study import Study, select

ORDER = 55
POINTS = 120  # per curve; the page has to stay small with hundreds of trials
REPETITIONS = 5  # curves drawn per candidate


def build(study: Study) -> Section | None:
    """For each data set, the curves at the largest number of training frames."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        sizes = facts.train_sizes(study, dataset)
        table = select(study.table, dataset=dataset, n_train=sizes[-1])
        table = table[
            table["candidate"].isin(study.lines(dataset)) & (table["repetition"].rank(method="dense") <= REPETITIONS)
        ]
        curves = {t: c for t in table["trial"] if len(c := study.curve(t)) > 1}
        if curves:
            blocks.append(_figure(study, dataset, sizes[-1], table, curves))
    return Section("training", "Training curves", "", blocks) if blocks else None


def _figure(
    study: Study, dataset: str, n_train: int, table: pd.DataFrame, curves: dict[str, list[dict[str, Any]]]
) -> Figure:
    key, factor, unit = "valid_force_mae", 1e3, "meV/Å"
    if not any(point.get(key) is not None for curve in curves.values() for point in curve):
        key, factor, unit = "valid_energy_mae", 1e3, "meV/atom"
    panel = _panel(study, dataset, table, curves, key, factor, unit)
    caption = (
        f"Validation error during training, {dataset}, {n_train} training frames, one line for each repetition (not "
        "smoothed; long curves are thinned out). A cross marks the end of a trial that had not come to rest or did not "
        "finish. Against seconds: see the error against training seconds."
    )
    return Figure(caption, [panel])


def _panel(
    study: Study, dataset: str, table: pd.DataFrame, curves: dict[str, list[dict[str, Any]]],
    key: str, factor: float, unit: str,
) -> Panel:  # fmt: skip
    style, named = looks(study), set()
    with canvas() as (figure, axes):
        for row in table.sort_values("repetition").to_dict("records"):
            points = [(p["epoch"], p[key]) for p in curves.get(row["trial"], []) if p.get(key) is not None]
            if not points:
                continue
            x, y = _thin(np.array(points, dtype=float).T)
            look = style[row["candidate"]]
            label = None if row["candidate"] in named else row["candidate"]
            named.add(row["candidate"])
            axes.plot(x, factor * y, color=look.color, linestyle=look.dash, linewidth=1.0, label=label)
            if row["status"] != "done" or not facts.rested(row["at_rest"]):
                axes.plot(x[-1:], factor * y[-1:], linestyle="", marker="x", color=look.color, markersize=6)
        logarithmic(axes, "xy")
        axes.set_xlabel("epoch")
        quantity = "force" if "force" in key else "energy"
        axes.set_ylabel(f"validation {quantity} MAE ({unit})")
        legend(axes)
    alt = f"Validation {quantity} error against epochs for {', '.join(sorted(named))}."
    return Panel(f"training-{dataset}-epoch", figure, alt)


def _thin(points: Any) -> Any:
    """At most about ``POINTS`` of the (2, n) points, evenly spread on a logarithmic axis, ends included."""
    n = points.shape[1]
    if n <= POINTS:
        return points
    keep = np.unique(np.concatenate([np.geomspace(1, n, POINTS).astype(int) - 1, [0, n - 1]]))
    return points[:, keep]
