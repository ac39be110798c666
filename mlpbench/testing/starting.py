"""Trainings that start from a finished potential: what is carried over, and where its energies have their zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.data import atomic_numbers

from mlpbench.frames import Frames
from mlpbench.protocol import CHECKPOINT, Task, read_json
from mlpbench.testing.procedure import SHIFT, molecules
from mlpbench.testing.subject import Subject, pytest_generate_tests, subject
from mlpbench.worker.adapter import Prediction, common_loss
from mlpbench.worker.start import FILE, constant

PARTS = {"train": slice(0, 25), "valid": slice(25, 30), "test": slice(30, 40)}
UNMOVED = dict.fromkeys(SHIFT, 0.0)
WITHOUT_OXYGEN = (2, 4)  # of the five molecules: methane and ethane


def _labelled(shifts: dict[int, float], only: tuple[int, ...] = (0, 1, 2, 3, 4)) -> dict[str, Frames]:
    """Small molecules of five compositions, or ``only`` some, with a constant for each element in their energies.

    The baseline is that of the molecules without the constants, so that it is off by them.
    """
    frames = molecules(40)
    frames = replace(frames, energy=frames.energy + constant(frames, shifts))
    kept = np.isin(np.arange(40) % 5, only)
    return {
        name: frames.select(np.flatnonzero(kept & np.isin(np.arange(40), np.r_[part]))) for name, part in PARTS.items()
    }


@pytest.fixture(scope="session")
def begun(subject: Subject) -> Subject:
    """A training from scratch, and short ones that start from it, in one process."""
    if "potential" not in subject.backend.starts:
        pytest.skip(f"{subject.name} declares no start but scratch")
    if "starting" in subject.cache:
        return subject
    look = [Task("probe", options={"splits": ["valid", "test"], "calculator": ["test"]})]
    requests = []

    def add(folder: str, frames: dict[str, Frames], **changes: Any) -> None:
        requests.append(subject.request(folder, look, frames, **changes))

    some: dict[str, Any] = {"budget": {"epochs": None, "steps": 40, "interval": 20}}
    add("scratch", _labelled(UNMOVED), **some)
    still = {"lr": 1e-12, "schedule": "constant", "ema_decay": None}
    one: dict[str, Any] = {
        "budget": {"epochs": None, "steps": 1, "interval": 1}, "training": still, "seed": 7, "start": "scratch",
    }  # fmt: skip
    add("still", _labelled(UNMOVED), **one)
    add("still-moved", _labelled(SHIFT), **one)
    add("still-fewer", _labelled(SHIFT, WITHOUT_OXYGEN), **one)
    short: dict[str, Any] = {**some, "training": {"lr": 1e-3}, "seed": 7, "start": "scratch"}
    add("tuned", _labelled(UNMOVED), **short)
    add("tuned-moved", _labelled(SHIFT), **short)
    add("tuned-again", _labelled(UNMOVED), **{**one, "start": "tuned-moved"})
    subject.probe(requests)
    subject.cache["starting"] = True
    return subject


def _forces(subject: Subject, folder: str, split: str = "test") -> np.ndarray:
    return subject.predictions(folder, "probe.npz")[f"{split}.forces"]


def _energies(subject: Subject, folder: str, key: str = "test.energy") -> np.ndarray:
    return subject.predictions(folder, "probe.npz")[key]


def _facts(subject: Subject, folder: str) -> dict[str, Any]:
    return read_json(subject.root / folder / CHECKPOINT / FILE)


@pytest.mark.parametrize("folder", ["still", "still-moved"])
def test_a_training_begins_with_the_model_of_its_start(begun: Subject, folder: str) -> None:
    """After one step at a rate of 1e-12 the forces are the start's own."""
    own = _forces(begun, "scratch")
    assert np.abs(own).max() > 0.1
    np.testing.assert_allclose(_forces(begun, folder), own, atol=1e-6)


