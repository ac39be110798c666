"""Trajectories in the forms of other tools: read back by ASE and MDAnalysis, each has the frames that were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from mlpbench.evaluators.md.trajectories import FORMATS, write_dump


def frames(start: Atoms, count: int = 3) -> list[Atoms]:
    generator, made = np.random.default_rng(1), []
    for step in range(count):
        atoms = start.copy()
        atoms.positions += 0.05 * generator.standard_normal(atoms.positions.shape)
        atoms.info = {"time_fs": 25.0 * step}
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0 * step, forces=generator.standard_normal((len(atoms), 3)))
        made.append(atoms)
    return made


def distances(atoms: Atoms) -> Any:
    return atoms.get_all_distances(mic=bool(atoms.pbc.any()))


STARTS = {"molecule": molecule("CH3CH2OH"), "cubic": bulk("NaCl", "rocksalt", a=5.6, cubic=True),
          "sheared": bulk("Cu") * (3, 3, 3)}  # fmt: skip


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("form", FORMATS)
def test_ase_reads_back_what_was_written(tmp_path: Path, name: str, form: str) -> None:
    ending, write_to = FORMATS[form]
    path, written = tmp_path / f"run.{ending}", frames(STARTS[name])
    write_to(path, written)
    found = read(path, index=":", format={"dump": "lammps-dump-text"}.get(form))
    assert isinstance(found, list)
    assert len(found) == 3
    for before, after in zip(written, found, strict=True):
        assert after.get_chemical_symbols() == before.get_chemical_symbols()
        if name == "molecule":
            after.pbc = False
        np.testing.assert_allclose(distances(after), distances(before), atol=1e-6)
        turned = np.linalg.norm(after.get_forces(), axis=1)
        np.testing.assert_allclose(turned, np.linalg.norm(before.get_forces(), axis=1), atol=1e-6)


def test_mdanalysis_opens_the_dump(tmp_path: Path) -> None:
    analysis = pytest.importorskip("MDAnalysis")
    written = frames(STARTS["cubic"])
    write_dump(tmp_path / "run.lammpstrj", written)
    universe = analysis.Universe(str(tmp_path / "run.lammpstrj"), format="LAMMPSDUMP", topology_format="LAMMPSDUMP")
    assert len(universe.trajectory) == 3
    for step, before in zip(universe.trajectory, written, strict=True):
        np.testing.assert_allclose(step.positions, before.positions, atol=1e-4)
        np.testing.assert_allclose(step.dimensions[:3], 5.6, atol=1e-6)
