"""Cells, stress and mixed periodicity, and the package's calculator: what a potential says of any structure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT

from mlpbench.frames import Frames
from mlpbench.protocol import Task
from mlpbench.testing.subject import Subject, pytest_generate_tests, subject
from mlpbench.worker.adapter import Prediction, common_loss

STEP = 1e-4  # strain, of the finite differences
VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))
WEIGHTS = {"energy_weight": 1.0, "force_weight": 1.0, "stress_weight": 100.0}


def crystals(count: int, seed: int) -> Frames:
    """Strained and rattled Cu-Al cells with 4 and 8 atoms in turn, every third left-handed, labelled by EMT."""
    random = np.random.default_rng(seed)
    structures = []
    for i in range(count):
        atoms = bulk("Cu", "fcc", a=3.75, cubic=True) * (1 + i % 2, 1, 1)
        atoms.numbers[:: 2 + i % 2] = 13
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + random.normal(0, 0.03, (3, 3))), scale_atoms=True)
        if i % 3 == 0:
            atoms.set_cell(atoms.cell.array[[1, 0, 2]])
        atoms.positions += random.normal(0, 0.08, atoms.positions.shape)
        atoms.calc = EMT()
        structures.append(atoms)
    frames = Frames.from_atoms(
        structures, [a.get_potential_energy() for a in structures], [a.get_forces() for a in structures],
        [a.get_stress() for a in structures],
    )  # fmt: skip
    return frames.with_baseline(0.1 * frames.n_atoms.astype(float))


def strained(frames: Frames) -> Frames:
    """Each frame twelve times: six symmetric strains forth and back."""
    parts = []
    for i, j in VOIGT:
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[i, j] += sign * STEP / 2
            strain[j, i] += sign * STEP / 2
            deform = np.eye(3) + strain
            parts.append(replace(frames, cell=frames.cell @ deform, positions=frames.positions @ deform))
    return Frames.concatenate(parts)


def slabs() -> dict[str, Frames]:
    """The same slab without a third vector, with one that is not periodic, and fully periodic with a wide gap."""
    slab = fcc111("Cu", (2, 2, 2), a=3.75, vacuum=None)
    slab.numbers[::3] = 13
    slab.rattle(0.05, seed=1)
    flat, gap, full = slab.copy(), slab.copy(), slab.copy()
    flat.cell[2] = 0
    gap.cell[2] = full.cell[2] = (0, 0, 40)
    full.pbc = True
    return {name: Frames.from_atoms([atoms]) for name, atoms in (("flat", flat), ("gap", gap), ("full", full))}


def of_all_kinds() -> Frames:
    """Crystals, a slab and a cluster together, so that a batch mixes periodicities and sizes."""
    cluster = molecule("Be2")  # for its two sites
    cluster.numbers[:] = (29, 13)
    parts = [crystals(2, 3), slabs()["gap"], Frames.from_atoms([cluster]), crystals(1, 4)]
    return Frames.concatenate(parts)


@pytest.fixture(scope="session")
def periodic(subject: Subject) -> Subject:
    """A potential for crystals trained on energies, forces and stress, and what it says of the frames above."""
    if "stress" not in subject.backend.labels or not subject.backend.periodic:
        pytest.skip(f"{subject.name} does not declare both stress and periodic boundaries")
    if "periodic" in subject.cache:
        return subject
    kinds = of_all_kinds()
    splits = {
        "crystals": crystals(4, 2), "strained": strained(crystals(4, 2)), "kinds": kinds, **slabs(),
        **{f"kind-{i}": kinds.select([i]) for i in range(len(kinds))},
    }  # fmt: skip
    data = {"train": crystals(12, 0), "valid": crystals(5, 1)}
    tasks = [
        Task(
            "probe",
            options={
                "splits": list(splits), "stress": ["crystals", "full"], "batch": 3,
                "calculator": ["crystals", "gap", "full", "kind-3"],
            },
        )
    ]  # fmt: skip
    labels = ["energy", "forces", "stress"]
    trained = subject.request(
        "crystals", tasks, {**data, **splits}, labels=labels, training={**WEIGHTS, "batch_size": 4},
        budget={"epochs": None, "steps": 30, "interval": 10},
    )  # fmt: skip
    still = {"lr": 1e-12, "schedule": "constant", "ema_decay": None, "batch_size": 12, **WEIGHTS}
    look = [Task("probe", options={"splits": ["train"], "stress": ["train"]})]
    one = subject.request(
        "stress-loss", look, data, labels=labels, training=still, architecture=subject.as_they_are,
        budget={"epochs": None, "steps": 1, "interval": 1},
    )  # fmt: skip
    subject.probe([trained, one])
    subject.cache["periodic"] = True
    return subject


def test_stress_is_the_derivative_of_the_energy_in_ases_sign(periodic: Subject) -> None:
    """Left-handed cells included."""
    found, frames = periodic.predictions("crystals", "probe.npz"), crystals(4, 2)
    energy = found["strained.energy"].reshape(6, 2, len(frames))
    volume = np.abs(np.linalg.det(frames.cell))
    by_strain = ((energy[:, 0] - energy[:, 1]) / (2 * STEP) / volume).T
    scale = np.abs(by_strain).max()
    assert scale > 1e-3  # eV/Å³: a vanishing stress would have no sign
    np.testing.assert_allclose(found["crystals.stress"], by_strain, atol=1e-4 * scale)


def test_the_trainers_own_loss_has_the_common_stress_term(periodic: Subject) -> None:
    (event,) = periodic.events("stress-loss")
    found, frames = periodic.predictions("stress-loss", "probe.npz"), crystals(12, 0)
    prediction = Prediction(found["train.energy"], found["train.forces"], found["train.stress"])
    without = common_loss(prediction, frames, {**WEIGHTS, "stress_weight": 0.0})
    expected = common_loss(prediction, frames, WEIGHTS)
    assert expected > 1.01 * without
    assert event["train_loss"] == pytest.approx(expected, rel=1e-6)


def test_a_slab_has_the_neighbours_of_two_periodic_directions(periodic: Subject) -> None:
    found = periodic.predictions("crystals", "probe.npz")
    for name in ("flat", "gap"):
        assert found[f"{name}.energy"] == pytest.approx(found["full.energy"], abs=1e-8), name
        assert np.abs(found[f"{name}.forces"] - found["full.forces"]).max() < 1e-8, name


def test_a_batch_may_mix_crystals_slabs_and_clusters(periodic: Subject) -> None:
    found, kinds = periodic.predictions("crystals", "probe.npz"), of_all_kinds()
    for i in range(len(kinds)):
        atoms = slice(kinds.offsets[i], kinds.offsets[i + 1])
        assert found["kinds.energy"][i] == pytest.approx(found[f"kind-{i}.energy"][0], abs=1e-8), i
        assert np.abs(found["kinds.forces"][atoms] - found[f"kind-{i}.forces"]).max() < 1e-8, i


def test_the_packages_calculator_says_the_same(periodic: Subject) -> None:
    found = periodic.predictions("crystals", "probe.npz")
    for split in ("crystals", "gap", "full", "kind-3"):
        assert np.abs(found[f"{split}.calculator.energy"] - found[f"{split}.energy"]).max() < 1e-8, split
        assert np.abs(found[f"{split}.calculator.forces"] - found[f"{split}.forces"]).max() < 1e-8, split
    for split in ("crystals", "full"):
        assert np.abs(found[f"{split}.calculator.stress"] - found[f"{split}.stress"]).max() < 1e-8, split


def test_labels_that_cannot_be_trained_on_are_refused_by_name(subject: Subject) -> None:
    """An architecture either trains on stress, as tested above, or says that it cannot."""
    if "stress" in subject.backend.labels:
        pytest.skip(f"{subject.name} trains on stress")
    data, labels = {"train": crystals(4, 0), "valid": crystals(2, 1)}, ["energy", "forces", "stress"]
    result = subject.run("no-stress", [Task("train")], data, labels=labels, training=WEIGHTS)["train"]
    assert result.status == "failed"
    assert "cannot train on stress" in result.reason


def test_periodic_frames_are_refused_where_boundaries_are_not_known(subject: Subject) -> None:
    if subject.backend.periodic:
        pytest.skip(f"{subject.name} knows periodic boundaries")
    data = {"train": crystals(4, 0), "valid": crystals(2, 1)}
    result = subject.run("no-boundaries", [Task("train")], data)["train"]
    assert result.status == "failed"
    assert "periodic" in result.reason
