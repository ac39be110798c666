"""Validation: every planted fault is caught with its frames, and clean sets raise no false alarm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mlpbench.datasets.validation import CHECKS, Validation, as_html, as_text, check_frames, validate
from mlpbench.frames import Frames
from mlpbench.units import BOHR, GPA, HARTREE, KCAL_PER_MOL
from tests.support import ethanol_frames
from tests.unit.datasets.support import file_config, rattled_molecules, shared, strained_copper


def check(frames: Frames, **values: Any) -> Validation:
    return check_frames("x", frames, file_config(**values))


def found(report: Validation, name: str, severity: str = "error") -> list[Any]:
    return [f for f in report.findings if f.check == name and f.severity == severity]


@pytest.fixture(scope="module")
def ethanol():
    return ethanol_frames("pool_500K", 300)


# ---------------------------------------------------------------- planted faults


@pytest.mark.parametrize("label", ["energy", "forces", "positions"])
def test_values_that_are_not_finite(ethanol, label):
    values = getattr(ethanol, label).copy()
    values[17 if label == "energy" else 17 * 9 + 4] = np.nan
    (finding,) = found(check(replace(ethanol, **{label: values})), "labels")
    assert finding.frames == [17]


def test_zeros_that_stand_for_missing_forces(ethanol):
    forces = ethanol.forces.copy()
    forces[90:180] = 0.0
    (finding,) = found(check(replace(ethanol, forces=forces)), "labels")
    assert finding.frames == list(range(10, 20))


def test_gradients(ethanol):
    (finding,) = found(check(replace(ethanol, forces=-ethanol.forces)), "forces")
    assert "opposite sign" in finding.message
    assert "too large" not in finding.message
    assert "forces_sign=gradient" in finding.hint


@pytest.mark.parametrize(
    ("unit", "value"),
    [("hartree/bohr", HARTREE / BOHR), ("kcal/mol/Å", KCAL_PER_MOL), ("eV/bohr", 1 / BOHR), ("hartree/Å", HARTREE)],
)
def test_forces_in_another_unit(ethanol, unit, value):
    """Forces left in ``unit`` while the energies are in eV."""
    (finding,) = found(check(replace(ethanol, forces=ethanol.forces / value)), "forces")
    assert f"forces_unit={unit}" in finding.hint or f"(or {unit}" in finding.hint  # hartree/Å is near Ry/bohr


def test_gradients_in_hartree_per_bohr(ethanol):
    (finding,) = found(check(replace(ethanol, forces=-ethanol.forces / (HARTREE / BOHR))), "forces")
    assert "opposite sign" in finding.message
    assert "forces_unit=hartree/bohr" in finding.hint


def test_gradients_of_frames_too_far_apart_for_energies():
    water = shared("deepmd_water/data_0")
    report = validate(file_config(water, forces_sign="gradient", max_net_force=1.0))[0]
    (finding,) = found(report, "forces")
    assert "H-O bonds that are longer than others are pushed further apart" in finding.message


@pytest.mark.parametrize(("unit", "value"), [("kcal/mol", KCAL_PER_MOL), ("hartree", HARTREE)])
def test_energies_in_another_unit(ethanol, unit, value):
    report = check(replace(ethanol, energy=ethanol.energy / value))
    assert f"the energies are {unit}" in found(report, "units")[0].message


def test_outliers(ethanol):
    energy, forces = ethanol.energy.copy(), ethanol.forces.copy()
    energy[33] += 10.0
    forces[77 * 9] = [300.0, 0, 0]
    report = check(replace(ethanol, energy=energy, forces=forces))
    assert sorted(f.frames for f in found(report, "outliers", "warning")) == [[33], [77]]


def test_one_frame_of_another_molecule():
    frames = Frames.concatenate([rattled_molecules(80), Frames.from_atoms([_water()], [-2081.0], [np.zeros((3, 3))])])
    (finding,) = found(check(frames), "composition", "warning")
    assert finding.frames == [80]


def _water() -> Any:
    from ase.build import molecule

    return molecule("H2O")


def test_net_force(ethanol):
    forces = ethanol.forces.copy()
    forces[9 * 5] += [0.5, 0, 0]
    (finding,) = found(check(replace(ethanol, forces=forces)), "net force", "warning")
    assert finding.frames == [5]
    assert "largest 5" in finding.message


def test_duplicates_in_disguise_and_with_another_energy(ethanol):
    copy = ethanol.select([4]).to_atoms()[0]
    copy.positions = copy.positions[:, [1, 2, 0]] * [1, 1, -1] + 7.0
    copy = copy[::-1]
    extra = Frames.from_atoms([copy], [ethanol.energy[4] + 0.3], [np.full((9, 3), np.nan)])
    report = check(Frames.concatenate([ethanol, extra]), labels=["energy"])
    assert found(report, "duplicates", "warning")[0].frames == [300]
    assert "energies more than 5 meV/atom apart" in found(report, "duplicates")[0].message


def test_atoms_on_top_of_each_other(ethanol):
    positions = ethanol.positions.copy()
    positions[9 * 8 + 3] = positions[9 * 8 + 4] + [0.2, 0, 0]
    (finding,) = found(check(replace(ethanol, positions=positions)), "overlaps")
    assert finding.frames == [8]
    assert "0.20 Å" in finding.message


def test_atoms_that_meet_their_image():
    frames = strained_copper()
    cell = frames.cell.copy()
    cell[3, 2] *= 0.35  # the box no longer holds the atoms
    assert found(check(replace(frames, cell=cell)), "overlaps")[0].frames == [3]


def test_a_molecule_marked_periodic(ethanol):
    boxed = replace(ethanol, cell=np.tile(np.eye(3) * 25.0, (300, 1, 1)), pbc=np.ones((300, 3), dtype=bool))
    (finding,) = found(check(boxed), "periodicity", "warning")
    assert len(finding.frames) == 300
    assert "dataset.periodic=false" in finding.hint


def test_periodic_without_a_cell(ethanol):
    broken = replace(ethanol, pbc=np.ones((300, 3), dtype=bool))
    with_cell = replace(broken, cell=np.where(np.arange(300)[:, None, None] == 2, 0.0, np.eye(3) * 25.0))
    (finding,) = found(check(with_cell), "cells")
    assert finding.frames == [2]


def test_stress_of_the_other_sign():
    frames = strained_copper()
    (finding,) = found(check(replace(frames, stress=-frames.stress)), "stress")
    assert "opposite sign" in finding.message


def test_stress_in_another_unit():
    frames = strained_copper()
    (finding,) = found(check(replace(frames, stress=frames.stress / GPA)), "stress")
    assert "stress_unit=GPa" in finding.hint


@pytest.mark.parametrize("order", ["xx yy zz xy yz xz", "xx yy zz yz xy xz", "xx yy zz xy xz yz"])
def test_stress_in_another_order(order):
    """A file whose components stand in ``order``, read as if it were ASE's."""
    frames = strained_copper()
    columns = [["xx", "yy", "zz", "yz", "xz", "xy"].index(name) for name in order.split()]
    (finding,) = found(check(replace(frames, stress=frames.stress[:, columns])), "stress")
    assert f"stress_order='{order}'" in finding.hint


