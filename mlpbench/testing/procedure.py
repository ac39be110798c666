"""One training procedure for all packages: its loss, the size of its labels, its clipping and its labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT

from mlpbench.datasets.baseline import fit_baseline
from mlpbench.frames import Frames
from mlpbench.protocol import Task
from mlpbench.testing.contract import STEP, probes
from mlpbench.testing.subject import Subject, ethanol_frames, pytest_generate_tests, split_frames, subject
from mlpbench.worker.adapter import Prediction, common_loss
from mlpbench.worker.training import label_scale

FACTORS = (0.05, 0.18, 5.0)  # kcal/mol, and labels far from 1 eV/Å
SHIFT = {1: -400.0, 6: 70.0, 8: 9000.0}  # eV for each atom of an element
WEIGHTINGS = ((1.0, 1.0), (10.0, 1.0), (1.0, 100.0))  # of energy and forces
STEPS = 20  # of the trainings whose clipping is watched


def molecules(count: int) -> Frames:
    """Distorted molecules of five sizes and compositions, labelled by ASE's EMT calculator."""
    random = np.random.default_rng(5)
    structures = []
    for i in range(count):
        atoms = molecule(("CH3CH2OH", "H2O", "CH4", "CH3OH", "C2H6")[i % 5])
        atoms.positions += random.normal(0, 0.06, atoms.positions.shape)
        atoms.calc = EMT()
        structures.append(atoms)
    frames = Frames.from_atoms(
        structures, [a.get_potential_energy() for a in structures], [a.get_forces() for a in structures]
    )
    return _with_baseline({"train": frames}, frames)["train"]


def _with_baseline(splits: dict[str, Frames], train: Frames) -> dict[str, Frames]:
    baseline = fit_baseline(train, None)
    return {name: frames.with_baseline(baseline.evaluate(frames)) for name, frames in splits.items()}


def _scaled(frames: Frames, factor: float) -> Frames:
    return replace(
        frames, energy=factor * frames.energy, forces=factor * frames.forces, baseline=factor * frames.baseline
    )


def _shifted(frames: Frames) -> Frames:
    shift = np.zeros(len(frames))
    np.add.at(shift, frames.frame_of_atom, np.array([SHIFT[z] for z in frames.numbers.tolist()]))
    return replace(frames, energy=frames.energy + shift)


def _ethanol(factor: float = 1.0) -> dict[str, Frames]:
    splits = {**split_frames(), "test": ethanol_frames("test_500K", 20)}
    return {name: _scaled(frames, factor) for name, frames in splits.items()}


def _displaced() -> dict[str, Frames]:
    """One frame, and it with two of its atoms moved forth and back along each axis."""
    parts = probes()
    return {"one": parts["base"].select([0]), "displaced": parts["displaced"].select(slice(12))}


def _error(prediction: dict[str, np.ndarray], frames: Frames) -> np.ndarray:
    """MAE of the energy per atom (eV) and of the forces (eV/Å)."""
    energy = np.abs(prediction["test.energy"] - frames.target_energy) / frames.n_atoms
    return np.array([energy.mean(), np.abs(prediction["test.forces"] - frames.forces).mean()])


@pytest.fixture(scope="session")
def watched(subject: Subject) -> Subject:
    """Twenty short trainings in one process; the tests below look at them."""
    if "training" in subject.cache:
        return subject
    tested = [Task("probe", options={"splits": ["test"]})]
    requests = []

    def add(folder: str, frames: dict[str, Frames], **changes: Any) -> None:
        requests.append(subject.request(folder, tested, frames, **changes))

    # a low rate: with a high one rounding alone changes the errors of two trainings by some per cent
    long: dict[str, Any] = {"budget": {"epochs": None, "steps": 60, "interval": 20}, "training": {"lr": 2e-3}}
    for factor in (1.0, *FACTORS):
        add(f"labels-{factor}", _ethanol(factor), **long)
    mixed, ranges = molecules(40), {"train": slice(0, 25), "valid": slice(25, 30), "test": slice(30, 40)}
    parts = {name: mixed.select(part) for name, part in ranges.items()}
    add("plain", _with_baseline(parts, parts["train"]), **long)
    moved = {name: _shifted(part) for name, part in parts.items()}
    add("shifted", _with_baseline(moved, moved["train"]), **long)

    one: dict[str, Any] = {"budget": {"epochs": None, "steps": 1, "interval": 1}}
    still = {"lr": 1e-12, "schedule": "constant", "ema_decay": None, "batch_size": 10}
    batch = {"train": mixed.select(slice(0, 10)), "valid": parts["valid"], "test": mixed.select(slice(0, 10))}
    for energy, force in WEIGHTINGS:
        weighted = {**still, "energy_weight": energy, "force_weight": force}
        add(f"loss-{energy}-{force}", batch, training=weighted, architecture=subject.as_they_are, **one)

    some: dict[str, Any] = {"budget": {"epochs": None, "steps": STEPS, "interval": STEPS}}
    clip = {"gradient_clip": 10.0, "energy_weight": 1.0, "force_weight": 1.0}
    add("clip", _ethanol(), training=clip, **some)
    add("clip-labels", _ethanol(5.0), training=clip, **some)
    add("clip-forces", _ethanol(), training={**clip, "force_weight": 100.0}, **some)
    heavy = {"gradient_clip": 1000.0, "energy_weight": 100.0, "force_weight": 100.0}
    add("clip-weights", _ethanol(), training=heavy, **some)
    add("clip-none", _ethanol(), training={**clip, "gradient_clip": None}, **some)

    only = {"labels": ["forces"], "training": {"energy_weight": 0.0}, **some}
    add("forces", _ethanol(), **only)
    unknown = {name: replace(part, energy=np.full(len(part), np.nan)) for name, part in _ethanol().items()}
    add("forces-alone", unknown, **only)
    # last, because what compiles a model may change the whole process
    forms = {"calculator": ["one", "displaced"], "deployed": ["one", "displaced"]}
    look = [Task("probe", options={"splits": ["one"], **forms})]
    requests.append(subject.request("deployed", look, {**split_frames(), **_displaced()}, budget={"epochs": 1}))
    subject.probe(requests)
    subject.cache["training"] = True
    return subject


