"""How figures look: colours that survive greyscale and colour blindness, markers and dashes, and SVG for a
page.

Colours are written into the figure as on white paper. In the page they become CSS variables, so that one SVG
is right in light and dark. Figures use the object-oriented API of matplotlib: nothing is left behind in
pyplot.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

import matplotlib
import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mlpbench.numbers import number
from mlpbench.report.estimates import Estimate
from mlpbench.study.rows import place
from mlpbench.study.settings import RANDOM, SCRATCH
from mlpbench.study.study import Study, remembered

# On paper -> in dark mode. The lightness of the paper colours runs from 20 to 58 (CIE L*), so that greyscale
# keeps
# them apart; each also has a marker and a dash of its own.
INK, GRID, FAINT = "#20262c", "#d9dde1", "#6c757d"
PAIRS = [
    ("#d9660f", "#ff9d4d"), ("#11773c", "#5fd08a"), ("#a8328e", "#f08fd8"), ("#242f91", "#93a7ff"),
    ("#0c7c8c", "#59d3e6"), ("#8a6d00", "#e3c650"), ("#8f1d2c", "#ff8f9c"), ("#565f68", "#b4bdc6"),
]  # fmt: skip
VARIABLES = {INK: "ink", GRID: "grid", FAINT: "faint"} | {paper: f"c{i}" for i, (paper, _) in enumerate(PAIRS)}
FIRST_SPARE = 4  # SchNet, PaiNN, NequIP and MACE are 0 to 3
SIZES = ("tiny", "small", "medium", "large")
MARKERS = ("o", "s", "^", "D", "P", "X", "v", "*")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
)

BESIDE = "_beside a point"  # the underscore keeps it out of legends
OFFSETS: tuple[tuple[float, float, Literal["left", "right", "center"]], ...] = (
    (6, 3, "left"),
    (6, -10, "left"),
    (-6, 3, "right"),
    (-6, -10, "right"),
    (0, 8, "center"),
    (0, -16, "center"),
)  # points, from the symbol to the lower edge of the word

RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mlpbench",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 3.0,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Look:
    """How one candidate is drawn: colour by architecture; symbol likewise, or by variant where one has several."""

    color: str
    marker: str
    dash: Any
    filled: bool = True  # an open symbol says that not all trainings came to rest


@remembered
def looks(study: Study) -> dict[str, Look]:
    """Candidate -> look; an architecture whose backend declares a place has the same in every report.

    Where an architecture has several variants (sizes, starts, acquisitions), each has a symbol of its own, the same for
    all.
    """
    table = study.table
    declared: dict[str, int | None] = {name: place(name) for name in table["architecture"].unique()}
    architectures = sorted(declared, key=lambda name: (declared[name] is None, declared[name] or 0, name))
    places: dict[str, int] = {}
    for name in architectures:
        at = declared[name]
        if at is None or at in places.values():
            taken = {*places.values(), *declared.values()}
            at = next(at for at in count(FIRST_SPARE) if at not in taken)
        places[name] = at
    sizes = sorted(table["size"].unique(), key=lambda s: (SIZES.index(s) if s in SIZES else 99, s))
    starts = sorted(table["start"].unique(), key=lambda start: (start != SCRATCH, start))
    ways = sorted(table["acquisition"].unique(), key=lambda way: (way != RANDOM, way))
    variants = [(size, start, way) for way in ways for start in starts for size in sizes]
    several = table.groupby("architecture")["candidate"].nunique().max() > 1
    styles: dict[str, Look] = {}
    for architecture in architectures:
        kinds = table.loc[table["architecture"] == architecture, ["candidate", "size", "start", "acquisition"]]
        mine = kinds.drop_duplicates("candidate")
        at = places[architecture]
        for index, (candidate, *kind) in enumerate(mine.itertuples(index=False, name=None)):
            symbol = (
                variants.index(tuple(kind)) if several else at + at // len(PAIRS)
            )  # a colour's second owner looks otherwise
            dash = DASHES[(at + index) % len(DASHES)]
            styles[str(candidate)] = Look(PAIRS[at % len(PAIRS)][0], MARKERS[symbol % len(MARKERS)], dash)
    return styles


@contextmanager
def canvas(width: float = 4.5, height: float = 3.3) -> Iterator[tuple[Canvas, Axes]]:
    """A figure of ``width`` × ``height`` inches with one pair of axes, in the report's style."""
    with matplotlib.rc_context({**seaborn.axes_style("ticks"), **RC}):
        figure = Canvas(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def logarithmic(axes: Axes, which: str) -> None:
    """Log axes ('x', 'y' or 'xy') with plain numbers at 1, 2 and 5 or closer, as far as there is room."""
    for name in which:
        axis = axes.xaxis if name == "x" else axes.yaxis
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        low, high = (axes.get_xlim if name == "x" else axes.get_ylim)()
        decades = np.log10(high / low) if low > 0 else 1.0
        steps: Sequence[float] = (1, 2, 5) if decades < 2.2 else (1, 3) if decades < 3.2 else (1,)
        if decades < 1:  # 1, 2 and 5 could leave one label or none
            steps = (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9) if decades < 0.6 else (1, 2, 3, 5, 7)
        axis.set_major_locator(LogLocator(subs=steps, numticks=12))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1e6 else number(value)))
        axis.set_minor_formatter(NullFormatter())


