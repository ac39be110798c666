"""Where configuration lies."""

from __future__ import annotations

import os
from pathlib import Path

from mlpbench.backends.registry import outside_packages
from mlpbench.errors import UserError


def packaged_conf() -> Path:
    """The ``conf`` folder that belongs to this installation: in the wheel, or at the top of the repository."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "conf"


def conf_dirs() -> list[Path]:
    """Folders with configuration, the first wins.

    ``$MLPBENCH_CONF`` or ``./conf``, then the packaged one, then those of outside packages that bring a backend.

    Raises:
        UserError: ``$MLPBENCH_CONF`` is set, but no folder; or see
            :func:`~mlpbench.backends.registry.outside_packages`.
    """
    packaged = packaged_conf()
    named = os.environ.get("MLPBENCH_CONF")
    own = Path(named) if named else Path("conf")
    if named and not own.is_dir():
        raise UserError(f"MLPBENCH_CONF is '{named}', which is not a folder", "Unset it, or run: mlpbench init DIR")
    has_groups = own.is_dir() and any((own / group.name).is_dir() for group in packaged.iterdir() if group.is_dir())
    installed = [packaged, *(folder / "conf" for folder in outside_packages().values())]
    if has_groups and own.resolve() not in [folder.resolve() for folder in installed]:
        return [own.resolve(), *installed]
    return installed
