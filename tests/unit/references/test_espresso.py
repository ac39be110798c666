"""``reference=espresso``: the input that pw.x gets is the one that the configuration means."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from mlpbench.config.composing import load_reference
from mlpbench.errors import UserError
from mlpbench.references.methods import complete_method
from mlpbench.worker.reference.ase_code import AseCode

OWN = [
    "reference=espresso", "reference.arguments.profile.pseudo_dir=/upf",
    "reference.arguments.pseudopotentials={Si: Si.pbe.UPF}",
]  # fmt: skip


def written(overrides: list[str], folder: Path) -> dict[str, str]:
    """name -> value of the namelists, and the lines of each card under its name."""
    method = complete_method(load_reference(overrides, None))
    calculator = AseCode(method).calculator()
    calculator.directory = folder
    calculator.write_inputfiles(bulk("Si", a=5.47, cubic=True), ["energy", "forces", "stress"])
    text = (folder / "espresso.pwi").read_text()
    found = {name: value.strip().strip("'") for name, value in re.findall(r"^\s*(\w+)\s*=\s*(.+)$", text, re.M)}
    for card in ("ATOMIC_SPECIES", "K_POINTS", "CELL_PARAMETERS", "ATOMIC_POSITIONS"):
        match = re.search(rf"^{card}(.*(?:\n(?!\s*$|[A-Z_]+ ).*)*)", text, re.M)
        assert match is not None, card
        found[card] = match.group(1).strip()
    return found


def test_input_of_silicon(tmp_path: Path) -> None:
    """Forces and stress in the same run, the user's own UPF, smearing of 0.1 eV in Ry, a shifted mesh, lengths in Å."""
    found = written(OWN, tmp_path)
    assert (found["tprnfor"], found["tstress"]) == (".true.", ".true.")
    assert found["pseudo_dir"] == "/upf"
    assert found["nat"] == "8"
    assert float(found["ecutwfc"]) == 40
    assert float(found["ecutrho"]) == 8 * float(found["ecutwfc"])
    assert (found["occupations"], found["smearing"]) == ("smearing", "fermi-dirac")
    assert float(found["degauss"]) * 13.605693 == pytest.approx(0.1, rel=1e-3)
    assert found["ATOMIC_SPECIES"].split() == ["Si", "28.085", "Si.pbe.UPF"]
    assert found["K_POINTS"].split() == ["automatic", "4", "4", "4", "1", "1", "1"]
    cell = found["CELL_PARAMETERS"].split()
    assert cell[0] == "angstrom"
    np.testing.assert_allclose(np.array(cell[1:], dtype=float).reshape(3, 3), 5.47 * np.eye(3))
    positions = found["ATOMIC_POSITIONS"].splitlines()
    assert positions[0] == "angstrom"
    np.testing.assert_allclose([float(x) for x in positions[2].split()[1:]], [5.47 / 4] * 3)


def test_settings_reach_the_input(tmp_path: Path) -> None:
    more = [*OWN, "reference.arguments.input_data.system.ecutwfc=60", "reference.arguments.kpts=[2,2,2]"]
    found = written(more, tmp_path)
    assert float(found["ecutwfc"]) == 60
    assert found["K_POINTS"].split()[1:4] == ["2", "2", "2"]


def test_pseudopotentials_are_the_users_to_name() -> None:
    with pytest.raises(UserError, match=r"reference\.arguments\.profile\.pseudo_dir is yours to give"):
        complete_method(load_reference(OWN[:1], None))
    with pytest.raises(UserError, match=r"reference\.arguments\.pseudopotentials is yours to give"):
        complete_method(load_reference(OWN[:2], None))
