"""What others published: the bibliography, and the errors that papers report, as data with their sources.

``bibliography.bib`` has one BibTeX entry for each thing that a study may owe a citation; ``published.csv`` has the
errors, each with its source and what is known of its protocol.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from mlpbench.errors import UserError

_ENTRY = re.compile(r"^@\w+\{\s*(?P<key>[^,\s]+)\s*,\s*\n.*?^\}\s*$", re.MULTILINE | re.DOTALL)
_WHERE = {"doi": "doi", "eprint": "arXiv", "url": "url"}  # field -> how it is called
_FIELD = re.compile(r"^\s*(?P<name>\w+)\s*=\s*[{\"](?P<value>.*)[}\"],?\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Reference:
    """One entry.

    Attributes:
        key: to cite it by.
        bibtex: the entry as it is copied, without ``keywords``.
        fields: its fields, braces and accents as written.
        subjects: data sets and packages of the core that it belongs to, e.g. ``package:ase``, ``dataset:acac``.
    """

    key: str
    bibtex: str
    fields: dict[str, str]
    subjects: frozenset[str]

    @property
    def short(self) -> str:
        """First author, year and identifier, e.g. ``Batatia et al. 2022, arXiv:2206.07697``."""
        authors = self.fields.get("author", self.key).split(" and ")
        first = _plain(authors[0].partition(",")[0])
        who = first if len(authors) == 1 else f"{first} and {_plain(authors[1].partition(',')[0])}"
        who = f"{first} et al." if len(authors) > 2 else who
        where = next((f"{word}:{self.fields[name]}" for name, word in _WHERE.items() if name in self.fields), "")
        return ", ".join(part for part in (f"{who} {self.fields.get('year', '')}".strip(), where) if part)


@cache
def references(path: Path | None = None) -> dict[str, Reference]:
    """Every entry of a bibliography, by its key; without ``path``, mlpbench's own.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        text = (path or files("mlpbench.literature").joinpath("bibliography.bib")).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"bibliography {path} cannot be read: {error}") from error
    return {one.key: one for one in (_reference(match) for match in _ENTRY.finditer(text))}


def _reference(match: re.Match[str]) -> Reference:
    fields = {m["name"].lower(): m["value"] for m in _FIELD.finditer(match.group(0))}
    subjects = frozenset(word.strip() for word in fields.pop("keywords", "").split(",") if word.strip())
    bibtex = "\n".join(line for line in match.group(0).splitlines() if not re.match(r"\s*keywords\b", line))
    return Reference(match["key"], bibtex, fields, subjects)


def references_for(subjects: Iterable[str]) -> list[Reference]:
    """The entries that belong to any of the subjects, in the order of the file."""
    wanted = set(subjects)
    return [one for one in references().values() if one.subjects & wanted]


_ACCENTS = {r"{\"u}": "ü", r"{\"o}": "ö", r"{\'a}": "á", r"{\'e}": "é", r"{\'o}": "ó", r"{\o}": "ø"}


def _plain(text: str) -> str:
    for written, letter in _ACCENTS.items():
        text = text.replace(written, letter)
    return text


@dataclass(frozen=True)
class Published:
    """One published error.

    Attributes:
        dataset: as mlpbench names it, variant included.
        split: test split, likewise.
        architecture: as mlpbench names it, or what the paper calls one that mlpbench does not run.
        variant: which one of the architecture, e.g. ``L=2``; empty where the paper has one.
        n_train: training frames; None where the source does not say.
        n_valid: validation frames that come on top; None likewise.
        metric: name of the metric, which gives the unit.
        value: in the metric's unit.
        std: over the paper's repetitions; None where there is none.
        key: of the source in the bibliography.
        place: table of the source, and how its number came here if not from the source itself.
        protocol: what differs from training and testing on this data set's own split, in words.
        repeats: key of the source whose number this is a repetition of, by others; empty for a paper's own number.
    """

    dataset: str
    split: str
    architecture: str
    variant: str
    n_train: int | None
    n_valid: int | None
    metric: str
    value: float
    std: float | None
    key: str
    place: str
    protocol: str
    repeats: str = ""

    def repeated_in(self, others: Iterable[Published]) -> Published | None:
        """The repetition of this number by others; None where there is none."""
        same = (self.dataset, self.split, self.architecture, self.n_train, self.metric, self.key)
        return next(
            (o for o in others if (o.dataset, o.split, o.architecture, o.n_train, o.metric, o.repeats) == same), None
        )

    @property
    def source(self) -> str:
        """The source with its table."""
        return f"{references()[self.key].short}, {self.place}"


def published_values(dataset: str) -> list[Published]:
    """What is published for a data set, in the order of the file; empty where nothing is."""
    return [one for one in _all() if one.dataset == dataset]


@cache
def _all() -> tuple[Published, ...]:
    text = files("mlpbench.literature").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_entry(row) for row in csv.DictReader(text.splitlines()))


def _entry(row: dict[str, str]) -> Published:
    return Published(
        row["dataset"], row["split"], row["architecture"], row["variant"],
        int(row["n_train"]) if row["n_train"] else None, int(row["n_valid"]) if row["n_valid"] else None,
        row["metric"], float(row["value"]), float(row["std"]) if row["std"] else None,
        row["key"], row["place"], row["protocol"], row["repeats"],
    )  # fmt: skip
