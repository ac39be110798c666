"""What papers report for the same data set and split, ours beside it, and what differs."""

from __future__ import annotations

from typing import Any

from mlpbench.literature import Published, published_values
from mlpbench.metrics import metric
from mlpbench.numbers import interval, listing, number
from mlpbench.report import facts
from mlpbench.report.estimates import Estimate, cells
from mlpbench.report.section import Block, Cell, Column, Section, Table, mean_cell
from mlpbench.study.rows import display_name
from mlpbench.study.study import Study, rows_of, select

ORDER = 47


def build(study: Study) -> Section | None:
    """One table for each data set for which something is published on a split and in a metric that the study has."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        entries = [
            one for one in published_values(dataset)
            if one.split in study.splits_of(dataset) and one.metric in study.metrics_of(dataset, one.split)
        ]  # fmt: skip
        if entries:
            blocks.append(_table(study, dataset, entries))
            finding = finding or _finding(study, dataset, entries)
    return Section("published", "Published values", finding, blocks) if blocks else None


def _ours(study: Study, dataset: str, entry: Published) -> list[tuple[str, int, Estimate]]:
    """Our candidates of the entry's architecture, each at the training size nearest to the published one."""
    table = cells(study, dataset, entry.metric, entry.split)
    names = select(study.table, dataset=dataset, architecture=entry.architecture)["candidate"].unique()
    found = []
    for candidate in [c for c in study.lines(dataset) if c in names]:
        sizes = [n for c, n in table if c == candidate]
        if sizes:
            wanted = entry.n_train if entry.n_train is not None else max(sizes)
            nearest = min(sizes, key=lambda n: max(n / wanted, wanted / n))
            found.append((candidate, nearest, table[candidate, nearest]))
    return found


def _table(study: Study, dataset: str, entries: list[Published]) -> Table:
    rows = []
    for entry in sorted(entries, key=lambda e: (study.test_splits(dataset).index(e.split), e.metric, e.value)):
        beside = _ours(study, dataset, entry)
        rows += [_row(entry, ours) for ours in beside] if beside else [_row(entry, None)]
    columns = [
        Column("Split", numeric=False),
        Column("Metric", numeric=False),
        Column("Architecture", numeric=False),
        Column("Published", "", "with the standard deviation over the paper's runs, where it gives one"),
        Column("Their n_train", "frames"),
        Column("Ours", "", "geometric mean over repetitions, 95 % interval, at the training size nearest to theirs"),
        Column("Our n_train", "frames"),
        Column("Ours / published", "", "the interval is of our mean alone; the published value is taken as it is"),
        Column("What differs", numeric=False),
        Column("Source", numeric=False),
    ]
    return Table(f"published-{dataset}", _caption(study, dataset), columns, rows, headers=3)


def _row(entry: Published, ours: tuple[str, int, Estimate] | None) -> list[Cell]:
    known = metric(entry.metric)
    name = " ".join(filter(None, [display_name(entry.architecture), entry.variant]))
    spread = f"± {number(entry.std)}" if entry.std is not None else ""
    cells_ours = [mean_cell(None), Cell("–"), Cell("–")]
    differs = [entry.protocol] if entry.protocol else []
    if ours is not None:
        _, n_train, mean = ours
        ends = mean.low / entry.value, mean.high / entry.value
        ratio = mean.value / entry.value
        ratio_cell = Cell(number(ratio, *ends), ratio, interval(*ends))
        cells_ours = [mean_cell(mean), Cell(number(n_train), n_train), ratio_cell]
        if entry.n_train is None:
            differs.insert(0, "their number of training frames is not recorded")
        elif entry.n_train != n_train:
            differs.insert(0, f"trained on {n_train} frames, not {entry.n_train}")
    return [
        Cell(entry.split),
        Cell(f"{known.symbol}{f', {known.unit}' if known.unit else ''}"),
        Cell(name if ours is None or ours[0] == name else f"{name} (ours: {ours[0]})"),
        Cell(f"{entry.value:g}", entry.value, spread),
        Cell("–") if entry.n_train is None else Cell(number(entry.n_train), entry.n_train),
        *cells_ours,
        Cell("; ".join(differs) or "nothing that is recorded"),
        Cell(entry.source),
    ]


def _caption(study: Study, dataset: str) -> str:
    """What differs in every row: budget, sizes and how the test frames were chosen."""
    done = select(study.table, dataset=dataset, status="done")
    sizes = sorted({f"{row['architecture']} {row['size']}" for row in rows_of(done[["architecture", "size"]])})
    open_ended = len(facts.unrested(done))
    parts = [
        f"our budget is {listing(facts.budgets(study, dataset))}"
        + (f", and {open_ended} of {len(done)} trainings had not come to rest" if open_ended else ""),
        f"our sizes are {listing(sizes)}, while the papers' settings are their own",
        *_splitting(next(iter(study.config(dataset)), {})),
    ]
    return (
        f"Errors that papers report for {dataset}, and ours on the same split and in the same metric and unit. In "
        f"every row: {'; '.join(parts)}. A ratio is no verdict on a paper: it says how far this study is from its "
        "protocol."
    )


def _splitting(config: dict[str, Any]) -> list[str]:
    data = config.get("dataset") or {}
    found = []
    if (data.get("split") or {}).get("strategy") == "blocked" and not data.get("test_paths"):
        found.append("our test frames are whole stretches of the trajectory, apart from the training frames in time")
    if data.get("on_leak") == "drop":
        found.append("our training frames leave out those that repeat test frames")
    return found


def _finding(study: Study, dataset: str, entries: list[Published]) -> str:
    """The ratios of the first split's force metric (or whatever metric comes first)."""
    split = next(s for s in study.test_splits(dataset) if any(e.split == s for e in entries))
    here = [e for e in entries if e.split == split]
    name = next((e.metric for e in here if e.metric.startswith("force")), here[0].metric)
    best: dict[str, tuple[Published, tuple[str, int, Estimate]]] = {}
    for entry in [e for e in here if e.metric == name]:
        for ours in _ours(study, dataset, entry):
            if ours[0] not in best or entry.value < best[ours[0]][0].value:
                best[ours[0]] = (entry, ours)
    unit = metric(name).unit
    said = [
        f"{candidate} {number(mean.value / entry.value, mean.low / entry.value, mean.high / entry.value)} times the "
        f"published {entry.value:g} {unit} ({n} training frames against {entry.n_train or 'an unknown number'})"
        for candidate, (entry, (_, n, mean)) in best.items()
    ]
    return f"{metric(name).symbol} on {split}: {listing(said)}." if said else ""
