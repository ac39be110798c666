"""Readers: every layout on the real files, and round trips on small ones written here."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mlpbench.datasets.readers import detect, read
from mlpbench.datasets.readers.base import Labels, Notes
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.units import BOHR, GPA, HARTREE, KBAR, KCAL_PER_MOL
from tests.unit.datasets.support import frames_of, rattled_molecules, shared

# ---------------------------------------------------------------- the real files


def test_acac_extxyz():
    frames = frames_of(shared("acac/train_300K.xyz"))
    assert len(frames) == 500
    assert not frames.pbc.any()
    assert frames.energy[0] == pytest.approx(-9391.45554428476)
    assert not frames_of(shared("acac/test_dihedral.xyz")).has_forces  # energies only: NaN, never zero


@pytest.mark.parametrize(("element", "train", "test"), [("Si", 214, 25), ("Mo", 194, 23)])
def test_mlearn_json(element, train, test):
    path = shared(f"mlearn/{element}/training.json")
    frames = frames_of(path)
    assert (len(frames), len(frames_of(path.with_name("test.json")))) == (train, test)
    assert frames.pbc.all()
    entry = json.loads(path.read_text(encoding="utf-8"))[0]
    assert frames.energy[0] == entry["outputs"]["energy"]
    assert frames.stress[0, 0] == pytest.approx(-entry["outputs"]["virial_stress"][0] * KBAR)  # sign against ASE's
    sites = np.array([site["xyz"] for site in entry["structure"]["sites"]])
    assert frames.positions[: len(sites)] == pytest.approx(sites, abs=1e-6)


def test_mlearn_shear_order_can_be_declared():
    path = shared("mlearn/Mo/training.json")
    vasp, other = frames_of(path), frames_of(path, stress_order="xx yy zz xy xz yz")
    assert other.stress[:, 3] == pytest.approx(vasp.stress[:, 4])  # yz and xz change places
    assert other.stress[:, 5] == pytest.approx(vasp.stress[:, 5])


def test_deepmd_npy_with_two_sets():
    frames = frames_of(shared("deepmd_water/data_1"))
    assert len(frames) == 160
    assert set(frames.numbers) == {1, 8}
    assert frames.cell[0, 0, 0] == pytest.approx(12.4447, abs=1e-3)


def test_qm22_zip_holds_gradients():
    path = shared("qm22_methane/Methane.zip")
    frames = frames_of(path)
    assert len(frames) == 9000
    assert frames.energy[0] == pytest.approx(-40.48322077 * HARTREE)
    assert frames.forces[0, 0] == pytest.approx(0.005458 * HARTREE / BOHR, abs=1e-9)  # minus the first gradient


def test_md17_npz_is_kcal_per_mol_and_says_so():
    notes = Notes()
    chunks = list(read(shared("md17_ethanol/ethanol.npz"), "auto", Labels(), notes))
    assert sum(len(chunk.frames) for chunk in chunks) == 2000
    assert chunks[0].frames.energy[0] == pytest.approx(-97208.40600498 * KCAL_PER_MOL)
    assert any("energies in kcal/mol, from their size" in note for note in notes.listed())


def test_silicon_with_stress():
    frames = frames_of(shared("nequip_si64/sitraj.xyz"))
    assert len(frames) == 110
    assert frames.has_stress
    assert frames.stress[0, 0] == pytest.approx(-0.0004994777426685017)


# ---------------------------------------------------------------- round trips


def _stack(frames):
    return (a.reshape(len(frames), -1, 3) for a in (frames.positions, frames.forces))


def test_sgdml_round_trip(tmp_path):
    frames = rattled_molecules(7)
    positions, forces = _stack(frames)
    path = tmp_path / "mol.npz"
    np.savez(
        path, z=frames.numbers[:3], R=positions, E=frames.energy[:, None] / KCAL_PER_MOL, F=forces / KCAL_PER_MOL,
        e_unit="kcal/mol", r_unit="Ang",
    )  # fmt: skip
    again = frames_of(path)
    assert again.energy == pytest.approx(frames.energy)
    assert again.forces == pytest.approx(frames.forces)


def test_sgdml_without_a_unit_that_can_be_told_is_refused(tmp_path):
    np.savez(tmp_path / "mol.npz", z=[6, 8], R=np.zeros((2, 2, 3)), E=[-1.0, -2.0])
    with pytest.raises(UserError, match=r"cannot be inferred from the file[\s\S]*dataset\.energy_unit=kcal/mol"):
        frames_of(tmp_path / "mol.npz")


def test_npz_with_pickled_content_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "evil.npz", z=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="never unpickled"):
        frames_of(tmp_path / "evil.npz")


def test_ani_hdf5_round_trip_leaves_out_missing_energies(tmp_path):
    h5py = pytest.importorskip("h5py")
    frames = rattled_molecules(6)
    positions, forces = _stack(frames)
    energy = frames.energy / HARTREE
    energy[2] = np.nan
    path = tmp_path / "ani.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("C1H1O1")
        group["atomic_numbers"] = frames.numbers[:3].astype(np.uint8)
        group["coordinates"] = positions
        group["wb97x_dz.energy"] = energy
        group["wb97x_dz.forces"] = forces / HARTREE
    notes = Notes()
    again = Frames.concatenate([chunk.frames for chunk in read(path, "auto", Labels(), notes)])
    assert again.energy == pytest.approx(np.delete(frames.energy, 2))
    assert again.forces.reshape(-1, 3, 3) == pytest.approx(np.delete(frames.forces.reshape(-1, 3, 3), 2, axis=0))
    assert "ani.h5: 1 conformations without the chosen energy left out" in notes.listed()


def test_old_ani_layout_with_species(tmp_path):
    h5py = pytest.importorskip("h5py")
    frames = rattled_molecules(3)
    with h5py.File(tmp_path / "ani.hdf5", "w") as file:
        group = file.create_group("gdb11_s01/gdb11_s01-0")
        group["species"] = np.array([b"C", b"O", b"H"])
        group["coordinates"] = frames.positions.reshape(3, 3, 3)
        group["energies"] = frames.energy / HARTREE
    assert frames_of(tmp_path / "ani.hdf5").energy == pytest.approx(frames.energy)


def test_qm9_tar_with_mathematica_numbers(tmp_path):
    molecule = (
        "3\ngdb 3\t799.58812\t437.90386\t282.94545\t1.8511\t6.31\t-0.2928\t0.0687\t0.3615\t19.0002\t0.021375"
        "\t-76.404702\t-76.401867\t-76.400922\t-76.422349\t6.002\nO\t-0.0343604951\t0.9775395708\t0.0076015923\t-0.5"
        "\nH\t0.0647664923\t2.056*^-2\t0.0015346341\t0.2\nH\t0.8717903737\t1.3007924048\t0.0006931336\t0.2\n"
    )
    with tarfile.open(tmp_path / "qm9.tar.bz2", "w:bz2") as archive:
        member = tarfile.TarInfo("dsgdb9nsd_000003.xyz")
        content = io.BytesIO(molecule.encode())
        member.size = len(content.getvalue())
        archive.addfile(member, content)
    frames = frames_of(tmp_path / "qm9.tar.bz2")
    assert frames.energy[0] == pytest.approx(-76.404702 * HARTREE)
    assert frames.positions[1, 1] == pytest.approx(0.02056)
    assert not frames.has_forces
    assert frames_of(tmp_path / "qm9.tar.bz2", energy_key="G").energy[0] == pytest.approx(-76.422349 * HARTREE)
    with pytest.raises(UserError, match="no property 'U9'"):
        frames_of(tmp_path / "qm9.tar.bz2", energy_key="U9")


def test_deepmd_virial_becomes_a_stress(tmp_path):
    (tmp_path / "set.000").mkdir()
    (tmp_path / "type.raw").write_text("0\n1\n")
    (tmp_path / "type_map.raw").write_text("Na\nCl\n")
    box = np.diag([4.0, 5.0, 6.0]).reshape(1, 9)
    virial = np.diag([-1.2, -2.4, -3.6]).reshape(1, 9)  # eV; positive pressure has a positive virial
    for name, values in {"coord": np.zeros((1, 6)), "energy": [-7.0], "force": np.zeros((1, 6)), "box": box}.items():
        np.save(tmp_path / "set.000" / f"{name}.npy", np.asarray(values))
    np.save(tmp_path / "set.000" / "virial.npy", virial)
    frames = frames_of(tmp_path)
    assert frames.stress[0] == pytest.approx([0.01, 0.02, 0.03, 0, 0, 0])
    assert frames.pbc.all()


def test_extxyz_keys_units_and_virial(tmp_path):
    atoms = Atoms("Si2", positions=[[0, 0, 0], [1.3, 1.4, 1.5]], cell=[4, 4, 4], pbc=True)
    atoms.info.update(REF_energy=-1.0, REF_virial=-np.diag([6.4, 0, 0]))
    atoms.arrays["REF_forces"] = np.array([[0.1, 0, 0], [-0.1, 0, 0]])
    write(tmp_path / "a.xyz", atoms, format="extxyz")
    notes = Notes()
    frames = next(iter(read(tmp_path / "a.xyz", "auto", Labels(energy_unit="hartree"), notes))).frames
    assert "a.xyz: energy taken from 'REF_energy'" in notes.listed()
    assert frames.energy[0] == pytest.approx(-HARTREE)
    assert frames.forces[0, 0] == pytest.approx(0.1 * HARTREE)  # energy unit per length unit
    assert frames.stress[0, 0] == pytest.approx(0.1 * HARTREE)  # minus the virial over 64 Å³
    gradient = frames_of(tmp_path / "a.xyz", forces_sign="gradient", forces_unit="hartree/bohr")
    assert gradient.forces[0, 0] == pytest.approx(-0.1 * HARTREE / BOHR)


def test_stress_unit_and_sign(tmp_path):
    atoms = Atoms("Si", cell=[4, 4, 4], pbc=True)
    atoms.calc = SinglePointCalculator(
        atoms, energy=-1.0, forces=np.zeros((1, 3)), stress=np.array([1.0, 2, 3, 4, 5, 6])
    )
    write(tmp_path / "a.xyz", atoms, format="extxyz")
    stress = frames_of(tmp_path / "a.xyz", stress_unit="GPa", stress_sign="compression").stress[0]
    assert stress == pytest.approx(-np.arange(1, 7) * GPA)


def test_an_ase_database(tmp_path):
    from ase.db import connect

    with connect(tmp_path / "set.db") as database:
        for atoms in rattled_molecules(4).to_atoms():
            database.write(atoms)
    frames = frames_of(tmp_path / "set.db")
    assert len(frames) == 4
    assert frames.has_forces


# ---------------------------------------------------------------- faults


def test_a_misspelt_key_names_the_close_match(tmp_path):
    write(tmp_path / "a.xyz", rattled_molecules(2).to_atoms(), format="extxyz")
    with pytest.raises(UserError, match="Did you mean 'energy'"):
        frames_of(tmp_path / "a.xyz", energy_key="enregy")


def test_a_file_that_ends_in_mid_frame(tmp_path):
    path = tmp_path / "cut.xyz"
    write(path, rattled_molecules(3).to_atoms(), format="extxyz")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(UserError, match=r"cut\.xyz"):
        frames_of(path)


def test_a_qm22_stream_that_ends_in_mid_block(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("m.xyz", "  2\n  -1.5\nH 0 0 0 0 0 0\n")
    with pytest.raises(UserError, match="block 0 ends after 1 of 2 atoms"):
        frames_of(tmp_path / "m.zip")


def test_a_file_that_is_nothing(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="ASE cannot read this file"):
        frames_of(tmp_path / "notes.txt")


def test_an_unknown_unit(tmp_path):
    write(tmp_path / "a.xyz", rattled_molecules(2).to_atoms(), format="extxyz")
    with pytest.raises(UserError, match="unit 'ev' is not known"):
        frames_of(tmp_path / "a.xyz", energy_unit="ev")


@pytest.mark.parametrize(("index", "expected"), [(":3", [0, 1, 2]), ("1::2", [1, 3, 5]), ("2:5", [2, 3, 4])])
def test_index_chooses_frames_in_any_layout(tmp_path, index, expected):
    frames = rattled_molecules(6)
    positions, _ = _stack(frames)
    np.savez(tmp_path / "m.npz", z=frames.numbers[:3], R=positions, E=frames.energy)
    write(tmp_path / "m.xyz", frames.to_atoms(), format="extxyz")
    for path in (tmp_path / "m.npz", tmp_path / "m.xyz"):
        assert frames_of(path, index=index).energy == pytest.approx(frames.energy[expected])


def test_detection_by_name_and_content(tmp_path):
    (tmp_path / "type.raw").write_text("0")
    (tmp_path / "list.json").write_text('[{"structure": {}, "outputs": {}}]')
    (tmp_path / "plain.xyz").write_text("1\n -40.5\nH 0 0 0 0 0 0\n")
    assert detect(tmp_path) == "deepmd"
    assert detect(tmp_path / "list.json") == "mlearn"
    assert detect(tmp_path / "plain.xyz") == "qm22"
    assert detect(Path("x.tar.bz2")) == "qm9"
