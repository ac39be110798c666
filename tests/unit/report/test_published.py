"""Published values beside ours, and what to cite, in a made-up study on the frames of another one's name."""

import re

import pytest

from mlpbench.literature import published_values
from mlpbench.report.estimates import Estimate
from mlpbench.report.sections import sources, transfer
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, fabricate, make_records

PLAN = Plan(architectures=("schnet", "mace"), n_train=(50, 200), troubles={}, predictions=False)
SPLITS = {"test_500K": "test_300K", "test_300K": "test_600K"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """As if the frames were those of acac-300K."""
    root = tmp_path_factory.mktemp("results") / "made-up"
    records = make_records(root, PLAN)
    for record in records:
        record["identifiers"]["dataset"] = "acac-300K"
        record["split"]["in_distribution"] = "test_300K"
        record["config"]["dataset"] |= {"name": "acac-300K", "collection": "acac", "on_leak": "drop"}
        for row in record["metrics"]:
            row["split"] = SPLITS.get(row["split"], row["split"])
    return Study("made-up", root, records)


def test_ours_stand_beside_theirs_with_the_ratio_and_the_differences(study):
    section = transfer.published_section(study)
    table = section.blocks[0].frame()
    row = table[(table["Split"] == "test_300K") & (table["Architecture"] == "MACE")].iloc[0]
    assert (row["Published"], row["Their n_train (frames)"], row["Our n_train (frames)"]) == (5.1, 500, 200)
    mean = row["Ours"]
    values = study.values.query(
        "candidate == 'MACE' and n_train == 200 and metric == 'force_rmse' and split == 'test_300K'"
    )["value"]
    assert mean == pytest.approx(values.prod() ** (1 / len(values)))
    assert row["Ours / published"] == pytest.approx(mean / 5.1)
    assert "trained on 200 frames, not 500" in row["What differs"]
    caption = section.blocks[0].caption
    assert "2000 steps" in caption
    assert "mace small" in caption
    assert "leave out those that repeat test frames" in caption
    assert "MACE" in section.finding
    assert "SchNet" not in section.finding  # nothing is published of it for these frames


def test_ours_no_better_than_a_trivial_predictor_is_flagged(study):
    records = [{**r, "metrics": r["metrics"], "split": {**r["split"]}} for r in make_records(study.root, PLAN)]
    for record, named in zip(records, study.records, strict=True):
        record["identifiers"], record["config"] = named["identifiers"], named["config"]
        record["split"]["in_distribution"] = "test_300K"
        record["split"]["trivial_errors"] = {"test_300K": {"force_rmse": 1e-3}}
        for row in record["metrics"]:
            row["split"] = SPLITS.get(row["split"], row["split"])
    table = transfer.published_section(Study("made-up", study.root, records)).blocks[0]
    ours = [column.label for column in table.columns].index("Ours")
    mine = [row for row in table.rows if row[0].text == "test_300K" and row[ours].value is not None]
    marks = {(row[1].text.partition(",")[0], row[ours].mark) for row in mine}
    assert ("F RMSE", "bad") in marks
    assert ("F RMSE", "") not in marks


def test_architectures_that_were_not_run_stay_as_rows_without_ours(study):
    table = transfer.published_section(study).blocks[0].frame()
    assert set(table.loc[table["Architecture"] == "BOTNet", "Ours"]) == {"–"}


def at(value: float, low: float, high: float) -> transfer.Ours:
    return transfer.Ours("MACE", 950, 50, 0, Estimate(value, low, high, 3, "repetitions"))


def test_the_verdict_says_whether_a_published_number_was_reached():
    entries = published_values("rmd17-aspirin")
    paper = next(
        e for e in entries if (e.architecture, e.metric, e.n_train) == ("mace", "force_mae", 950) and not e.repeats
    )
    again = paper.repeated_in(entries)
    assert (paper.value, again.value) == (6.6, 8.9)
    rested = {("MACE", 950)}
    assert transfer.verdict(paper, again, None, rested) == "not run here"
    assert transfer.verdict(paper, again, at(7.0, 6.5, 7.5), rested) == "agrees within our interval"
    assert transfer.verdict(paper, again, at(7.1, 7.0, 7.2), rested) == "agrees to within 15%"
    larger = transfer.verdict(paper, again, at(9.2, 8.8, 9.6), rested)
    assert larger == "larger, 1.39 times the published error; no larger than what others found who repeated it"
    assert "had not come to rest" in transfer.verdict(paper, again, at(13.2, 13, 13.4), set())
    assert transfer.verdict(paper, again, at(3.3, 3.2, 3.4), rested) == "smaller, 0.500 times the published error"
    assert transfer.verdict(paper, again, at(6.6, 6.5, 6.7)._replace(n_train=200), rested).startswith("no comparison")


def test_validation_frames_may_come_out_of_the_published_number_where_the_paper_is_silent():
    acac = next(e for e in published_values("acac-300K") if (e.architecture, e.metric) == ("mace", "force_rmse"))
    assert (acac.n_train, acac.n_valid) == (500, None)
    assert at(5.1, 5.0, 5.2)._replace(n_train=450).same_frames(acac)
    assert not at(5.1, 5.0, 5.2)._replace(n_train=450, n_valid=100).same_frames(acac)
    rmd17 = next(e for e in published_values("rmd17-aspirin") if e.n_train == 950 and e.n_valid == 50)
    assert not at(5.1, 5.0, 5.2)._replace(n_train=900).same_frames(rmd17)


def test_nothing_published_no_section(tmp_path):
    assert transfer.published_section(fabricate(tmp_path / "x", PLAN)) is None


def test_bibtex_of_what_was_used_and_of_nothing_else(study):
    section = sources.cite_section(study)
    text = "\n".join(section.blocks[1].blocks[0].lines)
    keys = set(re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE))
    assert keys == {
        "schutt2018schnet", "schutt2023schnetpack", "schutt2019schnetpack", "batatia2022mace", "batatia2022design",
        "larsen2017ase",
    }  # fmt: skip
    table = section.blocks[0].frame().set_index("Key")
    assert table.loc["batatia2022design", "For"] == "mace-torch (package) and acac-300K (data)"
