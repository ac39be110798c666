"""Units, against ASE's constants and known identities."""

from __future__ import annotations

import ase.units
import pytest

from mlpbench import units


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("hartree", ase.units.Hartree),
        ("Ry", ase.units.Rydberg),
        ("bohr", ase.units.Bohr),
        ("kcal/mol", ase.units.kcal / ase.units.mol),
        ("kJ/mol", ase.units.kJ / ase.units.mol),
        ("GPa", ase.units.GPa),
        ("kbar", 0.1 * ase.units.GPa),
        ("hartree/bohr", ase.units.Hartree / ase.units.Bohr),
        ("kcal/mol/Å", ase.units.kcal / ase.units.mol),
    ],
)
def test_factor_agrees_with_ase(unit: str, expected: float) -> None:
    # ASE's default constants are CODATA 2014, ours 2018: they differ in the ninth digit.
    assert units.factor(unit) == pytest.approx(expected, rel=2e-7)


def test_chemical_accuracy_and_time() -> None:
    assert units.factor("kcal/mol") == pytest.approx(0.0433641, rel=1e-5)
    assert 1 / ase.units.fs == pytest.approx(units.ASE_TIME_IN_FS, rel=1e-6)
    assert pytest.approx(ase.units.kB, rel=1e-6) == units.BOLTZMANN
    assert pytest.approx(1 / ase.units.invcm, rel=1e-6) == units.CM1_PER_EV


def test_unknown_unit_lists_the_known() -> None:
    with pytest.raises(KeyError, match="hartree"):
        units.factor("furlong")
