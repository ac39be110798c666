"""What every backend must do: training, budgets, resumption; shapes, units, symmetries; what it declares."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import write
from scipy.spatial.transform import Rotation

from mlpbench.backends.launcher import launch
from mlpbench.backends.processes import worker_environment
from mlpbench.frames import Frames
from mlpbench.literature import references
from mlpbench.protocol import HELLO, Result, Task, read_events, read_json
from mlpbench.testing.subject import Subject, ethanol_frames, pytest_generate_tests, split_frames, subject

EXPORTED = "exported"  # folder
STEP = 1e-3  # Å, of the finite differences: error of second order about 1e-6 eV/Å, rounding far below in float64


def probes() -> dict[str, Frames]:
    """Test splits that probe symmetries: frames that are rotated, moved, renumbered, and displaced."""
    base = ethanol_frames("test_500K", 6)
    turn = Rotation.from_euler("xyz", [0.3, 1.1, -0.7]).as_matrix()
    order = np.random.default_rng(3).permutation(9)
    atoms = (np.arange(6)[:, None] * 9 + order).ravel()
    one = base.select([0])
    displaced = []
    for atom in range(9):
        for axis in range(3):
            for sign in (1, -1):
                positions = one.positions.copy()
                positions[atom, axis] += sign * STEP
                displaced.append(replace(one, positions=positions))
    return {
        "base": base,
        "rotated": replace(base, positions=base.positions @ turn.T),
        "moved": replace(base, positions=base.positions + np.array([7.0, -3.0, 11.0])),
        "permuted": replace(
            base, positions=base.positions[atoms], numbers=base.numbers[atoms], forces=base.forces[atoms]
        ),
        "displaced": Frames.concatenate(displaced),
        "mixed": Frames.concatenate([base, _methane()]),
    }


def _methane() -> Frames:
    """A frame of another size, so that batches hold structures with different numbers of atoms."""
    from ase.build import molecule

    atoms = molecule("CH4")
    return Frames.from_atoms([atoms], energy=[-1.0], forces=[np.zeros((5, 3))])


def test_what_is_declared_is_whole(subject: Subject) -> None:
    """Titles, licence and citations as reports show them, from ``conf/backend/<name>.yaml``."""
    backend = subject.backend
    info = backend.architectures[subject.name]
    path = backend.bibliography_path()
    known = references() if path is None else {**references(path), **references()}
    assert info.title
    assert set(info.cite) <= set(known), f"add what is missing to {path or 'a .bib file, named as bibliography'}"
    assert set(backend.cite) <= set(known)
    assert backend.distribution is None or backend.licence
    assert {"energy", "forces"} <= set(backend.labels)


@pytest.fixture(scope="session")
def trained(subject: Subject) -> Subject:
    """One training with all predictions, shared by the tests below."""
    if "results" not in subject.cache:
        extra = probes()
        names = ["valid", *extra]
        tasks = [
            Task("train"),
            Task("predict", options={"splits": names, "batch_size": 4}),
            Task("verify", options={"split": "mixed", "batch_size": 7}),
            Task("export", options={"folder": str(subject.root / EXPORTED)}),
        ]
        (subject.root / EXPORTED).mkdir()
        frames, budget = {**split_frames(), **extra}, {"epochs": subject.epochs}
        subject.cache["results"] = subject.run("main", tasks, frames, budget=budget)
    return subject


def test_trains_and_says_how(trained: Subject) -> None:
    result: Result = trained.cache["results"]["train"]
    assert result.status == "done", result.reason
    count = trained.epochs
    assert result.values["epochs"] == count
    assert result.values["stopped_by"] == ("epochs" if trained.backend.iterations else "solved")
    assert 1 <= result.values["best_epoch"] <= count
    assert result.values["n_parameters"] > 0
    assert result.values["native_command"]
    assert result.peak_memory_mb > 10
    events = trained.events("main")
    assert [event["epoch"] for event in events] == list(range(1, count + 1))
    losses = np.array([event["valid_loss"] for event in events])
    assert np.isfinite(losses).all()
    assert min(losses) == pytest.approx(result.values["best_valid_loss"], rel=1e-4)
    assert losses[-1] < losses[0] or count == 1
    assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(events))
    assert any((Path(trained.root) / "main" / "native").iterdir())


def test_an_exported_potential_predicts_the_same_without_mlpbench(trained: Subject) -> None:
    """In the package's own environment, from the exported folder alone; a backend that cannot export says why."""
    result: Result = trained.cache["results"]["export"]
    if result.status == "skipped":
        assert result.reason
        return
    assert result.status == "done", result.reason
    folder, frames = trained.root / EXPORTED, split_frames()["valid"].select(slice(3))
    write(folder / "frames.xyz", frames.to_atoms(), format="extxyz")
    (folder / "use.py").write_text(USE.format(code=result.values["code"]), encoding="utf-8")
    done = subprocess.run(
        [str(trained.environment.python), "-s", "use.py"], env=worker_environment(trained.environment, 1), cwd=folder,
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(folder / "used.npz") as found:
        predicted = trained.predictions("main")
        np.testing.assert_allclose(found["energy"], predicted["valid.energy"][:3], atol=1e-6)
        np.testing.assert_allclose(found["forces"], predicted["valid.forces"][: found["forces"].shape[0]], atol=1e-6)


USE = """\
import sys

sys.modules["mlpbench"] = None
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.io import read
from ase.neighborlist import neighbor_list

{code}

structures = read("frames.xyz", index=":")
calculator = package_calculator(Path.cwd(), "cpu")
energy, forces = [], []
for atoms in structures:
    atoms.calc = calculator
    energy.append(atoms.get_potential_energy())
    forces.append(atoms.get_forces())
np.savez("used.npz", energy=energy, forces=np.concatenate(forces))
"""


def test_versions_and_threads_are_reported(trained: Subject) -> None:
    hello = read_json(trained.root / "main" / HELLO)
    assert "missing" not in hello["versions"].values()
    assert hello["threads"] == 1
    if "torch" in hello:
        assert hello["torch"]["threads"] == 1


def test_validation_errors_are_those_of_the_kept_checkpoint(trained: Subject) -> None:
    """The best epoch's validation errors are what the saved checkpoint gives on the same frames (EMA included)."""
    result = trained.cache["results"]["train"]
    best = next(e for e in trained.events("main") if e["epoch"] == result.values["best_epoch"])
    valid = split_frames()["valid"]
    found = trained.predictions("main")
    energy = np.mean(np.abs(found["valid.energy"] - valid.target_energy) / valid.n_atoms)
    forces = np.mean(np.abs(found["valid.forces"] - valid.forces))
    assert best["valid_energy_mae"] == pytest.approx(energy, rel=1e-3)
    assert best["valid_force_mae"] == pytest.approx(forces, rel=1e-3)


def test_predictions_have_shapes_units_and_signs(trained: Subject) -> None:
    base, found = probes()["base"], trained.predictions("main")
    assert found["base.energy"].shape == (6,)
    assert found["base.forces"].shape == (54, 3)
    assert found["base.energy"].dtype == found["base.forces"].dtype == np.float64
    # A force from the wrong sign or unit would not correlate, or not be of this size.
    assert np.corrcoef(found["base.forces"].ravel(), base.forces.ravel())[0, 1] > 0.3
    assert 0.05 < found["base.forces"].std() / base.forces.std() < 3
    assert np.abs(found["base.energy"]).max() < 50  # the baseline is not in it


def test_forces_are_minus_the_gradient(trained: Subject) -> None:
    found = trained.predictions("main")
    energy = found["displaced.energy"].reshape(9, 3, 2)
    numerical = -(energy[..., 0] - energy[..., 1]) / (2 * STEP)
    # Second-order error of the difference: STEP²/6 · E''' is about 1e-5 eV/Å for bond stretches.
    assert np.abs(numerical - found["base.forces"][:9]).max() < 2e-4


def test_symmetries(trained: Subject) -> None:
    found = trained.predictions("main")
    turn = Rotation.from_euler("xyz", [0.3, 1.1, -0.7]).as_matrix()
    order = np.random.default_rng(3).permutation(9)
    for name in ("moved", "permuted"):
        assert np.abs(found[f"{name}.energy"] - found["base.energy"]).max() < 1e-6, name
    turned = np.abs(found["rotated.energy"] - found["base.energy"]).max()
    assert (turned < 1e-6) == trained.invariant, "conf/backend declares whether it is invariant"
    if trained.invariant:
        assert np.abs(found["rotated.forces"] - found["base.forces"] @ turn.T).max() < 1e-6
    assert np.abs(found["moved.forces"] - found["base.forces"]).max() < 1e-6
    assert (
        np.abs(found["permuted.forces"].reshape(6, 9, 3) - found["base.forces"].reshape(6, 9, 3)[:, order]).max() < 1e-6
    )


def test_batched_equals_single(trained: Subject) -> None:
    """'base' went in batches of four; 'mixed' holds its six frames in other batches, with another size among them."""
    found = trained.predictions("main")
    assert np.abs(found["mixed.energy"][:6] - found["base.energy"]).max() < 1e-8
    assert np.abs(found["mixed.forces"][:54] - found["base.forces"]).max() < 1e-8


def test_errors_agree_with_the_packages_own_metric(trained: Subject) -> None:
    result = trained.cache["results"]["verify"]
    assert result.status == "done", result.reason
    assert {"energy_mae", "force_mae"} <= set(result.values["package"])
    for name, value in result.values["package"].items():
        assert value == pytest.approx(result.values["ours"][name], rel=1e-6), name


def test_loss_is_the_common_loss_up_to_a_factor(trained: Subject) -> None:
    """On a batch with different numbers of atoms and three weightings, so that no weight can hide in the factor."""
    pairs = trained.cache["results"]["verify"].values["losses"]
    factors = np.array([package / ours for ours, package in pairs])
    weights = np.array([2.0, 11.0, 101.0])  # a package may normalise by the sum of the weights: allow for that too
    constant = np.ptp(factors) / factors.mean()
    normalised = np.ptp(factors * weights) / (factors * weights).mean()
    assert min(constant, normalised) < 1e-5, factors


def test_an_option_that_the_package_does_not_have_is_refused_before_training(subject: Subject) -> None:
    """By :meth:`~mlpbench.worker.adapter.Adapter.check_options`, unless the adapter leaves it to the training."""

    def refused(folder: str, native: dict[str, Any]) -> str | None:
        request = subject.request(folder, [Task("check_options")], split_frames())
        request.architecture["native"] = native
        result = launch(request, subject.environment, timeout=900)["check_options"]
        assert result.status == "done", result.reason
        reason: str | None = result.values["refused"]
        return reason

    assert refused("no-options", {}) is None
    said = refused("an-option", {"no_such_option": 1})
    if said is None:
        pytest.skip(f"the adapter of {subject.name} leaves options of its package to the training")
    assert "architecture.native.no_such_option" in said


def test_same_seed_same_training(trained: Subject) -> None:
    results = trained.run("again", [Task("train")], split_frames(), budget={"epochs": trained.epochs})
    assert results["train"].status == "done", results["train"].reason
    first, again = trained.events("main"), trained.events("again")
    assert [e["valid_loss"] for e in again] == pytest.approx([e["valid_loss"] for e in first], rel=1e-9)


@pytest.mark.parametrize(
    ("budget", "stopped_by"), [({"epochs": None, "steps": 5}, "steps"), ({"seconds": 1e-6}, "seconds")]
)
def test_budget_ends_at_an_epoch(trained: Subject, budget: dict[str, Any], stopped_by: str) -> None:
    trained.need_iterations()
    results = trained.run(f"budget-{stopped_by}", [Task("train")], split_frames(), budget=budget)
    assert results["train"].status == "done", results["train"].reason
    values = results["train"].values
    assert values["stopped_by"] == stopped_by
    epochs = trained.events(f"budget-{stopped_by}")
    assert values["epochs"] == len(epochs)
    assert values["steps"] == epochs[-1]["step"]
    if stopped_by == "steps":
        assert values["steps"] >= 5
        assert len(epochs) == 1 or epochs[-2]["step"] < 5
    else:
        assert len(epochs) == 1


def test_patience_ends_a_training_that_stalls(trained: Subject) -> None:
    """Validated against forces of the wrong sign: the better the training, the worse the validation loss."""
    trained.need_iterations()
    frames = split_frames()
    frames["valid"] = replace(frames["valid"], forces=-frames["valid"].forces)
    results = trained.run("patience", [Task("train")], frames, budget={"epochs": 60, "patience": 2})
    values = results["train"].values
    assert results["train"].status == "done", results["train"].reason
    assert values["stopped_by"] == "patience"
    assert values["epochs"] - values["best_epoch"] == 2
    assert len(trained.events("patience")) == values["epochs"] < 60


def test_a_killed_training_resumes(trained: Subject) -> None:
    """SIGKILL in mid-training: the task is failed with its reason; asked again, it goes on where it was."""
    trained.need_iterations()
    folder = trained.root / "killed"
    budget = {"epochs": 8}

    def kill() -> None:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            epochs = [e for e in read_events(folder / "events.jsonl") if e["event"] == "epoch"]
            if len(epochs) >= 3:
                os.kill(read_json(folder / HELLO)["pid"], signal.SIGKILL)
                return
            time.sleep(0.01)

    # Slow enough to be hit: more frames would do it too, but a larger batch count is cheaper to write.
    killer = threading.Thread(target=kill)
    killer.start()
    results = trained.run("killed", [Task("train")], split_frames(), budget=budget, training={"batch_size": 2})
    killer.join()
    if results["train"].status == "done":
        pytest.skip("the training was over before the signal came")
    assert results["train"].status == "failed"
    assert "SIGKILL" in results["train"].reason
    results = trained.run("killed", [Task("train")], split_frames(), budget=budget, training={"batch_size": 2})
    assert results["train"].status == "done", results["train"].reason
    values = results["train"].values
    assert values["resumed"]
    assert values["epochs"] == 8
    straight = trained.run("straight", [Task("train")], split_frames(), budget=budget, training={"batch_size": 2})
    assert straight["train"].status == "done"
    if trained.backend.exact_resume:
        last = {e["epoch"]: e["valid_loss"] for e in trained.events("killed")}
        assert last[8] == pytest.approx(trained.events("straight")[-1]["valid_loss"], rel=1e-6)
