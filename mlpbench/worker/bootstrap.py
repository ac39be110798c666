"""Starts the worker inside a foreign environment: ``python -P bootstrap.py FOLDER [MODULE]``.

The backend's interpreter must find ``mlpbench.worker`` without finding the packages installed beside it in the core's
environment. So no folder is added to the path: a bare ``mlpbench`` package is made by hand whose search path is
this source folder alone, and the modules load from there. ``MODULE`` has the ``main`` to call; without it, that of
trials.
"""

import importlib
import importlib.util
import sys
from pathlib import Path


def _mount() -> None:
    source = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "mlpbench", source / "__init__.py", submodule_search_locations=[str(source)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["mlpbench"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    # Without -P the script's own folder comes first; its adapters/mace.py must never shadow the package mace.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    _mount()
    module = importlib.import_module(sys.argv[2] if len(sys.argv) > 2 else "mlpbench.worker.main")
    sys.exit(module.main(sys.argv[1:2]))
