"""The order of the candidates at equal optimiser steps, at equal training seconds and at equal cost in MD.

Equal steps is not equal seconds, and one size of two architectures is not one speed. All three orders come from the
same trials at the largest number of training frames; none of them says which differences are decided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np

from mlpbench.evaluators.training import SOLVED
from mlpbench.metrics import error_word, metric
from mlpbench.numbers import listing, number, seconds
from mlpbench.report import facts
from mlpbench.report.costs import Pace, paces
from mlpbench.report.estimates import cells
from mlpbench.report.section import Block, Bullets, Cell, Column, Details, Table
from mlpbench.report.timings import ways
from mlpbench.study.study import Study, remembered, select

NEAR = 1.25  # candidates within this factor of the common cost in MD count as equally expensive
MOST_CHOICES = 5000  # combinations of sizes that are tried


@dataclass(frozen=True)
class Order:
    """Candidates by their mean error under one kind of equality.

    Attributes:
        errors: candidate -> geometric mean error in the unit of the main metric, best first.
        words: what is equal, and which error it is.
        caveat: what the order cannot say; empty where nothing.
    """

    errors: dict[str, float]
    words: str
    caveat: str = ""

    @property
    def sentence(self) -> str:
        """The order in one sentence."""
        order = ", ".join(f"{c} {number(e)}" for c, e in self.errors.items())
        return f"{self.words}: {order}.{' ' + self.caveat if self.caveat else ''}"


def orders(study: Study, dataset: str) -> list[Order]:
    """At equal steps, at equal training seconds and at equal cost in MD, as far as they were measured."""
    known = [by_steps(study, dataset), by_seconds(study, dataset), by_md_cost(study, dataset)]
    return [order for order in known if order is not None]


def equal_cost(study: Study, dataset: str) -> list[Block]:
    """The orders in words; and a table with the place of each candidate in each."""
    known = orders(study, dataset)
    if len(known) < 2:
        return []
    first = [c for c in known[0].errors]
    same = all(_agrees(first, list(order.errors)) for order in known[1:])
    head = (
        "The order of the means is the same at equal steps and at equal cost."
        if same
        else "The order of the means depends on what is held equal."
    )
    bullets = Bullets([order.sentence for order in known], "note")
    return [Details(head, [bullets, _table(study, dataset, known)])]


def _agrees(first: list[str], other: list[str]) -> bool:
    return [c for c in first if c in other] == other


def by_steps(study: Study, dataset: str) -> Order | None:
    """Test errors of the finished trainings, as the comparison table has them."""
    split, n_train, name = study.in_distribution(dataset), study.largest(dataset), study.headline(dataset)
    if split is None:
        return None
    means = {c: mean.value for (c, n), mean in cells(study, dataset, name, split).items() if n == n_train}
    means = {c: value for c, value in means.items() if c in study.lines(dataset)}
    if len(means) < 2:
        return None
    done = select(study.table, dataset=dataset, n_train=n_train, status="done")
    steps = sorted({int(s) for s in done["steps"].dropna()})
    if len(steps) == 1:
        words = f"At {steps[0]} optimiser steps each"
    elif steps:
        words = f"As trained, at {steps[0]} to {steps[-1]} optimiser steps"
    else:
        words = "As trained"
    caveat = "" if len(steps) < 2 else "The steps are not equal: give all the same budget.steps."
    solved = sorted({str(name) for name in done.loc[done["stopped_by"] == SOLVED, "candidate"]} & set(means))
    caveat += f"{' ' * bool(caveat)}{listing(solved)}: solved at once, without steps." if solved else ""
    return Order(_sorted(means), f"{words} ({metric(name).symbol} on {split}, {n_train} training frames)", caveat)


def by_seconds(study: Study, dataset: str) -> Order | None:
    """Validation errors at the time that the quickest training took; test errors exist for the final potentials alone.

    Only where all trainings ran on the same hardware.
    """
    done = select(study.table, dataset=dataset, n_train=study.largest(dataset), status="done")
    if len(facts.machines(done)) != 1:
        return None
    paces = largest_paces(study, dataset)
    if len(paces) < 2:
        return None
    at = common_seconds(paces)
    means = {one.candidate: 1e3 * error for one in paces if (error := error_at(one, at)) is not None}
    late = [one.candidate for one in paces if one.candidate not in means]
    cut = [one.candidate for one in paces if min(c[0, -1] for c in one.curves) > 1.02 * at]
    caveat = f"{listing(late)} had no validation by then. " if late else ""
    if cut:
        caveat += (
            f"{listing(cut)} {'was' if len(cut) == 1 else 'were'} cut off before the learning rate had come down: "
            "planned for that time they would do better."
        )
    words = f"At {seconds(at)} of training each (validation {error_word(study.headline(dataset))} error, best so far)"
    return Order(_sorted(means), words, caveat.strip())


@remembered
def largest_paces(study: Study, dataset: str) -> list[Pace]:
    """The training curves against seconds at the largest number of training frames."""
    n_train = study.largest(dataset)
    return [one for one in paces(study, dataset, study.headline(dataset)) if one.n_train == n_train]


def common_seconds(paces: list[Pace]) -> float:
    """The end of the quickest training, s: every training has been there."""
    return min(float(curve[0, -1]) for one in paces for curve in one.curves)


def error_at(one: Pace, at: float) -> float | None:
    """Geometric mean over trials of the error of the best checkpoint at ``at`` s, eV/Å or eV/atom; None before one."""
    if any(curve[0, 0] > at for curve in one.curves):
        return None
    errors = [curve[1, np.searchsorted(curve[0], at, side="right") - 1] for curve in one.curves]
    return float(np.exp(np.log(errors).mean()))


def by_md_cost(study: Study, dataset: str) -> Order | None:
    """Test errors of the sizes, one of each architecture, whose times per atom lie nearest to each other."""
    times = md_costs(study, dataset)
    errors = {c: e for c, e in (by_steps(study, dataset) or Order({}, "")).errors.items() if c in times}
    sizes: dict[str, dict[str, float]] = {}
    for candidate in study.candidates_of(dataset):
        if candidate.name in errors:
            sizes.setdefault(candidate.architecture, {})[candidate.name] = times[candidate.name]
    if len(sizes) < 2:
        return None
    names, common = nearest(sizes)
    far = [c for c in names if not 1 / NEAR <= times[c] / common <= NEAR]
    spread = ", ".join(f"{c} {number(times[c])}" for c in names)
    caveat = (
        f"Not equal: {listing(far)} {'is' if len(far) == 1 else 'are'} more than {100 * (NEAR - 1):.0f} % away from "
        "it; further sizes (size=tiny,small,medium) bring them nearer."
        if far
        else ""
    )
    words = f"At {number(common)} µs per atom in MD each, as near as the sizes come ({spread}; test error)"
    return Order({c: e for c, e in errors.items() if c in names}, words, caveat)


def md_costs(study: Study, dataset: str) -> dict[str, float]:
    """Candidate -> µs per atom and call, run in its fastest way on the machine that timed most of them."""
    ran = [way for way in ways(study, dataset) if way.values]
    if not ran:
        return {}
    machines = [way.machine for way in ran]
    machine = max(dict.fromkeys(machines), key=machines.count)
    costs: dict[str, float] = {}
    for way in ran:  # fastest first
        if way.machine == machine:
            costs.setdefault(way.candidate, way.values["us_per_atom"].value)
    return costs


def nearest(sizes: Mapping[str, Mapping[str, float]]) -> tuple[list[str], float]:
    """One candidate of each architecture, so that their costs differ by the smallest factor; and their middle cost.

    Args:
        sizes: architecture -> candidate -> cost, positive.
    """
    choices = [list(costs.items()) for costs in sizes.values()]
    while math.prod(map(len, choices)) > MOST_CHOICES:  # of very many sizes, the middle ones
        longest = max(choices, key=len)
        longest.sort(key=lambda item: item[1])
        longest.pop(0 if longest[0][1] < min(c for other in choices for _, c in other if other is not longest) else -1)
    best = min(product(*choices), key=lambda some: max(c for _, c in some) / min(c for _, c in some))
    costs = [cost for _, cost in best]
    return [name for name, _ in best], math.sqrt(min(costs) * max(costs))


def _sorted(means: dict[str, float]) -> dict[str, float]:
    return dict(sorted(means.items(), key=lambda item: item[1]))


def _table(study: Study, dataset: str, rankings: list[Order]) -> Table:
    unit = metric(study.headline(dataset)).unit
    times = md_costs(study, dataset)
    heads = ["As trained", "At equal seconds", "At equal MD cost"]
    kinds = [by_steps(study, dataset), by_seconds(study, dataset), by_md_cost(study, dataset)]
    columns = [Column("Candidate", numeric=False)]
    for head, order in zip(heads, kinds, strict=True):
        if order in rankings and order is not None:
            columns += [Column(head, unit, order.words), Column("Place", "", f"{head.lower()}: place by the mean")]
    columns += [Column("Time in MD", "µs per atom", "one call, its fastest way to run")] if times else []
    rows = []
    for candidate in rankings[0].errors:
        row = [Cell(candidate)]
        for order in rankings:
            place = list(order.errors).index(candidate) + 1 if candidate in order.errors else None
            error = order.errors.get(candidate)
            row += [Cell(number(error), error), Cell("–") if place is None else Cell(str(place), place)]
        if times:
            row.append(Cell(number(times.get(candidate)), times.get(candidate)))
        rows.append(row)
    caption = (
        f"What is held equal, {dataset}, {study.largest(dataset)} training frames: geometric means over repetitions; "
        "test errors of the final potentials, but validation errors at equal seconds, since no others exist on "
        "the way. Which differences are decided says 'How firm is the ranking?'."
    )
    return Table(f"equal-cost-{dataset}", caption, columns, rows)
