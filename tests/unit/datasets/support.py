"""Files and frames that the tests of the data layer share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from mlpbench.datasets.readers import read
from mlpbench.datasets.readers.base import Labels, Notes
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.frames import Frames

REPOSITORY = Path(__file__).parents[3]
SHARED = Path(os.environ.get("MLPBENCH_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))


def shared(name: str) -> Path:
    """A real file outside the repository; the test is skipped where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set MLPBENCH_SHARED_DATA to the folder of reference data")
    return path


def frames_of(path: Path, format: str = "auto", **labels: Any) -> Frames:
    """All frames of a file."""
    return Frames.concatenate([chunk.frames for chunk in read(path, format, Labels(**labels), Notes())])


def file_config(path: Path | str = "x.xyz", **values: Any) -> DatasetConfig:
    """A configuration for one's own file, small enough for tests."""
    return DatasetConfig.model_validate({"kind": "file", "path": str(path), "n_train": 10, "n_valid": 5, **values})


def rattled_molecules(count: int = 60, seed: int = 0, step: float = 0.05) -> Frames:
    """Bent triatomics of springs (C, O, H), unrelated to each other, with exact energies and forces in eV and Å."""
    generator = np.random.default_rng(seed)
    rest = np.array([[0.0, 0, 0], [1.2, 0, 0], [-0.5, 0.95, 0]])
    structures, energies, forces = [], [], []
    for _ in range(count):
        atoms = Atoms("COH", positions=rest + generator.normal(0, step, (3, 3)))
        energy, force = springs(atoms.positions)
        structures.append(atoms)
        energies.append(energy)
        forces.append(force)
    return Frames.from_atoms(structures, energies, forces)


def springs(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (eV/Å) of three springs of 30 eV/Å² on an all-electron scale of energies."""
    energy, forces = -113.3 * 27.2114, np.zeros_like(positions)
    for i, j, length in ((0, 1, 1.2), (0, 2, 1.07), (1, 2, 1.95)):
        apart = positions[j] - positions[i]
        distance = float(np.linalg.norm(apart))
        energy += 15.0 * (distance - length) ** 2
        pull = 30.0 * (distance - length) * apart / distance
        forces[i] += pull
        forces[j] -= pull
    return energy, forces


def strained_copper(count: int = 25, seed: int = 0) -> Frames:
    """Copper cells under random strains, EMT energies, forces and stress (ASE's conventions)."""
    generator = np.random.default_rng(seed)
    structures, energies, forces, stresses = [], [], [], []
    for _ in range(count):
        atoms = bulk("Cu", cubic=True)
        strain = generator.normal(0, 0.02, (3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.calc = EMT()
        structures.append(atoms)
        energies.append(atoms.get_potential_energy())
        forces.append(atoms.get_forces())
        stresses.append(atoms.get_stress())
    return Frames.from_atoms(structures, energies, forces, np.array(stresses))
