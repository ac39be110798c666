"""What every reader gives: chunks of frames in eV and Å, their headers, and what was detected or assumed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from mlpbench.errors import UserError
from mlpbench.frames import Bool, Float, Frames, Int
from mlpbench.units import factor

CHUNK = 1000  # frames converted at a time: bounds the memory of counting, hashing and describing a large set


@dataclass(frozen=True)
class Labels:
    """Names, units and conventions of the labels in a file; None: the format's own, or detected and noted."""

    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    energy_unit: str | None = None
    length_unit: str | None = None
    forces_unit: str | None = None
    stress_unit: str | None = None
    forces_sign: str | None = None
    stress_sign: str | None = None
    stress_order: str | None = None
    index: str = ":"


@dataclass(frozen=True)
class Chunk:
    """Some frames, and one header for each.

    Attributes:
        frames: labels that the file lacks are NaN.
        headers: per frame, the values that are neither geometry nor label (temperature_K, config_type ...).
    """

    frames: Frames
    headers: list[dict[str, Any]]


@dataclass
class Notes:
    """What a reader detected or assumed, each sentence once, in order."""

    sentences: dict[str, None] = field(default_factory=dict)

    def add(self, sentence: str) -> None:
        """Remember ``sentence``."""
        self.sentences.setdefault(sentence)

    def listed(self) -> list[str]:
        """All sentences."""
        return list(self.sentences)


class Reader(Protocol):
    """Reads one file (or folder) chunk by chunk; raises UserError where it cannot be understood."""

    def __call__(self, path: Path, labels: Labels, notes: Notes) -> Iterator[Chunk]:
        """Chunks of at most :data:`CHUNK` frames, in the order of the file."""


@dataclass(frozen=True)
class Factors:
    """Multiply values of a file by these to get eV, Å, eV/Å and eV/Å³; the force factor carries the sign."""

    energy: float
    length: float
    forces: float
    stress: float


_ALIASES = {
    "energy": {
        "ev": "eV", "electronvolt": "eV", "mev": "meV", "hartree": "hartree", "ha": "hartree", "eh": "hartree",
        "hartrees": "hartree", "au": "hartree", "a.u.": "hartree", "ry": "Ry", "rydberg": "Ry", "kcal": "kcal/mol",
        "kcal/mol": "kcal/mol", "kj": "kJ/mol", "kj/mol": "kJ/mol",
    },
    "length": {
        "å": "Å", "a": "Å", "ang": "Å", "angstrom": "Å", "angstroms": "Å", "bohr": "bohr", "a0": "bohr", "au": "bohr",
        "a.u.": "bohr", "nm": "nm", "nanometer": "nm",
    },
    "stress": {
        "gpa": "GPa", "kbar": "kbar", "kb": "kbar", "bar": "bar", "bars": "bar", "mpa": "MPa", "pa": "Pa",
        "ev/å³": "eV/Å³",
    },
}  # fmt: skip


def unit_name(text: str, quantity: str, where: str) -> str:
    """This project's name of a unit that a file states, whatever its spelling.

    Args:
        text: as the file has it, e.g. ``Ha``, ``kcal``, ``eV/Ang``.
        quantity: energy, length, forces or stress.
        where: what the message starts with.

    Raises:
        UserError: it is not known.
    """
    plain = text.strip().lower().replace(" ", "").replace("**3", "^3").replace("^3", "³")
    if quantity in ("energy", "length", "stress") and plain in _ALIASES[quantity]:
        return _ALIASES[quantity][plain]
    energy, _, length = plain.rpartition("/")
    cubed = length.endswith("³")
    known = (_ALIASES["energy"].get(energy), _ALIASES["length"].get(length.removesuffix("³")))
    if all(known) and quantity == ("stress" if cubed else "forces"):
        return f"{known[0]}/{known[1]}" + ("³" if cubed else "")
    if quantity == "forces" and plain in ("au", "a.u."):
        return "hartree/bohr"
    raise UserError(
        f"{where}: states the {quantity} unit '{text[:40]}', which is not known",
        f"Declare what it means: dataset.{quantity}_unit=...",
    )