def test_the_error_before_the_first_step_is_the_starts_own(begun: Subject) -> None:
    frames = _labelled(SHIFT)["valid"]
    (event,), facts = begun.events("still-moved"), _facts(begun, "still-moved")["errors"]
    force = np.abs(_forces(begun, "scratch", "valid") - frames.forces).mean()
    assert facts["valid_force_mae"] == pytest.approx(force, rel=1e-6)
    assert event["valid_force_mae"] == pytest.approx(facts["valid_force_mae"], rel=1e-5)
    assert event["valid_energy_mae"] == pytest.approx(facts["valid_energy_mae"], rel=1e-5, abs=1e-7)
    assert event["valid_loss"] == pytest.approx(facts["valid_loss"], rel=1e-5)
    found = begun.predictions("still-moved", "probe.npz")
    prediction = Prediction(found["valid.energy"], found["valid.forces"])
    weights = begun.trial.training.model_dump()
    assert common_loss(prediction, frames, weights) == pytest.approx(facts["valid_loss"], rel=1e-5)


def test_energies_have_the_zero_of_the_new_labels(begun: Subject) -> None:
    """Predictions and the ASE calculator, on five compositions of three elements."""
    frames = _labelled(SHIFT)["test"]
    step = constant(frames, SHIFT)
    for key in ("test.energy", "test.calculator.energy"):
        moved, still = _energies(begun, "still-moved", key), _energies(begun, "still", key)
        np.testing.assert_allclose(moved - still, step, atol=1e-5 * np.abs(step).max())
    np.testing.assert_allclose(
        _energies(begun, "still-moved"), _energies(begun, "still-moved", "test.calculator.energy"), atol=1e-5
    )


def test_a_start_may_know_more_elements_than_the_data(begun: Subject) -> None:
    chosen = _labelled(SHIFT, WITHOUT_OXYGEN)["test"]
    assert 8 not in chosen.numbers
    atoms = np.isin(np.repeat(np.arange(10) % 5, molecules(40).select(slice(30, 40)).n_atoms), WITHOUT_OXYGEN)
    np.testing.assert_allclose(_forces(begun, "still-fewer"), _forces(begun, "scratch")[atoms], atol=1e-6)
    assert set(_facts(begun, "still-fewer")["shifts_eV"]) == {"H", "C"}


def test_a_constant_for_each_element_changes_nothing_about_fine_tuning(begun: Subject) -> None:
    plain, moved, scratch = (_forces(begun, folder) for folder in ("tuned", "tuned-moved", "scratch"))
    assert np.abs(plain - scratch).max() > 1e-3  # it has learnt something
    np.testing.assert_allclose(moved, plain, atol=1e-3 * np.abs(plain).max())
    step = constant(_labelled(SHIFT)["test"], SHIFT)
    difference = _energies(begun, "tuned-moved") - _energies(begun, "tuned")
    np.testing.assert_allclose(difference, step, atol=1e-3 + 1e-6 * np.abs(step).max())


def test_fine_tuning_is_better_than_its_start(begun: Subject) -> None:
    assert begun.events("tuned")[-1]["valid_loss"] < _facts(begun, "tuned")["errors"]["valid_loss"]


def test_what_was_fine_tuned_can_be_a_start(begun: Subject) -> None:
    np.testing.assert_allclose(_forces(begun, "tuned-again"), _forces(begun, "tuned-moved"), atol=1e-6)
    before, after = (
        {atomic_numbers[symbol]: value for symbol, value in _facts(begun, folder)["shifts_eV"].items()}
        for folder in ("tuned-moved", "tuned-again")
    )
    frames = _labelled(UNMOVED)["test"]
    energy = _energies(begun, "tuned-moved") - constant(frames, before) + constant(frames, after)
    np.testing.assert_allclose(_energies(begun, "tuned-again"), energy, atol=1e-5 * abs(before[8]))
