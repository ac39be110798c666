"""Reference methods: what may be set, what determines a label, and the words for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpbench.backends.build import require_packages
from mlpbench.backends.registry import BackendConfig
from mlpbench.errors import UserError
from mlpbench.references.methods import METHODS, Method, complete_method, environment_of, level_of, parse_method
from mlpbench.worker.reference.code import kpoint_mesh

PBE = {"code": "pyscf", "xc": "pbe", "basis": "def2-svp"}
EMT = {"code": "ase", "calculator": "ase.calculators.emt.EMT"}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({**PBE, "basiss": "sto-3g"}, "has no setting 'basiss'"),
        ({"code": "pyscf", "xc": "pbe"}, "needs 'basis'"),
        ({"code": "psycf"}, "reference code 'psycf' is not known"),
        ({**PBE, "grid_level": 12}, r"reference.grid_level=12: .*less than or equal to 9"),
        ({"code": "xtb", "hamiltonian": "GFN9"}, "reference.hamiltonian='GFN9'"),
        ({"code": "ase"}, "needs 'calculator'"),
        ({"code": "gpaw", "kpoint_density_A": 2.2}, "needs 'cutoff_eV'"),
        ({"code": "gpaw", "cutoff_eV": 200, "kpoint_density_A": 2, "smearing_eV": 0}, "reference.smearing_eV=0"),
        ({"code": "ase", "calculator": "EMT"}, "reference.calculator='EMT'"),
    ],
)
def test_mistakes_are_named(method: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        complete_method(method)


def test_kpoints_follow_the_reciprocal_cell() -> None:
    """At least density·2π/a along a vector of an orthogonal cell, and one along open directions."""
    cube = np.eye(3) * 5.47
    assert kpoint_mesh(cube, [True] * 3, 2.2) == [3, 3, 3]
    assert kpoint_mesh(cube, [True, True, False], 2.2) == [3, 3, 1]
    assert kpoint_mesh(np.diag([5.47, 10.94, 2.735]), [True] * 3, 2.2) == [3, 2, 6]
    assert kpoint_mesh(np.eye(3) * 2 * np.pi, [True] * 3, 3.0) == [3, 3, 3]  # a whole number is not rounded up


def test_missing_packages_of_the_system_are_named(tmp_path: Path) -> None:
    there = tmp_path / "header.h"
    there.touch()
    backend = BackendConfig(
        name="code",
        adapter="a.b:C",
        system={"one-dev": str(tmp_path / "*.h"), "two": "no-such-program", "python": "sh"},
    )
    assert backend.missing_packages() == ["two"]
    with pytest.raises(UserError, match="packages of the system that are not here: two"):
        require_packages(backend)


def test_defaults_are_filled_in() -> None:
    assert complete_method(PBE) == {
        **PBE, "backend": "pyscf", "density_fit": False, "grid_level": 3, "conv_tol": 1e-9, "charge": 0, "spin": 0,
    }  # fmt: skip
    assert complete_method(complete_method(EMT)) == {**EMT, "backend": "ase", "reuse": False}


def test_where_it_runs_is_no_level_of_theory() -> None:
    elsewhere = complete_method({**EMT, "backend": "mace", "reuse": True, "title": "effective medium theory"})
    assert level_of(elsewhere) == level_of(complete_method(EMT))
    assert level_of(complete_method({**EMT, "arguments": {"asap_cutoff": True}})) != level_of(complete_method(EMT))


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({**PBE, "density_fit": True}, "PBE/def2-svp, density fitting, grid level 3"),
        ({**PBE, "charge": -1, "spin": 1}, "PBE/def2-svp, grid level 3, charge -1, 1 unpaired electrons"),
        ({"code": "xtb"}, "GFN2-xTB"),
        ({"code": "xtb", "multiplicity": 3}, "GFN2-xTB, multiplicity 3"),
        ({**EMT, "arguments": {"asap_cutoff": True, "profile": {"_target_": "a.B"}}}, "EMT(asap_cutoff=True)"),
        ({**EMT, "title": "effective medium theory"}, "effective medium theory"),
        (
            {"code": "gpaw", "cutoff_eV": 200, "kpoint_density_A": 2.2},
            "PBE, PAW, plane waves 200 eV, k-points 2.2 Å with Γ, Fermi–Dirac 0.05 eV",
        ),
        (
            {
                "code": "cp2k",
                "cutoff_Ry": 300,
                "kpoint_density_A": 2,
                "kpoints": [4, 4, 1],
                "gamma": False,
                "charge": 1,
            },
            "PBE-GTH/DZVP-MOLOPT-SR-GTH, 300 Ry, k-points 4×4×1, Fermi–Dirac 0.05 eV, charge 1",
        ),
    ],
)
def test_words(method: dict, words: str) -> None:
    assert parse_method(method).words() == words


@given(st.sampled_from(sorted(METHODS)), st.text(max_size=8))
def test_any_setting_that_is_not_known_is_refused(code: str, name: str) -> None:
    if name in METHODS[code].model_fields:
        return
    with pytest.raises(UserError, match="has no setting"):
        complete_method({"code": code, name: 1})


def test_environment() -> None:
    backend = BackendConfig(name="pyscf", adapter="a.b:c")
    assert environment_of(complete_method(PBE), {"pyscf": backend}) is backend
    with pytest.raises(UserError, match="no backend 'gpaw'"):
        environment_of(complete_method({**PBE, "backend": "gpaw"}), {"pyscf": backend})


def test_a_method_without_words_for_its_level_cannot_be_made() -> None:
    class Wordless(Method):
        worker = "module:Class"

    with pytest.raises(TypeError, match="words"):
        Wordless(code="wordless")
