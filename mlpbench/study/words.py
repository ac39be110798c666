"""Names and orders that every table, figure and message shares."""

from __future__ import annotations

import re

_NAMES = {
    "schnet": "SchNet",
    "painn": "PaiNN",
    "nequip": "NequIP",
    "mace": "MACE",
    "toy": "Toy pair potential",
    "allegro": "Allegro",
}
ORDER = tuple(_NAMES)  # in which architectures take their colours and markers


def display_name(architecture: str) -> str:
    """An architecture as its authors write it, e.g. ``MACE`` for ``mace``; unknown ones as they are."""
    return _NAMES.get(architecture, architecture)


def natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key that puts ``test_300K`` before ``test_1000K``."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple((0, float(part), "") if index % 2 else (1, 0.0, part) for index, part in enumerate(parts))
