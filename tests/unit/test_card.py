"""The card of an exported potential: its tables are tables."""

from __future__ import annotations

import re

from mlpbench.exporting.card import _cell, _shown
from mlpbench.metrics import METRICS


def test_a_bar_in_a_description_does_not_end_its_cell() -> None:
    described = [entry.description for entry in METRICS.values() if "|" in entry.description]
    assert described  # |F + ∇E| over |F|
    for text in described:
        assert re.search(r"(?<!\\)\|", _cell(text)) is None
        assert _cell(text).replace("\\", "") == text.replace("\\", "")


def test_counts_have_no_decimals() -> None:
    assert [_shown(9.0), _shown(1.0), _shown(2.34)] == ["9", "1", "2.34"]
