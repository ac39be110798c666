"""Timing a reference code: growing molecules, what is kept, recorded times, and overrides of the method."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from mlpbench.config.composing import load_reference
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.references import walltimes
from mlpbench.references.walltimes import CC, CH, alkane, build, keep, load_kept, measure, read_published, water
from tests.unit.references.conftest import BACKEND

METHOD = {"code": "pyscf", "xc": "pbe", "basis": "def2-svp"}


@pytest.mark.parametrize("n", [2, 3, 4, 7, 12])
def test_alkanes_have_their_bonds_and_no_clashes(n: int) -> None:
    atoms = alkane(n)
    assert atoms.get_chemical_formula() == Atoms("C" * n + "H" * (2 * n + 2)).get_chemical_formula()
    i, j, d = neighbor_list("ijd", atoms, 1.7)
    symbols = np.array(atoms.get_chemical_symbols())
    carbons = (symbols[i] == "C") & (symbols[j] == "C")
    hydrogens = (symbols[i] == "C") & (symbols[j] == "H")
    assert d[carbons] == pytest.approx(np.full(2 * (n - 1), CC))
    assert d[hydrogens] == pytest.approx(np.full(2 * n + 2, CH))
    assert np.bincount(i[carbons | hydrogens], minlength=n)[:n].tolist() == [4] * n  # four bonds to each carbon
    assert not ((symbols[i] == "H") & (symbols[j] == "H")).any()  # no two hydrogens within 1.7 Å


def test_water_clusters_are_molecules_apart() -> None:
    cluster = water(9)
    assert cluster.get_chemical_formula() == "H18O9"
    i = neighbor_list("i", cluster, 1.2)
    assert len(i) == 2 * 18  # each hydrogen is bound to its own oxygen and to nothing else


def test_a_series_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(UserError, match="alkanes"):
        build("alkane", 2)
    with pytest.raises(UserError, match="at least 1"):
        build("water", 0)


def ethanol(x: float, count: int = 3) -> Frames:
    return Frames.from_atoms([Atoms("OH", positions=[[x + i, 0, 0], [x + i, 0, 1]]) for i in range(count)])


def test_frames_and_series_are_timed_cold_and_warm(computed: Callable[[], int], tmp_path: Path) -> None:
    said: list[str] = []
    found = measure(
        ethanol(1.0), METHOD, BACKEND, threads=1, machine={"cpu": "x"}, count=2, series="alkanes", say=said.append
    )
    assert len(found["seconds"]) == 2
    assert found["cold_seconds"] > 0
    assert found["start_seconds"] > 0
    assert found["level"].startswith("PBE/def2-svp")
    assert [point["n_atoms"] for point in found["series"]["points"]][:4] == [5, 8, 11, 14]
    assert found["fit"]["n"] == 12
    assert computed() == (2 + 1) + (12 + 1)  # the first of each is computed twice
    assert len(said) == 2
    path = keep(tmp_path / "dft", found)
    assert load_kept(tmp_path / "dft")[0]["seconds"] == found["seconds"]
    assert keep(tmp_path / "dft", {**found, "threads": 2}) != path
    assert keep(tmp_path / "dft", found) == path


def test_supercells_of_a_crystal_are_timed_with_their_k_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """The density of k-points stays: of twice the length, half as many. Times here are N², and are found to be."""
    crystal = Frames.from_atoms([bulk("Si", a=5.47, cubic=True)] * 2)
    gpaw = {"code": "gpaw", "cutoff_eV": 200.0, "kpoint_density_A": 3.0}

    def answers(frames: list[dict[str, Any]], *_: object, **__: object) -> list[dict[str, Any]]:
        return [
            {"seconds": 1e-3 * len(f["numbers"]) ** 2, "converged": True, "version": "GPAW", "reason": ""}
            for f in frames
        ]

    monkeypatch.setattr(walltimes, "run_frames", answers)
    found = measure(crystal, gpaw, BACKEND, threads=1, machine={}, count=1, say=lambda _: None)
    points = found["series"]["points"]
    assert found["series"]["name"] == "supercells"
    assert [point["n_atoms"] for point in points] == [8, 16, 32, 64, 128, 256, 512]
    assert [point["kpoints"] for point in points[:4]] == [[4, 4, 4], [2, 4, 4], [2, 2, 4], [2, 2, 2]]
    assert found["fit"]["exponent"] == pytest.approx(2.0)
    with pytest.raises(UserError, match="no supercells"):
        measure(ethanol(1.0), METHOD, BACKEND, threads=1, machine={}, count=1, series="supercells", say=lambda _: None)


def test_a_frame_without_a_label_is_no_timing(computed: Callable[[], int]) -> None:
    with pytest.raises(UserError, match="no convergence in sight"):
        measure(ethanol(60.0), METHOD, BACKEND, threads=1, machine={}, series=None, say=lambda text: None)


def test_recorded_times_need_a_source(tmp_path: Path) -> None:
    packaged = read_published()
    assert len(packaged) == 6
    assert all(row["source"] and row["seconds_per_step"] > 0 for row in packaged)
    assert {row["cores"] for row in packaged} >= {32, None}
    header = "system,n_atoms,code,cores,seconds_per_step,source\n"
    for text, words in [
        (header + "Si,8,VASP,4,2.5,\n", "line 2: a published time needs its source"),
        (header + "Si,8,VASP,4,fast,log\n", "line 2: n_atoms and seconds_per_step must be positive"),
        ("system,n_atoms\nSi,8\n", "has no column code"),
    ]:
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(UserError, match=words):
            read_published(tmp_path / "t.csv")
    with pytest.raises(UserError, match="cannot be read"):
        read_published(tmp_path / "none.csv")


def test_overrides_change_the_data_sets_method() -> None:
    assert load_reference(["reference.basis=def2-tzvp"], METHOD) == {**METHOD, "basis": "def2-tzvp"}
    assert load_reference(["reference=xtb"], METHOD)["hamiltonian"] == "GFN2-xTB"
    with pytest.raises(UserError, match="names no reference method"):
        load_reference([], None)
    with pytest.raises(UserError, match="pyscf"):
        load_reference(["reference=pyscff"], None)
    with pytest.raises(UserError, match="is not a setting of a reference method"):
        load_reference(["basis=def2-svp"], METHOD)
