"""Error against training seconds, by hand."""

import numpy as np
import pytest

from mlpbench.report.costs import Pace, best_so_far, paces
from mlpbench.report.sections import cost
from tests.unit.report.fabricate import Plan, fabricate


def epoch(seconds, loss, error):
    return {"seconds": seconds, "valid_loss": loss, "valid_force_mae": error}


def test_the_best_so_far_is_chosen_by_the_loss_and_not_by_the_error():
    points = [epoch(1, 4.0, 0.5), epoch(2, 5.0, 0.1), epoch(3, 3.0, 0.6), epoch(4, None, 0.2), epoch(5, 1.0, 0.3)]
    assert best_so_far(points, "valid_force_mae").tolist() == [[1, 2, 3, 5], [0.5, 0.5, 0.6, 0.3]]


def test_seconds_to_a_target_and_the_mean_where_all_have_an_error():
    one = Pace("x", 50, (np.array([[1.0, 2, 4], [8.0, 4, 2]]), np.array([[2.0, 3, 8], [8.0, 2, 2]])), 2)
    assert one.seconds_to(4.0) == [2.0, 3.0]
    assert one.seconds_to(1.0) == [None, None]
    assert one.last == pytest.approx(2.0)
    at, mean, low, high = one.mean()
    assert (at[0], at[-1]) == (2.0, 4.0)
    assert mean[0] == pytest.approx(np.sqrt(4 * 8))
    assert (low[0], high[0]) == (4.0, 8.0)
    assert mean[-1] == pytest.approx(2.0)


def test_the_section_says_when_each_reached_what_all_reach(tmp_path):
    study = fabricate(tmp_path / "made-up", Plan(n_train=(50, 400), troubles={}, predictions=False))
    found = paces(study, "ethanol", "force_mae")
    assert [one.n_train for one in found] == [400] * 4 + [50] * 4
    section = cost.cost_section(study)
    table = section.blocks[-1].frame()
    target = float(next(c for c in table if c.startswith("Time to")).split()[2])
    rows = table[table["n_train (frames)"] == 400]
    assert set(rows["Reached it (trials)"]) == {1.0}
    slowest = max(curve[1, -1] for one in found[:4] for curve in one.curves)
    assert 1e3 * slowest <= target <= 1.1e3 * slowest
    painn = rows.set_index("Candidate").loc["PaiNN"]
    (one,) = [one for one in found if (one.candidate, one.n_train) == ("PaiNN", 400)]
    by_hand = one.seconds_to(target / 1e3)
    assert painn.iloc[1] == pytest.approx(np.exp(np.mean(np.log(by_hand))))
    assert painn["At rest (trials)"] == 2.0  # one of them was made otherwise
