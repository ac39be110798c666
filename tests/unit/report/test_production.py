"""Growing systems and engines, from made-up timings with known answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from mlpbench.evaluators.production import Growth
from mlpbench.evaluators.speed import rows as speed_rows
from mlpbench.report.production import engine_tables, production_blocks
from mlpbench.report.section import Details, Table
from mlpbench.report.timings import ways
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, make_records
from tests.unit.report.test_speed import CALL, speed_task


def size(n: float, seconds: float, peak: float) -> dict[str, Any]:
    return {"n_atoms": n, "seconds": [seconds, seconds, 2 * seconds], "peak_mb": peak}


GROWN = [size(10, 0.010, 500), size(100, 0.020, 500), size(1000, 0.100, 600), size(2000, 0.190, 700),
         {"n_atoms": 4000, "seconds": [], "stopped": "out of memory"}]  # fmt: skip


def test_plateau_rate_and_memory_of_a_series_that_levels_off() -> None:
    series = Growth.of(GROWN)
    assert series is not None
    assert series.rates == pytest.approx((1000, 5000, 10000, 2000 / 0.19))
    assert series.plateau == 1000  # 95 % of the best
    assert series.memory_per_atom_kb == pytest.approx(1e3 * 200 / 1900)  # from 100 atoms on, whose memory shows
    assert series.ended == "out of memory (4000 atoms)"


def test_a_rate_that_still_rises_has_no_plateau_and_memory_that_does_not_grow_is_unknown() -> None:
    series = Growth.of([size(10, 0.01, 500), size(100, 0.02, 500)])
    assert series is not None
    assert series.plateau is None
    assert series.memory_per_atom_kb is None
    assert Growth.of([{"n_atoms": 10, "seconds": [], "stopped": "out of memory"}]) is None


def test_the_cost_of_a_run_is_interpolated_where_it_was_measured_and_else_marked() -> None:
    series = Growth.of(GROWN)
    assert series is not None
    assert series.seconds_at(1000) == (pytest.approx(0.1), False)
    assert series.seconds_at(math.sqrt(10 * 100))[0] == pytest.approx(math.sqrt(0.01 * 0.02))
    assert series.seconds_at(20000) == (pytest.approx(1.9), True)
    assert series.seconds_at(5) == (pytest.approx(0.010), True)
    assert series.run_hours(0.5) == pytest.approx(2e6 * 0.1 / 3600)


ENGINES = [
    {"engine": "ase", "means": "", "ranks": 1, "status": "done", "reason": "", "n_atoms": 9, "version": "3.29",
     "energy_difference": 0.0, "energy_span": 0.02, "bare": [1e-3] * 5, "md": [1.5e-3] * 5, "peak_memory_mb": 300.0},
    {"engine": "lammps", "means": "fix external", "ranks": 1, "status": "done", "reason": "", "n_atoms": 9,
     "version": "lammps 1", "energy_difference": 2e-9, "energy_span": 0.02, "bare": [1e-3] * 5, "md": [3e-3] * 5,
     "conditions": {"notice": "other processes kept 1.0 cores busy"}},
    {"engine": "ipi", "means": "socket", "ranks": 1, "status": "skipped", "reason": "not built"},
]  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Study:
    root = tmp_path / "made-up"
    records = make_records(root, Plan(("schnet",), n_train=(50,), repetitions=1, troubles={}))
    for record in records:
        record["tasks"]["speed"] = speed_task(CALL["schnet"])
        record["tasks"]["speed"]["values"] |= {"engines": ENGINES, "scaling": GROWN}
    return Study(root.name, root, records)


def test_engines_are_rows_of_the_speed_table_and_no_ways_of_their_own(study: Study) -> None:
    rows = [row for row in speed_rows(study.records[0]) if row["engine"]]
    values = {(row["engine"], row["metric"]): row["value"] for row in rows}
    assert values["lammps", "ms_per_md_step"] == pytest.approx(3)
    assert values["lammps", "engine_overhead"] == pytest.approx(2)
    assert values["lammps", "ns_per_day"] == pytest.approx(86400 / 3e-3 * 0.5e-6)
    assert values["lammps", "engine_energy_difference"] == pytest.approx(2e-6)
    assert values["ipi", None] is None
    assert next(row["reason"] for row in rows if row["engine"] == "ipi") == "not built"
    assert len(ways(study, study.datasets[0])) == 3


def test_the_page_has_engines_beside_each_other_and_says_why_one_is_missing(study: Study) -> None:
    table, details = engine_tables(study, study.datasets[0])
    assert isinstance(table, Table)
    assert isinstance(details, Details)
    assert [row[1].text for row in table.rows] == ["ASE", "LAMMPS, fix external"]
    assert table.rows[1][1].mark == "warn"  # the machine was busy
    overhead = next(i for i, column in enumerate(table.columns) if column.label == "overhead")
    assert [row[overhead].value for row in table.rows] == pytest.approx([0.5, 2.0])
    (missing,) = details.blocks
    assert isinstance(missing, Table)
    assert missing.rows[0][3].text == "not built"


def test_the_page_gives_the_cost_of_a_run_and_marks_what_is_extrapolated(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prices.yaml").write_text("{currency: EUR, cpu_core_hour: 0.02, source: made up}", encoding="utf-8")
    monkeypatch.setenv("MLPBENCH_CONF", str(tmp_path))
    dataset = study.datasets[0]
    (table,) = production_blocks(study, dataset, [way for way in ways(study, dataset) if not way.reason])
    assert isinstance(table, Table)
    hours, money = table.rows[0][6], table.rows[0][7]
    assert hours.value == pytest.approx(2e6 * 0.1 / 3600)
    assert money.value == pytest.approx(0.02 * 2e6 * 0.1 / 3600)
    assert (hours.mark, "extrapolated" in hours.text) == ("", False)
    study.records[0]["tasks"]["speed"]["values"]["scaling"] = GROWN[:2]
    (table,) = production_blocks(study, dataset, [way for way in ways(study, dataset) if not way.reason])
    assert isinstance(table, Table)
    assert table.rows[0][6].mark == "warn"
    assert table.rows[0][6].text.endswith("(extrapolated)")
    assert table.rows[0][3].text == "not reached"
