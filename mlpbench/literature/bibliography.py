"""The bibliography: ``bibliography.bib``, one BibTeX entry for each thing that a study may owe a citation."""

from __future__ import annotations

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
