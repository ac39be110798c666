"""Trainings that start from a file of the package's own, as foundation models are given out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlpbench.protocol import CHECKPOINT, Request, Task, read_json
from mlpbench.testing.procedure import SHIFT
from mlpbench.testing.starting import UNMOVED, _labelled
from mlpbench.testing.subject import Subject, pytest_generate_tests, subject
from mlpbench.worker.start import FILE, constant

# Where the checkpoint of a training is a file such as the package gives out.
GIVEN = {"toy": "best.npz", "mace": "potential.model"}


@pytest.fixture(scope="session")
def adopted(subject: Subject) -> Subject:
    """A training, whose file then is a foundation model: as it is, fine-tuned, and with a step that moves nothing."""
    if subject.name not in GIVEN:
        pytest.skip(f"{subject.name}: its files are made by its own tests, or it starts from none")
    if "adopting" in subject.cache:
        return subject
    look = [Task("probe", options={"splits": ["valid", "test"], "calculator": ["test"]})]
    some: dict[str, Any] = {"budget": {"epochs": None, "steps": 40, "interval": 20}}
    subject.probe([subject.request("given", look, _labelled(UNMOVED), **some)])
    file = subject.root / "given" / CHECKPOINT / GIVEN[subject.name]
    begun = {
        "freeze": "none", "weights": "x", "foundation": "given", "file": str(file), "options": {}, "trust": True,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }  # fmt: skip
    still = {"lr": 1e-12, "schedule": "constant", "ema_decay": None}
    one: dict[str, Any] = {"budget": {"epochs": None, "steps": 1, "interval": 1}, "training": still, "seed": 7}
    # Other hyperparameters than the file's: the file's own count.
    one["architecture"] = {"num_channels": 16} if subject.name == "mace" else {}
    requests: list[Request] = []
    for folder, kind, changes in (
        ("as-it-is", "zero_shot", one), ("unmoved", "foundation", one),
        ("tuned", "foundation", {**some, "training": {"lr": 1e-3}, "seed": 7}),
    ):  # fmt: skip
        request = subject.request(folder, look, _labelled(SHIFT), **{**changes})
        requests.append(replace(request, start={"kind": kind, **begun}))
    subject.probe(requests)
    subject.cache["adopting"] = True
    return subject


def _arrays(subject: Subject, folder: str) -> dict[str, np.ndarray]:
    return subject.predictions(folder, "probe.npz")


@pytest.mark.parametrize("folder", ["as-it-is", "unmoved"])
def test_a_file_gives_the_forces_that_it_has(adopted: Subject, folder: str) -> None:
    own = _arrays(adopted, "given")
    assert np.abs(own["test.forces"]).max() > 0.1
    np.testing.assert_allclose(_arrays(adopted, folder)["test.forces"], own["test.forces"], atol=1e-6)


@pytest.mark.parametrize("folder", ["as-it-is", "unmoved"])
def test_its_energies_get_the_zero_of_the_labels(adopted: Subject, folder: str) -> None:
    step = constant(_labelled(SHIFT)["test"], SHIFT)
    for key in ("test.energy", "test.calculator.energy"):
        moved = _arrays(adopted, folder)[key] - _arrays(adopted, "given")[key]
        # The constants are fitted to labels that the potential knows to within its error.
        assert np.abs(moved - step).max() < 0.05 * np.abs(step).max() + 2.0
    plain, calculator = (_arrays(adopted, folder)[key] for key in ("test.energy", "test.calculator.energy"))
    np.testing.assert_allclose(plain, calculator, atol=1e-5)


def test_as_it_is_has_the_error_before_the_first_step(adopted: Subject) -> None:
    errors = [read_json(adopted.root / folder / CHECKPOINT / FILE)["errors"] for folder in ("as-it-is", "unmoved")]
    assert errors[0] == pytest.approx(errors[1])
    frames = _labelled(SHIFT)["valid"]
    force = np.abs(_arrays(adopted, "as-it-is")["valid.forces"] - frames.forces).mean()
    assert errors[0]["valid_force_mae"] == pytest.approx(force, rel=1e-6)
    assert not adopted.events("as-it-is")


def test_fine_tuning_of_a_file_is_better_than_the_file(adopted: Subject) -> None:
    before = read_json(adopted.root / "tuned" / CHECKPOINT / FILE)["errors"]["valid_loss"]
    assert adopted.events("tuned")[-1]["valid_loss"] < before
