"""Which backends there are: ``backend/*.yaml`` of the conf folders, and what outside packages announce."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from mlpbench.errors import UserError

ENTRY_POINTS = "mlpbench.backends"


def backend_nodes(conf_dirs: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Every backend's settings by name, without the name itself.

    A file holds one top-level key, the backend's name. The first conf folder wins, and any of them wins
    over an outside package, whose entry point in group ``mlpbench.backends`` must give the path of such a
    file.

    Args:
        conf_dirs: conf folders, most important first.

    Raises:
        UserError: a file is not YAML or not of this form.
    """
    nodes: dict[str, dict[str, Any]] = {}
    for folder in conf_dirs:
        for path in sorted((folder / "backend").glob("*.yaml")):
            name, node = read_backend(path)
            nodes.setdefault(name, node)
    for path in _outside():
        name, node = read_backend(path)
        requirements = node.get("requirements")
        if requirements is not None and not Path(requirements).expanduser().is_absolute():
            node["requirements"] = str(path.parent / requirements)  # it stands beside the outside package's YAML
        nodes.setdefault(name, node)
    return nodes


def read_backend(path: Path) -> tuple[str, dict[str, Any]]:
    """Name and settings from one YAML file.

    Raises:
        UserError: it cannot be read, is not YAML, or has not exactly one top-level key with settings below
            it.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(data, dict) or len(data) != 1 or not isinstance(next(iter(data.values())), dict):
        raise UserError(
            f"{path}: a backend's file has one top-level key, its name, with the settings below it",
            "See conf/backend/toy.yaml for an example.",
        )
    name, node = next(iter(data.items()))
    return str(name), {str(key): value for key, value in node.items()}


def _outside() -> Iterable[Path]:
    for point in metadata.entry_points(group=ENTRY_POINTS):
        try:
            target = point.load()
        except Exception as error:  # an outside package's import can fail in any way
            raise UserError(
                f"entry point '{point.name}' ({point.value}) of {ENTRY_POINTS} cannot be loaded: "
                f"{type(error).__name__}: {error}",
                f"Mend or uninstall the package {point.dist.name if point.dist else point.module}.",
            ) from error
        path = Path(target() if callable(target) else target)
        if not path.is_file():
            raise UserError(f"entry point '{point.name}' of {ENTRY_POINTS} gives '{path}', which is no file")
        yield path
