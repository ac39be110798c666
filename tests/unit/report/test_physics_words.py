"""What the headline of the physics section says of relaxed geometries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mlpbench.report.sections import physics


@pytest.mark.parametrize(("counts", "said"), [
    ({"a": [0, 0], "b": [0]}, ""),
    ({"a": [0], "b": [1]},
     "Relaxed from the reference's minimum, b (1 imaginary mode) ends on a saddle, not in a minimum "
     "(200 training frames). "),
    ({"a": [2, 0, 1], "b": [1, 1]},
     "Relaxed from the reference's minimum, a (1 to 2 imaginary modes in 2 of 3 repetitions) and b (1 imaginary mode "
     "in 2 of 2 repetitions) end on a saddle, not in a minimum (200 training frames). "),
])  # fmt: skip
def test_a_saddle_is_called_one(monkeypatch: Any, counts: dict[str, list[int]], said: str) -> None:
    monkeypatch.setattr(physics, "_saddles", lambda *_: counts)
    study: Any = SimpleNamespace(lines=lambda _: ["a", "b"])
    assert physics._saddle_words(study, "ethanol", 200) == said
    shown = [physics._modes_cell(study, "ethanol", name, 200) for name in counts]
    assert [cell.mark for cell in shown] == ["warn" if any(each) else "" for each in counts.values()]
