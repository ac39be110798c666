"""Labels: the key, the cache shared by trials, and what is said when the method is another one or fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from mlpbench.backends.registry import BackendConfig
from mlpbench.errors import UserError
from mlpbench.evaluators import Context
from mlpbench.frames import Frames
from mlpbench.references import labels, own
from mlpbench.references.labels import Unlabelled
from mlpbench.references.methods import PyscfMethod, complete_method
from tests.support import ethanol_frames
from tests.unit.references.conftest import BACKEND

METHOD = complete_method({"code": "pyscf", "xc": "pbe", "basis": "def2-svp"})
NUMBERS = np.array([8, 1, 1])
WATER = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])


def water(*shifts: float) -> Frames:
    return Frames.from_atoms(Atoms(NUMBERS, positions=WATER + shift) for shift in shifts)


def test_key_depends_on_geometry_and_method_alone() -> None:
    key = labels.label_key(NUMBERS, WATER, METHOD)
    assert key == labels.label_key(NUMBERS.astype(np.int32), WATER.copy(order="F"), dict(reversed(METHOD.items())))
    assert key != labels.label_key(NUMBERS, WATER + 1e-9, METHOD)
    assert key != labels.label_key(NUMBERS[::-1], WATER, METHOD)
    assert key != labels.label_key(NUMBERS, WATER, {**METHOD, "xc": "pbe0"})


def test_key_of_a_crystal_has_its_cell() -> None:
    cell, pbc = 4 * np.eye(3), (True, True, False)
    key = labels.label_key(NUMBERS, WATER, METHOD, cell, pbc)
    assert key == labels.label_key(NUMBERS, WATER, METHOD, cell.copy(order="F"), np.array(pbc))
    assert key != labels.label_key(NUMBERS, WATER, METHOD, cell * 1.01, pbc)
    assert key != labels.label_key(NUMBERS, WATER, METHOD, cell, True)
    assert labels.label_key(NUMBERS, WATER, METHOD, cell, False) == labels.label_key(NUMBERS, WATER, METHOD)


def test_no_frame_is_computed_twice(tmp_path: Path, computed) -> None:
    cache = tmp_path / "cache"
    first = labels.label(water(0, 1), METHOD, BACKEND, cache=cache)
    assert computed() == 2
    assert [label.energy for label in first] == [-2000.0, -2001.0]
    again = labels.label(water(1, 2), METHOD, BACKEND, cache=cache)
    assert computed() == 3
    assert [label.cached for label in again] == [True, False]
    assert again[0].seconds == labels.label(water(1), METHOD, BACKEND, cache=cache)[0].seconds > 0  # as it cost then
    assert again[0].forces.shape == (3, 3)
    assert again[0].version == "fake 1.0"


def test_a_frame_that_comes_twice_is_computed_once(tmp_path: Path, computed) -> None:
    found = labels.label(water(1, 1, 2, 1), METHOD, BACKEND, cache=tmp_path / "c")
    assert [label.energy for label in found] == [-2001.0, -2001.0, -2002.0, -2001.0]
    assert computed() == 2


def test_several_processes_share_the_frames(tmp_path: Path, computed) -> None:
    seen: list[tuple[int, int]] = []
    shifts = range(12)
    found = labels.label(
        water(*shifts), METHOD, BACKEND, jobs=3, cache=tmp_path / "c", on_label=lambda *counts: seen.append(counts)
    )
    assert [label.energy for label in found] == [-2000.0 - shift for shift in shifts]
    assert computed() == 12  # each by one process alone
    assert seen == [(n, 12) for n in range(13)]


def test_what_does_not_converge_is_remembered_with_its_reason(tmp_path: Path, computed) -> None:
    for _ in range(2):
        (answer,) = labels.label(water(60), METHOD, BACKEND, cache=tmp_path / "c")
        assert answer == Unlabelled("no convergence in sight", final=True)
    assert computed() == 1


def test_a_frame_that_breaks_the_code_costs_no_other_its_label(tmp_path: Path, computed) -> None:
    found = labels.label(water(0, 95, 1), METHOD, BACKEND, cache=tmp_path / "c")
    assert [isinstance(answer, labels.Label) for answer in found] == [True, False, True]
    assert found[1] == Unlabelled("ValueError: bad geometry", final=False)
    labels.label(water(0, 95, 1), METHOD, BACKEND, cache=tmp_path / "c2")
    assert computed() == 6
    labels.label(water(0, 95, 1), METHOD, BACKEND, cache=tmp_path / "c")
    assert computed() == 7  # the broken one is tried again


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_frame_that_kills_the_process_costs_no_other_its_label(tmp_path: Path, computed, jobs: int) -> None:
    found = labels.label(water(0, 115, 1, 120, 2), METHOD, BACKEND, jobs=jobs, cache=tmp_path / "c")
    assert [isinstance(answer, labels.Label) for answer in found] == [True, False, True, False, True]
    assert found[1] == Unlabelled("pyscf ended with code 9 while labelling frames: it said nothing", final=False)
    assert computed() == 5
    with pytest.raises(UserError, match="ended with code 9"):
        labels.label(water(*range(120, 130)), METHOD, BACKEND, cache=tmp_path / "c")
    assert computed() == 8


def test_a_code_that_breaks_on_everything_is_an_error(tmp_path: Path, computed) -> None:
    with pytest.raises(UserError, match="failed on every frame it was given: ValueError: bad geometry"):
        labels.label(water(*range(95, 105)), METHOD, BACKEND, cache=tmp_path / "c")
    assert computed() == 3  # and it is not tried on all of them


def test_no_frame_is_begun_after_the_time_is_out(tmp_path: Path, computed) -> None:
    found = labels.label(water(0, 1), METHOD, BACKEND, seconds=0, cache=tmp_path / "c")
    assert found == [Unlabelled("out of time", final=False)] * 2
    assert computed() == 0


def test_a_code_that_cannot_start_says_why(tmp_path: Path, computed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PyscfMethod, "worker", "fake_code:Misspelt")
    with pytest.raises(UserError, match=r"ended with code 1 .*has no attribute 'Misspelt'"):
        labels.label(water(0), METHOD, BACKEND, cache=tmp_path / "c")


def test_molecules_only(tmp_path: Path) -> None:
    crystal = Frames.from_atoms([Atoms("Cu", cell=np.eye(3) * 2.5, pbc=True)])
    with pytest.raises(UserError, match="pyscf computes molecules here"):
        labels.label(crystal, METHOD, BACKEND, cache=tmp_path / "c")


def test_another_level_of_theory_is_refused(tmp_path: Path, computed) -> None:
    """The stand-in's energies are not those of the data set: the potential must not be charged with that."""
    frames = ethanol_frames("test_500K", 3)
    with pytest.raises(UserError, match="is not the data set's"):
        own.verify(
            frames.numbers[:9], Context({"test_500K": frames}, "test_500K"), METHOD, BACKEND, cache=tmp_path / "c"
        )


def test_environment_that_is_not_built_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPBENCH_HOME", str(tmp_path))
    monkeypatch.delenv("MLPBENCH_PYSCF_PYTHON", raising=False)
    backend = BackendConfig(name="pyscf", adapter="a.b:c", requirements="../reference/pyscf.requirements.txt")
    with pytest.raises(UserError, match="mlpbench env build pyscf"):
        labels.label(water(0), METHOD, backend)
