"""From sections to files: the page, and its figures and tables on their own."""

from __future__ import annotations

import base64
import gzip
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

import mlpbench
from mlpbench.comparison import StudyComparison
from mlpbench.comparison.model import Judged, frames_text, verdict_text
from mlpbench.files import slug
from mlpbench.metrics import metric
from mlpbench.numbers import interval, number
from mlpbench.protocol import replacing
from mlpbench.report import drawing
from mlpbench.report.section import (
    Block,
    Bullets,
    Cell,
    Column,
    Commands,
    Details,
    Figure,
    Mark,
    Section,
    Table,
    Text,
    walk,
)
from mlpbench.report.sections import Failed, build_all
from mlpbench.study.study import Study

PAGE = "index.html"
ERRORS = "errors.log"
MOST_ROWS = 50_000  # of an embedded table; the page must stay one that can be mailed
PLAIN_CSV = 200_000  # bytes; a larger table is embedded compressed


@dataclass(frozen=True)
class Download:
    """A file inside the page, as a data URI."""

    name: str
    uri: str
    size: str


@dataclass(frozen=True)
class Written:
    """A report that was written.

    Attributes:
        page: path of ``index.html``, one file that needs no other and no network.
        failed: sections that could not be made; each is a notice in the page, its traceback in ``errors.log``.
    """

    page: Path
    failed: tuple[Failed, ...]


def write_report(study: Study, out: Path, *, pdf: bool = False, png: bool = False) -> Written:
    """Write the report of a study: ``index.html``, and beside it ``figures/`` and ``tables/`` for papers.

    Args:
        study: tables and records, see :class:`Study`.
        out: folder, made if it is missing; files of an earlier report are overwritten.
        pdf: also write each figure as PDF; embedding the fonts takes most of a second for each.
        png: also write each figure as PNG.
    """
    sections, failed = build_all(study)
    out.mkdir(parents=True, exist_ok=True)
    page = out / PAGE
    with replacing(page) as part:
        part.write_text(render(study, sections), encoding="utf-8")
    _write_files(sections, out, pdf, png)
    if failed:
        text = "\n".join(f"{one.name}\n{one.traceback}" for one in failed)
        (out / ERRORS).write_text(text, encoding="utf-8")
    else:
        (out / ERRORS).unlink(missing_ok=True)
    return Written(page, tuple(failed))


def render(study: Study, sections: list[Section]) -> str:
    """The page of one study as HTML."""
    tables = {"trials": study.trials, "metrics": study.metrics}
    return render_page(study.name, sections, tables, f"results/{study.name}/trials.csv and metrics.csv")


