"""Inputs that were once read wrong in silence (``tests/cases``), each with its right value."""

from __future__ import annotations

import os
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read as ase_read
from ase.io import write

from mlpbench.cli import main
from mlpbench.datasets import load, prepare_split
from mlpbench.datasets.baseline import trivial_errors
from mlpbench.datasets.dataset import data_digest, extension_digests
from mlpbench.datasets.readers import read
from mlpbench.datasets.readers.base import Labels, Notes, unconverged
from mlpbench.datasets.splits import settle
from mlpbench.datasets.validation import Validation, as_text, validate
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.units import GPA, HARTREE
from tests.unit.datasets.support import REPOSITORY, file_config, frames_of, rattled_molecules

CASES = REPOSITORY / "tests" / "cases"
FIRST = CASES / "03-first-frame-decides-keys"
STRESS = CASES / "13-stress-unit-unchecked"
SMALL = CASES / "28-small-ones"


def checked(path: Path, **values: Any) -> Validation:
    return validate(file_config(path, **values))[0]


def messages(report: Validation, severity: str = "warning") -> str:
    return "\n".join(f"{f.message} | {f.hint}" for f in report.findings if f.severity == severity)


def small(path: Path, **values: Any) -> Any:
    return file_config(path, n_train=10, n_valid=4, **values)


# ---------------------------------------------------------------- reference energies


def test_two_compositions_of_three_elements_leave_nothing_to_the_network(tmp_path):
    config = small(CASES / "02-e0-rank-deficient" / "eth_water.extxyz")
    split = prepare_split(load(config), config, 0, tmp_path)
    assert split.manifest["baseline"]["source"] == "least_squares"
    assert split.manifest["baseline"]["independent_compositions"] == 2
    for name in ("train", "valid", "test"):
        frames = Frames.load(split.files[name])
        assert np.abs(frames.target_energy / frames.n_atoms).max() < 1.0  # eV/atom; it was 112
    assert split.warnings == []


def test_isolated_atoms_of_another_level_are_remarked(tmp_path):
    config = small(CASES / "02-e0-rank-deficient" / "eth_water.extxyz", isolated_atoms={"C": 0.0, "H": 0.0, "O": 0.0})
    warnings = prepare_split(load(config), config, 0, tmp_path).warnings
    assert any("eV/atom from free atoms" in warning for warning in warnings)
    assert any("do not agree with each other" in warning for warning in warnings)


def test_errors_of_a_predictor_that_knows_no_geometry(tmp_path):
    train, test = rattled_molecules(20), rattled_molecules(10, seed=1)
    errors = trivial_errors(train, test)
    assert errors["energy_mae"] == pytest.approx(1000 * np.abs(test.energy - train.energy.mean()).mean() / 3)
    assert errors["force_mae"] == pytest.approx(1000 * np.abs(test.forces).mean())
    oxygen = test.numbers == 8
    assert errors["force_mae_O"] == pytest.approx(1000 * np.abs(test.forces[oxygen]).mean())
    assert "stress_mae" not in errors
    config = small(STRESS / "stress_gpa.extxyz", stress_unit="GPa")
    manifest = prepare_split(load(config), config, 0, tmp_path).manifest
    assert set(manifest["trivial_errors"]) == {"valid", "test"}
    assert manifest["trivial_errors"]["test"]["stress_mae"] > 0.1


@pytest.mark.parametrize("isolated", [None, {"Cu": 3.5, "Au": 3.8}])
def test_an_element_of_the_test_set_alone_is_refused_before_training(tmp_path, isolated):
    folder = CASES / "18-unseen-element"
    config = small(
        folder / "cu.extxyz", test_path=str(folder / "au_test.extxyz"), isolated_atoms=isolated, on_leak="warn"
    )
    with pytest.raises(UserError, match=r"Au is in split test \(\d+ of \d+ frames\) but in no training frame"):
        prepare_split(load(config), config, 0, tmp_path)


# ---------------------------------------------------------------- which labels there are


def test_labels_are_found_by_all_frames():
    report = checked(FIRST / "first_lacks.extxyz")
    assert "forces missing or not finite in 3 of 20 frames: 0, 9, 17" in messages(report, "error")
    assert not report.ok


