"""Labels against random's at equal error, where the right answer is known; and what a study makes of rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpbench.report import acquiring, facts
from mlpbench.report.acquiring import Gain, Series, labels_needed
from mlpbench.report.sections.labelling import labelling_section
from mlpbench.statistics.paired import compare, pair
from mlpbench.study.study import Study
from tests.unit.report.fabricate import Plan, make_records

SIZES = (20, 50, 80, 110)


def law(factor: float, sizes: tuple[int, ...] = SIZES) -> dict[int, float]:
    """A power law with exponent 1/2 that begins where random's does: the first frames are the same."""
    return {n: (1.0 if n == sizes[0] else factor) * 100 * n**-0.5 for n in sizes}


@pytest.mark.parametrize("factor", [0.9, 0.95, 1.05])
def test_the_multiplier_of_a_power_law_is_the_factor_squared(factor: float) -> None:
    sizes = tuple(range(20, 111))  # so fine that the first step from the common start plays no part
    random, other = labels_needed(law(1.0, sizes), law(factor, sizes))
    assert random / other == pytest.approx(factor**-2, rel=0.01)
    assert max(random, other) == 110


def test_the_same_curve_needs_the_same_labels_and_one_that_never_improves_all_for_nothing() -> None:
    assert labels_needed(law(1.0), law(1.0)) == pytest.approx((110, 110))
    assert labels_needed(law(1.0), dict.fromkeys(SIZES, 50.0)) == (20, 110)


def test_a_curve_that_ends_earlier_is_compared_at_the_error_that_both_reach() -> None:
    random, other = labels_needed(law(1.0), {20: law(1.0)[20], 50: law(1.0)[80]})
    assert (random, other) == (pytest.approx(80), 50)


def gain(multipliers: list[float]) -> Gain:
    needed = pair(
        "a", {r: 100 / m for r, m in enumerate(multipliers)}, "random", dict.fromkeys(range(len(multipliers)), 100.0)
    )
    (one,) = compare([needed])
    return Gain(
        Series(("painn", "tiny", "scratch"), "PaiNN", "a", {}), "force_mae", "test", 100, (1, 1), one, one, 0.05
    )


@pytest.mark.parametrize(
    ("multipliers", "verdict"),
    [
        ([1.30, 1.32, 1.28], "gain"),
        ([0.70, 0.72, 0.68], "worse"),
        ([1.00, 1.01, 0.99], "no gain"),
        ([0.93, 0.97, 0.95], "no gain"),
        ([1.5, 0.9, 1.2], "undecided"),
        ([1.30, 1.31], "undecided"),
    ],
)
def test_verdicts(multipliers: list[float], verdict: str) -> None:
    one = gain(multipliers)
    assert one.verdict == verdict
    value, low, high = one.multiplier
    assert value == pytest.approx(np.exp(np.mean(np.log(multipliers))))
    assert low <= value <= high


def rounds(root: Path, factor: float) -> Study:
    """See :func:`make_all`."""
    return Study(root.name, root, make_all(root, factor))


def make_all(root: Path, factor: float = 0.8) -> list[dict[str, Any]]:
    """The records of a study of PaiNN with random rounds and, beside them, those of ``farthest`` with other errors."""
    plan = Plan(
        architectures=("painn",), n_train=(25, 50, 100), noise=0.0, predictions=False, troubles={}, frames=False
    )
    records = make_records(root, plan)
    chosen: list[dict[str, Any]] = []
    for record in records:
        record["config"]["acquisition"] = {"kind": "none", "start": 25, "batch": 25}
        if record["identifiers"]["n_train"] == 25:
            continue
        twin = {**record, "trial": f"{record['trial']}-farthest", "key": f"{record['key']}f"}
        twin["identifiers"] = {**record["identifiers"], "acquisition": "farthest", "round": 1}
        twin["config"] = {**record["config"], "acquisition": {"kind": "farthest", "start": 25, "batch": 25}}
        twin["metrics"] = [{**row, **{k: factor * row[k] for k in ("value", "lower", "upper") if row[k] is not None}}
                           for row in record["metrics"]]  # fmt: skip
        chosen.append(twin)
    member = {**chosen[0], "trial": "member", "key": "m"}
    member["identifiers"] = {**chosen[0]["identifiers"], "member": 1}
    return [*records, *chosen, member]


@pytest.mark.parametrize(("factor", "verdict"), [(0.8, "gain"), (1.25, "worse")])
def test_a_study_with_rounds(tmp_path: Path, factor: float, verdict: str) -> None:
    study = rounds(tmp_path / "made-up", factor)
    dataset = study.datasets[0]
    assert study.lines(dataset) == ["PaiNN", "PaiNN (farthest)"]
    assert "member" not in set(study.table["trial"])
    random, farthest = acquiring.series_of(study, dataset)
    assert (random.kind, farthest.kind) == ("random", "farthest")
    assert {r: sorted(t) for r, t in farthest.trials.items()} == {key: [25, 50, 100] for key in range(3)}
    gains = acquiring.gains(study, dataset)
    first = next(g for g in gains if (g.metric, g.split) == ("force_mae", "test_500K"))
    assert first.errors[1] / first.errors[0] == pytest.approx(factor)
    assert first.ratio.ratio == pytest.approx(factor)
    assert (first.multiplier[0] > 1) == (factor < 1)
    assert first.verdict == verdict
    again = facts.run_again(study, dataset, "dataset.n_train=25,50,100")
    assert "dataset.n_train=100" in again  # which reaches the smaller sizes on the way
    section = labelling_section(study)
    assert section is not None
    assert f"farthest {first.multiplier[0]:.1f}"[:10] in section.finding
    assert verdict in section.finding


def test_a_split_without_forces_is_left_out_and_the_rest_is_there(tmp_path: Path) -> None:
    whole = rounds(tmp_path / "made-up", 0.8)
    dataset, last = whole.datasets[0], whole.test_splits(whole.datasets[0])[-1]
    records = [
        {**record, "metrics": [m for m in record["metrics"] if (m["split"], "force" in m["metric"]) != (last, True)]}
        for record in make_all(tmp_path / "again")
    ]
    study = Study("again", tmp_path / "again", records)
    assert ("force_mae", last) in acquiring.measures(whole, dataset)
    assert ("force_mae", last) not in acquiring.measures(study, dataset)
    section = labelling_section(study)
    assert section is not None
    assert section.finding
