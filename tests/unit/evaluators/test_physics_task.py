"""The worker's probes on potentials with known faults."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk

from mlpbench.frames import Frames
from mlpbench.worker.adapter import Prediction
from mlpbench.worker.tasks.physics import cutoff_jump, hessian, relax, symmetries
from tests.support import ethanol_frames


class Pairs:
    """½k(r − cutoff)² between all pairs nearer than the cutoff; ``fault`` breaks one property."""

    def __init__(self, cutoff=4.0, fault=""):
        self.cutoff, self.fault = cutoff, fault

    def predict(self, frames, batch_size, stress=False):
        energies, forces = [], []
        for atoms in frames.to_atoms():
            vectors = atoms.get_all_distances(mic=bool(atoms.pbc.any()), vector=True)
            r = np.linalg.norm(vectors, axis=-1) + np.eye(len(atoms)) * 1e9
            near = r < self.cutoff
            gap = np.where(near, r - self.cutoff, 0.0)
            energy = 0.25 * (gap**2).sum() + (0.3 * near.sum() if self.fault == "step" else 0.0)
            force = (gap / r)[..., None] * vectors
            if self.fault == "kink":
                force = force + np.where(near, 0.2 / r, 0.0)[..., None] * vectors
            force = force.sum(axis=1)
            if self.fault == "direction":
                force, energy = force + np.array([0.01, 0, 0]), energy - 0.01 * atoms.positions[:, 0].sum()
            if self.fault == "force":
                force = 1.02 * force
            if self.fault == "constant":
                energy += 0.5
            if self.fault == "order":
                force = force * (1 + 0.01 * np.arange(len(atoms)))[:, None]
            energies.append(energy)
            forces.append(force)
        return Prediction(np.array(energies), np.concatenate(forces))


FRAMES = ethanol_frames("test_500K", 2)


def probe(fault=""):
    return symmetries(Pairs(fault=fault), FRAMES, np.random.default_rng(0), 2e-4)


def test_a_sound_potential_passes() -> None:
    found = probe()
    assert found["force_consistency"] < 1e-6
    for name in ("rotation_force", "translation_force", "permutation_force", "extensivity_energy"):
        assert found[name] < 1e-10


@pytest.mark.parametrize(
    ("fault", "name", "size"),
    [
        ("force", "force_consistency", 0.0196),
        ("direction", "rotation_force", 0.01),
        ("constant", "extensivity_energy", 0.5),
        ("order", "permutation_force", 0.05),
    ],
)
def test_each_fault_is_found(fault, name, size) -> None:
    assert probe(fault)[name] > 0.5 * size
    assert probe(fault)[name] < 50 * size


@pytest.mark.parametrize("periodic", [False, True])
def test_only_jumps_at_the_cutoff_count(periodic) -> None:
    frame = FRAMES.select([0])
    if periodic:
        atoms = bulk("Si", cubic=True).repeat(2)
        atoms.rattle(0.1, seed=0)
        frame = Frames.from_atoms([atoms])
    smooth = cutoff_jump(Pairs(), frame, 4.0)
    assert smooth["cutoff_jump_force"] < 2e-4  # the slope itself breaks here, by k · 1e-4 Å
    assert smooth["cutoff_jump_energy"] < 1e-6
    kink = cutoff_jump(Pairs(fault="kink"), frame, 4.0)
    assert 0.1 < kink["cutoff_jump_force"] < 0.5
    assert cutoff_jump(Pairs(fault="step"), frame, 4.0)["cutoff_jump_energy"] == pytest.approx(0.6, rel=1e-3)


def test_hessian_and_minimum_of_a_known_well() -> None:
    class Well:
        home = np.array([[0.0, 0, 0], [1.2, 0.1, 0]])
        matrix = np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) + 0.3

        def predict(self, frames, batch_size, stress=False):
            shift = frames.positions.reshape(len(frames), 6) - self.home.ravel()
            force = -shift @ self.matrix
            return Prediction(-0.5 * (force * shift).sum(axis=1), force.reshape(-1, 3))

    from ase import Atoms

    start = Atoms("HO", positions=Well.home + 0.1)
    positions, found = relax(Well(), start, 1e-5, 200)
    assert found["converged"]
    assert np.abs(positions - Well.home).max() < 1e-4
    start.positions = positions
    assert hessian(Well(), start, 0.005) == pytest.approx(Well.matrix, abs=1e-8)
    assert not relax(Well(), Atoms("HO", positions=Well.home + 0.5), 1e-9, 2)[1]["converged"]
