"""A trained potential at work: ``mlpbench predict``, and the calculators of ``mlpbench.open_potential``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

import mlpbench as face
from mlpbench.backends.engines import places_of
from mlpbench.config import load_backends
from mlpbench.errors import UserError
from mlpbench.files import sha256
from mlpbench.frames import packed, unpacked
from mlpbench.potentials import Potential
from mlpbench.study.study import Study
from tests.integration.conftest import Run, environment
from tests.integration.test_run import TOY

EMBEDDED = Path(face.__file__).parent / "datasets" / "embedded" / "ethanol-pbe"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two potentials of one study, trained once for all tests."""
    folder = tmp_path_factory.mktemp("potentials")
    command = [sys.executable, "-m", "mlpbench", "run", "-m", "study=s", *TOY, "repetition=0,1"]
    subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True, timeout=300)
    return folder / "results"


@pytest.fixture
def potential(results: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Potential]:
    monkeypatch.setenv("MLPBENCH_TOY_PYTHON", sys.executable)
    with face.open_potential(sorted(results.glob("s/toy-*"))[0]) as opened:
        yield opened


def frames(split: str, count: int) -> list[Atoms]:
    found = read(EMBEDDED / f"{split}.xyz", index=f":{count}")
    assert isinstance(found, list)
    return found


def test_predictions_are_those_of_the_study_in_the_energies_of_the_data_set(
    results: Path, potential: Potential
) -> None:
    study = face.load_study("s", results)
    assert isinstance(study, Study)
    structures = frames("test_300K", 100)
    found = potential.predict(structures, batch_size=7)
    force = np.mean(np.abs(np.concatenate(found.forces) - np.concatenate([a.get_forces() for a in structures])))
    energy = np.mean(
        [abs(e - a.get_potential_energy()) / len(a) for e, a in zip(found.energy, structures, strict=True)]
    )
    mine = study.metrics[(study.metrics["trial"] == potential.folder.name) & (study.metrics["split"] == "test_300K")]
    known = mine.set_index("metric")["value"]
    assert 1e3 * force == pytest.approx(known["force_mae"], rel=1e-9)
    assert 1e3 * energy == pytest.approx(known["energy_mae"], rel=1e-9)
    assert found.stress is None
    assert len(potential.predict([]).energy) == 0


def test_two_potentials_side_by_side_behind_ases_calculators(results: Path, potential: Potential) -> None:
    (atoms,) = frames("test_500K", 1)
    with face.open_potential(sorted(results.glob("s/toy-*"))[1]) as other:
        energies = []
        for opened in (potential, other):
            atoms.calc = opened.calculator()
            energies.append(atoms.get_potential_energy())
            expected = opened.predict([atoms])
            assert energies[-1] == expected.energy[0]
            np.testing.assert_array_equal(atoms.get_forces(), expected.forces[0])
            moved = atoms.copy()
            moved.calc = atoms.calc
            step = 1e-4
            moved.positions[0, 0] += step
            up = moved.get_potential_energy()
            moved.positions[0, 0] -= 2 * step
            slope = (up - moved.get_potential_energy()) / (2 * step)
            assert -slope == pytest.approx(atoms.get_forces()[0, 0], abs=1e-3)
        assert energies[0] != energies[1]


def test_what_a_potential_cannot_do_is_said_and_it_goes_on(potential: Potential) -> None:
    (atoms,) = frames("test_500K", 1)
    strange = Atoms("HF", positions=[[0, 0, 0], [0, 0, 1]])
    with pytest.raises(UserError, match="frame 1 holds F, which toy-"):
        potential.predict([atoms, strange])
    with pytest.raises(UserError, match="gives no stress"):
        potential.predict([atoms], stress=True)
    with pytest.raises(UserError, match="fails on these frames: "):
        potential._ask(**{**unpacked(packed(**vars_of(atoms))), "n_atoms": np.array([3])}, batch_size=1, want_stress=0)
    assert np.isfinite(potential.predict([atoms]).energy[0])
    potential._worker.signal(signal.SIGKILL)
    with pytest.raises(UserError, match="has ended"):
        potential.predict([atoms])


def vars_of(atoms: Atoms) -> dict[str, object]:
    from mlpbench.frames import Frames

    return vars(Frames.from_atoms([atoms]))


