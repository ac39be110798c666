"""What a worker can be asked to do. One module a task, with a function ``run(adapter, options, events) -> values``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Adapter

TaskFunction = Callable[[Adapter, dict[str, Any], EventLog], dict[str, Any]]


class Skip(Exception):
    """Raised by a task that cannot apply here; its text is the reason that tables and reports show."""


def find_task(name: str) -> TaskFunction:
    """The task called ``name``.

    Raises:
        KeyError: there is none; the message lists those there are.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise KeyError(f"no task '{name}'; known: {', '.join(sorted(known))}")
    run: TaskFunction = importlib.import_module(f"{__name__}.{name}").run
    return run
