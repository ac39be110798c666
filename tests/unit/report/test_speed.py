"""The section on speed and cost, from made-up timings with known answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlpbench.errors import UserError
from mlpbench.protocol import write_json
from mlpbench.references.walltimes import read_published
from mlpbench.report.costs import Prices, load_prices
from mlpbench.report.section import Bullets, Details, Figure, Section, Table, Text
from mlpbench.report.sections.cost import speed_section
from mlpbench.report.timings import beside, timed, ways
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, fabricate, make_records

CALL = {"schnet": 2e-3, "mace": 10e-3}  # s
CPU = "Example CPU 3000"


def speed_task(call: float, notice: str = "") -> dict[str, Any]:
    conditions = {"notice": notice, "others_cores": 0.0}
    times = {"latency": [call] * 5, "latency_again": [call] * 5, "md": [1.2 * call] * 5, "conditions": conditions}
    head = {"dtype": "float32", "tf32": False}
    fast = {key: [v / 2 for v in value] if isinstance(value, list) else value for key, value in times.items()}
    return {
        "status": "done", "reason": "", "wall_seconds": 1.0, "peak_memory_mb": 800.0, "peak_device_memory_mb": None,
        "values": {
            "n_atoms": 9.0, "timestep_fs": 0.5, **times, "batched": [],
            "scaling": [{"n_atoms": n, "seconds": [call * n / 9]} for n in (9, 18, 36)]
            + [{"n_atoms": 72, "seconds": [], "stopped": "it needs more than the cap of 100 MB"}],
            "paths": [
                {**head, "deployment": "compiled", "means": "torch.compile", "status": "done", "reason": "",
                 "prepare_seconds": 60.0, "energy_difference": 1e-7, "force_difference": 2e-6, **fast},
                {**head, "deployment": "accelerated", "means": "", "status": "skipped",
                 "reason": "the backend has no accelerated path"},
            ],
        },
    }  # fmt: skip


def measured(threads: int = 1, cpu: str = CPU, notice: str = "") -> dict[str, Any]:
    points = [{"system": "x", "n_atoms": n, "seconds": 0.09 * n**2} for n in (5, 8, 14)]
    return {
        "format": 1, "method": {"code": "pyscf"}, "level": "PBE/def2-svp", "version": "PySCF 2.14.0",
        "threads": threads, "hardware": {"cpu": cpu, "gpus": []}, "n_atoms": 9.0, "seconds": [6.0, 6.0, 6.0],
        "cold_seconds": 7.0, "start_seconds": 2.0, "series": {"name": "alkanes", "points": points},
        "conditions": {"notice": notice},
    }  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Study:
    root = tmp_path / "made-up"
    records = make_records(root, Plan(("schnet", "mace"), n_train=(50, 200), repetitions=1, troubles={}))
    for record in records:
        record["tasks"]["speed"] = speed_task(CALL[record["identifiers"]["architecture"]])
    write_json(root / "dft" / "pyscf-x-threads1.json", measured())
    return Study(root.name, root, records)


def blocks(section: Section | None, kind: type) -> list[Any]:
    assert section is not None
    return [block for block in section.blocks if isinstance(block, kind)]


def column(table: Table, label: str, unit: str = "") -> dict[str, float | str | None]:
    index = next(i for i, c in enumerate(table.columns) if (c.label, c.unit) == (label, unit))
    return {f"{row[0].text}, {row[1].text}": row[index].value for row in table.rows}


def test_one_table_has_every_way_and_the_reference_as_a_row(study: Study) -> None:
    table = blocks(speed_section(study), Table)[0]
    speedups = column(table, "speed-up", "×")
    assert speedups["SchNet, eager"] == pytest.approx(3000)
    assert speedups["SchNet, compiled, torch.compile"] == pytest.approx(6000)
    assert speedups["MACE, eager"] == pytest.approx(600)
    assert speedups["reference: PySCF 2.14.0, 1 thread of Example CPU 3000"] == 1
    days = column(table, "one nanosecond", "days")
    assert days["SchNet, eager"] == pytest.approx(2e6 * 2.4e-3 / 86400)
    assert days["reference: PySCF 2.14.0, 1 thread of Example CPU 3000"] == pytest.approx(2e6 * 6 / 86400)
    assert not any("accelerated" in name for name in speedups)


def test_an_error_no_better_than_trivial_is_flagged_beside_the_speed(study: Study) -> None:
    for bound, mark in ((1e-3, "bad"), (1e6, "")):
        records = [{**r, "metrics": _rows(study, r["trial"])} for r in study.records]
        for record in records:
            record["split"] = {**record["split"], "trivial_errors": {"test_500K": {"force_mae": bound}}}
        table = blocks(speed_section(Study(study.name, study.root, records)), Table)[0]
        mine = [row[-1].mark for row in table.rows if not row[0].text.startswith("reference")]
        assert mine
        assert set(mine) == {mark}


def _rows(study: Study, trial: str) -> list[dict[str, Any]]:
    rows = study.metrics[study.metrics["trial"] == trial]
    return rows[["split", "metric", "value", "unit", "lower", "upper", "n"]].to_dict("records")


def test_conditions_and_what_could_not_run_open_on_demand(study: Study) -> None:
    conditions, missing, _growth = (block.blocks[0] for block in blocks(speed_section(study), Details))
    seconds = column(conditions, "compiled in", "s")
    assert seconds["SchNet, compiled, torch.compile"] == 60
    assert seconds["SchNet, eager"] is None
    assert {(row[1].text, row[-1].text) for row in missing.rows} == {
        ("accelerated", "the backend has no accelerated path")
    }


def test_the_finding_names_the_fastest_and_what_it_is_compared_with(study: Study) -> None:
    section = speed_section(study)
    assert section is not None
    assert "Fastest is SchNet, compiled, torch.compile, float32: 111" in section.finding
    assert "6000 (6000–6000) times as fast" in section.finding.replace("\u202f", "")
    assert "the same hardware" in section.finding
    assert blocks(section, Text) == []


def test_what_is_as_fast_within_the_noise_is_named_too(study: Study) -> None:
    record = next(r for r in study.records if r["identifiers"]["architecture"] == "mace" and "n200" in r["trial"])
    noisy = [1.0e-3, 1.02e-3, 0.97e-3, 1.03e-3, 0.99e-3]
    record["tasks"]["speed"]["values"]["paths"][0] |= {"latency": noisy, "latency_again": noisy[::-1]}
    section = speed_section(study)
    assert section is not None
    assert "within the noise of this run as fast: MACE, compiled, torch.compile" in section.finding


def test_unlike_hardware_and_a_busy_machine_are_said(study: Study) -> None:
    write_json(study.root / "dft" / "pyscf-x-threads1.json", measured(threads=64, cpu="Large CPU", notice="load"))
    section = speed_section(study)
    assert section is not None
    assert "unlike hardware: 1 thread of Example CPU 3000 against 64 threads of Large CPU" in section.finding
    warnings = " ".join(block.text for block in blocks(section, Text))
    assert "not quiet" in warnings
    assert "against 64 threads of Large CPU" in warnings


def test_the_reference_on_the_same_hardware_is_the_one_compared_with(study: Study) -> None:
    write_json(study.root / "dft" / "pyscf-x-threads8.json", measured(threads=8))
    references = timed(study, "ethanol")
    assert [one.threads for one in references] == [1, 8]
    found = beside(ways(study, "ethanol")[0], references)
    assert found is not None
    assert found.threads == 1


def test_break_even_counts_labels_and_training(study: Study) -> None:
    table = next(t for t in blocks(speed_section(study), Table) if t.name.startswith("payback"))
    wall = study.record[next(t for t in study.record if "schnet" in t and "n200" in t)]["training"]["wall_seconds"]
    expected = (250 * 6.0 + wall) / (6.0 - 2.4e-3)
    assert column(table, "paid back after", "MD steps")["SchNet, eager, float32"] == pytest.approx(expected)
    hours = column(table, "invested", "core-hours")["SchNet, eager, float32"]
    assert hours == pytest.approx((250 * 6.0 + wall) / 3600)
    assert not any(c.unit == "EUR" for c in table.columns)


def test_prices_give_money(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLPBENCH_CONF", raising=False)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "prices.yaml").write_text("currency: CHF\ncpu_core_hour: 0.036\nsource: our bill\n")
    table = next(t for t in blocks(speed_section(study), Table) if t.name.startswith("payback"))
    hours = column(table, "invested", "core-hours")["MACE, eager, float32"]
    assert isinstance(hours, float)
    assert column(table, "invested", "CHF")["MACE, eager, float32"] == pytest.approx(hours * 0.036)
    assert "our bill" in table.caption
    (tmp_path / "conf" / "prices.yaml").write_text("cpu_core_hours: 1\n")
    with pytest.raises(UserError, match="cpu_core_hours"):
        load_prices()


def test_a_price_is_of_the_hardware() -> None:
    prices = Prices(cpu_core_hour=3.6, gpu_hour=36.0)
    assert prices.per_second(False, 8) == pytest.approx(8e-3)
    assert prices.per_second(True, 8) == pytest.approx(1e-2)
    assert Prices().per_second(True, 1) is None


def test_growth_and_crossover_are_told_with_what_is_extrapolated(study: Study) -> None:
    section = speed_section(study)
    text = " ".join(item for block in blocks(section, Bullets) for item in block.items)
    assert "grows as N^2.00 (95 %" in text
    (table,) = [b for one in blocks(section, Details) for b in one.blocks if b.name.startswith("growth")]
    (row,) = [row for row in table.frame().to_dict("records") if row["Potential"] == "SchNet"]
    assert row["Exponent"] == pytest.approx(1.0)
    assert (row["Sizes (atoms)"], row["Cheaper where measured"]) == (36.0, "the potential, everywhere")
    assert "reference extrapolated" in row["Remarks"]
    scaling = blocks(section, Figure)[0]
    assert "extrapolated, not measured" in scaling.caption
    assert "SchNet: it needs more than the cap of 100 MB (72 atoms)" in scaling.caption
    dashes = [line.get_linestyle() for line in scaling.panels[0].canvas.axes[0].lines]
    assert "--" in dashes


def test_recorded_times_stand_with_their_sources(study: Study) -> None:
    def recorded() -> list[Table]:
        tables = [block.blocks[0] for block in blocks(speed_section(study), Details)]
        return [table for table in tables if table.name.startswith("recorded")]

    assert recorded() == []
    write_json(study.root / "dft" / "recorded.json", {"rows": read_published()})
    (table,) = recorded()
    assert "unlike hardware" in table.caption
    assert [row[-1].text for row in table.rows] == [row["source"] for row in read_published()]


def test_a_study_without_timings_has_no_such_section(tmp_path: Path) -> None:
    assert speed_section(fabricate(tmp_path / "s", Plan(("mace",), n_train=(50,), repetitions=1, troubles={}))) is None