def unit_factors(
    labels: Labels,
    energy: str = "eV",
    length: str = "Å",
    forces: str | None = None,
    forces_sign: str = "forces",
    stress: str | None = None,
    stress_sign: str = "tension",
    stated: Mapping[str, str] | None = None,
    where: str = "",
    notes: Notes | None = None,
) -> Factors:
    """Factors by one rule for all layouts: declared units win, then those the file states, then the layout's own.

    Forces follow as energy per length and stress as energy per length cubed, where nothing else says otherwise.

    Args:
        labels: what the configuration declares.
        energy: the layout's own unit, likewise ``length``, ``forces``, ``stress`` and the two signs.
        stated: quantity -> unit as the file states it (spellings differ).
        where: the file, for messages.
        notes: receives what was taken from where.

    Raises:
        UserError: a unit is not known.
    """
    said = {k: unit_name(v, k, where) for k, v in (stated or {}).items() if getattr(labels, f"{k}_unit") is None}
    chosen_energy = labels.energy_unit or said.get("energy") or energy
    chosen_length = labels.length_unit or said.get("length") or length
    other = (chosen_energy, chosen_length) != (energy, length) or bool(labels.energy_unit or labels.length_unit)
    chosen_forces = (
        labels.forces_unit or said.get("forces")
        or (forces if forces is not None and not other else f"{chosen_energy}/{chosen_length}")
    )  # fmt: skip
    chosen_stress = labels.stress_unit or said.get("stress") or stress or f"{chosen_energy}/{chosen_length}³"
    if notes is not None and said:
        units = ", ".join(f"{name} {unit}" for name, unit in said.items())
        notes.add(f"{where}: units as the file states: {units}")
    gradient = (labels.forces_sign or forces_sign) == "gradient"
    compression = (labels.stress_sign or stress_sign) == "compression"
    try:
        return Factors(
            energy=factor(chosen_energy),
            length=factor(chosen_length),
            forces=factor(chosen_forces) * (-1 if gradient else 1),
            stress=factor(chosen_stress) * (-1 if compression else 1),
        )
    except KeyError as error:
        raise UserError(
            str(error.args[0]), "Check dataset.energy_unit, length_unit, forces_unit, stress_unit."
        ) from error


@dataclass(frozen=True)
class Selection:
    """Which frames ``index`` asks for: ``start:stop:step`` or one number; negative: from the end."""

    start: int | None
    stop: int | None
    step: int = 1

    @classmethod
    def of(cls, index: str) -> Selection:
        """The selection that ``index`` writes.

        Raises:
            UserError: it writes none.
        """
        match = re.fullmatch(r"(-?\d{1,15})?(:(-?\d{1,15})?(?::(\d{1,15})?)?)?", index.strip(), re.ASCII)
        if match is None or index.strip() == "" or (match[4] is not None and int(match[4]) == 0):
            raise UserError(f"dataset.index='{index}' is not start:stop:step", "For example ':5000' or '::10'.")
        start = int(match[1]) if match[1] else None
        if match[2] is None:
            number = int(match[1])
            return cls(number, None if number == -1 else number + 1)
        return cls(start, int(match[3]) if match[3] else None, int(match[4]) if match[4] else 1)

    @property
    def counts_from_the_end(self) -> bool:
        """True if the number of frames must be known first."""
        return (self.start or 0) < 0 or (self.stop or 0) < 0

    def within(self, count: int) -> Selection:
        """The same for ``count`` frames, counted from the beginning."""
        start, stop, step = slice(self.start, self.stop, self.step).indices(count)
        return Selection(start, stop, step)

    def wants(self, number: int) -> bool:
        """True for a frame that is asked for."""
        start = self.start or 0
        return number >= start and (number - start) % self.step == 0 and not self.ended(number)

    def ended(self, number: int) -> bool:
        """True from the first frame on after which none is asked for."""
        return self.stop is not None and number >= self.stop


