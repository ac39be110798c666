"""Gather the wheels a backend needs into a folder, for a machine that cannot download them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlpbench.backends.fetch import fetch
from mlpbench.backends.locks import python_version
from mlpbench.backends.probe import normalise
from mlpbench.backends.uv import Progress
from mlpbench.errors import UserError


@dataclass(frozen=True)
class Pin:
    """One line of a compiled requirements file: ``name==version``, and who asks for it (its ``# via``)."""

    name: str
    version: str
    via: frozenset[str]

    @property
    def line(self) -> str:
        """As in a requirements file."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Gathered:
    """What :func:`gather` did.

    Attributes:
        pins: those now in the folder.
        left_out: those that the target has, or that were not wanted.
        megabytes: size of the wheels (10⁶ bytes).
        built: lines of the packages that were built here, because only their source is published.
        notes: what the user has to know.
    """

    pins: list[Pin]
    left_out: list[Pin]
    megabytes: float
    built: list[str]
    notes: list[str]


def gather(
    pins: Sequence[Pin],
    out: Path,
    *,
    progress: Progress,
    python: str | None = None,
    platform: str | None = None,
    without: Collection[str] = (),
    target: dict[str, str] | None = None,
) -> Gathered:
    """Put a wheel for each pin into ``out``.

    Args:
        pins: what is needed.
        out: the folder; made if missing. Wheels that are in it already are kept.
        progress: called with a line on each step.
        python: major.minor of the target; None: this interpreter's.
        platform: tag of the target such as ``manylinux_2_28_aarch64``; None: this machine's.
        without: packages to leave out, and with them what only they need.
        target: name -> version of what the target has; a pin it has in just that version is left out.

    Raises:
        UserError: a name in ``without`` is no pin; or a package cannot be downloaded, or not be built for
            the target.
    """
    kept, left_out, notes = select(pins, without, target or {})
    out.mkdir(parents=True, exist_ok=True)
    other_python = python if python != python_version() else None
    built = fetch([pin.line for pin in kept], out, python=other_python, platform=platform, progress=progress)
    megabytes = sum(path.stat().st_size for path in out.glob("*.whl")) / 1e6
    return Gathered(kept, left_out, megabytes, built, notes)


def read_compiled(path: Path) -> list[Pin]:
    """The pins of a file that ``uv pip compile`` wrote, with its ``# via`` comments, if it has them.

    Raises:
        UserError: the file cannot be read, or a line is no exact pin.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"requirements file {path} cannot be read: {error.strerror}") from error
    found: list[tuple[str, str, set[str]]] = []
    for line in lines:
        text = line.strip()
        comment = re.fullmatch(r"#\s*(?:via\s*)?(.*)", text)
        if comment:
            if found and comment.group(1):
                found[-1][2].add(_parent(comment.group(1)))
            continue
        if not text or text.startswith("--hash"):
            continue
        pin = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text)
        if pin is None:
            raise UserError(f"{path}: '{text}' is no exact pin (name==version)")
        found.append((normalise(pin.group(1)), pin.group(2), set()))
    return [Pin(name, version, frozenset(via)) for name, version, via in found]


def select(
    pins: Sequence[Pin], without: Collection[str], target: dict[str, str]
) -> tuple[list[Pin], list[Pin], list[str]]:
    """Which pins to take and which to leave out, and notes on versions of the target that differ.

    Raises:
        UserError: a name in ``without`` is no pin.
    """
    names = {pin.name for pin in pins}
    dropped = {normalise(name) for name in without}
    for name in dropped - names:
        raise UserError(f"--without {name}: it is not among what is needed", f"Known: {', '.join(sorted(names))}")
    while True:
        orphans = {pin.name for pin in pins if pin.via and pin.via <= dropped} - dropped
        if not orphans:
            break
        dropped |= orphans
    dropped |= {p.name for p in pins if target.get(p.name, "").split("+")[0] == p.version.split("+")[0]}
    kept = [pin for pin in pins if pin.name not in dropped]
    notes = [
        f"the target has {pin.name} {target[pin.name]}, {pin.version} is needed: its wheel was taken"
        for pin in kept
        if pin.name in target
    ]
    return kept, [pin for pin in pins if pin.name in dropped], notes


def read_target_list(path: Path) -> dict[str, str]:
    """Name -> version from what ``pip list`` printed on the target, as columns, freeze or json.

    Raises:
        UserError: the file cannot be read, or holds no package.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--target-list {path} cannot be read: {error}") from error
    pattern = (
        r"\"name\":\s*\"([^\"]+)\",\s*\"version\":\s*\"([^\"]+)\""
        if text.lstrip().startswith("[")
        else (r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)(?:==|[ \t]+)(\d[^\s]*)")
    )
    found = {normalise(name): version for name, version in re.findall(pattern, text)}
    if not found:
        raise UserError(f"--target-list {path}: no package is listed there", "Write it with: pip list > FILE")
    return found


def _parent(text: str) -> str:
    """A package's name, or ``-r FILE``, which is never left out."""
    return text if text.startswith("-") else normalise(text)