@pytest.mark.parametrize("name", ["iso_first_nofrc.extxyz", "iso_first_zero.extxyz"])
def test_a_free_atom_in_front_hides_nothing_and_becomes_the_reference_energy(name):
    frames = frames_of(FIRST / name)
    assert (frames.n_atoms[0], frames.forces[0].tolist()) == (1, [0.0, 0.0, 0.0])
    assert np.isfinite(frames.stress[1:]).all()
    dataset = load(small(FIRST / name))
    assert dataset.isolated_atoms == {"Cu": 3.51}
    assert dataset.pool.has_stress
    assert len(dataset.pool) + len(dataset.tests["test"]) == 19
    assert checked(FIRST / name).findings == []


def test_a_split_key_that_the_first_frame_lacks():
    config = small(
        FIRST / "cfg_first_missing.extxyz", split={"strategy": "key", "key": "config_type", "test_values": ["x"]}
    )
    with pytest.raises(UserError, match=r"1 frames have no 'config_type', the first is 0"):
        load(config)


def test_forces_under_a_name_that_nobody_knows_are_listed():
    report = checked(CASES / "19-force-key-not-named" / "key_dft_energy.extxyz")
    assert "per-atom (N, 3) arrays there: dft_force" in messages(report)
    assert "no frame has forces" in messages(report, "error")
    assert frames_of(CASES / "19-force-key-not-named" / "key_dft_energy.extxyz", forces_key="dft_force").has_forces


def test_a_file_without_forces_is_an_error_unless_they_are_not_asked_for(capsys):
    path = str(CASES / "12-cp2k-xyz-hartree" / "PROJECT-pos-1.xyz")
    assert main(["data", "validate", path]) == 1
    assert main(["data", "validate", path, "--labels", "energy"]) == 0
    assert "dataset.labels=[energy]" in capsys.readouterr().out


def test_the_reference_comes_before_the_model():
    path = CASES / "16-model-energy-over-REF" / "model_and_ref.extxyz"
    assert frames_of(path).energy[0] == pytest.approx(5.1726480761533615)
    text = messages(checked(path))
    assert "energy is taken from 'REF_energy'; 'energy' is there too and differs" in text
    assert "forces is taken from 'REF_forces'" in text


def test_energy_and_free_energy_apart():
    assert "the forces belong to free_energy" in messages(checked(SMALL / "free.traj"))


def test_charges_that_vary():
    assert "charge varies among the frames: 0 (10), 1 (10)" in messages(checked(SMALL / "charges_alt.extxyz"))


# ---------------------------------------------------------------- layouts


def test_deepmd_mixed_types():
    frames = frames_of(CASES / "04-deepmd-mixed-types" / "mixed")
    assert np.unique(frames.numbers, return_counts=True)[1].tolist() == [80, 80]
    assert set(frames.numbers) == {29, 79}


def test_deepmd_padding_is_left_out_and_a_negative_type_is_refused(tmp_path):
    (tmp_path / "set.000").mkdir()
    (tmp_path / "type.raw").write_text("0\n0\n0\n")
    (tmp_path / "type_map.raw").write_text("H\nO\n")
    (tmp_path / "nopbc").write_text("")
    arrays = {"coord": np.arange(18.0).reshape(2, 9), "energy": [-1.0, -2.0], "force": np.zeros((2, 9))}
    for name, values in arrays.items():
        np.save(tmp_path / "set.000" / f"{name}.npy", np.asarray(values))
    np.save(tmp_path / "set.000" / "real_atom_types.npy", np.array([[1, 0, 0], [0, 0, -1]]))
    frames = frames_of(tmp_path)
    assert frames.n_atoms.tolist() == [3, 2]
    assert frames.numbers.tolist() == [8, 1, 1, 1, 1]
    (tmp_path / "set.000" / "real_atom_types.npy").unlink()
    (tmp_path / "type.raw").write_text("0\n-1\n0\n")
    with pytest.raises(UserError, match="types must lie in 0 to 1"):
        frames_of(tmp_path)


