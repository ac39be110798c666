"""Pairs with their power, rank stability and the sources of the spread, against the laws a study was made from."""

import re

import numpy as np
import pytest

from mlpbench.numbers import ratio_text
from mlpbench.report.estimates import comparisons
from mlpbench.report.section import walk
from mlpbench.report.sections import answer, robustness
from tests.unit.report.fabricate import Plan, fabricate


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("results") / "made-up", Plan(n_train=(50, 200), troubles={}))


def tables(study):
    return {
        block.name: block.frame()
        for block in walk(robustness.robustness_section(study).blocks)
        if hasattr(block, "frame")
    }


def test_every_pair_with_its_verdict_and_its_power(study):
    table = tables(study)["pairs-ethanol"]
    assert len(table) == 6
    row = table[table["Pair"] == "NequIP / SchNet"].iloc[0]
    rows = study.part("ethanol", "force_mae", "test_500K").query("n_train == 200")
    errors = rows.pivot(index="repetition", columns="candidate", values="value")
    ratio = np.exp(np.log(errors["SchNet"] / errors["NequIP"]).mean())
    assert row["Error ratio"] == pytest.approx(ratio)
    assert row["Verdict"] == "NequIP better"
    powers = [row[f"Power at {r} (repetitions)"] for r in (3, 5, 10)]
    assert powers == sorted(powers)
    (one,) = [p for p in comparisons(study, "ethanol", "force_mae", "test_500K")[200]
              if {p.first, p.second} == {"NequIP", "SchNet"}]  # fmt: skip
    assert powers == [one.power[r] for r in (3, 5, 10)]


def test_leaving_out_shows_what_turns(study):
    table = tables(study)["stability-ethanol"].set_index("Left out")
    assert set(table.index) == {"SchNet", "PaiNN", "NequIP", "MACE", *(f"repetition {r}" for r in range(3))}
    errors = study.part("ethanol", "force_mae", "test_500K").query("n_train == 200 and repetition != 1")
    by_hand = np.log(errors["value"]).groupby(errors["candidate"]).mean().sort_values().index
    assert table.loc["repetition 1", "Order then"] == " < ".join(by_hand)


def test_without_crossed_seeds_the_common_part_of_the_spread_is_said_and_how_to_cross_them(study):
    text = robustness.robustness_section(study).blocks[-1].text
    assert "common to all candidates" in text
    assert "split_seed=0,1,2 init_seed=0,1,2" in text


def test_swept_seeds_are_repetitions_and_give_both_shares(tmp_path):
    seeds = tuple({"split_seed": s, "init_seed": i} for s in range(3) for i in range(3))
    plan = Plan(architectures=("schnet", "mace"), n_train=(50,), repetitions=1, settings=seeds, troubles={},
                predictions=False)  # fmt: skip
    found = fabricate(tmp_path / "crossed", plan)
    assert set(found.trials["setting"]) == {""}
    assert sorted(found.trials["counts_as"].dropna().unique()) == [0, 1, 2]
    assert set(found.table["candidate"]) == {"SchNet", "MACE"}
    text = robustness.robustness_section(found).blocks[-1].text
    shares = [float(x) for x in re.findall(r"(\d+) % of the variance from the split", text)]
    assert "crossed design, 18 trials" in text
    assert "from the initialisation seed" in text
    assert shares or "under 1 %" in text
    assert "Seeds were crossed" in str([block for block in answer.answer_section(found).blocks])


def test_a_ratio_keeps_the_digits_that_tell_it_from_one():
    assert ratio_text(1.26, 1.02, 1.57) == ("1.26", "1.02–1.57")
    assert ratio_text(1.2, 0.8, 1.6)[1] == "0.8–1.6"
