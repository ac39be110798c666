"""Whose choice helps whom, survival against labels, explorations and pictures, where the right answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.io import write

from mlpbench.acquisition.exploring import RoundManifest, write_round
from mlpbench.protocol import write_json
from mlpbench.report import chosen, helping
from mlpbench.report.sections.labelling import labelling_section
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, make_records

FACTORS = {"committee": 0.9, "committee by schnet": 0.95, "committee by painn": 1.1}
TIMES = {"none": 0.002, "committee": 0.004}  # ps of stable dynamics for each label


def twin(record: dict[str, Any], kind: str) -> dict[str, Any]:
    """The trial on frames that ``kind`` chose, with errors that are its factor of random's."""
    new = {**record, "trial": f"{record['trial']}-{kind}", "key": f"{record['key']}{kind}"}
    new["identifiers"] = {**record["identifiers"], "acquisition": kind, "round": 1}
    new["config"] = {**record["config"], "acquisition": {"kind": "committee", "start": 25, "batch": 25}}
    new["metrics"] = [
        {**row, **{k: FACTORS[kind] * row[k] for k in ("value", "lower", "upper") if row[k] is not None}}
        for row in record["metrics"]
    ]
    return new


def simulated(record: dict[str, Any], each: float) -> dict[str, Any]:
    """With a stable time of ``each`` ps for every training frame."""
    time = each * record["identifiers"]["n_train"]
    rows = [
        {"split": "md_1000K", "metric": name, "value": value, "unit": unit, "lower": None, "upper": None, "n": 8,
         "scorer": "md"}
        for name, value, unit in (("md_stable_time", time, "ps"), ("md_survival", 0.0, ""))
    ]  # fmt: skip
    return {**record, "metrics": [*record["metrics"], *rows]}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    plan = Plan(architectures=("painn", "schnet"), n_train=(25, 50), noise=0.0, predictions=False, troubles={},
                frames=False)  # fmt: skip
    records = []
    for record in make_records(tmp_path / "s", plan):
        record["config"]["acquisition"] = {"kind": "none", "start": 25, "batch": 25}
        records.append(simulated(record, TIMES["none"]))
        if record["identifiers"]["n_train"] == 50:
            other = "painn" if record["identifiers"]["architecture"] == "schnet" else "schnet"
            records += [simulated(twin(record, "committee"), TIMES["committee"]), twin(record, f"committee by {other}")]
    return Study("s", tmp_path / "s", records)


def test_the_matrix_has_the_ratio_to_random_of_everyone_on_everyones_frames(study: Study) -> None:
    found = helping.helps(study, study.datasets[0])
    first = {(one.series.line[0], one.chosen_by): one for one in found if one.split == "test_500K"}
    expected = {("painn", "painn"): 0.9, ("painn", "schnet"): 0.95, ("schnet", "painn"): 1.1, ("schnet", "schnet"): 0.9}
    assert {pair: one.ratio.ratio for pair, one in first.items()} == pytest.approx(expected)
    assert {one.labels for one in found} == {50}
    table = helping.matrix_table(study, study.datasets[0], found)
    assert [column.label for column in table.columns[3:]] == ["Chosen by PaiNN", "Chosen by SchNet"]
    rows = {(row[1].text, row[2].text): [cell.value for cell in row[3:]] for row in table.rows}
    assert rows["PaiNN", "F MAE on test_500K"] == pytest.approx([0.9, 0.95])
    assert rows["SchNet", "F MAE on test_500K"] == pytest.approx([1.1, 0.9])


def test_survival_is_given_by_labels_with_the_ratio_to_randoms_stable_time(study: Study) -> None:
    found = {(one.series.line[0], one.series.kind, one.labels): one for one in
             helping.lasting(study, study.datasets[0])}  # fmt: skip
    assert set(found) == {(a, k, n) for a in ("painn", "schnet") for k in ("random", "committee") for n in (25, 50)}
    twice = found["painn", "committee", 50]
    assert twice.stable_ps == pytest.approx((0.2, 0.2, 0.2))
    assert twice.ratio is not None
    assert twice.ratio.ratio == pytest.approx(2)
    assert twice.verdict == "gain"
    shared = found["painn", "committee", 25]
    assert (shared.ratio, shared.verdict) == (None, "")  # the same trials as random's
    section = labelling_section(study)
    assert section is not None
    names = [block.name for block in section.blocks if hasattr(block, "name")]
    assert {f"labelling-matrix-{study.datasets[0]}", f"labelling-survival-{study.datasets[0]}"} <= set(names)


def test_an_exploration_is_a_table_and_its_frames_are_pictures(study: Study) -> None:
    dataset = study.datasets[0]
    folder = study.root / "acquired"
    folder.mkdir(parents=True)
    write_json(folder / "exploration.json", {"digest": "d", "dataset": dataset, "asked": {}})
    shares = [[0.1, 0.5, 0.2], [0.05, 0.1, 0.9]]
    said = [
        {"temperature_K": 300.0, "replica": 0, "time_fs": 10.0, "deviation_eV_A": max(s), "atom_deviations_eV_A": s}
        for s in shares
    ]
    counts = {"frames": 40, "sound": 30, "collapsed": 10, "accurate": 20, "candidates": 8, "failed": 2, "distinct": 5}
    (folder / "round-1").mkdir()
    write_round(folder / "round-1", RoundManifest(1, {}, (0.1, 0.4), counts, {"bond": 2}, 4, said, "c", []))
    water = Atoms("OH2", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    write(folder / "round-1" / "chosen.xyz", [water, water], format="extxyz")
    write_json(folder / "round-1" / "labels.json", {"labelled": 2, "seconds": 3.0})
    again = study
    (round_,) = chosen.explorations(again)[dataset]
    assert round_.labelled == 2
    table = chosen.exploration_table(again, dataset, [round_])
    row = [cell.text for cell in table.rows[0]]
    assert row[0] == "1"
    assert [row[-i] for i in (9, 8, 7, 6, 5, 3, 2)] == ["40", "10", "20", "8", "2", "3", "2"]
    first, second = chosen.pictures(again, dataset)
    assert [float(one.shares.max()) for one in (first, second)] == [0.9, 0.5]
    figure = chosen.pictures_figure(dataset, [first, second])
    assert "disagrees most on atom H2, by 0.9 eV/Å" in figure.panels[0].alt
    assert "<svg" in figure.panels[0].svg
    section = labelling_section(again)
    assert section is not None
    assert section.finding.startswith(f"Exploration of {dataset}: 2 labels in 1 round, of 40 frames")