def test_npz_with_a_lattice_is_periodic(tmp_path):
    path = CASES / "05-npz-periodic-dropped" / "periodic_lattice.npz"
    frames = frames_of(path)
    assert frames.pbc.all()
    content = np.load(path)
    assert frames.cell[3] == pytest.approx(content["lattice"].T)  # sGDML: vectors as columns
    arrays = {name: content[name] for name in ("z", "R", "E", "F", "e_unit")}
    cell = np.array([[4.0, 0, 0], [1, 5, 0], [0, 0, 6]])
    np.savez(tmp_path / "ase.npz", cell=cell, pbc=[True, True, False], **arrays)
    other = frames_of(tmp_path / "ase.npz")
    assert other.cell[0] == pytest.approx(cell)
    assert other.pbc[0].tolist() == [True, True, False]
    np.savez(tmp_path / "no_cell.npz", pbc=True, **arrays)
    with pytest.raises(UserError, match="has 'pbc' but no cell"):
        frames_of(tmp_path / "no_cell.npz")


def test_npz_in_fortran_order_and_with_objects():
    frames = frames_of(SMALL / "md17_fortran.npz")
    content = np.load(SMALL / "md17_fortran.npz")
    assert frames.positions.reshape(20, 9, 3) == pytest.approx(content["R"])
    assert frames.has_forces
    with pytest.raises(UserError, match=r"'F' \(forces\) holds pickled Python objects, which are never unpickled"):
        frames_of(SMALL / "object.npz")


def test_blank_lines_between_frames_lose_nothing():
    notes = Notes()
    path = CASES / "15-blank-line-loses-frames" / "blank_after_12.xyz"
    assert sum(len(c.frames) for c in read(path, "auto", Labels(), notes)) == 20
    assert any("blank lines between frames were skipped" in note for note in notes.listed())


@pytest.mark.parametrize(("name", "mean"), [("spk.db", 0.504), ("spk_kcal.db", 0.504), ("ase_kvp.db", 0.504)])
def test_databases_of_schnetpack_and_key_value_pairs(name, mean):
    frames = frames_of(CASES / "21-schnetpack-db" / name)
    assert len(frames) == 20
    assert (frames.energy / frames.n_atoms).mean() == pytest.approx(mean, abs=1e-3)  # eV, whatever is stored
    assert frames.has_forces
    assert len(frames_of(CASES / "21-schnetpack-db" / name, index="-3:")) == 3


FORMATS = CASES / "22-cannot-name-ase-format"


@pytest.mark.parametrize("name", ["train.exyz", "train.dat", "train.log", "train.xyz.txt"])
def test_xyz_under_any_name(name):
    assert len(frames_of(FORMATS / name)) == 20
    assert frames_of(FORMATS / name, "extxyz").has_forces


def test_six_components_of_stress_and_virial():
    six, virial = frames_of(FORMATS / "six.extxyz"), frames_of(FORMATS / "virial6.extxyz")
    order = [-0.0297093222, -0.0262331219, -0.0448397852, 0.0193242874, 0.0221002530, 0.0035629521]
    assert six.stress[0] == pytest.approx(order)
    assert virial.stress == pytest.approx(six.stress, abs=1e-8)


def test_an_ase_format_can_be_named(tmp_path):
    atoms = ase_read(FORMATS / "train.exyz", ":", format="extxyz")
    write(tmp_path / "frames.unknown", atoms, format="traj")
    assert len(frames_of(tmp_path / "frames.unknown", "traj")) == 20
    with pytest.raises(UserError, match="Did you mean 'extxyz'"):
        frames_of(tmp_path / "frames.unknown", "extxy")


@pytest.mark.parametrize("name", ["user@host.xyz", "r(2).xyz", "été_λ.xyz"])
def test_any_name_of_a_file(name):
    assert len(frames_of(CASES / "26-paths" / name)) == 20


def test_hydra_says_how_to_quote(capsys):
    assert main(["run", "dataset=file", "dataset.path=r(2).xyz", "architecture=toy"]) == 2
    assert """'dataset.path="r(2).xyz"'""" in capsys.readouterr().err


