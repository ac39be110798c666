"""Backends with torch are large: their tests run with ``-m backend`` alone."""

from __future__ import annotations

import pytest

from mlpbench.backends.registry import read_pins
from mlpbench.testing.subject import declared_architectures


def pytest_itemcollected(item: pytest.Item) -> None:
    name = item.callspec.params.get("subject", [None])[0] if hasattr(item, "callspec") else None
    if name is not None and any(line.startswith("torch==") for line in read_pins(declared_architectures()[name])):
        item.add_marker(pytest.mark.backend)
        item.add_marker(pytest.mark.slow)
