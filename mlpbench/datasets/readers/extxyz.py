"""Extended and plain xyz: cut into frames here, with every size compared with the file's own, and parsed by ASE."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from mlpbench.datasets.readers.base import Notes, Selection
from mlpbench.errors import UserError

PROGRAM = "_program"  # info key: whose comment line it was
ENERGY_OF = "energy_of_comment"  # info key: the energy in such a comment
_MOST_CHARACTERS = 1_000_000  # of a line
_MOST_ENTRIES = 10_000  # of a comment
_SHORTEST_ROW = 4  # bytes of an atom: a symbol, blanks, digits, a line's end
_COUNT = re.compile(r"\s*(\d{1,18})\s*", re.ASCII)
_SIX = re.compile(r"""\b(stress|virial)\s*=\s*(["'{\[])\s*((?:[-+.\deEdD]+[\s,]+){5}[-+.\deEdD]+)\s*["'}\]]""")
_NUMBER = r"(-?\d+\.\d+(?:[eE][-+]?\d+)?)"
# Comments of programs that leave no doubt about the unit: all three write hartree.
_PROGRAMS = (
    ("CP2K", re.compile(rf"^\s*i\s*=\s*\d+\s*,.*\bE\s*=\s*{_NUMBER}")),
    ("ORCA", re.compile(rf"^\s*Coordinates from ORCA-job .*\bE\s+{_NUMBER}")),
    ("xtb", re.compile(rf"^\s*energy:\s*{_NUMBER}\s+gnorm:.*\bxtb:")),
)


@dataclass
class _Lines:
    """Lines of a file one by one, with one that can be put back."""

    stream: IO[str]
    name: str
    number: int = 0
    again: str | None = None

    def next(self) -> str:
        """The next line, empty at the end.

        Raises:
            UserError: it is longer than a line of text can be.
        """
        if self.again is not None:
            line, self.again = self.again, None
        else:
            line = self.stream.readline(_MOST_CHARACTERS)
        self.number += 1
        if len(line) >= _MOST_CHARACTERS:
            raise UserError(f"{self.name}, line {self.number}: longer than {_MOST_CHARACTERS:,} characters")
        return line

    def put_back(self, line: str) -> None:
        """The same line comes again."""
        self.again, self.number = line, self.number - 1


def structures(path: Path, selection: Selection, notes: Notes) -> Iterator[Atoms]:
    """The frames of ``path`` that ``selection`` asks for.

    Blank lines between frames are skipped, where other readers stop.

    Raises:
        UserError: a frame is malformed, or declares more than the file can hold; with its number and line.
    """
    if selection.counts_from_the_end:
        selection = selection.within(sum(1 for _ in _blocks(path, Notes())))
    for number, (line, block) in enumerate(_blocks(path, notes)):
        if selection.ended(number):
            return
        if selection.wants(number):
            yield _parsed(path, number, line, block, notes)


def _blocks(path: Path, notes: Notes) -> Iterator[tuple[int, list[str]]]:
    """Line number and lines of each frame."""
    size = path.stat().st_size
    with open(path, encoding="utf-8", errors="replace") as stream:
        lines = _Lines(stream, path.name)
        frame, blank = 0, False
        while line := lines.next():
            if not line.strip():
                blank = True
                continue
            if blank and frame:
                notes.add(f"{path.name}: blank lines between frames were skipped")
            blank = False
            begin = lines.number
            n_atoms = _counted(path, frame, begin, line, size)
            block = [line, lines.next()]
            block += [lines.next() for _ in range(n_atoms)]
            if not block[-1].strip():
                raise UserError(f"{path}, frame {frame} (line {begin}): ends before its {n_atoms} atoms", "Cut off?")
            block += _vectors(lines)
            yield begin, block
            frame += 1


def _counted(path: Path, frame: int, number: int, line: str, size: int) -> int:
    match = _COUNT.fullmatch(line)
    if match is None:
        raise UserError(
            f"{path}, line {number}: a number of atoms was expected after {frame} frames, not {line.strip()[:40]!r}"
        )
    n_atoms = int(match[1])
    if n_atoms == 0:
        raise UserError(f"{path}, frame {frame} (line {number}): has no atoms", "Remove it, or choose dataset.index.")
    if n_atoms * _SHORTEST_ROW > size:
        raise UserError(
            f"{path}, frame {frame} (line {number}): declares {n_atoms:,} atoms; the file has {size:,} bytes"
        )
    return n_atoms


def _vectors(lines: _Lines) -> list[str]:
    """Up to three lines VEC1, VEC2, VEC3 of a cell (ADF's xyz)."""
    vectors: list[str] = []
    while (line := lines.next()).lstrip().startswith("VEC") and len(vectors) < 3:
        vectors.append(line)
    lines.put_back(line)
    return vectors


def _parsed(path: Path, number: int, line: int, block: list[str], notes: Notes) -> Atoms:
    where = f"{path}, frame {number} (line {line})"
    if block[1].count("=") > _MOST_ENTRIES:
        raise UserError(f"{where}: its comment has {block[1].count('='):,} entries")
    columns = _columns(where, block[1])
    words = len(block[2].split())
    if columns > words:
        raise UserError(f"{where}: Properties name {columns} columns, the first atom has {words}")
    if columns < words and columns > 0:
        notes.add(f"warning: {path.name}: {words} columns, but only {columns} are named in Properties and read")
    try:
        atoms: Atoms
        (atoms,) = read_xyz(io.StringIO("".join(block)), slice(None), _comment)
    except UserError:
        raise
    except Exception as error:  # whatever a malformed frame makes ASE and numpy raise
        raise UserError(f"{where}: cannot be read ({type(error).__name__}: {str(error)[:200]})") from error
    return atoms


def _columns(where: str, comment: str) -> int:
    """Columns that ``Properties`` names; 4 without it (symbol and position)."""
    match = re.search(r"""\bProperties\s*=\s*["']?([^\s"']+)""", comment)
    if match is None:
        return 4
    counts = match[1].split(":")[2::3]
    if any(re.fullmatch(r"\d{1,6}", count, re.ASCII) is None for count in counts) or not counts:
        raise UserError(f"{where}: Properties={match[1][:80]} is not name:type:columns ...")
    return sum(map(int, counts))


def _comment(text: str) -> dict[str, Any]:
    """As ASE reads a comment; also stresses of six numbers, and the comments of programs that write only an energy."""
    for program, pattern in _PROGRAMS:
        match = pattern.search(text)
        if match:
            return {ENERGY_OF: float(match[1]), PROGRAM: program}
    six = {key: np.array([float(x) for x in re.split(r"[\s,]+", values)]) for key, _, values in _SIX.findall(text)}
    info: dict[str, Any] = key_val_str_to_dict(_SIX.sub("", text) if six else text)
    return {**info, **six}
