"""Geometries drawn and labelled from the command line, with ASE's calculators in this interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.io import read

from tests.integration.conftest import Run, environment

HERE = f"backend.ase.python={sys.executable}"
EMT_METHOD = ["reference=ase", "reference.calculator=ase.calculators.emt.EMT", HERE]

SLOW = """
import os, time
from ase.calculators.emt import EMT

class Slow(EMT):
    def calculate(self, *arguments, **keywords):
        with open(os.environ["SLOW_LOG"], "a") as log:
            log.write("x")
        time.sleep(0.3)
        super().calculate(*arguments, **keywords)
"""


@pytest.fixture
def geometries(tmp_path: Path, mlpbench: Run) -> Path:
    (tmp_path / "trimer.xyz").write_text("3\n\nCu 0 0 0\nCu 0 0 2.2\nCu 0 1.9 1.1\n")
    done = mlpbench(
        "data", "sample", "trimer.xyz", "--out", "geo", "reference@sampler=ase", HERE, "sampling.frames=12",
        "sampling.spacing_fs=10", "sampling.equilibration_ps=0.05", "sampling.temperatures_K=[300,600]",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 trajectories in geo: 300K.xyz, 600K.xyz" in done.stdout
    return tmp_path / "geo"


def test_from_a_start_structure_to_a_trained_potential(tmp_path: Path, mlpbench: Run, geometries: Path) -> None:
    home = str(tmp_path / "home")
    done = mlpbench("data", "label", "geo", *EMT_METHOD, "--out", "lab", "--jobs", "2", MLPBENCH_HOME=home)
    assert done.returncode == 0, done.stderr
    assert "12 of 12 frames labelled (0 known already)" in done.stdout
    frames = read(tmp_path / "lab" / "600K.xyz", index=":")
    for atoms in frames:
        expected = atoms.copy()
        expected.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=2e-8)  # eight decimals in the file
    again = mlpbench("data", "label", "geo", "--out", "lab", *EMT_METHOD, MLPBENCH_HOME=home)
    assert "12 of 12 frames labelled (12 known already)" in again.stdout
    described = mlpbench("data", "describe", "lab/600K.xyz")
    assert "energy taken from 'energy'" in described.stdout
    trained = mlpbench(
        "run", "study=s", "dataset=file", "dataset.path=lab/300K.xyz", "dataset.test_path=lab/600K.xyz",
        "architecture=toy", "size=tiny", "dataset.n_train=6", "dataset.n_valid=3", "budget.steps=1",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr


def test_killed_and_started_again_it_computes_what_is_missing(tmp_path: Path, geometries: Path) -> None:
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "slow_emt.py").write_text(SLOW)
    log = tmp_path / "log"
    log.write_text("")
    command = [
        sys.executable, "-m", "mlpbench", "data", "label", "geo/300K.xyz", "--out", "l.xyz", "--jobs", "2",
        "reference=ase", "reference.calculator=slow_emt.Slow", HERE, f"backend.ase.pythonpath=[{tmp_path / 'slow'}]",
    ]  # fmt: skip
    variables = {**environment(), "MLPBENCH_HOME": str(tmp_path / "home"), "SLOW_LOG": str(log)}
    labels = tmp_path / "home" / "labels"
    for stop, expected in ((signal.SIGKILL, -9), (signal.SIGINT, 130)):
        before = len(list(labels.glob("*/*.json")))
        process = subprocess.Popen(command, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while len(list(labels.glob("*/*.json"))) < before + 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, stop)
        _, said = process.communicate(timeout=30)
        assert process.returncode == expected, said
        assert stop == signal.SIGKILL or "the same command goes on" in said
        time.sleep(1.0)
        assert not (tmp_path / "l.xyz").exists()
        computed = len(log.read_text())
        time.sleep(0.7)
        assert len(log.read_text()) == computed  # nobody goes on in the background
    kept = len(list(labels.glob("*/*.json")))
    assert 4 <= kept < 12
    before = len(log.read_text())
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"12 of 12 frames labelled ({kept} known already)" in done.stdout
    assert len(log.read_text()) - before == 12 - kept
    assert len(read(tmp_path / "l.xyz", index=":")) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["label", "none.xyz"], "there is no file none.xyz"),
        (["label", "geo/300K.xyz", "reference=gaussian"], "reference=gaussian: there is no such reference"),
        (["label", "geo/300K.xyz", "--out", "x.xyz", "reference.xcc=pbe"], "Did you mean 'reference.xc'?"),
        (["label", "geo/300K.xyz", "reference.conv_tol=-1"], "reference.conv_tol=-1"),
        (["label", "geo/300K.xyz", "--out", "geo/300K.xyz", *EMT_METHOD], "overwritten by its own labels"),
        (["label", "geo/300K.xyz", *EMT_METHOD, "reference.calculator=ase.calculators.emt.ET"], "no attribute 'ET'"),
        (["sample", "CH3CH2OHH", "--out", "x"], "neither a file nor a molecule that ASE knows"),
        (["sample", "Cu2", "--out", "x", "sampling.frames=0"], "sampling.frames=0"),
        (["sample", "Cu2", "--out", "x", "recipe=ethanl"], "Did you mean 'ethanol'?"),
    ],
)
def test_mistakes_end_with_two_and_no_traceback(
    tmp_path: Path, mlpbench: Run, arguments: list[str], message: str
) -> None:
    (tmp_path / "geo").mkdir()
    (tmp_path / "geo" / "300K.xyz").write_text("2\n\nCu 0 0 0\nCu 0 0 2.2\n")
    done = mlpbench("data", *arguments, MLPBENCH_HOME=str(tmp_path / "home"))
    assert done.returncode == 2, done.stdout + done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