def uniform(
    numbers: Int,
    positions: Float,
    energy: Float,
    forces: Float | None = None,
    cell: Float | None = None,
    pbc: Bool | bool = False,
    stress: Float | None = None,
) -> Frames:
    """Frames of one composition: (A,) numbers, (F, A, 3) positions Å, (F,) eV, (F, A, 3) eV/Å, (F, 3, 3) Å, (F, 6)."""
    n, atoms = positions.shape[:2]
    missing = np.full((n * atoms, 3), np.nan)
    return Frames(
        n_atoms=np.full(n, atoms, dtype=np.int64),
        numbers=np.tile(np.asarray(numbers, dtype=np.int64), n),
        positions=np.asarray(positions, dtype=np.float64).reshape(-1, 3),
        cell=np.zeros((n, 3, 3)) if cell is None else np.asarray(cell, dtype=np.float64).reshape(n, 3, 3),
        pbc=np.broadcast_to(np.asarray(pbc, dtype=bool), (n, 3)).copy(),
        energy=np.asarray(energy, dtype=np.float64).reshape(n),
        forces=missing if forces is None else np.asarray(forces, dtype=np.float64).reshape(-1, 3),
        stress=np.full((n, 6), np.nan) if stress is None else np.asarray(stress, dtype=np.float64).reshape(n, 6),
        baseline=np.zeros(n),
        group=np.zeros(n, dtype=np.int64),
    )


def reorder(values: Float, order: str) -> Float:
    """(..., 6) components named by ``order`` ('xx yy zz xy yz xz') in ASE's order xx yy zz yz xz xy."""
    names = ["".join(sorted(name)) for name in order.split()]
    return np.asarray(values[..., [names.index(name) for name in ("xx", "yy", "zz", "yz", "xz", "xy")]])


_CONVERGED = "EDIFF is reached"  # VASP, once in each ionic step that converged
_STEP = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"  # VASP, once in each ionic step
_SIGNS = {  # what other codes print, whatever the frame
    "Convergence failure": "Gaussian: Convergence failure",
    "SCF NOT CONVERGED": "ORCA: SCF NOT CONVERGED",
    "convergence NOT achieved": "Quantum ESPRESSO: convergence NOT achieved",
    "SCF run NOT converged": "CP2K: SCF run NOT converged",
}
_TEXT = re.compile(r"outcar|\.out|\.log|\.gaussianlog|\.pwo|vasprun", re.I)
_OUTCAR_NELM = re.compile(r"^\s*NELM\s*=\s*(\d+)")
_ITERATION = re.compile(r"-\s+Iteration\s+\d+\(\s*(\d+)\)")
_NELM = re.compile(r'name="NELM">\s*(\d+)')


@dataclass
class Unconverged:
    """Frames that did not converge.

    Attributes:
        frames: their numbers in the file, where its layout tells.
        somewhere: True if the file says so without telling which.
        sign: what it was recognised by.
    """

    frames: list[int] = field(default_factory=list)
    somewhere: bool = False
    sign: str = ""


def unconverged(path: Path) -> Unconverged:
    """What the output file ``path`` says; nothing where it is no output of a code known here."""
    if not path.is_file() or not _TEXT.search(path.name):
        return Unconverged()
    with open(path, encoding="utf-8", errors="replace") as stream:
        return _xml(stream) if path.suffix == ".xml" else _text(stream)


def _text(stream: IO[str]) -> Unconverged:
    outcome = Unconverged()
    step, converged, last, most = 0, False, 0, 0
    while line := stream.readline(10_000):
        if _CONVERGED in line:  # also where it stops at the last step that it is allowed
            converged = last < most or most == 0
        elif match := _ITERATION.search(line):
            last = int(match[1])
        elif match := _OUTCAR_NELM.match(line):
            most = int(match[1])
        elif _STEP in line:
            if not converged:
                outcome.frames.append(step)
                outcome.sign = f"VASP: {last} electronic steps, NELM = {most}" if last else f"VASP: no '{_CONVERGED}'"
            step, converged = step + 1, False
        elif reached := next((sign for mark, sign in _SIGNS.items() if mark in line), None):
            outcome.somewhere, outcome.sign = True, reached
    return outcome


def _xml(stream: IO[str]) -> Unconverged:
    outcome = Unconverged()
    most, steps, frame = 60, 0, 0  # NELM's default
    while line := stream.readline(10_000):
        if match := _NELM.search(line):
            most = int(match[1])
        elif "<scstep>" in line:
            steps += 1
        elif "</calculation>" in line:
            if steps >= most:
                outcome.frames.append(frame)
                outcome.sign = f"VASP: {steps} electronic steps, NELM = {most}"
            steps, frame = 0, frame + 1
    return outcome
