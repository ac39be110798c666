"""Errors out of distribution, and beside what others published on the same data."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlpbench.literature import Published, published_values
from mlpbench.metrics import HEADLINE, error_word, metric
from mlpbench.numbers import interval, listing, number
from mlpbench.report import facts
from mlpbench.report.drawing import canvas, legend, logarithmic, looks, series
from mlpbench.report.estimates import Estimate, cells
from mlpbench.report.section import Block, Cell, Column, Figure, Panel, Section, Table, mean_cell, trivial_cell
from mlpbench.statistics.intervals import MeanInterval, intervals
from mlpbench.study.rows import display_name, natural
from mlpbench.study.study import Study, remembered, rows_of, select

CLOSE = 0.15  # of a published error: nearer than this counts as the same number
CHAPTERS = {"transfer": 45, "published": 47}


def transfer_section(study: Study) -> Section | None:
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
            means_at = {i + shift: tables[split].get((candidate, n_train)) for i, split in enumerate(splits)}
            means = {x: mean for x, mean in means_at.items() if mean is not None}
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
        ratios = _ratios(study, dataset, name, split, n_train)
        means[split] = [ratios[c].value for c in study.lines(dataset) if c in ratios]
    means = {split: values for split, values in means.items() if values}
    if not means:
        return ""
    worst = max(means, key=lambda split: max(means[split]))
    low, high = min(means[worst]), max(means[worst])
    span = number(low) if f"{low:.2g}" == f"{high:.2g}" else f"{low:.2g} to {high:.2g}"
    what = error_word(name).capitalize()
    return f"{what} errors on {worst} are {span} times those in distribution."


def published_section(study: Study) -> Section | None:
    """One table for each data set for which something is published on a split and in a metric that the study has."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        entries = [
            one for one in published_values(dataset)
            if one.split in study.splits_of(dataset) and one.metric in study.metrics_of(dataset, one.split)
        ]  # fmt: skip
        if entries:
            blocks.append(_published_table(study, dataset, entries))
            finding = finding or _published_finding(study, dataset, entries)
    return Section("published", "Published values", finding, blocks) if blocks else None


class Ours(NamedTuple):
    """What this study has to set beside a published number."""

    candidate: str
    n_train: int
    n_valid: int
    steps: int
    mean: Estimate

    def same_frames(self, entry: Published) -> bool:
        """Whether as many frames were labelled for it; where theirs for validation are not recorded, in all."""
        if entry.n_valid is None and entry.n_train == self.n_train + self.n_valid:
            return True
        return entry.n_train is None or entry.n_train == self.n_train


def _ours(study: Study, dataset: str, entry: Published) -> list[Ours]:
    """Our candidates of the entry's architecture, each at the training size nearest to the published one."""
    table = cells(study, dataset, entry.metric, entry.split)
    part = select(study.table, dataset=dataset, architecture=entry.architecture)
    names, beside = part["candidate"].unique(), []
    for candidate in [c for c in study.lines(dataset) if c in names]:
        sizes = [n for c, n in table if c == candidate]
        if sizes:
            wanted = entry.n_train if entry.n_train is not None else max(sizes)
            nearest = min(sizes, key=lambda n: max(n / wanted, wanted / n))
            mine = select(part, candidate=candidate, n_train=nearest, status="done")
            n_valid, steps = int(mine["n_valid"].iloc[0]), int(mine["steps"].fillna(0).median())
            beside.append(Ours(candidate, nearest, n_valid, steps, table[candidate, nearest]))
    return beside


def _published_table(study: Study, dataset: str, entries: list[Published]) -> Table:
    rows = []
    rested = _rested(study, dataset)
    for entry in sorted(
        (e for e in entries if not e.repeats),
        key=lambda e: (study.test_splits(dataset).index(e.split), e.metric, e.value),
    ):
        beside: list[Ours | None] = list(_ours(study, dataset, entry)) or [None]
        bound = facts.trivial(study, dataset, entry.metric, entry.split)
        again = entry.repeated_in(entries)
        rows += [_row(entry, again, ours, bound, rested) for ours in beside]
    columns = [
        Column("Split", numeric=False),
        Column("Metric", numeric=False),
        Column("Architecture", numeric=False),
        Column("Published", "", "with the standard deviation over the paper's runs, where it gives one"),
        Column(
            "Repeated", "", "the same protocol repeated by others, over the published value; source in the last column"
        ),
        Column("Their n_train", "frames"),
        Column("Ours", "", "geometric mean over repetitions, 95 % interval, at the training size nearest to theirs"),
        Column("Our n_train", "frames"),
        Column("Ours / published", "", "the interval is of our mean alone; the published value is taken as it is"),
        Column("In words", numeric=False),
        Column("What differs", numeric=False),
        Column("Source", numeric=False),
    ]
    return Table(f"published-{dataset}", _caption(study, dataset), columns, rows, headers=3)


def _rested(study: Study, dataset: str) -> set[tuple[str, int]]:
    """Candidates and training sizes all of whose trainings came to rest."""
    done = select(study.table, dataset=dataset, status="done")
    restless = {(str(row["candidate"]), int(row["n_train"])) for row in rows_of(facts.unrested(done))}
    return {(str(row["candidate"]), int(row["n_train"])) for row in rows_of(done)} - restless


