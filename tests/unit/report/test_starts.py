"""The section on starts, on a study whose answers are known."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from mlpbench.metrics import metric_row
from mlpbench.report.section import Figure, Section, Table, Text, walk
from mlpbench.report.sections import answer
from mlpbench.report.sections.starts import Pair, factor_words, starts_section
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, make_records

SIZES = (10, 25, 50, 100, 200)


def pair(factor: float, repetitions: int = 3, **more: Any) -> Pair:
    """From scratch 100·N^-½, a start that is worth ``factor`` times the labels."""
    curve = {r: {n: 100.0 * n**-0.5 * 1.02**r for n in SIZES} for r in range(repetitions)}
    started = {r: {n: 100.0 * (factor * n) ** -0.5 * 0.99**r for n in SIZES} for r in range(repetitions)}
    return Pair("S (from p)", "S", {"S": curve, "S (from p)": started})


def test_where_scratch_catches_up() -> None:
    assert pair(4.0).caught_words() == "not within the data"
    assert pair(0.9).caught_words() == "at 10 frames"
    assert pair(4.0, repetitions=1).caught_words() == "not known from one repetition"
    ends = pair(4.0)
    for r in range(3):  # the curves meet at 100 frames
        ends.errors["S"][r] |= {100: 5.0 + 0.2 * r, 200: 4.0 + 0.1 * r}
        ends.errors["S (from p)"][r] |= {100: 5.2 - 0.1 * r, 200: 4.0 + 0.2 * r}
    assert ends.caught_words() == "at 100 frames"


def test_factors_in_words() -> None:
    assert factor_words(pair(4.0).multiplier(10)).startswith("4.")
    assert factor_words(pair(4.0).multiplier(200)) == "more than 1 times"
    assert factor_words(pair(40.0).multiplier(10)) == "more than 20 times"
    assert factor_words(pair(0.5).multiplier(10)) == "less than 1 times"
    assert "one repetition" in factor_words(pair(4.0, repetitions=1).multiplier(10))


def started(record: dict[str, Any], start: str, factor: float, said: dict[str, Any]) -> dict[str, Any]:
    """The same trial from a start, with errors that are ``factor`` times those from scratch."""
    other = copy.deepcopy(record)
    kind = "zero_shot" if start.startswith("zero_shot") else "foundation" if "foundation" in said else "potential"
    other["trial"] += f"-{kind}-{start.split()[-1]}"
    other["identifiers"]["start"] = start
    other["config"]["start"] = {"kind": kind, "potential": "results/pre", "lr_factor": 0.1}
    other["training"]["start"] = {"kind": kind, "shifts_eV": {"H": 1.0, "C": -2.0}, **said}
    for row in other["metrics"]:
        if "mae" in row["metric"]:
            row |= {end: row[end] * factor for end in ("value", "lower", "upper") if row[end] is not None}
    return other


@pytest.fixture
def section(tmp_path: Path) -> Section:
    plan = Plan(architectures=("schnet",), sizes=("tiny",), n_train=(10, 50, 200), troubles={}, restless=frozenset(),
                frames=False, noise=0.02)  # fmt: skip
    scratch = make_records(tmp_path, plan)
    cost = {"pretraining_seconds": 120.0, "pretraining_labels": 1650, "pretraining_label_seconds": 0.003}
    tuned = [started(record, "pre", 0.5, cost) for record in scratch]
    for record in tuned:
        values = {"start_force_mae": 60.0, "kept_force_mae": 90.0, "forgetting": 1.5}
        record["metrics"] += [metric_row("", name, value) for name, value in values.items()]
    model = {"foundation": "7net-0", "licence": "ASL", "trust": True, "own_atomic_energies_eV": {"H": -3.5}}
    zero = [started(record, "zero_shot 7net-0", 2.0, model) for record in scratch]
    found = starts_section(Study(tmp_path.name, tmp_path, [*scratch, *tuned, *zero]))
    assert found is not None
    return found


def cell_texts(section: Section, name: str) -> list[list[str]]:
    (table,) = [block for block in walk(section.all_blocks) if isinstance(block, Table) and block.name == name]
    return [[cell.text for cell in row] for row in table.rows]


def test_the_section_says_what_the_start_saves_costs_and_forgets(section: Section) -> None:
    assert "SchNet (from pre)" in section.finding
    assert "longer trainings from scratch may need fewer labels" in section.finding
    rows = cell_texts(section, "starts-ethanol")
    assert [row[1] for row in rows] == ["10", "50", "200"]
    assert all(float(row[4]) == pytest.approx(2.0, abs=0.02) for row in rows)
    # Half the error at an exponent of 0.45 is 4.67 times the labels; the curve ends before that at the larger sizes.
    assert rows[0][5][0] in "45"
    assert rows[2][5] == "more than 1 times"
    price = cell_texts(section, "starts-price-ethanol")
    assert all("1650 of" in row[4] for row in price)
    assert cell_texts(section, "forgetting-ethanol")[0][4].startswith("1.5")
    zero = cell_texts(section, "starts-zero-shot-ethanol")
    assert zero[0][0] == "SchNet (7net-0 as it is)"
    assert zero[0][3] == "H +1.00, C -2.00"
    assert zero[0][4] == "H -3.50"
    texts = [block.text for block in walk(section.all_blocks) if isinstance(block, Text)]
    assert any("7net-0 (ASL; loaded with start.trust=true" in text for text in texts)
    assert any(isinstance(block, Figure) for block in section.blocks)


def test_the_price_is_in_money_where_prices_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "conf"
    own.mkdir()
    (own / "prices.yaml").write_text("{currency: EUR, cpu_core_hour: 0.36, source: a bill}", encoding="utf-8")
    monkeypatch.setenv("MLPBENCH_CONF", str(own))
    plan = Plan(architectures=("schnet",), sizes=("tiny",), n_train=(10, 50), troubles={}, frames=False, noise=0.02)
    scratch = make_records(tmp_path, plan)
    cost = {"pretraining_seconds": 200.0, "pretraining_labels": 1600, "pretraining_label_seconds": 0.25}
    study = Study(tmp_path.name, tmp_path, [*scratch, *(started(record, "pre", 0.5, cost) for record in scratch)])
    section = starts_section(study)
    assert section is not None
    (table,) = [b for b in walk(section.all_blocks) if isinstance(b, Table) and b.name == "starts-price-ethanol"]
    assert [column.label for column in table.columns][5:7] == ["Saved", "Spent"]
    for row in table.rows:  # 0.36 an hour are 1e-4 a second
        assert row[6].value == pytest.approx((200.0 + 1600 * 0.25) * 1e-4)
        assert row[5].value == pytest.approx(float(str(row[2].value)) * 1e-4)
    assert "a bill" in table.caption


def test_the_first_screen_says_that_a_start_was_trained_before(tmp_path: Path) -> None:
    plan = Plan(architectures=("mace",), sizes=("tiny",), n_train=(10, 50), troubles={}, frames=False)
    scratch = make_records(tmp_path, plan)
    tuned = [started(record, "pre", 0.5, {"pretraining_labels": 1650}) for record in scratch]
    said = answer._trained_before(Study(tmp_path.name, tmp_path, [*scratch, *tuned]))
    assert len(said) == 1
    assert said[0].startswith(
        "MACE (from pre) had been trained on other data before (1650 labels): that is neither in "
    )
    for alone in (scratch, tuned):  # nothing else to be compared with
        assert answer._trained_before(Study(tmp_path.name, tmp_path, alone)) == []


def test_a_study_from_scratch_has_no_such_section(tmp_path: Path) -> None:
    plan = Plan(architectures=("schnet",), sizes=("tiny",), n_train=(10,), troubles={}, frames=False)
    assert starts_section(Study(tmp_path.name, tmp_path, make_records(tmp_path, plan))) is None
