"""Starts the worker inside a foreign environment: ``python -P bootstrap.py FOLDER [MODULE]``.

The backend's interpreter must find ``mlpbench.worker`` without finding the packages installed beside it in the core's
environment. So no folder is added to the path: a bare ``mlpbench`` package is made by hand whose search path is
this source folder alone, and the modules load from there. So is the package of an adapter from outside, whose folder
is in the variable ``MLPBENCH_PACKAGE``. ``MODULE`` has the ``main`` to call; without it, that of trials.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

PACKAGE = "MLPBENCH_PACKAGE"


class _Outside(importlib.abc.MetaPathFinder):
    """Finds one package in its folder, and nothing that lies beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None, /
    ) -> importlib.machinery.ModuleSpec | None:
        return _spec(self.folder) if name == self.folder.name else None


def _spec(folder: Path) -> importlib.machinery.ModuleSpec:
    spec = importlib.util.spec_from_file_location(
        folder.name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    return spec


def _mount() -> None:
    spec = _spec(Path(__file__).resolve().parent.parent)
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["mlpbench"] = package
    spec.loader.exec_module(package)
    outside = os.environ.get(PACKAGE)
    if outside:
        sys.meta_path.insert(0, _Outside(Path(outside)))


if __name__ == "__main__":
    # Without -P the script's own folder comes first; its adapters/mace.py must never shadow the package mace.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    _mount()
    module = importlib.import_module(sys.argv[2] if len(sys.argv) > 2 else "mlpbench.worker.main")
    sys.exit(module.main(sys.argv[1:2]))
