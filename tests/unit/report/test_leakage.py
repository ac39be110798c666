"""Copies between training and test frames: the count is in every report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlpbench.datasets import load, prepare_split
from mlpbench.report.facts import detected, shared_frames, split_warnings
from mlpbench.report.section import Bullets, Details, Text
from mlpbench.report.sections.evidence import _told_apart
from tests.unit.datasets.support import file_config, rattled_molecules


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("drop", "3 frames of the training pool, which repeat 2 frames of test, were dropped from the pool ("),
        ("warn", "3 frames of the training pool, which repeat 2 frames of test, were kept in the pool, as on_leak"),
    ],
)
def test_count_and_what_was_done(tmp_path: Path, policy: str, sentence: str) -> None:
    frames = rattled_molecules(40)
    for name, chosen in (("pool", [*range(30), 1]), ("test", [*range(30, 40), 0, 1])):
        part = frames.select(chosen)
        shape = (len(part), 3, 3)
        forces, positions = part.forces.reshape(shape), part.positions.reshape(shape)
        np.savez(tmp_path / f"{name}.npz", z=part.numbers[:3], R=positions, E=part.energy, F=forces)
    config = file_config(
        tmp_path / "pool.npz", test_path=str(tmp_path / "test.npz"), on_leak=policy, energy_unit="eV", length_unit="Å"
    )
    dataset = load(config)
    split = prepare_split(dataset, config, 0, tmp_path / "splits")
    record = {"split": {"leak": split.manifest["leak_check"], "warnings": split.warnings, "info": dataset.info}}
    (found,) = shared_frames([record, record])
    assert found.startswith(sentence)
    blocks = _told_apart([record])
    assert [type(block) for block in blocks if not isinstance(block, Bullets)] == [Text, Details]  # Bullets: warnings
    assert blocks[0].text == found


def test_none_found_warnings_and_detections() -> None:
    clean = {"tolerance_A": 0.001, "pool_frames": [], "dropped": 0, "splits": {"a": {}, "b": {}}}
    notes = ["warning: w", "energy taken from 'E'"]
    record = {"split": {"leak": clean, "warnings": ["w"], "info": {"notes": notes}}}
    assert shared_frames([record]) == [
        "No frame of the training pool repeats one of a and b (invariant fingerprints, tolerance 0.001 Å)."
    ]
    assert split_warnings([record, record]) == ["w"]
    assert detected([record]) == ["energy taken from 'E'"]
    blocks = _told_apart([record])
    assert isinstance(blocks[1], Bullets)
    assert blocks[1].role == "warning"
    assert _told_apart([{"split": {}}]) == []
