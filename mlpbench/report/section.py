"""What a section of the report is made of: text, tables, figures, commands, lists and parts that open on
demand."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import pandas as pd
from matplotlib.figure import Figure as Canvas

from mlpbench.numbers import interval, number, plural, ratio_text
from mlpbench.report.drawing import svg
from mlpbench.report.estimates import Estimate

Mark = Literal["", "best", "tie", "undecided", "worse", "bad", "warn"]


@dataclass(frozen=True)
class Text:
    """A paragraph. A plain string is escaped; ``markupsafe.Markup`` goes through as HTML."""

    kind: ClassVar[str] = "text"
    text: str
    role: Literal["", "lead", "note", "warning"] = ""


@dataclass(frozen=True)
class Bullets:
    """A list of short sentences."""

    kind: ClassVar[str] = "bullets"
    items: Sequence[str]
    role: Literal["", "lead", "note", "warning"] = ""


@dataclass(frozen=True)
class Commands:
    """Lines to copy: commands, or a file that is also a link and lies beside the page."""

    kind: ClassVar[str] = "commands"
    lines: Sequence[str]
    label: str = ""
    file: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        label: what stands in the header.
        unit: beside it; every number has one.
        note: the definition, shown on hover and read by a screen reader.
        numeric: aligned to the right.
    """

    label: str
    unit: str = ""
    note: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """One entry: ``text``, a smaller ``detail`` (an interval), the value to sort and export by, and a
    mark.
    """

    text: str
    value: float | str | None = None
    detail: str = ""
    mark: Mark = ""
    note: str = ""

    @property
    def sort(self) -> str:
        """The key by which the column sorts; what is missing sorts last."""
        value = self.text if self.value is None else self.value
        if isinstance(value, int | float):
            return repr(float(value)).replace("inf", "Infinity")  # as JavaScript reads it
        return str(value)


@dataclass(frozen=True)
class Table:
    """A table that sorts by each column.

    Attributes:
        name: of the exported files, unique in the report.
        caption: what it shows, n and conditions.
        headers: how many of the first columns name the row.
        searchable: with a field that filters its rows.
        legend: what the marks mean, below it.
    """

    kind: ClassVar[str] = "table"
    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    headers: int = 1
    searchable: bool = False
    legend: str = ""

    def frame(self) -> pd.DataFrame:
        """The table with full precision, for CSV, Markdown and LaTeX."""
        labels = [f"{c.label} ({c.unit})" if c.unit else c.label for c in self.columns]
        rows: list[list[Any]] = [[c.text if c.value is None else c.value for c in row] for row in self.rows]
        frame = pd.DataFrame(rows, columns=labels)
        for index, column in enumerate(self.columns):
            details = [row[index].detail for row in self.rows]
            if any(details):
                frame[f"{column.label}, interval"] = details
        return frame


@dataclass(frozen=True)
class Panel:
    """One picture: a matplotlib figure that no other code holds, and what it shows for those who cannot see
    it.
    """

    name: str
    canvas: Canvas
    alt: str
    title: str = ""

    @cached_property
    def svg(self) -> str:
        """The picture as a standalone SVG document, drawn once."""
        return svg(self.canvas)


@dataclass(frozen=True)
class Figure:
    """Panels under one caption, side by side where there is room."""

    kind: ClassVar[str] = "figure"
    caption: str
    panels: Sequence[Panel]
    small: bool = False  # many small panels in place of two or three large ones


@dataclass(frozen=True)
class Details:
    """Blocks that are folded away until asked for; on paper they are open, or left out where ``paper`` is false."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: Sequence[Any]
    paper: bool = True


@dataclass(frozen=True)
class Slider:
    """The total cost of a run of k steps for each choice, re-ranked as the reader moves the slider.

    Attributes:
        rows: label, fixed cost (s), cost per step (s), text of the error.
    """

    kind: ClassVar[str] = "slider"
    label: str
    rows: Sequence[dict[str, Any]]
    note: str = ""


@dataclass(frozen=True)
class Card:
    """One pillar of the answer.

    Attributes:
        title: of the pillar.
        answer: the best candidate and its number, or that it was not measured.
        lines: what the number is, and under which conditions.
        doubt: whether the best is the best beyond doubt.
        instead: what the runner-up costs in its place.
        commands: that measure what is missing.
        mark: ``best`` where it is beyond doubt.
    """

    title: str
    answer: str
    lines: Sequence[str]
    doubt: str = ""
    instead: str = ""
    commands: Sequence[str] = ()
    mark: Mark = ""


@dataclass(frozen=True)
class Cards:
    """The pillars of an answer, side by side."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[Card]


Block = Cards | Text | Bullets | Commands | Table | Figure | Details | Slider


@dataclass(frozen=True)
class Section:
    """A chapter of the report.

    Attributes:
        id: anchor, unique in the report.
        title: as in the contents.
        finding: the one sentence a reader takes away; stands first.
        blocks: what supports it.
        aside: a figure beside the blocks, where the screen is wide enough.
        top: blocks above both, over the whole width.
    """

    id: str
    title: str
    finding: str = ""
    blocks: Sequence[Block] = field(default_factory=list)
    aside: Figure | None = None
    top: Sequence[Block] = ()

    @property
    def all_blocks(self) -> list[Block | None]:
        """Everything it shows, in order."""
        return [*self.top, *self.blocks, self.aside]


def walk(blocks: Iterable[Block | None]) -> Iterator[Block]:
    """All blocks, those that are folded away included."""
    for block in blocks:
        if isinstance(block, Details):
            yield from walk(block.blocks)
        elif block is not None:
            yield block


def mean_cell(mean: Estimate | None, mark: Mark = "", trivial: float | None = None) -> Cell:
    """A mean with its interval in small print; a dash where there is none.

    Args:
        mean: what to show.
        mark: of the cell.
        trivial: error of a predictor without geometry; a mean that does not beat it says so instead of its mark.
    """
    if mean is None:
        return Cell("–")
    note = {
        "frames": "one repetition; the interval covers the choice of test frames only",
        "none": "one repetition; no interval",
        "repetitions": plural(mean.n, "repetition"),
    }[mean.basis]
    text = number(mean.value, mean.low, mean.high)
    ends = interval(mean.low, mean.high)
    if trivial is not None and mean.value >= trivial:
        said = "no better than trivial"
        return Cell(text, mean.value, f"{ends}; {said}" if ends else said, "bad", note)
    return Cell(text, mean.value, ends, mark, note)


def trivial_cell(errors: tuple[float, float, float] | None) -> Cell:
    """Mean error of the trivial predictor, and the range over training sizes and repetitions where it differs."""
    if errors is None:
        return Cell("–")
    value, low, high = errors
    return Cell(number(value), value, f"{number(low)} to {number(high)}" if high > 1.01 * low else "")


def ratio_cell(value: float, low: float, high: float) -> Cell:
    """A ratio with its interval; enough digits that rounding does not put an end on the wrong side of 1."""
    if not math.isfinite(low):
        return Cell(number(value), value)
    text, ends = ratio_text(value, low, high)
    return Cell(text, value, ends)
