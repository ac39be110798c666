"""What a worker can be asked to do. A task is a function
``(adapter, options, events) -> values``, named in :data:`TASKS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Adapter

TaskFunction = Callable[[Adapter, dict[str, Any], EventLog], dict[str, Any]]


class Skip(Exception):
    """Raised by a task that cannot apply here; its text is the reason that tables and reports show."""


# Name of a task -> where its function is, in a module of this package.
TASKS = {
    "check_options": "training:check_options", "check_start": "training:check_start",
    "train": "training:train", "predict": "training:predict", "verify": "training:verify",
    "forgetting": "forgetting:run", "physics": "physics:run", "md": "md:run",
    "speed": "speed:speed", "speed_path": "speed:speed_path", "scaling": "speed:scaling",
    "speed_engine": "engines:speed_engine",
    "serve": "serve:serve", "export": "serve:export",
}  # fmt: skip


def find_task(name: str) -> TaskFunction:
    """The task called ``name``.

    Raises:
        KeyError: there is none; the message lists those there are.
    """
    if name not in TASKS:
        raise KeyError(f"no task '{name}'; known: {', '.join(sorted(TASKS))}")
    module, _, function = TASKS[name].partition(":")
    task: TaskFunction = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return task
