"""Trainings from scratch beside those that start from something: what the start saves, costs and forgets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlpbench.metrics import metric
from mlpbench.numbers import listing, number, plural, ratio_text, seconds
from mlpbench.report import facts
from mlpbench.report.costs import load_prices
from mlpbench.report.drawing import canvas, legend, logarithmic, looks, series
from mlpbench.report.estimates import cells
from mlpbench.report.section import Block, Cell, Column, Figure, Panel, Section, Table, Text, mean_cell, ratio_cell
from mlpbench.statistics.intervals import interval
from mlpbench.statistics.multiplier import Multiplier, multiplier
from mlpbench.study.settings import SCRATCH, ZERO_SHOT
from mlpbench.study.study import Study, select

CHAPTERS = {"starts": 32}

ByRepetition = dict[int, dict[int, float]]  # repetition -> training frames -> error


@dataclass(frozen=True)
class Pair:
    """A line that starts from something and the one from scratch of the same architecture and size.

    Attributes:
        started: its name.
        scratch: the other's name.
        errors: of each, by repetition and training frames.
    """

    started: str
    scratch: str
    errors: Mapping[str, ByRepetition]

    @property
    def sizes(self) -> list[int]:
        """Training frames that both have in some repetition."""
        both = [{n for r in self.errors[line].values() for n in r} for line in (self.started, self.scratch)]
        return sorted(both[0] & both[1])

    def multiplier(self, n: int) -> Multiplier:
        """See :func:`mlpbench.statistics.multiplier.multiplier`."""
        return multiplier(self.errors[self.scratch], self.errors[self.started], n)

    def ratio(self, n: int) -> tuple[float, float, float, int]:
        """Error from scratch over that of the started one, its interval, and the repetitions it rests on."""
        first, second = self.errors[self.scratch], self.errors[self.started]
        shared = [r for r in sorted(first) if n in first[r] and n in second.get(r, {})]
        ratios = np.array([first[r][n] / second[r][n] for r in shared])
        if len(ratios) < 2:
            return (float(ratios[0]) if len(ratios) else math.nan), math.nan, math.nan, len(ratios)
        mean = interval(ratios, scale="log")
        return mean.value, mean.lower, mean.upper, len(ratios)

    def caught_up(self) -> int | None:
        """The fewest frames from which on scratch is not worse (the interval of the ratio reaches 1); None: nowhere."""
        reached = None
        for n in reversed(self.sizes):
            if self.ratio(n)[1] > 1:
                break
            reached = n
        return reached

    def caught_words(self) -> str:
        """Where scratch catches up, in words."""
        if any(self.ratio(n)[3] < 2 for n in self.sizes):
            return "not known from one repetition"
        reached = self.caught_up()
        return "not within the data" if reached is None else f"at {plural(reached, 'frame')}"


def starts_section(study: Study) -> Section | None:
    """For each data set with a training that starts from something."""
    blocks: list[Block] = []
    said: list[str] = []
    for dataset in study.datasets:
        split = study.in_distribution(dataset)
        rows = select(study.table, dataset=dataset, status="done")
        if split is None or not (rows["start"] != SCRATCH).any():
            continue
        name = study.headline(dataset)
        pairs = pairs_of(study, dataset, name, split)
        blocks += [*_figure(study, dataset, name, split, pairs), *_table(study, dataset, name, split, pairs)]
        blocks += [*_prices(study, dataset, pairs), *_as_they_are(study, dataset, name, split)]
        blocks += [*_forgetting(study, dataset), *_licences(study, dataset)]
        said += [finding(pair) for pair in pairs]
        scratch = rows[(rows["start"] == SCRATCH) & rows["candidate"].isin([pair.scratch for pair in pairs])]
        if pairs and not scratch["converged"].eq(True).all():
            said.append("All at equal steps: longer trainings from scratch may need fewer labels than these.")
    return Section("starts", "From scratch or from a start", " ".join(said), blocks) if blocks else None


def pairs_of(study: Study, dataset: str, name: str, split: str) -> list[Pair]:
    """The trained lines of a data set that start from something, each with the line from scratch beside it."""
    rows = select(study.table, dataset=dataset, status="done")
    lines = rows.drop_duplicates("candidate")[["candidate", "architecture", "size", "start"]].to_dict("records")
    values = study.part(dataset, name, split)
    values = values[values["value"] > 0]
    errors: dict[str, ByRepetition] = {}
    for row in values.to_dict("records"):
        errors.setdefault(str(row["candidate"]), {}).setdefault(int(row["repetition"]), {})[int(row["n_train"])] = (
            float(row["value"])
        )
    pairs = []
    for line in lines:
        if line["start"] == SCRATCH or line["start"].startswith(ZERO_SHOT):
            continue
        plain = [o for o in lines if o["start"] == SCRATCH and o["architecture"] == line["architecture"]]
        # A foundation model's size is its own: beside it stands the only size there is from scratch.
        same = [o for o in plain if o["size"] == line["size"]] or (plain if len(plain) == 1 else [])
        if same and line["candidate"] in errors and same[0]["candidate"] in errors:
            pairs.append(Pair(str(line["candidate"]), str(same[0]["candidate"]), errors))
    return pairs


def finding(pair: Pair) -> str:
    """One sentence: what the start saves where it saves most, and where scratch catches up."""
    known = [found for n in pair.sizes if (found := pair.multiplier(n)).repetitions]
    if not known:
        return f"{pair.started}: no training size is shared with {pair.scratch}."
    best = max(known, key=lambda one: one.lower if math.isfinite(one.lower) else -1.0)
    said = f"{pair.started}: {plural(best.n, 'frame')} do as well as {factor_words(best)} as many from scratch"
    return f"{said}; where scratch catches up: {pair.caught_words()} ({pair.sizes[0]} to {pair.sizes[-1]} frames)."


def factor_words(found: Multiplier) -> str:
    """``4.1 (2.9–5.8) times``, ``at least 4 times``."""
    if found.beyond == found.repetitions:
        return f"more than {found.value:.3g} times"
    if found.below == found.repetitions:
        return f"less than {found.value:.3g} times"
    if not math.isfinite(found.lower):
        return f"{number(found.value)} times (one repetition)"
    if found.beyond:
        return f"at least {found.value:.2g} times (lower end {found.lower:.2g})"
    value, ends = ratio_text(found.value, found.lower, found.upper)
    return f"{value} times ({ends})"


def _figure(study: Study, dataset: str, name: str, split: str, pairs: list[Pair]) -> list[Block]:
    """Error against labels, scratch and started, one panel for each architecture."""
    entry, style = metric(name), looks(study)
    means = cells(study, dataset, name, split)
    panels = []
    for number_, pair in enumerate(pairs):
        with canvas(width=3.6) as (figure, axes):
            for line in (pair.scratch, pair.started):
                points = {n: mean for (c, n), mean in sorted(means.items()) if c == line}
                series(axes, list(points), list(points.values()), style[line], line)
            logarithmic(axes, "xy")
            sizes = sorted({n for c, n in means if c in (pair.scratch, pair.started)})
            axes.set_xticks(sizes, [str(n) for n in sizes])
            axes.set_xlabel("training frames")
            axes.set_ylabel(f"{entry.symbol} ({entry.unit})")
            legend(axes, columns=1)
        alt = f"{entry.symbol} against training frames: {pair.scratch} and {pair.started}."
        panels.append(Panel(f"starts-{dataset}-{number_}", figure, alt))
    caption = (
        f"Error on {facts.split_words(study, dataset, split)} against training frames, on the same nested subsets: "
        f"from scratch and from a start. Points and bars: {facts.mean_words(study, dataset)}, with 95 % interval."
    )
    return [Figure(caption, panels)] if panels else []


def _table(study: Study, dataset: str, name: str, split: str, pairs: list[Pair]) -> list[Block]:
    means = cells(study, dataset, name, split)
    rows = []
    for pair in pairs:
        for n in pair.sizes:
            found = pair.multiplier(n)
            rows.append([
                Cell(pair.started), Cell(str(n), n), mean_cell(means.get((pair.scratch, n))),
                mean_cell(means.get((pair.started, n))), ratio_cell(*pair.ratio(n)[:3]),
                Cell(factor_words(found) if found.repetitions else "–", found.value), Cell(str(found.repetitions)),
            ])  # fmt: skip
    entry = metric(name)
    columns = [
        Column("Candidate", numeric=False), Column("n_train", "frames"),
        Column("From scratch", f"{entry.symbol}, {entry.unit}"), Column("Started", f"{entry.symbol}, {entry.unit}"),
        Column("Ratio", "scratch over started", "95 % interval over repetitions, paired"),
        Column("Label multiplier", numeric=False),
        Column("Repetitions"),
    ]  # fmt: skip
    caught = [f"{pair.started}: {pair.caught_words()}" for pair in pairs]
    caption = (
        f"What a start saves on {dataset}. Label multiplier: how many times as many training frames scratch needs for "
        "the error of the started training, read off its measured curve between the sizes (straight lines between "
        "logarithms), paired over repetitions, with 95 % interval; where scratch does not get there with its most "
        "frames, a least value. Validation frames come on top of both. Scratch and started take the same optimiser "
        "steps; those of the start itself come on top. Where scratch catches up (from there on the ratio's interval "
        f"reaches 1): {'; '.join(caught)}."
    )
    return [Table(f"starts-{dataset}", caption, columns, rows, headers=2)] if rows else []


def _costs(study: Study, dataset: str) -> dict[str, dict[str, Any]]:
    """Line -> what its start cost, as its records say."""
    costs: dict[str, dict[str, Any]] = {}
    for row in select(study.table, dataset=dataset, status="done").to_dict("records"):
        start = (study.record[row["trial"]].get("training") or {}).get("start") or {}
        if start.get("pretraining_labels"):
            costs.setdefault(str(row["candidate"]), start)
    return costs


def _prices(study: Study, dataset: str, pairs: list[Pair]) -> list[Block]:
    """Hours of the reference method saved beside hours of pretraining and of its labels; in money where known."""
    price, costs, rows = study.label_seconds(dataset), _costs(study, dataset), []
    prices = load_prices()
    rate = prices.per_second(on_gpu=False, threads=1)
    for pair in pairs:
        cost = costs.get(pair.started)
        if cost is None or price is None:
            continue
        labels = cost["pretraining_labels"]
        each = cost.get("pretraining_label_seconds")
        spent = (cost.get("pretraining_seconds") or 0.0) + labels * (each or 0.0)
        for n in pair.sizes:
            found = pair.multiplier(n)
            saved = (found.value - 1) * n * price
            least = "at least " if found.beyond else ""
            rows.append([
                Cell(pair.started), Cell(str(n), n), Cell(f"{least}{seconds(saved)}", saved),
                Cell(seconds(cost.get("pretraining_seconds")), cost.get("pretraining_seconds")),
                Cell(f"{labels} of {seconds(each)}" if each else f"{labels}, price not known", labels * (each or 0.0)),
                *([] if rate is None else [
                    Cell(f"{least}{number(saved * rate)}", saved * rate), Cell(number(spent * rate), spent * rate)
                ]),
                Cell("yes" if saved > spent else "not known" if found.beyond else "no"),
            ])  # fmt: skip
    columns = [
        Column("Candidate", numeric=False), Column("n_train", "frames"),
        Column("Labels saved", "time of the reference"),
        Column("Pretraining", "once for all sizes"), Column("Its labels", "once for all sizes"),
        *([] if rate is None else [Column("Saved", prices.currency), Column("Spent", prices.currency)]),
        Column("Pays for one training", numeric=False),
    ]  # fmt: skip
    caption = (
        f"Price of the start on {dataset}: the labels that scratch needs beyond those of the started training, at "
        f"{seconds(price)} each, beside the pretraining. The geometries of the pretraining's frames are not in it. "
        + (
            "With prices in conf/prices.yaml it is given in money too."
            if rate is None
            else f"In money each second is one core's. Prices: {prices.source or 'conf/prices.yaml, no source'}."
        )
    )
    return [Table(f"starts-price-{dataset}", caption, columns, rows, headers=2)] if rows else []


def _as_they_are(study: Study, dataset: str, name: str, split: str) -> list[Block]:
    """Potentials that were not trained at all: with the constant for each element that was fitted."""
    means, rows = cells(study, dataset, name, split), []
    lines = select(study.table, dataset=dataset, status="done")
    lines = lines[lines["start"].str.startswith(ZERO_SHOT)].drop_duplicates(["candidate", "n_train"])
    for row in lines.to_dict("records"):
        start = (study.record[row["trial"]].get("training") or {}).get("start") or {}
        rows.append([
            Cell(str(row["candidate"])), Cell(str(row["n_train"]), row["n_train"]),
            mean_cell(means.get((str(row["candidate"]), int(row["n_train"])))), _constants(start, "shifts_eV"),
            _constants(start, "own_atomic_energies_eV"),
        ])  # fmt: skip
    columns = [
        Column("Candidate", numeric=False), Column("n_train", "frames"), Column(metric(name).symbol, metric(name).unit),
        Column("Fitted constants", "eV for each atom", numeric=False),
        Column("Its own atomic energies", "eV", numeric=False),
    ]  # fmt: skip
    caption = (
        f"Potentials as they are on {dataset}: nothing was trained; the training frames fitted one constant for each "
        "element to what separates the energies (first repetition shown)."
    )
    return [Table(f"starts-zero-shot-{dataset}", caption, columns, rows, headers=2)] if rows else []


def _constants(start: Mapping[str, Any], key: str) -> Cell:
    return Cell(", ".join(f"{symbol} {value:+.2f}" for symbol, value in (start.get(key) or {}).items()) or "–")


def _forgetting(study: Study, dataset: str) -> list[Block]:
    """Error on the start's own labels, before and after."""
    names = ("start_force_mae", "kept_force_mae", "forgetting")
    means = [cells(study, dataset, name, "") for name in names]
    rows = [
        # The start is one potential: its error does not vary over the repetitions.
        [
            Cell(line),
            Cell(str(n), n),
            Cell(number(means[0][line, n].value), means[0][line, n].value),
            *(mean_cell(mean.get((line, n))) for mean in means[1:]),
        ]
        for line in study.lines(dataset)
        for n in facts.train_sizes(study, dataset)
        if (line, n) in means[2]
    ]
    columns = [
        Column("Candidate", numeric=False), Column("n_train", "frames"), Column("Start", "F MAE, meV/Å"),
        Column("Fine-tuned", "F MAE, meV/Å"), Column("Ratio", "fine-tuned over start"),
    ]  # fmt: skip
    caption = (
        "Forgetting: force error on the test frames of the start's own labels, of the start and of the fine-tuned "
        f"potential ({facts.mean_words(study, dataset)}, with 95 % interval). A part of the rise is what separates the "
        "two levels of theory, which fine-tuning is meant to learn."
    )
    return [Table(f"forgetting-{dataset}", caption, columns, rows, headers=2)] if rows else []


def _licences(study: Study, dataset: str) -> list[Block]:
    """Licences of foundation models, and which weights were trusted."""
    said: dict[str, str] = {}
    for row in select(study.table, dataset=dataset, status="done").to_dict("records"):
        start = (study.record[row["trial"]].get("training") or {}).get("start") or {}
        if start.get("foundation"):
            licence = start.get("licence") or "licence not stated"
            trust = "; loaded with start.trust=true, as a pickle that may run code" if start.get("trust") else ""
            level = f"; labels: {start['level_of_theory']}" if start.get("level_of_theory") else ""
            said[str(start["foundation"])] = f"{start['foundation']} ({licence}{level}{trust})"
    return [Text(f"Foundation models: {listing(list(said.values()))}.")] if said else []