def test_a_temporary_folder_with_a_long_path_will_do(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("t" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setenv("MLPBENCH_TOY_PYTHON", sys.executable)
    with face.open_potential(sorted(results.glob("s/toy-*"))[0]) as opened:
        assert np.isfinite(opened.predict(frames("test_500K", 1)).energy).all()


def test_closing_leaves_no_process_and_no_folder(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPBENCH_TOY_PYTHON", sys.executable)
    opened = face.open_potential(sorted(results.glob("s/toy-*"))[0])
    pid, work = opened._worker.pid, opened._work
    assert pid is not None
    assert work.is_dir()
    opened.close()
    assert not work.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_command_writes_a_file_and_compares_with_its_labels(results: Path, tmp_path: Path, mlpbench: Run) -> None:
    trial = sorted(results.glob("s/toy-*"))[0].name
    structures = frames("test_300K", 5)
    write(tmp_path / "new.extxyz", structures)
    done = mlpbench("predict", f"s/{trial}", "new.extxyz", "--results", str(results))
    assert done.returncode == 0, done.stderr
    assert "energies in 5 of them: MAE" in done.stdout
    assert "forces in 5 of them: MAE" in done.stdout
    written = read(tmp_path / "new-predicted.xyz", index=":")
    assert isinstance(written, list)
    assert [len(atoms) for atoms in written] == [9] * 5
    assert written[0].info["potential"] == trial
    for before, after in zip(structures, written, strict=True):
        np.testing.assert_allclose(before.positions, after.positions, atol=1e-7)
        assert abs(before.get_potential_energy() - after.get_potential_energy()) < 5.0  # the data set's own zero
    again = mlpbench("predict", f"s/{trial}", "new.extxyz", "--results", str(results))
    assert again.returncode == 2
    assert "new-predicted.xyz is there already" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("s", "new.xyz"), "'s' is a study; which of its trials?"),
        (("s/toy-tiny", "new.xyz"), "study 's' has no trial 'toy-tiny'"),
        (("t/toy-tiny", "new.xyz"), "there is no study 't'"),
        (("TRIAL", "none.xyz"), "there is no file none.xyz"),
        (("TRIAL", "new.xyz", "--batch-size", "0"), "must be at least 1"),
        (("TRIAL", "fluor.xyz"), "frame 0 holds F"),
        (("TRIAL", "new.xyz", "--device", "gpu"), "device=gpu is not known"),
        (("TRIAL", "new.xyz", "--out", "new.xyz", "--force"), "new.xyz is there already"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(
    results: Path, tmp_path: Path, mlpbench: Run, arguments: tuple[str, ...], said: str
) -> None:
    trial = f"s/{sorted(results.glob('s/toy-*'))[0].name}"
    write(tmp_path / "new.xyz", frames("test_300K", 1), format="extxyz")
    write(tmp_path / "fluor.xyz", Atoms("HF", positions=[[0, 0, 0], [0, 0, 1]]), format="extxyz")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    given = [trial if argument == "TRIAL" else argument for argument in arguments]
    done = mlpbench("predict", *given, "--results", str(results))
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_exported_potential_needs_mlpbench_no_more(results: Path, tmp_path: Path, mlpbench: Run) -> None:
    trial = sorted(results.glob("s/toy-*"))[0].name
    done = mlpbench("export", f"s/{trial}", "--to", "ours", "--results", str(results))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "ours"
    assert sorted(path.name for path in folder.iterdir()) == [
        "CARD.md", "card.json", "md.py", "potential.npz", "potential.py", "requirements.txt", "start.xyz"
    ]  # fmt: skip
    write(tmp_path / "new.extxyz", frames("test_300K", 5))
    assert mlpbench("predict", f"s/{trial}", "new.extxyz", "--results", str(results)).returncode == 0
    expected = read(tmp_path / "new-predicted.xyz", index=":")
    script = (
        "import sys, numpy as np; sys.modules['mlpbench'] = None\n"
        "from ase.io import read\n"
        "from potential import calculator, warnings_for\n"
        "found = read('../new-predicted.xyz', index=':')\n"
        "for atoms in found:\n"
        "    energy, forces = atoms.get_potential_energy(), atoms.get_forces()\n"
        "    atoms.calc = calculator()\n"
        "    assert abs(atoms.get_potential_energy() - energy) < 1e-6, energy\n"
        "    assert np.abs(atoms.get_forces() - forces).max() < 1e-6\n"
        "assert warnings_for(found[0]) == []\n"
        "found[0].positions[0] = found[0].positions[1] + 0.2\n"
        "assert 'Å apart' in warnings_for(found[0])[0]\n"
        "found[0].numbers[0] = 9\n"
        "assert 'no training frame with F' in warnings_for(found[0])[0]\n"
    )
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = [sys.executable, "-c", script]
    ended = subprocess.run(run, cwd=folder, env=alone, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    dynamics = [sys.executable, "md.py", "../new.extxyz", "--steps", "5", "--out", "t.traj"]
    ended = subprocess.run(dynamics, cwd=folder, env=alone, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (folder / "t.traj").is_file()
    assert isinstance(expected, list)
    card = json.loads((folder / "card.json").read_text())
    study = face.load_study("s", results)
    mine = study.metrics[(study.metrics["trial"] == trial) & (study.metrics["metric"] == "force_mae")]
    known = dict(zip(mine["split"], mine["value"], strict=True))
    for row in card["errors"]:
        if row["metric"] == "force_mae":
            assert row["value"] == known[row["split"]]
    assert card["sha256"]["potential.npz"] == sha256(folder / "potential.npz")
    assert f"Trial `{trial}` of the study `s`" in (folder / "CARD.md").read_text()
    again = mlpbench("export", f"s/{trial}", "--to", "ours", "--results", str(results))
    assert again.returncode == 2
    assert "ours is there already and not empty" in again.stderr
    assert not list(tmp_path.glob(".ours*"))


def test_a_committee_for_other_engines(results: Path, tmp_path: Path, mlpbench: Run) -> None:
    """Means over the members; LAMMPS and i-PI, where their environments are built, run the exported scripts."""
    trials = [path.name for path in sorted(results.glob("s/toy-*"))]
    asked = ["export", f"s/{trials[0]}", "--to", "ours", "--committee", "--results", str(results)]
    refused = mlpbench(*asked, "--for", "ase,torchsim")
    assert (refused.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "a committee has no torch-sim model" in refused.stderr
    assert mlpbench(*asked, "--for", "vasp").returncode == 2
    done = mlpbench(*asked, "--for", "ase,lammps,ipi")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "ours"
    assert json.loads((folder / "card.json").read_text())["members"] == dict(
        zip(("member0", "member1"), trials, strict=True)
    )
    write(tmp_path / "new.extxyz", frames("test_300K", 3))
    expected = []
    for number, trial in enumerate(trials):
        out = f"p{number}.xyz"
        assert mlpbench("predict", f"s/{trial}", "new.extxyz", "--out", out, "--results", str(results)).returncode == 0
        predicted = read(tmp_path / out, index=":")
        assert isinstance(predicted, list)
        expected.append([atoms.get_potential_energy() for atoms in predicted])
    script = (
        "from ase.io import read\nfrom potential import calculator, warnings_for\n"
        "for atoms in read('../new.extxyz', index=':'):\n"
        "    atoms.calc = calculator()\n"
        "    print(repr(float(atoms.get_potential_energy())), repr(float(atoms.calc.results['energy_std'])))\n"
        "    assert atoms.calc.results['forces_std'].shape == (9, 3) and not warnings_for(atoms)\n"
    )
    alone = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*arguments: str, **more: str) -> str:
        command = [sys.executable, *arguments]
        ended = subprocess.run(
            command, cwd=folder, env=alone | more, capture_output=True, text=True, timeout=200, check=False
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    numbers = np.array([[float(word) for word in line.split()] for line in run("-c", script).splitlines()])
    np.testing.assert_allclose(numbers[:, 0], np.mean(expected, axis=0), atol=1e-6)
    np.testing.assert_allclose(numbers[:, 1], np.std(expected, axis=0, ddof=1), atol=1e-6)
    (folder / "start.xyz").write_text((folder / "member0" / "start.xyz").read_text())
    places = places_of(("lammps", "ipi"), load_backends([]), None)
    if not places["lammps"].reason:
        said = run("run_lammps.py", "start.xyz", "in.lammps", "--var", "steps", "5", PYTHONPATH=places["lammps"].site)
        assert "potential energy -" in said
        assert (folder / "md.lammpstrj").is_file()
    if not places["ipi"].reason:
        program = str(Path(places["ipi"].python).with_name("i-pi"))
        assert "5 evaluations" in run("run_ipi.py", "start.xyz", "--steps", "4", "--i-pi", program)


def test_the_python_of_the_documentation_runs_as_it_stands(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own trials put in place of those that it names: nothing else is changed."""
    text = (Path(face.__file__).parent / "docs" / "potentials.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    trials = iter(sorted(f"s/{path.name}" for path in results.glob("s/toy-*")))
    code = re.sub(r'"quickstart/[\w-]+"', lambda _: f'"{next(trials)}"', code).replace('"quickstart"', '"s"')
    monkeypatch.setenv("MLPBENCH_TOY_PYTHON", sys.executable)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(results)
    write("new.xyz", frames("test_300K", 3), format="extxyz")
    names: dict[str, object] = {}
    exec(compile(code, "potentials.md", "exec"), names)
    difference, forces = np.asarray(names["difference"]), np.asarray(names["forces"])
    assert difference.shape == (3,)
    assert np.abs(difference).min() > 0
    assert forces.shape == (9, 3)
    assert len(names["best"]) == 5  # type: ignore[arg-type]
