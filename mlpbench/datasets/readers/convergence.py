"""Calculations that stopped before their electronic structure converged, as the output of the code says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

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
        elif found := next((sign for mark, sign in _SIGNS.items() if mark in line), None):
            outcome.somewhere, outcome.sign = True, found
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
