"""The page of ``mlpbench compare``: one file, in the style of the report."""

from __future__ import annotations

import math
from itertools import groupby
from pathlib import Path

import pandas as pd

from mlpbench.comparison import StudyComparison
from mlpbench.comparison.model import Judged, frames_text, verdict_text
from mlpbench.metrics import metric
from mlpbench.numbers import interval, number
from mlpbench.report.render import PAGE, render_page
from mlpbench.report.section import Block, Bullets, Cell, Column, Details, Mark, Section, Table, Text

_MARKS: dict[str, Mark] = {"worse": "bad", "undecided": "undecided", "one repetition": "undecided", "tie": "tie",
                           "other frames": "warn", "other hardware": "warn"}  # fmt: skip


def write_comparison(found: StudyComparison, out: Path) -> Path:
    """Write the page into ``out`` and return its path."""
    out.mkdir(parents=True, exist_ok=True)
    page, part = out / PAGE, out / f".{PAGE}.part"
    frame = pd.DataFrame([vars(row) for row in found.judged])
    title = f"{found.second} against {found.first}"
    source = f"results/{found.first} and results/{found.second}"
    part.write_text(render_page(title, sections(found), {"comparison": frame}, source), encoding="utf-8")
    part.replace(page)
    return page


def sections(found: StudyComparison) -> list[Section]:
    """The answer, what differs, the metrics, and what has no partner."""
    return [_answer(found), _changes(found), _metrics(found), _alone(found)]


def _answer(found: StudyComparison) -> Section:
    bad = [f"{row.metric}{_where(row)}, {row.setting}: {_words(row)}" for row in found.regressions]
    blocks: list[Block] = [Text(frames_text(found), "note")]
    if bad:
        blocks.append(Bullets([f"Worse: {one}" for one in bad], "warning"))
    if found.lost:
        blocks.append(Bullets([f"Done before and not now: {one}" for one in found.lost], "warning"))
    blocks += [Text(note, "note") for note in found.notes]
    return Section("answer", "In short", found.headline, blocks)


def _where(row: Judged) -> str:
    return f" on {row.split}" if row.split else ""


def _words(row: Judged) -> str:
    means = f"{number(row.before)} to {number(row.after)} {row.unit}, " if math.isfinite(row.before) else ""
    what = "difference" if row.linear else "ratio"
    return f"{means}{what} {row.ratio:.3f} (95 % interval {interval(row.lower, row.upper)})"


def _changes(found: StudyComparison) -> Section:
    rows = [[Cell(c.kind), Cell(c.what), Cell(c.before), Cell(c.after), Cell(c.where or "all")] for c in found.changes]
    columns = [Column(name, numeric=False) for name in ("Kind", "What", found.first, found.second, "Where")]
    caption = "What differs between trials of the same setting and repetition; everything else is the same in both."
    blocks: list[Block] = [Table("changes", caption, columns, rows, headers=2)] if rows else []
    finding = "" if rows else "Nothing differs: configuration, packages, hardware, frames and seeds are the same."
    return Section("changes", "What differs", finding, blocks)


def _metrics(found: StudyComparison) -> Section:
    groups = [list(rows) for _, rows in groupby(found.judged, key=lambda row: (row.metric, row.split))]
    return Section("metrics", "Metrics", "", [_table(found, rows) for rows in groups])


def _table(found: StudyComparison, rows: list[Judged]) -> Table:
    first = rows[0]
    entry = metric(first.metric)
    what = "Difference" if first.linear else "Ratio"
    columns = [
        Column("Setting", numeric=False),
        Column("Verdict", "", f"of {found.second} against {found.first}", numeric=False),
        Column(what, "", f"after {'minus' if first.linear else 'over'} before, 95 % interval"),
        Column(found.first, entry.unit, "mean over the matched repetitions"),
        Column(found.second, entry.unit, "mean over the matched repetitions"),
        Column("n", "", "matched repetitions"),
        Column("Further", "repetitions", "that would decide, if the difference is what it seems"),
    ]
    caption = (
        f"{entry.symbol} ({first.metric}){_where(first)}, {entry.direction} is better: {found.second} against "
        f"{found.first}, paired by repetition; intervals Holm-corrected over the settings, over the architectures, and "
        f"alone for the mean over all settings; a tie lies inside ±{100 * found.margin:g} %."
    )
    return Table(f"{first.metric}-{first.split or 'all'}", caption, columns, [_row(row) for row in rows])


def _row(row: Judged) -> list[Cell]:
    means = [Cell(number(x), x) if math.isfinite(x) else Cell("–") for x in (row.before, row.after)]
    small = " (in the margin)" if row.verdict in ("better", "worse") and row.within_margin else ""
    further = Cell("–")
    if row.verdict == "undecided":
        further = Cell("over 100", float("inf")) if row.further is None else Cell(str(row.further), row.further)
    return [
        Cell(row.setting), Cell(row.verdict + small, mark=_MARKS.get(row.verdict, ""), note=verdict_text(row)),
        Cell(number(row.ratio, row.lower, row.upper), row.ratio, interval(row.lower, row.upper)), *means,
        Cell(str(row.n), row.n), further,
    ]  # fmt: skip


def _alone(found: StudyComparison) -> Section:
    blocks: list[Block] = [
        Details(f"Only in {name}: {len(alone)}", [Bullets(alone)])
        for name, alone in ((found.first, found.only_first), (found.second, found.only_second))
        if alone
    ]
    if found.gained:
        blocks.append(Bullets([f"Done now and not before: {one}" for one in found.gained]))
    finding = f"{found.matched} pairs of trials are done in both studies, {len(found.settings)} settings."
    return Section("trials", "Trials without a partner" if blocks else "Trials", finding, blocks)
