"""Pareto fronts drawn: error against a cost."""

from __future__ import annotations

from mlpbench.metrics import metric
from mlpbench.numbers import listing
from mlpbench.report.drawing import INK, canvas, legend, logarithmic, looks, point
from mlpbench.report.options import front, options, speed_metric
from mlpbench.report.section import Panel
from mlpbench.study.study import Study

COSTS = {"train": ("training time", "s"), "labels": ("labels", "frames")}


def cost_kinds(study: Study, dataset: str) -> list[str]:
    """The costs in which the study's options differ, inference first."""
    found = options(study, dataset)
    return [k for k in ("speed", "train", "labels") if len({o.cost(k) for o in found if o.costs[k]}) > 1]


def cost_axis(study: Study, kind: str) -> tuple[str, str]:
    """A cost in words, and its unit."""
    if kind == "speed":
        entry = metric(str(speed_metric(study)))
        return entry.symbol, entry.unit
    return COSTS[kind]


def front_panel(
    study: Study, dataset: str, kind: str, *, name: str = "", size: tuple[float, float] = (4.5, 3.3)
) -> Panel:
    """Error against one cost, the Pareto front as a grey line; the number beside a point is its training frames.

    Args:
        study: the study.
        dataset: of it.
        kind: ``speed``, ``train`` or ``labels``.
        name: of the figure's file; by default of the front.
        size: inches.
    """
    found = options(study, dataset)
    entry, style = metric(study.headline(dataset)), looks(study)
    shown = [o for o in found if o.costs[kind]]
    several = len({o.n_train for o in shown}) > 1 and kind != "labels"
    on = front(found, kind)
    best = [next(o for o in shown if o.label == label) for label in on]
    words, unit = cost_axis(study, kind)
    with canvas(*size) as (figure, axes):
        steps = [(o.cost(kind), o.mean.value) for o in best]
        axes.step([s[0] for s in steps], [s[1] for s in steps], where="post", color=INK, alpha=0.35, linewidth=3)
        for candidate in [c for c in study.lines(dataset) if any(o.candidate == c for o in shown)]:
            mine = [o for o in shown if o.candidate == candidate]
            for o in mine:
                label = candidate if o is mine[0] else ""
                text = str(o.n_train) if several else ""
                point(axes, o.cost(kind), o.mean, style[candidate], text, filled=o.rested, label=label)
        logarithmic(axes, "xy")
        axes.set_xlabel(f"{words} ({unit})")
        axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
        legend(axes)
    alt = f"{entry.symbol} against {words}. On the Pareto front: {listing([o.label for o in best])}."
    return Panel(name or f"pareto-{dataset}-{kind}", figure, alt, f"Error against {words}")