def legend(axes: Axes, columns: int | None = None) -> None:
    """The legend above the axes, where it hides nothing; in 4 columns, or 2 if names are long, unless it is said.

    The words beside points are moved apart: call it when everything is drawn and the axes are scaled.
    """
    _spread(axes)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=columns or (4 if max(map(len, labels)) < 9 else 2),
            borderaxespad=0.2,
            columnspacing=1.2,
            handletextpad=0.5,
        )


def series(
    axes: Axes, x: Sequence[float], means: Sequence[Estimate], look: Look, label: str, *, line: float = 1.6
) -> None:
    """Means with their intervals as bars, joined by a line of the given width (0: none)."""
    axes.plot(
        x,
        [mean.value for mean in means],
        color=look.color,
        linestyle=look.dash if line else "",
        linewidth=line,
        marker=look.marker,
        markerfacecolor=look.color if look.filled else "none",
        label=label,
    )
    known = [(at, mean.low, mean.high) for at, mean in zip(x, means, strict=True) if np.isfinite(mean.low)]
    axes.vlines(*np.array(known).reshape(-1, 3).T, color=look.color, linewidth=1.3)


def point(axes: Axes, x: float, mean: Estimate, look: Look, text: str, *, filled: bool, label: str = "") -> None:
    """One mean with its interval and a word beside it; an open symbol where ``filled`` is false."""
    series(axes, [x], [mean], replace(look, filled=filled), label or "_nolegend_", line=0)
    word_beside(axes, text, x, mean.value)


def word_beside(axes: Axes, text: str, x: float, y: float, *, size: float = 7.5, color: str = INK) -> None:
    """A word beside a point; :func:`legend` moves those apart that would hide each other."""
    if text:
        start = OFFSETS[0][:2]
        word = axes.annotate(text, (x, y), xytext=start, textcoords="offset points", fontsize=size, color=color)
        word.set_label(BESIDE)


def _spread(axes: Axes) -> None:
    """Move each word beside a point to the side where it overlaps least with other words and points."""
    words = [text for text in axes.texts if isinstance(text, Annotation) and text.get_label() == BESIDE]
    if not words:
        return
    axes.get_xlim(), axes.get_ylim()  # matplotlib scales axes when asked
    points = axes.transData.transform([text.xy for text in words]) * 72 / axes.figure.dpi
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    for text, (x, y) in zip(words, points, strict=True):
        height = float(text.get_fontsize())
        width = 0.62 * height * len(text.get_text())
        boxes = []
        for right, up, side in OFFSETS:
            start = x + right - (width if side == "right" else width / 2 if side == "center" else 0)
            boxes.append((start, y + up, start + width, y + up + height))
        best = min(range(len(boxes)), key=lambda i: sum(_overlap(boxes[i], other) for other in taken))
        text.xyann, side = OFFSETS[best][:2], OFFSETS[best][2]
        text.set_horizontalalignment(side)
        taken.append(boxes[best])


def _overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Area that two boxes (left, bottom, right, top) have in common."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return width * height if width > 0 and height > 0 else 0.0


def inline_svg(text: str, prefix: str, label: str) -> str:
    """The figure as an ``<svg>`` element: named for screen readers, ids unique in the page, colours as CSS
    variables.

    Args:
        text: what :func:`svg` made.
        prefix: put before every id in the drawing.
        label: what the picture shows, in words.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(
        r"<g id=\"[a-z]+[0-9]*_[0-9]+\">", "<g>", text
    )  # matplotlib names every artist; nothing refers to them
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    text = re.sub(r'(xlink:href="|url\()#([^")]+)', rf"\1#{prefix}-\2", text)
    for paper, variable in VARIABLES.items():
        text = text.replace(paper, f"var(--{variable})")
    text = re.sub(r"(\d+\.\d{2})\d+", r"\1", text)
    text = text.replace("'DejaVu Sans'", "var(--font)")
    text = re.sub(r">\s*\n\s*<", "><", text)
    size = re.search(r'viewBox="[^"]*"', text)
    view = size.group(0) if size else ""
    head = f'<svg role="img" aria-label="{_attribute(label)}" {view} xmlns:xlink="http://www.w3.org/1999/xlink">'
    return re.sub(r"^<svg[^>]*>", lambda _: head, text, count=1).strip()


def svg(figure: Canvas) -> str:
    """The figure as a standalone SVG document in the colours of white paper."""
    with matplotlib.rc_context(RC):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", dpi=170, metadata={"Date": None, "Creator": None})
        return buffer.getvalue()


def png(figure: Canvas) -> bytes:
    """The figure as PNG, 300 dots an inch, on white paper."""
    with matplotlib.rc_context(RC):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=300, facecolor="white", metadata={"Software": None})
        return buffer.getvalue()


def pdf(figure: Canvas) -> bytes:
    """The figure as PDF with embedded fonts."""
    with matplotlib.rc_context(RC):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="pdf", dpi=300, metadata={"CreationDate": None})
        return buffer.getvalue()


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