def render_page(title: str, sections: list[Section], tables: dict[str, pd.DataFrame], source: str) -> str:
    """A page as HTML.

    Args:
        title: its heading.
        sections: chapters, in order.
        tables: name -> table that the page holds as a file.
        source: where these tables lie.
    """
    environment = Environment(
        loader=PackageLoader("mlpbench.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html")
    light = {f"c{i}": paper for i, (paper, _) in enumerate(drawing.PAIRS)}
    dark = {f"c{i}": night for i, (_, night) in enumerate(drawing.PAIRS)}
    counter = iter(range(10_000))
    return template.render(
        study=title,
        sections=sections,
        downloads=[_download(n, t) for n, t in tables.items() if len(t) <= MOST_ROWS],
        source=source,
        download=lambda table: _download(table.name, table.frame()),
        embed=lambda block: _embedded(block.file, "\n".join([*block.lines, ""]).encode(), "text/plain;charset=utf-8"),
        drawn=lambda panel: Markup(drawing.inline_svg(panel.svg, f"f{next(counter)}", panel.alt)),
        palette={"light": light, "dark": dark},
        version=mlpbench.__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _download(name: str, table: pd.DataFrame) -> Download:
    data = table.to_csv(index=False).encode()
    kind, suffix = "text/csv;charset=utf-8", "csv"
    if len(data) > PLAIN_CSV:
        data, kind, suffix = gzip.compress(data, mtime=0), "application/gzip", "csv.gz"
    return _embedded(f"{name}.{suffix}", data, kind)


def _embedded(name: str, data: bytes, kind: str) -> Download:
    size = f"{len(data) / 1000:.0f} kB" if len(data) >= 1000 else f"{len(data)} bytes"
    return Download(name, f"data:{kind};base64,{base64.b64encode(data).decode()}", size)


def _write_files(sections: list[Section], out: Path, pdf: bool, png: bool) -> None:
    """Figures as SVG (and PDF, PNG), tables as CSV, Markdown and LaTeX."""
    for folder in ("figures", "tables"):
        (out / folder).mkdir(exist_ok=True)
    for block in walk([block for section in sections for block in section.all_blocks]):
        if isinstance(block, Figure):
            for panel in block.panels:
                (out / "figures" / f"{slug(panel.name, 120)}.svg").write_text(panel.svg, encoding="utf-8")
                if png:
                    (out / "figures" / f"{slug(panel.name, 120)}.png").write_bytes(drawing.png(panel.canvas))
                if pdf:
                    (out / "figures" / f"{slug(panel.name, 120)}.pdf").write_bytes(drawing.pdf(panel.canvas))
        elif isinstance(block, Commands) and block.file:
            (out / block.file).write_text("\n".join([*block.lines, ""]), encoding="utf-8")
        elif isinstance(block, Table):
            frame = block.frame()
            frame.to_csv(out / "tables" / f"{slug(block.name, 120)}.csv", index=False)
            shown = [
                [" ".join(filter(None, [c.text, f"({c.detail})" if c.detail else ""])) for c in row]
                for row in block.rows
            ]
            heads = [f"{c.label} ({c.unit})" if c.unit else c.label for c in block.columns]
            (out / "tables" / f"{slug(block.name, 120)}.md").write_text(_markdown(heads, shown), encoding="utf-8")
            (out / "tables" / f"{slug(block.name, 120)}.tex").write_text(_latex(block, heads, shown), encoding="utf-8")


def _markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _latex(table: Table, heads: list[str], rows: list[list[str]]) -> str:
    columns = "".join("r" if c.numeric else "l" for c in table.columns)
    body = " \\\\\n".join(" & ".join(_escape(cell) for cell in row) for row in rows)
    head = " & ".join(_escape(cell) for cell in heads)
    return (
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{head} \\\\\n\\midrule\n{body} "
        f"\\\\\n\\bottomrule\n\\end{{tabular}}\n"
        f"% {table.caption}\n"
    )


def _escape(text: str) -> str:
    special = {"&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "\\": r"\textbackslash{}",
               "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}  # fmt: skip
    return "".join(special.get(character, character) for character in text)


_MARKS: dict[str, Mark] = {"worse": "bad", "undecided": "undecided", "one repetition": "undecided", "tie": "tie",
                           "other frames": "warn", "other hardware": "warn"}  # fmt: skip


def write_comparison(comparison: StudyComparison, out: Path) -> Path:
    """Write the page into ``out`` and return its path."""
    out.mkdir(parents=True, exist_ok=True)
    page = out / PAGE
    frame = pd.DataFrame([vars(row) for row in comparison.judged])
    title = f"{comparison.second} against {comparison.first}"
    source = f"results/{comparison.first} and results/{comparison.second}"
    with replacing(page) as part:
        part.write_text(render_page(title, sections(comparison), {"comparison": frame}, source), encoding="utf-8")
    return page


def sections(comparison: StudyComparison) -> list[Section]:
    """The answer, what differs, the metrics, and what has no partner."""
    return [_answer(comparison), _changes(comparison), _metrics(comparison), _alone(comparison)]


def _answer(comparison: StudyComparison) -> Section:
    bad = [f"{row.metric}{_where(row)}, {row.setting}: {_words(row)}" for row in comparison.regressions]
    blocks: list[Block] = [Text(frames_text(comparison), "note")]
    if bad:
        blocks.append(Bullets([f"Worse: {one}" for one in bad], "warning"))
    if comparison.lost:
        blocks.append(Bullets([f"Done before and not now: {one}" for one in comparison.lost], "warning"))
    blocks += [Text(note, "note") for note in comparison.notes]
    return Section("answer", "In short", comparison.headline, blocks)


def _where(row: Judged) -> str:
    return f" on {row.split}" if row.split else ""


def _words(row: Judged) -> str:
    means = f"{number(row.before)} to {number(row.after)} {row.unit}, " if math.isfinite(row.before) else ""
    what = "difference" if row.linear else "ratio"
    return f"{means}{what} {row.ratio:.3f} (95 % interval {interval(row.lower, row.upper)})"


def _changes(comparison: StudyComparison) -> Section:
    rows = [
        [Cell(c.kind), Cell(c.what), Cell(c.before), Cell(c.after), Cell(c.where or "all")] for c in comparison.changes
    ]
    columns = [Column(name, numeric=False) for name in ("Kind", "What", comparison.first, comparison.second, "Where")]
    caption = "What differs between trials of the same setting and repetition; everything else is the same in both."
    blocks: list[Block] = [Table("changes", caption, columns, rows, headers=2)] if rows else []
    finding = "" if rows else "Nothing differs: configuration, packages, hardware, frames and seeds are the same."
    return Section("changes", "What differs", finding, blocks)


def _metrics(comparison: StudyComparison) -> Section:
    groups = [list(rows) for _, rows in groupby(comparison.judged, key=lambda row: (row.metric, row.split))]
    return Section("metrics", "Metrics", "", [_table(comparison, rows) for rows in groups])


def _table(comparison: StudyComparison, rows: list[Judged]) -> Table:
    first = rows[0]
    entry = metric(first.metric)
    what = "Difference" if first.linear else "Ratio"
    columns = [
        Column("Setting", numeric=False),
        Column("Verdict", "", f"of {comparison.second} against {comparison.first}", numeric=False),
        Column(what, "", f"after {'minus' if first.linear else 'over'} before, 95 % interval"),
        Column(comparison.first, entry.unit, "mean over the matched repetitions"),
        Column(comparison.second, entry.unit, "mean over the matched repetitions"),
        Column("n", "", "matched repetitions"),
        Column("Further", "repetitions", "that would decide, if the difference is what it seems"),
    ]
    caption = (
        f"{entry.symbol} ({first.metric}){_where(first)}, {entry.direction} is better: {comparison.second} against "
        f"{comparison.first}, paired by repetition; intervals Holm-corrected over the settings, over the architectures "
        f"and, alone, for the mean over all settings; a tie lies inside ±{100 * comparison.margin:g} %."
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


def _alone(comparison: StudyComparison) -> Section:
    blocks: list[Block] = [
        Details(f"Only in {name}: {len(alone)}", [Bullets(alone)])
        for name, alone in ((comparison.first, comparison.only_first), (comparison.second, comparison.only_second))
        if alone
    ]
    if comparison.gained:
        blocks.append(Bullets([f"Done now and not before: {one}" for one in comparison.gained]))
    finding = f"{comparison.matched} pairs of trials are done in both studies, {len(comparison.settings)} settings."
    return Section("trials", "Trials without a partner" if blocks else "Trials", finding, blocks)