def test_a_frame_without_atoms_is_named(capsys):
    path = CASES / "23-zero-atom-frame" / "zero_atoms.xyz"
    assert main(["data", "validate", str(path)]) == 2
    assert "frame 0 (line 1): has no atoms" in capsys.readouterr().err
    with pytest.raises(UserError, match="has no atoms"):
        load(small(path))


def test_unconverged_steps_of_vasp(tmp_path):
    step = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n"
    reached = "------------------------ aborting loop because EDIFF is reached ----\n"
    limit, iteration = "   NELM   =     15;\n", "---- Iteration      1(  {:2d})  ------\n"
    text = limit + iteration.format(9) + reached + step + iteration.format(15) + reached + step + step
    (tmp_path / "OUTCAR").write_text(text)
    assert unconverged(tmp_path / "OUTCAR").frames == [1, 2]  # at NELM, and without the line
    steps = ["<calculation>" + "\n<scstep>" * n + "\n</calculation>" for n in (5, 15, 3)]
    (tmp_path / "vasprun.xml").write_text('<i type="int" name="NELM">  15</i>\n' + "\n".join(steps))
    assert unconverged(tmp_path / "vasprun.xml").frames == [1]
    (tmp_path / "a.gaussianlog").write_text(" >>>>>>>>>> Convergence criterion not met.\n Convergence failure -- run\n")
    assert unconverged(tmp_path / "a.gaussianlog").somewhere


# ---------------------------------------------------------------- units


def test_comment_lines_of_programs_are_hartree(tmp_path):
    frames = frames_of(CASES / "12-cp2k-xyz-hartree" / "PROJECT-pos-1.xyz")
    assert frames.energy[0] == pytest.approx(-26.3099086893 * HARTREE)
    for comment in ("Coordinates from ORCA-job water E -76.323", " energy: -76.323 gnorm: 0.0003 xtb: 6.7.1"):
        (tmp_path / "w.xyz").write_text(f"1\n{comment}\nO 0 0 0\n")
        assert frames_of(tmp_path / "w.xyz").energy[0] == pytest.approx(-76.323 * HARTREE)
    assert frames_of(tmp_path / "w.xyz", energy_unit="eV").energy[0] == -76.323  # declared wins


def _one(tmp_path: Path, **info: Any) -> Path:
    atoms = Atoms("Si2", positions=[[0, 0, 0], [1.3, 1.4, 1.5]], cell=[4, 4, 4], pbc=True)
    atoms.info.update(REF_energy=-1.0, REF_stress=np.diag([0.1, 0, 0]), **info)
    atoms.arrays["REF_forces"] = np.array([[0.1, 0, 0], [-0.1, 0, 0]])
    write(tmp_path / "a.xyz", atoms, format="extxyz")
    return tmp_path / "a.xyz"


def test_units_that_the_header_states_are_converted(tmp_path):
    path = _one(tmp_path, energy_unit="Ha", forces_unit="Ha/bohr", stress_unit="GPa")
    frames = frames_of(path)
    assert frames.energy[0] == pytest.approx(-HARTREE)
    assert frames.forces[0, 0] == pytest.approx(0.1 * 51.422067, rel=1e-6)
    assert frames.stress[0, 0] == pytest.approx(0.1 * GPA)
    assert frames_of(path, energy_unit="eV").energy[0] == -1.0  # declared wins over stated
    with pytest.raises(UserError, match="states the energy unit 'furlong', which is not known"):
        frames_of(_one(tmp_path, energy_unit="furlong"))
    assert "units=metal, which is not understood" in messages(checked(_one(tmp_path, units="metal")))


def test_stress_follows_from_energy_and_length(tmp_path):
    frames = frames_of(_one(tmp_path), energy_unit="hartree", length_unit="bohr")
    assert frames.stress[0, 0] == pytest.approx(0.1 * 183.63153, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "error", "hint"),
    [
        ("stress_bar_lammps.extxyz", "no bulk matter withstands", "dataset.stress_unit=bar"),
        ("vasp_kbar_994.extxyz", "of the opposite sign and larger than any bulk modulus", "dataset.stress_unit=kbar"),
        ("stress_gpa.extxyz", "1.11e+03 GPa", "dataset.stress_unit=GPa"),
        ("virial_wrongsign.extxyz", "of the opposite sign", "dataset.stress_sign"),
    ],
)
def test_stress_in_any_wrong_unit_or_sign(name, error, hint):
    text = messages(checked(STRESS / name), "error")
    assert error in text
    assert hint in text
    assert any(row[0] == "stress components (GPa)" for row in checked(STRESS / name).rows)


