"""In against out of distribution: the errors on each test split, and their ratio to the one in distribution."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from mlpbench.metrics import metric
from mlpbench.report import facts
from mlpbench.report.drawing import canvas, legend, logarithmic, looks
from mlpbench.report.estimates import cells, chosen, main_metric
from mlpbench.report.numbers import interval, number
from mlpbench.report.section import Block, Cell, Column, Figure, Panel, Section, Table
from mlpbench.report.study import Study, select

ORDER = 45


def build(study: Study) -> Section | None:
    """A table and a figure for each data set that has a split out of distribution."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        if len(study.test_splits(dataset)) > 1 and chosen(study, dataset):
            blocks += [_figure(study, dataset), _table(study, dataset)]
    return Section("transfer", "Out of distribution", "", blocks) if blocks else None


def _figure(study: Study, dataset: str) -> Figure:
    splits, name = study.test_splits(dataset), main_metric(study, dataset)
    n_train = int(select(study.values, dataset=dataset)["n_train"].max())
    entry, style = metric(name), looks(study)
    tables = {split: select(cells(study, dataset, name, split), n_train=n_train).set_index("candidate") for split in splits}
    names = [c for c in chosen(study, dataset) if c in tables[splits[0]].index]
    with canvas(5.6, 3.3) as (figure, axes):
        for index, candidate in enumerate(names):
            look, shift = style[candidate], 0.1 * (index - (len(names) - 1) / 2)
            known = [i for i, split in enumerate(splits) if candidate in tables[split].index]
            rows = [tables[splits[i]].loc[candidate] for i in known]
            x = np.array(known) + shift
            axes.plot(x, [r["value"] for r in rows], color=look.color, linestyle=look.dash, linewidth=0.9, marker=look.marker,
                      label=candidate)  # fmt: skip
            ends = [(at, r["low"], r["high"]) for at, r in zip(x, rows, strict=True) if math.isfinite(r["low"])]
            axes.vlines([e[0] for e in ends], [e[1] for e in ends], [e[2] for e in ends], color=look.color, linewidth=1.3)
        logarithmic(axes, "y")
        axes.set_xticks(range(len(splits)), [s + ("\nin distribution" if not i else "") for i, s in enumerate(splits)])
        axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
        legend(axes, 4 if max(map(len, names), default=0) < 9 else 2)
    caption = (
        f"{entry.symbol} on each test split of {dataset}, {n_train} training frames: mean over repetitions with its 95 % interval. "
        f"{'; '.join(facts.split_words(study, dataset, s) for s in splits)}."
    )
    alt = f"{entry.symbol} on the splits {', '.join(splits)} for {', '.join(names)}; numbers in the table below."
    return Figure(caption, [Panel(f"transfer-{dataset}", figure, alt)])


def _table(study: Study, dataset: str) -> Table:
    splits = study.test_splits(dataset)
    present = set(select(study.metrics, dataset=dataset)["metric"])
    n_train = int(select(study.values, dataset=dataset)["n_train"].max())
    rows = [
        [Cell(candidate), Cell(metric(name).symbol), *_errors(study, dataset, candidate, name, splits, n_train)]
        for name in ("energy_mae", "force_mae") if name in present
        for candidate in chosen(study, dataset)
    ]  # fmt: skip
    columns = [
        Column("Candidate", numeric=False), Column("Metric", numeric=False),
        *(Column(f"{split}", "") for split in splits),
        *(Column(f"ratio {split}", "", f"error on {split} over error on {splits[0]}, paired by trial") for split in splits[1:]),
    ]  # fmt: skip
    caption = (
        f"Errors on each split of {dataset} (energy in meV/atom, forces in meV/Å) and their ratio to {splits[0]}, "
        f"{n_train} training frames; 95 % intervals over repetitions."
    )
    return Table(f"transfer-{dataset}", caption, columns, rows, headers=2)


def _errors(study: Study, dataset: str, candidate: str, name: str, splits: list[str], n_train: int) -> list[Cell]:
    row: list[Cell] = []
    for split in splits:
        found = select(cells(study, dataset, name, split), candidate=candidate, n_train=n_train)
        if len(found):
            r = found.iloc[0]
            row.append(Cell(number(r["value"], r["low"], r["high"]), float(r["value"]), interval(r["low"], r["high"])))
        else:
            row.append(Cell("–"))
    return row + [_ratio(study, dataset, candidate, name, split, splits[0], n_train) for split in splits[1:]]


def _ratio(study: Study, dataset: str, candidate: str, name: str, split: str, base: str, n_train: int) -> Cell:
    """The geometric mean of the trials' own ratios: what differs between repetitions mostly cancels."""
    from scipy import stats

    rows = select(study.values, dataset=dataset, candidate=candidate, metric=name, n_train=n_train)
    wide: pd.DataFrame = rows[rows["split"].isin([split, base])].pivot_table(index="trial", columns="split", values="value")
    if split not in wide or base not in wide:
        return Cell("–")
    logs = np.log(wide[split] / wide[base]).dropna()
    mean = float(logs.mean())
    half = float(stats.t.ppf(0.975, len(logs) - 1) * logs.std() / math.sqrt(len(logs))) if len(logs) > 1 else math.nan
    low, high = math.exp(mean - half), math.exp(mean + half)
    return Cell(number(math.exp(mean), low, high), math.exp(mean), interval(low, high))
