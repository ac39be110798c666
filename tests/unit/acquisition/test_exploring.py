"""Trust levels, deviations, near-copies, and the manifest of a round of exploration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms
from pydantic import ValidationError

from mlpbench.acquisition.exploring import (
    Exploration,
    RoundManifest,
    deviations,
    distinct,
    read_round,
    trust_levels,
    trusted,
    write_round,
)
from mlpbench.config import packaged_conf
from mlpbench.errors import UserError
from mlpbench.frames import Frames

DEFAULTS: dict[str, Any] = yaml.safe_load((packaged_conf() / "explore.yaml").read_text())["explore"]


def settings(**more: Any) -> Exploration:
    return Exploration.model_validate({**DEFAULTS, **more})


def water(stretch: float) -> Atoms:
    return Atoms("OH2", positions=[[0, 0, 0], [0.96 + stretch, 0, 0], [-0.24, 0.93, 0]])


def test_the_deviation_of_an_atom_is_the_rms_distance_to_the_mean_force_and_of_a_frame_the_largest() -> None:
    frames = Frames.from_atoms([water(0), water(0.1)])
    forces = np.zeros((2, 6, 3))
    forces[0, 1], forces[1, 1] = [0.3, 0.0, 0.4], [-0.3, 0.0, -0.4]  # 0.5 eV/Å from the mean, both
    forces[:, 5] = [[0.0, 1.0, 0.0], [0.0, 2.0, 0.0]]
    atoms, per_frame = deviations(forces, frames)
    assert atoms == pytest.approx([0, 0.5, 0, 0, 0, 0.5])
    forces[1, 5] = [0.0, 1.4, 0.0]
    assert deviations(forces, frames)[1] == pytest.approx([0.5, 0.2])
    assert per_frame == pytest.approx([0.5, 0.5])


def test_trust_levels_come_from_the_validation_frames_where_they_are_not_given() -> None:
    valid = np.arange(101) / 100
    assert trust_levels(settings(), valid) == pytest.approx((0.95, 2.85))
    assert trust_levels(settings(lower=0.1), valid) == pytest.approx((0.1, 0.3))
    assert trust_levels(settings(lower=0.1, upper=0.2), valid) == pytest.approx((0.1, 0.2))
    with pytest.raises(UserError, match="is not above the lower trust level"):
        trust_levels(settings(upper=0.3), valid)
    accurate, candidate, failed = trusted(np.array([0.05, 0.1, 0.2, 0.3, 0.5]), 0.1, 0.3)
    assert accurate.tolist() == [True, False, False, False, False]
    assert candidate.tolist() == [False, True, True, False, False]
    assert failed.tolist() == [False, False, False, True, True]


def test_near_copies_of_labelled_and_of_more_wanted_frames_are_left_out() -> None:
    frames = Frames.from_atoms([water(0.30), water(0.0), water(0.31), water(0.6), Atoms("H")])
    known = Frames.from_atoms([water(0.01)])
    turned = frames.positions @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert np.allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(frames.positions, axis=1))
    for order, kept in (([0, 1, 2, 3, 4], [0, 3, 4]), ([2, 0, 1, 3], [2, 3]), ([], [])):
        assert distinct(known, frames, np.array(order, dtype=np.int64), 0.05).tolist() == kept
    everything = distinct(known, frames, np.arange(5), 0.0)
    assert everything.tolist() == [0, 1, 2, 3, 4]
    assert distinct(Frames.from_atoms([]), frames, np.arange(5), 0.05).tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize(
    "wrong",
    [{"members": 1}, {"batch": 0}, {"temperatures_K": []}, {"temperatures_K": [300, 300]}, {"lower": 0.2, "upper": 0.1},
     {"interval_fs": 0.1}, {"unknown": 1}],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**wrong)


def test_limits_may_be_raised_and_decide_no_choice() -> None:
    assert settings(labels=5, rounds=1, hours=2.0).deciding == settings().deciding
    assert settings(batch=5).deciding != settings().deciding


def test_a_manifest_is_read_as_it_was_written_and_not_once_it_was_altered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = RoundManifest(
        1, {"version": 1}, (0.1, 0.4), {"frames": 3}, {"bond": 1}, 4, [{"deviation": 0.2}], "ab", []
    )
    assert read_round(tmp_path) is None
    write_round(tmp_path, manifest)
    assert read_round(tmp_path, {"version": 1}) == manifest
    assert read_round(tmp_path, {"version": 2}) is None
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace("0.2", "0.3"))
    assert read_round(tmp_path) is None
    assert "not as it was written" in capsys.readouterr().err
