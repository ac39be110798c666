"""A committee whose calibration is known by construction."""

from __future__ import annotations

import numpy as np
import pytest

from mlpbench.statistics.committee import (
    auroc,
    calibration,
    energy_errors,
    force_errors,
    most_uncertain,
    rank_correlation,
)


def draw(rng, frames=2000, members=5, overconfident=1.0):
    spread = np.exp(rng.normal(size=frames))
    truth = overconfident * spread * rng.standard_normal(frames)
    return spread * rng.standard_normal((members, frames)), truth


def test_a_perfect_committee_is_calibrated():
    found = calibration(*draw(np.random.default_rng(0)))
    assert found.miscalibration < 0.02
    assert found.scale == pytest.approx(1, abs=0.15)
    assert (np.diff(found.bins[:, 0]) > 0).all()


def test_an_overconfident_one_is_found_out():
    found = calibration(*draw(np.random.default_rng(1), overconfident=4))
    assert (found.observed[5:] < found.nominal[5:]).all()
    assert found.scale > 2


def test_disagreement_ranks_the_errors():
    rng = np.random.default_rng(2)
    errors = energy_errors(*draw(rng, 300), np.full(300, 9))
    found = rank_correlation(errors, np.zeros(300, int))
    assert 0.2 < found.lower < found.value < found.upper < 1
    shuffled = energy_errors(rng.normal(size=(5, 300)), rng.normal(size=300), np.ones(300))
    none = rank_correlation(shuffled, np.zeros(300, int))
    assert none.lower < 0 < none.upper


def test_energy_is_per_atom():
    errors = energy_errors([[1.0, 2.0], [3.0, 2.0]], [0.0, 2.0], [2, 4])
    assert errors.error == pytest.approx([1.0, 0.0])
    assert errors.disagreement == pytest.approx([np.sqrt(2) / 2, 0.0])


def test_forces_go_by_frame():
    reference = np.zeros((3, 3))
    members = np.stack([reference, reference])
    members[:, 2] = [[1.0, 1, 1], [3.0, 3, 3]]
    errors = force_errors(members, reference, [0, 0, 1])
    assert errors.error == pytest.approx([0.0, 2.0])
    assert errors.disagreement == pytest.approx([0.0, np.sqrt(2)])
    with pytest.raises(ValueError, match="at least two"):
        force_errors(members[:1], reference, [0, 0, 1])
    with pytest.raises(ValueError, match="belong together"):
        force_errors(members[:, :2], reference, [0, 0, 1])


def test_auroc_of_shifted_normals():
    rng = np.random.default_rng(3)
    found = auroc(rng.normal(size=2000), rng.normal(1, 1, 2000))
    assert found.value == pytest.approx(0.760, abs=0.02)  # Φ(1/√2)
    assert found.upper - found.lower == pytest.approx(0.029, abs=0.005)
    assert auroc([1, 2], [3, 4]).value == 1.0
    assert auroc([1, 1], [1, 1]).value == 0.5


def test_most_uncertain_first():
    assert most_uncertain([0.1, 0.5, 0.3], 2).tolist() == [1, 2]
