"""Backends with torch are large, and others are not in the default set: their tests run with ``-m backend`` alone."""

from __future__ import annotations

import pytest

from mlpbench.backends.registry import read_pins
from mlpbench.testing.subject import declared_architectures


def pytest_itemcollected(item: pytest.Item) -> None:
    name = item.callspec.params.get("subject", [None])[0] if hasattr(item, "callspec") else None
    if name is None:
        return
    backend = declared_architectures()[name]
    if not backend.default or any(line.startswith("torch==") for line in read_pins(backend)):
        item.add_marker(pytest.mark.backend)
        item.add_marker(pytest.mark.slow)