def verdict(entry: Published, again: Published | None, ours: Ours | None, rested: set[tuple[str, int]]) -> str:
    """In words, whether the published number was reached; a reason where the two cannot be compared.

    Args:
        entry: the published number.
        again: the same by others who repeated the protocol.
        ours: what this study has.
        rested: see :func:`_rested`.
    """
    if ours is None:
        return "not run here"
    candidate, n_train, mean = ours.candidate, ours.n_train, ours.mean
    if not ours.same_frames(entry):
        return "no comparison: other numbers of training frames"
    if mean.low <= entry.value <= mean.high:
        said = "agrees within our interval"
    elif abs(mean.value / entry.value - 1) <= CLOSE:
        said = f"agrees to within {CLOSE:.0%}"
    else:
        word = "larger" if mean.value > entry.value else "smaller"
        said = f"{word}, {number(mean.value / entry.value)} times the published error"
        if mean.value > entry.value and (candidate, n_train) not in rested:
            said += "; our training had not come to rest"
        if again is not None and mean.value > entry.value:
            nearer = "no larger than what others found who repeated it" if mean.low <= again.value else ""
            said += f"; {nearer}" if nearer else ""
    return said


def _row(
    entry: Published,
    again: Published | None,
    ours: Ours | None,
    trivial: float | None,
    rested: set[tuple[str, int]],
) -> list[Cell]:
    """``trivial``: error of a predictor without geometry on these frames; None where it is not known."""
    known = metric(entry.metric)
    name = " ".join(filter(None, [display_name(entry.architecture), entry.variant]))
    spread = f"± {number(entry.std)}" if entry.std is not None else ""
    cells_ours = [mean_cell(None), Cell("–"), Cell("–")]
    differs = [entry.protocol] if entry.protocol else []
    if ours is not None:
        n_train, mean = ours.n_train, ours.mean
        ends = mean.low / entry.value, mean.high / entry.value
        ratio = mean.value / entry.value
        ratio_cell = Cell(number(ratio, *ends), ratio, interval(*ends))
        cells_ours = [mean_cell(mean, trivial=trivial), Cell(number(n_train), n_train), ratio_cell]
        if entry.n_train is None:
            differs.insert(0, "their number of training frames is not recorded")
        elif entry.n_train != n_train and ours.same_frames(entry):
            differs.insert(0, f"{ours.n_valid} of the {entry.n_train} frames validate here, and {n_train} train")
        elif entry.n_train != n_train:
            differs.insert(0, f"trained on {n_train} frames, not {entry.n_train}")
        if ours.steps:
            differs.append(f"ours took {ours.steps:,} steps")
    return [
        Cell(entry.split),
        Cell(f"{known.symbol}{f', {known.unit}' if known.unit else ''}"),
        Cell(name if ours is None or ours.candidate == name else f"{name} (ours: {ours.candidate})"),
        Cell(f"{entry.value:g}", entry.value, spread),
        Cell("–")
        if again is None
        else Cell(f"{again.value:g}", again.value, f"{number(again.value / entry.value)} times"),
        Cell("–") if entry.n_train is None else Cell(number(entry.n_train), entry.n_train),
        *cells_ours,
        Cell(verdict(entry, again, ours, rested)),
        Cell("; ".join(differs) or "nothing that is recorded"),
        Cell(entry.source + (f"; {again.source} ({again.variant}, {again.protocol})" if again else "")),
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
        f"Errors that others report for {dataset}, and ours on its split of that name, in the same metric and unit. In "
        f"every row: {'; '.join(parts)}. A ratio is no verdict on a paper: it says how far this study is from its "
        "protocol."
    )


def _splitting(config: dict[str, Any]) -> list[str]:
    data = config.get("dataset") or {}
    parts = []
    if (data.get("split") or {}).get("strategy") == "blocked" and not data.get("test_paths"):
        parts.append("our test frames are whole stretches of the trajectory, apart from the training frames in time")
    if data.get("on_leak") == "drop":
        parts.append("our training frames leave out those that repeat test frames")
    return parts


def _times(mean: Estimate, entry: Published) -> str:
    return number(mean.value / entry.value, mean.low / entry.value, mean.high / entry.value)


def _published_finding(study: Study, dataset: str, entries: list[Published]) -> str:
    """The ratios of the first split's force metric (or whatever metric comes first)."""
    split = next(s for s in study.test_splits(dataset) if any(e.split == s for e in entries))
    here = [e for e in entries if e.split == split and not e.repeats]
    name = next((e.metric for e in here if e.metric.startswith("force")), here[0].metric)
    best: dict[str, tuple[Published, Ours]] = {}
    for entry in [e for e in here if e.metric == name]:
        for ours in _ours(study, dataset, entry):
            if ours.candidate not in best or entry.value < best[ours.candidate][0].value:
                best[ours.candidate] = (entry, ours)
    unit = metric(name).unit
    said = [
        f"{candidate} {_times(ours.mean, entry)} times the published {entry.value:g} {unit} "
        f"({ours.n_train} training frames against {entry.n_train or 'an unknown number'})"
        for candidate, (entry, ours) in best.items()
    ]
    return f"{metric(name).symbol} on {split}: {listing(said)}." if said else ""