def test_mlearn_molybdenum_read_in_vasps_order():
    (finding,) = found(validate(file_config(shared("mlearn/Mo/training.json")))[0], "stress")
    assert "stress_order='xx yy zz xy xz yz'" in finding.hint


# ---------------------------------------------------------------- no false alarms


CLEAN: list[tuple[str, dict[str, Any]]] = [
    ("acac/train_300K.xyz", {}), ("acac/train_600K.xyz", {}), ("acac/test_dihedral.xyz", {"labels": ["energy"]}),
    ("acac/test_H_transfer.xyz", {"labels": ["energy"]}), ("nequip_si64/sitraj.xyz", {}),
    ("deepmd_water/data_3", {"max_net_force": 0.45}), ("md17_ethanol/ethanol.npz", {"max_net_force": 0.02}),
    ("qm22_methane/Methane.zip", {"index": ":1500"}),
    ("mlearn/Mo/training.json", {"stress_order": "xx yy zz xy xz yz"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values"), CLEAN)
def test_real_sets_are_clean(name, values):
    report = validate(file_config(shared(name), **values))[0]
    assert [f.message for f in report.findings if f.severity != "note"] == []


def test_silicon_has_only_its_known_copies():
    report = validate(file_config(shared("mlearn/Si/training.json")))[0]
    assert [f.check for f in report.findings if f.severity != "note"] == ["duplicates"]
    assert report.ok


@pytest.mark.parametrize("split", ["pool_500K", "test_500K", "test_300K", "test_1000K"])
def test_embedded_ethanol_is_clean(split):
    assert check(ethanol_frames(split)).findings == []


def test_synthetic_sets_are_clean():
    assert check(rattled_molecules(100)).findings == []
    assert [f for f in check(strained_copper()).findings if f.severity != "note"] == []


# ---------------------------------------------------------------- reports


def test_report_as_text_and_html(ethanol):
    energy = ethanol.energy.copy()
    energy[3] = np.nan
    report = check(replace(ethanol, energy=energy, forces=-ethanol.forces))
    text = as_text(report)
    assert "ERROR: forces: the forces are of the opposite sign" in text
    assert f"{len(CHECKS)} checks: 2 errors" in text
    page = as_html([report])
    assert page.count("<svg") == 3
    assert "opposite sign" in page
    for loaded in ("http://", "https://", "<script", "@import"):
        assert loaded not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
            "http://creativecommons.org", ""
        )


def test_more_frames_than_are_checked_are_counted(tmp_path):
    frames = rattled_molecules(60)
    np.savez(tmp_path / "m.npz", z=frames.numbers[:3], R=frames.positions.reshape(60, 3, 3), E=frames.energy)
    report = validate(file_config(tmp_path / "m.npz", labels=["energy"]), max_frames=25)[0]
    assert report.looked_at == (25, 60)
    assert report.summary.frames == 60


def test_report_says_temperature_order_and_copies():
    frames = ethanol_frames("test_500K", 60)
    headers = [{"temperature_K": 300 if i < 20 else 500, "config_type": "md"} for i in range(60)]
    headers[0] |= {"label_seconds": 4.0, "level_of_theory": "PBE"}
    headers[1] |= {"label_seconds": 8.0, "level_of_theory": "PBE"}
    rows = dict(check_frames("x", frames, file_config(), headers).structure)
    assert rows["temperature"] == "300 K (20), 500 K (40)"
    assert rows["config type"] == "md (60)"
    assert rows["order of the frames"].endswith("no order in time is visible")
    assert rows["copies"] == "none"
    assert rows["level of theory"] == "PBE (2)"
    assert rows["cost of a label"] == "6 s (mean)"
    copied = Frames.concatenate([frames, frames.select([3, 5])])
    rows = dict(check_frames("x", copied, file_config()).structure)
    assert rows["copies"] == "2 frames, see below"
    assert "temperature" not in rows
    many = [{"T": 300 + i} for i in range(60)]
    assert dict(check_frames("x", frames, file_config(), many).structure)["temperature"].startswith("300 to 359 K")


def test_energies_without_core_electrons_are_no_error_where_the_unit_is_known(ethanol):
    """GFN2-xTB gives ethanol -309.7 eV, which looks like all-electron Ry: a coincidence, not a fault."""
    valence = replace(ethanol, energy=ethanol.energy / 4209.5 * 309.7)
    assert len(found(check(valence), "units")) == 1
    assert found(check(valence, energy_unit="eV"), "units") == []
    labelled = check_frames("x", valence, file_config(), [{"level_of_theory": "GFN2-xTB"}] * len(valence))
    assert found(labelled, "units") == []
    assert len(found(labelled, "units", "note")) == 1