def test_stress_read_as_declared_is_clean():
    for name, values in (
        ("stress_gpa.extxyz", {"stress_unit": "GPa"}),
        ("vasp_kbar_994.extxyz", {"stress_unit": "kbar", "stress_sign": "compression"}),
        ("virial_wrongsign.extxyz", {"stress_sign": "compression"}),
    ):
        report = checked(STRESS / name, **values)
        assert report.findings == []
        assert report.summary.stress.rms / GPA == pytest.approx(6.94, abs=0.01)


UNITS = CASES / "11-wrong-unit-advice"


def test_training_without_validating_first_is_warned_too(tmp_path):
    config = small(STRESS / "stress_bar_lammps.extxyz")
    warnings = prepare_split(load(config), config, 0, tmp_path).warnings
    assert any("no bulk matter withstands" in warning for warning in warnings)


def test_frames_that_the_pool_holds_twice_are_remarked(tmp_path):
    frames = rattled_molecules(30)
    path = _file(tmp_path / "pool.xyz", Frames.concatenate([frames, frames.select([3, 4])]))
    config = file_config(path, test_path=_file(tmp_path / "test.xyz", rattled_molecules(5, seed=2)))
    split = prepare_split(load(config), config, 0, tmp_path / "splits")
    assert "2 frames of the pool repeat an earlier one (same configuration): 3 = 30, 4 = 31" in split.warnings[0]


def test_partly_labelled_test_frames_are_remarked(tmp_path):
    test = rattled_molecules(5, seed=2)
    test.forces[4] = np.nan  # frame 1
    np.savez(
        tmp_path / "t.npz", z=test.numbers[:3], R=test.positions.reshape(5, 3, 3), E=test.energy,
        F=test.forces.reshape(5, 3, 3),
    )  # fmt: skip
    path = _file(tmp_path / "pool.xyz", rattled_molecules(30))
    config = file_config(path, test_path=str(tmp_path / "t.npz"))
    warnings = prepare_split(load(config), config, 0, tmp_path / "splits").warnings
    assert any("split test: forces missing in 1 of 5 frames: 1" in warning for warning in warnings)


def test_either_side_may_be_wrong():
    text = messages(checked(UNITS / "hartree_E_only_close.extxyz"), "error")
    assert "most likely: energies in hartree: dataset.energy_unit=hartree dataset.forces_unit=eV/Å" in text
    text = messages(checked(UNITS / "hartree_close.extxyz"), "error")
    assert "most likely: both in hartree and bohr: dataset.energy_unit=hartree dataset.forces_unit=hartree/bohr" in text
    assert checked(UNITS / "ok_close.extxyz").findings == []
    declared = {"energy_unit": "hartree", "forces_unit": "hartree/bohr"}
    assert checked(UNITS / "hartree_close.extxyz", **declared).findings == []


def test_energies_per_atom_are_recognised():
    frames = frames_of(UNITS / "ok_close.extxyz")
    frames.energy[:] /= 8
    from mlpbench.datasets.validation import check_frames

    text = messages(check_frames("x", frames, file_config()), "error")
    assert "energies per atom: multiply them by the number of atoms, 8" in text


def test_checks_that_could_not_be_made_are_said():
    report = checked(CASES / "24-checks-that-never-ran" / "one_off_by_500eV.extxyz")
    assert "energy up to 55.8 eV/atom from that of the other frames in 1 frames: 7" in messages(report)
    text = as_text(report)
    assert "12 checks: 1 warning; 9 passed, 2 could not be made:" in text
    assert "stress against strain (sign, unit, order): no frame has stress" in text


