"""Names and orders that every table, figure and message shares."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from mlpbench.backends.registry import ArchitectureInfo, BackendConfig
from mlpbench.config import load_backends


def display_name(architecture: str, records: Iterable[Mapping[str, Any]] = ()) -> str:
    """An architecture as its authors write it, e.g. ``MACE`` for ``mace``.

    As its backend declares it here, else as one of ``records`` holds it (its package may be installed elsewhere only),
    else the name itself.
    """
    info = architectures().get(architecture)
    if info is not None:
        return info.title
    for record in records:
        if record["identifiers"].get("architecture") == architecture:
            nodes = ((record.get("config") or {}).get("backend") or {}).values()
            said = next((node["architectures"].get(architecture) for node in nodes if node.get("architectures")), None)
            if said:
                return str(said["title"])
    return architecture


def place(architecture: str) -> int | None:
    """Which colour and marker an architecture has in every report; None: the first that is free."""
    info = architectures().get(architecture)
    return None if info is None else info.place


def architectures() -> dict[str, ArchitectureInfo]:
    """Every architecture that a backend declares here, by name.

    Raises:
        UserError: see :func:`backends`.
    """
    return {name: info for backend in backends().values() for name, info in backend.architectures.items()}


def backends() -> dict[str, BackendConfig]:
    """What the files in ``conf/backend`` declare, those of outside packages included, by name of the backend.

    Raises:
        UserError: such a file cannot be used.
    """
    return _backends(os.getcwd(), os.environ.get("MLPBENCH_CONF"))


@cache
def _backends(folder: str, conf: str | None) -> dict[str, BackendConfig]:
    return load_backends()


def natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """Sort key that puts ``test_300K`` before ``test_1000K``."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple((0, float(part), "") if index % 2 else (1, 0.0, part) for index, part in enumerate(parts))
