"""In against out of distribution: the errors on each test split, and their ratio to the one in
distribution.
"""

from __future__ import annotations

from mlpbench.metrics import HEADLINE, error_word, metric
from mlpbench.numbers import interval, number
from mlpbench.report import facts
from mlpbench.report.drawing import canvas, legend, logarithmic, looks, series
from mlpbench.report.estimates import cells
from mlpbench.report.section import Block, Cell, Column, Figure, Panel, Section, Table, mean_cell, trivial_cell
from mlpbench.statistics.intervals import MeanInterval, intervals
from mlpbench.study.rows import natural
from mlpbench.study.study import Study, remembered, select

ORDER = 45


def build(study: Study) -> Section | None:
    """A table and a figure for each data set that has a split out of distribution."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        if len(study.test_splits(dataset)) > 1 and study.lines(dataset):
            blocks += [_figure(study, dataset), _table(study, dataset)]
            finding = finding or _finding(study, dataset)
    return Section("transfer", "Out of distribution", finding, blocks) if blocks else None


def _figure(study: Study, dataset: str) -> Figure:
    splits, name = sorted(study.test_splits(dataset), key=natural), study.headline(dataset)
    n_train = study.largest(dataset)
    entry, style = metric(name), looks(study)
    tables = {split: cells(study, dataset, name, split) for split in splits}
    names = [c for c in study.lines(dataset) if any((c, n_train) in t for t in tables.values())]
    with canvas(5.6, 3.3) as (figure, axes):
        for index, candidate in enumerate(names):
            shift = 0.1 * (index - (len(names) - 1) / 2)
            found = {i + shift: tables[split].get((candidate, n_train)) for i, split in enumerate(splits)}
            means = {x: mean for x, mean in found.items() if mean is not None}
            series(axes, list(means), list(means.values()), style[candidate], candidate, line=0.9)
        logarithmic(axes, "y")
        axes.set_xticks(
            range(len(splits)),
            [s + ("\nin distribution" if s == study.in_distribution(dataset) else "") for s in splits],
        )
        axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
        legend(axes)
    caption = (
        f"{entry.symbol} on each test split of {dataset}, {n_train} training frames: "
        f"{facts.mean_words(study, dataset, n_train)}, with 95 % interval. "
        f"{'; '.join(facts.split_words(study, dataset, s) for s in splits)}."
    )
    alt = f"{entry.symbol} on {', '.join(splits)} for {', '.join(names)}; numbers in the table below."
    return Figure(caption, [Panel(f"transfer-{dataset}", figure, alt)])


def _table(study: Study, dataset: str) -> Table:
    splits = study.test_splits(dataset)
    present = study.metrics_of(dataset)
    n_train = study.largest(dataset)
    rows = [
        [
            Cell(candidate),
            Cell(metric(name).symbol),
            *_errors(study, dataset, candidate, name, splits, n_train),
        ]
        for name in reversed(HEADLINE)
        if name in present
        for candidate in study.lines(dataset)
    ]
    for name in reversed(HEADLINE):
        trivial = [facts.trivial_errors(study, dataset, split).get(name) for split in splits]
        if name in present and any(trivial):
            ratios = [Cell("–")] * (len(splits) - 1)
            rows.append([Cell(facts.TRIVIAL), Cell(metric(name).symbol), *map(trivial_cell, trivial), *ratios])
    columns = [
        Column("Candidate", numeric=False),
        Column("Metric", numeric=False),
        *(Column(f"{split}", "") for split in splits),
        *(
            Column(f"ratio {split}", "", f"error on {split} over error on {splits[0]}, paired by trial")
            for split in splits[1:]
        ),
    ]
    caption = (
        f"Errors on each split of {dataset} (energy in meV/atom, forces in meV/Å) and their ratio to "
        f"{splits[0]}, "
        f"{n_train} training frames; 95 % intervals over repetitions."
    )
    legend = facts.TRIVIAL_WORDS if any(row[0].text == facts.TRIVIAL for row in rows) else ""
    return Table(f"transfer-{dataset}", caption, columns, rows, headers=2, legend=legend)


def _errors(study: Study, dataset: str, candidate: str, name: str, splits: list[str], n_train: int) -> list[Cell]:
    means = [cells(study, dataset, name, split).get((candidate, n_train)) for split in splits]
    ratios = [_ratios(study, dataset, name, split, n_train).get(candidate) for split in splits[1:]]
    bounds = [facts.trivial(study, dataset, name, split) for split in splits]
    shown = [mean_cell(mean, trivial=bound) for mean, bound in zip(means, bounds, strict=True)]
    return [*shown, *(_ratio_cell(ratio) for ratio in ratios)]


@remembered
def _ratios(study: Study, dataset: str, name: str, split: str, n_train: int) -> dict[str, MeanInterval]:
    """Candidate -> error on ``split`` over the one in distribution: the mean of the trials' own ratios.

    What differs between repetitions mostly cancels; the variance of the rest is pooled over candidates.
    """
    base = study.part(dataset, name, str(study.in_distribution(dataset))).set_index("trial")["value"]
    part = select(study.part(dataset, name, split), n_train=n_train)
    if part.empty:  # a split without such labels: scans and paths often have energies alone
        return {}
    part = part.assign(ratio=part["value"] / part["trial"].map(base)).dropna(subset=["ratio"])
    wide = part.pivot_table(index="repetition", columns="candidate", values="ratio", sort=False)
    means = intervals([wide[c].to_numpy() for c in wide], groups=list(wide)) if len(wide) else []
    return dict(zip(map(str, wide.columns), means, strict=True))


def _ratio_cell(mean: MeanInterval | None) -> Cell:
    if mean is None:
        return Cell("–")
    return Cell(number(mean.value, mean.lower, mean.upper), mean.value, interval(mean.lower, mean.upper))


def _finding(study: Study, dataset: str) -> str:
    """The split on which errors grow most, and by how much."""
    name, n_train = study.headline(dataset), study.largest(dataset)
    means: dict[str, list[float]] = {}
    for split in study.test_splits(dataset)[1:]:
        found = _ratios(study, dataset, name, split, n_train)
        means[split] = [found[c].value for c in study.lines(dataset) if c in found]
    means = {split: values for split, values in means.items() if values}
    if not means:
        return ""
    worst = max(means, key=lambda split: max(means[split]))
    low, high = min(means[worst]), max(means[worst])
    span = number(low) if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
    what = error_word(name).capitalize()
    return f"{what} errors on {worst} are {span} times those in distribution."
