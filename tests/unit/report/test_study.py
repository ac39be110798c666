"""What the report works out from a study's tables and records, against the laws the study was made from."""

import math

import numpy as np
import pytest

from mlpbench.report import facts, fronts
from mlpbench.report.drawing import PAIRS, looks
from mlpbench.report.estimates import against_best, cells
from mlpbench.report.fronts import curves
from mlpbench.report.sections import transfer
from mlpbench.study.rows import natural
from tests.unit.report.fabricate import LAW, Plan, fabricate

SPLIT = "test_500K"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return fabricate(tmp_path_factory.mktemp("results") / "made-up")


def test_means_agree_with_the_law_within_their_intervals(study):
    table = cells(study, "ethanol", "force_mae", SPLIT)
    inside = 0
    for (candidate, n_train), mean in table.items():
        error, exponent, *_ = LAW[candidate.lower()]
        true = error * (n_train / 100) ** -exponent
        assert mean.low < mean.value < mean.high
        inside += mean.low * 0.9 < true * 1.08 and true < mean.high * 1.1  # the frames' own noise differs a little
    assert inside >= 10


def test_interval_of_a_mean_is_that_of_the_logarithm(study):
    rows = study.values.query("candidate == 'SchNet' and n_train == 200 and metric == 'force_mae' and split == @SPLIT")
    mean = cells(study, "ethanol", "force_mae", SPLIT)["SchNet", 200]
    assert mean.value == pytest.approx(math.exp(np.log(rows["value"]).mean()))
    assert mean.low * mean.high == pytest.approx(mean.value**2)
    assert mean.n == len(rows) == 3


def test_a_failed_trial_is_in_no_mean_but_in_the_counts(study):
    assert cells(study, "ethanol", "force_mae", SPLIT)["NequIP", 400].n == 2
    assert facts.statuses(study) == "33 of 36 trials done; 1 failed, 1 out of memory and 1 interrupted"
    assert list(facts.unrested(study.table)["trial"]) == ["ethanol-painn-small-n400-r0"]


def test_the_ranking_says_worse_only_where_the_laws_are_far_apart(study):
    verdicts = {c.candidate: c.verdict for c in against_best(study, "ethanol", "force_mae", SPLIT, 200)}
    assert verdicts["SchNet"] == verdicts["PaiNN"] == "worse"
    assert {verdicts["MACE"], verdicts["NequIP"]} in ({"best", "undecided"}, {"best", "tie"})


def test_exponents_of_the_learning_curves_are_found(study):
    for candidate, curve in curves(study, "ethanol", "force_mae", SPLIT).items():
        assert curve.b == pytest.approx(LAW[candidate.lower()][1], abs=0.12)


def test_settings_are_chosen_on_validation_error_and_named_only_where_they_vary(tmp_path):
    plan = Plan(
        architectures=("mace",), n_train=(50,), troubles={}, settings=({"training.lr": 0.001}, {"training.lr": 0.01})
    )
    found = fabricate(tmp_path / "tuning", plan)
    (candidate,) = found.candidates
    assert candidate.label == "MACE, N = 50, lr=0.01"  # the other one was made 25 % worse
    assert set(found.table["training.lr"]) == {0.01}
    assert set(found.trials["setting"]) == {"lr=0.001", "lr=0.01"}


def test_one_repetition_has_the_interval_of_the_frames_and_no_verdict(tmp_path):
    found = fabricate(tmp_path / "single", Plan(n_train=(50,), repetitions=1, troubles={}))
    table = cells(found, "ethanol", "force_mae", SPLIT)
    assert {mean.basis for mean in table.values()} == {"frames"}
    verdicts = [c.verdict for c in against_best(found, "ethanol", "force_mae", SPLIT, 50)]
    assert verdicts == ["best", "unknown", "unknown", "unknown"]


def test_the_front_holds_what_nothing_beats(study):
    found = fronts.options(study, "ethanol")
    on = fronts.front(found, "train")
    for one in found:
        beaten = any(o.cost("train") < one.cost("train") and o.mean.value < one.mean.value for o in found)
        assert (one.label in on) != beaten
    assert all(0 < chance <= 1 for chance in on.values())
    assert next(iter(on)) == "SchNet, 50 frames"  # the cheapest is always on it


def test_times_from_different_hardware_are_not_averaged(tmp_path):
    found = fabricate(tmp_path / "mixed", Plan(n_train=(50,), troubles={}))
    found.table.loc[found.table["repetition"] == 1, "cpu"] = "Another CPU"
    assert len(facts.machines(found.table)) == 2
    assert all(math.isnan(option.cost("train")) for option in fronts.options(found, "ethanol"))


def test_splits_sort_by_number_and_start_in_distribution(study):
    assert sorted(["test_1000K", "test_300K"], key=natural) == ["test_300K", "test_1000K"]
    assert study.test_splits("ethanol") == ["test_500K", "test_300K", "test_1000K"]


def test_each_architecture_has_a_colour_marker_and_dash_of_its_own(study):
    found = list(looks(study).values())
    for attribute in ("color", "marker", "dash"):
        assert len({str(getattr(look, attribute)) for look in found}) == 4


@pytest.mark.parametrize("pair", PAIRS)
def test_colours_stand_out_from_their_page(pair):
    for colour, page in zip(pair, ("#ffffff", "#15191d"), strict=True):
        assert _contrast(colour, page) >= 3  # WCAG 2.2, 1.4.11: graphical objects


def _contrast(first, second):
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour):
    """Relative luminance as WCAG defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_a_split_with_energies_alone_has_no_force_ratio(tmp_path):
    """As paths and scans have: their errors in energy are compared, the page does not fail for want of forces."""
    found = fabricate(tmp_path / "scan", Plan(n_train=(50,), troubles={}))
    found._parts.pop(("ethanol", "force_mae", "test_1000K"))
    assert transfer._ratios(found, "ethanol", "force_mae", "test_1000K", 50) == {}
    assert transfer._ratios(found, "ethanol", "energy_mae", "test_1000K", 50)
    assert transfer.transfer_section(found) is not None