# ---------------------------------------------------------------- hostile files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1000000000000\nProperties=species:S:1:pos:R:3 energy=-1\nH 0 0 0\n", "declares 1,000,000,000,000 atoms"),
        ("1\nProperties=species:S:1:pos:R:1000000000 energy=-1\nH 0 0 0\n", "not name:type:columns"),
        ("1\nProperties=species:S:1:pos:R:3000 energy=-1\nH 0 0 0\n", "name 3001 columns, the first atom has 4"),
        ("1\n" + " ".join(f"k{i}=1" for i in range(100_000)) + "\nH 0 0 0\n", "100,000 entries"),
        ("1\n" + "x" * 2_000_000 + "\nH 0 0 0\n", "longer than 1,000,000 characters"),
        ("2\nenergy=-1\nH 0 0 0\n", "ends before its 2 atoms"),
        ("1\nenergy=-1\nXx 0 0 0\n", "KeyError"),
    ],
)
def test_xyz_that_declares_more_than_it_holds(tmp_path, text, message):
    (tmp_path / "a.xyz").write_text(text)
    with pytest.raises(UserError, match=message):
        frames_of(tmp_path / "a.xyz")


def test_an_npz_bomb_is_refused_before_it_unpacks(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("R.npy", "w") as out:
        header = {"descr": "<f8", "fortran_order": False, "shape": (40_000_000,)}
        np.lib.format.write_array_header_1_0(out, header)
        for _ in range(40):
            out.write(bytes(8_000_000))
    with pytest.raises(UserError, match=r"unpack to 320,000,\d+; refused"):
        frames_of(tmp_path / "b.npz")


def test_hdf5_with_cycles_and_empty_promises(tmp_path):
    h5py = pytest.importorskip("h5py")
    frames = rattled_molecules(3)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        group = file.create_group("a/b")
        group["species"] = np.array([b"C", b"O", b"H"])
        group["coordinates"] = frames.positions.reshape(3, 3, 3)
        group["energies"] = frames.energy / HARTREE
        file["a/back"] = file["/"]  # a hard link to the root
        file["a/soft"] = h5py.SoftLink("/a")
        file["a/out"] = h5py.ExternalLink("other.h5", "/")
    assert len(frames_of(tmp_path / "c.h5")) == 3
    with h5py.File(tmp_path / "s.h5", "w") as file:
        group = file.create_group("a")
        group["species"] = np.array([b"C", b"O", b"H"])
        group.create_dataset("coordinates", (10**8, 3, 3), "f8", chunks=(1000, 3, 3))
        group.create_dataset("energies", (10**8,), "f8", chunks=(1000,))
    with pytest.raises(UserError, match="declares 7,200,000,000 bytes, of which 0 are stored"):
        frames_of(tmp_path / "s.h5")


@pytest.mark.parametrize("index", ["1000:", "7", "30:20", "-5:-5"])
def test_an_index_beyond_the_end(tmp_path, index):
    frames = rattled_molecules(6)
    np.savez(tmp_path / "m.npz", z=frames.numbers[:3], R=frames.positions.reshape(6, 3, 3), E=frames.energy)
    write(tmp_path / "m.xyz", frames.to_atoms(), format="extxyz")
    write(tmp_path / "m.traj", frames.to_atoms())
    for path in (tmp_path / "m.npz", tmp_path / "m.xyz", tmp_path / "m.traj"):
        with pytest.raises(UserError, match=rf"{path.name}: (dataset.index='{index}' chooses none|ASE cannot read)"):
            frames_of(path, index=index)
    for bad in ("a", "::0", "1:2:3:4", ""):
        with pytest.raises(UserError, match="is not start:stop:step"):
            frames_of(tmp_path / "m.npz", index=bad)
    assert frames_of(tmp_path / "m.npz", index="-2:").energy == pytest.approx(frames.energy[-2:])
    assert frames_of(tmp_path / "m.xyz", index="-1").energy == pytest.approx(frames.energy[-1:])


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "p.xyz")
    outcome: list[str] = []

    def attempt() -> None:
        try:
            load(small(tmp_path / "p.xyz"))
        except UserError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert "is a pipe or device" in outcome[0]


