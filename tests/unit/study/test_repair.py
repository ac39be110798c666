"""What a user (or a full disk) damaged in a study's folder is noticed, said, and made again; never trained on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpbench.datasets import load, prepare_split
from mlpbench.files import sha256
from mlpbench.protocol import EVENTS
from mlpbench.records import RECORD, load_record
from mlpbench.run import run_trial
from mlpbench.study.trial import Trial
from tests.unit.study.conftest import Plan


def truncate(folder: Path) -> None:
    os.truncate(folder / "train.npz", 1000)


def alter(folder: Path) -> None:
    """A valid archive of other energies."""
    with np.load(folder / "train.npz") as arrays:
        content = {name: arrays[name] for name in arrays.files}
    np.savez(folder / "train.npz", **{**content, "energy": content["energy"] + 1.0})


def delete(folder: Path) -> None:
    (folder / "train.npz").unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def break_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{")


@pytest.mark.parametrize("damage", [truncate, alter, delete, lose_the_manifest, break_the_manifest])
def test_a_damaged_split_is_written_again_and_it_is_said(
    damage: Callable[[Path], None], plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = plan()
    folder, files = trial.split.directory, {path.name: sha256(path) for path in trial.split.files.values()}
    damage(folder)
    config = trial.config.dataset
    again = prepare_split(load(config), config, trial.split_seed, folder.parent)
    assert again.directory == folder
    assert {path.name: sha256(path) for path in again.files.values()} == files
    assert again.manifest["train_digest"] == trial.split.manifest["train_digest"]
    said = capsys.readouterr().err
    assert str(folder) in said
    assert "the split is rewritten" in said
    prepare_split(load(config), config, trial.split_seed, folder.parent)
    assert capsys.readouterr().err == "", "a sound split is left alone"


def errors(record: dict[str, Any]) -> dict[tuple[str, str], float]:
    """What a training determines: no times."""
    return {(r["metric"], r["split"]): r["value"] for r in record["metrics"] if r["scorer"] == "accuracy"}


def test_a_resumed_training_ends_at_its_budget_with_the_numbers_of_an_undisturbed_one(finished: Trial) -> None:
    before = load_record(finished.directory)
    for name in (RECORD, "inputs.json", "tasks/train.json"):
        (finished.directory / name).unlink()
    after = run_trial(finished)
    assert (before["training"]["epochs"], before["training"]["best_epoch"]) == (2, 2)
    assert (after["training"]["epochs"], after["training"]["best_epoch"]) == (2, 2)
    assert after["training"]["resumed"]
    assert errors(after) == errors(before) != {}


def test_bytes_that_are_no_text_among_the_events_are_left_out(finished: Trial) -> None:
    before = load_record(finished.directory)
    (finished.directory / RECORD).unlink()
    with open(finished.directory / EVENTS, "ab") as events:
        events.write(b'\xff\n{"half": \n\x00\x01\n')
    after = run_trial(finished)
    assert after["status"] == "done"
    assert errors(after) == errors(before) != {}
    assert after["training"]["epochs"] == before["training"]["epochs"]
