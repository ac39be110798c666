"""A study of many architectures stays readable: marks of their own, families, long tables folded."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlpbench.report.drawing import looks
from mlpbench.report.section import Details, Table
from mlpbench.report.sections import summary
from mlpbench.study.rows import family
from mlpbench.study.study import Study
from tests.unit.report import fabricate
from tests.unit.report.fabricate import Plan

NAMES = (
    "mace",
    "nequip",
    "painn",
    "schnet",
    "allegro",
    "sevennet",
    "ani",
    "pet",
    "soap_bpnn",
    "se_e2_a",
    "dpa1",
    "dpa3",
)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    for i, name in enumerate(NAMES):
        monkeypatch.setitem(fabricate.LAW, name, (40.0 + 10 * i, 0.4, 0.5, 50_000))
        monkeypatch.setitem(fabricate.BACKEND, name, fabricate.BACKEND.get(name, "schnetpack"))
    plan = Plan(NAMES, n_train=(50, 200), repetitions=2, epochs=5, frames=False, predictions=False)
    return fabricate.fabricate(tmp_path / "s", plan)


def test_no_two_candidates_look_alike(study: Study) -> None:
    found = looks(study)
    assert len(found) == len(NAMES)
    assert len({(look.color, look.marker) for look in found.values()}) == len(NAMES)


def test_every_architecture_that_ships_says_its_family(study: Study) -> None:
    assert {name: family(name) for name in ("mace", "schnet", "ani", "pet")} == {
        "mace": "equivariant", "schnet": "invariant", "ani": "descriptors", "pet": "unconstrained"
    }  # fmt: skip
    assert all(family(name) for name in NAMES)
    assert family("unheard_of") == ""


def test_a_long_comparison_shows_the_largest_size_and_folds_the_rest(study: Study) -> None:
    section = summary.summary_section(study)
    assert section is not None
    first, folded = section.blocks[:2]
    assert isinstance(first, Table)
    assert isinstance(folded, Details)
    labels = [column.label for column in first.columns]
    size = labels.index("n_train")
    assert {row[size].value for row in first.rows} <= {200, None}
    assert [row[labels.index("Family")].text for row in first.rows[:1]] == ["equivariant"]
    (whole,) = folded.blocks
    assert isinstance(whole, Table)
    assert whole.searchable
    assert {row[size].value for row in whole.rows} >= {50, 200}
    assert len(whole.rows) == 2 * len(NAMES) + (len(first.rows) - len(NAMES))
