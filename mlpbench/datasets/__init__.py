"""Data sets: where frames come from, what their labels mean, and splits that cannot leak."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlpbench.datasets.dataset import Dataset, Split
    from mlpbench.datasets.loading import load
    from mlpbench.datasets.splits import prepare_split

__all__ = ["Dataset", "Split", "load", "prepare_split"]

_HOMES = {"Dataset": "dataset", "Split": "dataset", "load": "loading", "prepare_split": "splits"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: the configuration needs ``datasets.schema``, but no reader and no ASE."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute '{name}'")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
