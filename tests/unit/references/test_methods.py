"""Reference methods: what may be set, what determines a label, and the words for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpbench.backends.registry import BackendConfig
from mlpbench.errors import UserError
from mlpbench.references.methods import METHODS, complete_method, environment_of, level_of, parse_method

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
        ({"code": "ase", "calculator": "EMT"}, "reference.calculator='EMT'"),
    ],
)
def test_mistakes_are_named(method: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        complete_method(method)


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