@pytest.mark.parametrize("factor", FACTORS)
def test_labels_times_a_factor_give_errors_times_that_factor(watched: Subject, factor: float) -> None:
    reference = _error(watched.predictions("labels-1.0", "probe.npz"), _ethanol()["test"])
    errors = _error(watched.predictions(f"labels-{factor}", "probe.npz"), _ethanol(factor)["test"])
    assert errors / factor == pytest.approx(reference, rel=0.05)


def test_a_constant_for_each_element_in_the_energies_changes_nothing(watched: Subject) -> None:
    plain, shifted = (watched.predictions(folder, "probe.npz") for folder in ("plain", "shifted"))
    scale = np.abs(plain["test.forces"]).max()
    assert scale > 0.1
    np.testing.assert_allclose(shifted["test.forces"], plain["test.forces"], atol=1e-3 * scale)


@pytest.mark.parametrize(("energy", "force"), WEIGHTINGS)
def test_the_trainers_own_loss_is_the_common_loss(watched: Subject, energy: float, force: float) -> None:
    """What the package's trainer logged in its first step, on a batch of five sizes, before any weight has moved."""
    folder = f"loss-{energy}-{force}"
    (event,) = watched.events(folder)
    found = watched.predictions(folder, "probe.npz")
    prediction = Prediction(found["test.energy"], found["test.forces"])
    weights = {"energy_weight": energy, "force_weight": force}
    frames = molecules(40).select(slice(0, 10))
    assert event["train_loss"] == pytest.approx(common_loss(prediction, frames, weights), rel=1e-6)


def _ratios(subject: Subject, folder: str) -> np.ndarray:
    """(steps,) norm of each step's gradient over the largest that is not clipped."""
    subject.need_iterations()
    noted = subject.probed(folder)
    if noted["norms"] is None:
        pytest.skip("no torch, no clipping")
    norms, limits = np.array(noted["norms"], dtype=float), np.array(noted["limits"], dtype=float)
    return np.asarray(norms / limits)


def test_every_step_is_clipped_at_the_same_multiple_of_the_common_loss(watched: Subject) -> None:
    """A package may divide its loss by any number, and labels have any size: the clipping follows both."""
    ratios = _ratios(watched, "clip")
    assert len(ratios) == STEPS
    # Adam does not see the size of its gradients, so the trainings are the same but for its epsilon.
    for folder in ("clip-labels", "clip-weights"):
        np.testing.assert_allclose(_ratios(watched, folder), ratios, rtol=0.02, err_msg=folder)
    assert len(_ratios(watched, "clip-none")) == 0


def test_some_steps_are_clipped_and_more_with_heavier_forces(watched: Subject) -> None:
    """Hardly any step with equal weights, more with forces 100 times as heavy: how many depends on the network."""
    plain, heavy = (float((_ratios(watched, folder) > 1).mean()) for folder in ("clip", "clip-forces"))
    print(f"{watched.name}: clipped {plain:.0%} and {heavy:.0%}; {np.round(10 * _ratios(watched, 'clip'), 2).tolist()}")
    assert plain <= 0.5
    assert plain < heavy


def test_forces_of_every_deployed_form_are_minus_the_gradient_of_its_energy(watched: Subject) -> None:
    """An exported or compiled model may have right energies and, without a word, wrong forces: each is asked itself."""
    reasons, found = watched.probed("deployed")["deployed"], watched.predictions("deployed", "probe.npz")
    print(f"{watched.name}: cannot run here: {[f'{means}: {why}' for means, why in reasons.items() if why]}")
    for form in ("calculator", *(means for means, why in reasons.items() if not why)):
        assert found[f"one.{form}.energy"] == pytest.approx(found["one.energy"], abs=1e-6), form
        energy = found[f"displaced.{form}.energy"].reshape(2, 3, 2)
        numerical = -(energy[..., 0] - energy[..., 1]) / (2 * STEP)
        assert np.abs(numerical - found[f"one.{form}.forces"][:2]).max() < 2e-4, form


def test_labels_that_do_not_enter_the_loss_are_not_looked_at(watched: Subject) -> None:
    """labels=[forces]: energies that are missing change nothing."""
    with_energies, without = (watched.predictions(folder, "probe.npz") for folder in ("forces", "forces-alone"))
    np.testing.assert_allclose(without["test.forces"], with_energies["test.forces"], rtol=1e-9)
    losses = [watched.events(folder)[-1]["valid_loss"] for folder in ("forces", "forces-alone")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_the_output_is_scaled_by_the_size_of_the_labels() -> None:
    frames = ethanol_frames("pool_500K", 5)
    assert label_scale(frames, ["energy", "forces"]) == pytest.approx(np.sqrt(np.mean(frames.forces**2)))
    assert label_scale(_scaled(frames, 5.0), ["energy"]) == pytest.approx(5 * label_scale(frames, ["energy"]))