def test_cells_on_which_no_search_ends_are_refused(tmp_path):
    atoms = Atoms("Cu", cell=[[1e-9, 0, 0], [0, 4, 0], [0, 0, 4]], pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=np.zeros((1, 3)))
    write(tmp_path / "flat.xyz", [atoms] * 8, format="extxyz")
    assert "periodic but without a proper cell in 8 frames" in messages(checked(tmp_path / "flat.xyz"), "error")
    with pytest.raises(UserError, match="periodic without a proper cell in 8 of 8 frames"):
        load(file_config(tmp_path / "flat.xyz", n_train=2, n_valid=1))


# ---------------------------------------------------------------- validation files, lists, extensions


def _file(path: Path, frames: Frames) -> str:
    write(path, frames.to_atoms(), format="extxyz")
    return str(path)


def test_an_own_validation_file_and_all_of_the_pool(tmp_path):
    pool = _file(tmp_path / "pool.xyz", rattled_molecules(30))
    valid = _file(tmp_path / "valid.xyz", rattled_molecules(7, seed=1))
    test = _file(tmp_path / "test.xyz", rattled_molecules(5, seed=2))
    config = file_config(pool, valid_path=valid, test_path=test, n_train="all")
    dataset = load(config)
    assert (settle(dataset, config).n_train, settle(dataset, config).n_valid) == (30, 7)
    manifest = prepare_split(dataset, config, 0, tmp_path / "splits").manifest
    assert {name: part["frames"] for name, part in manifest["splits"].items()} == {"valid": 7, "train": 30, "test": 5}
    assert manifest["n_train"] == 30
    drawn = file_config(pool, test_path=test, n_train="all", n_valid=4)
    assert settle(load(drawn), drawn).n_train == 26


def test_frames_by_number(tmp_path):
    everything = rattled_molecules(30)
    path = _file(tmp_path / "pool.xyz", everything)
    config = file_config(path, valid_indices=[0, 2], test_indices={"test": [1, 3]}, n_train=20)
    dataset = load(config)
    assert dataset.valid is not None
    assert dataset.valid.energy == pytest.approx(everything.energy[[0, 2]])
    assert dataset.tests["test"].energy == pytest.approx(everything.energy[[1, 3]])
    assert len(dataset.pool) == 26
    with pytest.raises(UserError, match="occurs twice"):
        load(file_config(path, pool_indices=[1, 1]))
    with pytest.raises(UserError, match="must lie in 0 to 29"):
        load(file_config(path, pool_indices=[30]))


def test_an_extension_keeps_test_frames_and_earlier_subsets(tmp_path):
    path = _file(tmp_path / "pool.xyz", rattled_molecules(40))
    more = _file(tmp_path / "more.xyz", rattled_molecules(20, seed=5))
    before, after = file_config(path, n_train=20), file_config(path, n_train=20, extend_paths=[more])
    larger = file_config(path, n_train=40, extend_paths=[more])
    splits = [prepare_split(load(c), c, 3, tmp_path / "splits").manifest for c in (before, after, larger)]
    assert splits[0]["digest"] == splits[1]["digest"]  # nothing is trained again
    assert splits[2]["splits"]["train"]["indices"][:20] == splits[0]["splits"]["train"]["indices"]
    assert splits[2]["splits"]["test"]["sha256"] == splits[0]["splits"]["test"]["sha256"]
    assert max(splits[2]["splits"]["train"]["indices"]) >= 32  # frames of the extension
    other = file_config(path, n_train=40, extend_paths=[_file(tmp_path / "other.xyz", rattled_molecules(20, seed=6))])
    twice = file_config(path, n_train=40, extend_paths=[more, str(tmp_path / "other.xyz")])
    other_split = prepare_split(load(other), other, 3, tmp_path / "splits").manifest
    drawn = [
        extension_digests(load(config), manifest["splits"])
        for config, manifest in ((after, splits[1]), (larger, splits[2]), (other, other_split), (twice, splits[2]))
    ]
    assert drawn[0] == []
    assert len(drawn[1]) == len(drawn[2]) == 1
    assert drawn[1] != drawn[2]  # two extensions of one pool are different data
    assert drawn[3] == drawn[1]  # the second extension is not drawn from
    assert data_digest(load(larger), ["energy"]) == data_digest(load(before), ["energy"])
