"""What is special about NequIP's adapter; what it shares with the others stands in mlpbench.testing."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

PYTHON = os.environ.get("MLPBENCH_NEQUIP_PYTHON", "")
PROBE = Path(__file__).parent / "nequip_probe.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

pytestmark = [
    pytest.mark.backend,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="MLPBENCH_NEQUIP_PYTHON names no interpreter with NequIP"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the probe trained, once for all tests: importing NequIP alone takes ten seconds."""
    folder = tmp_path_factory.mktemp("nequip")
    done = subprocess.run(
        [PYTHON, "-P", "-s", str(PROBE), str(folder)], env=ENVIRONMENT, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return json.loads((folder / "found.json").read_text())


def test_loss_is_the_common_one_for_frames_of_different_sizes_and_any_weights(found):
    for common, package in found["losses"]:
        assert package == pytest.approx(common, rel=1e-10)  # float64 throughout; only the order of the sums differs


def test_stress_is_the_derivative_of_the_energy_in_ases_sign(found):
    predicted, by_strain = found["stress"]
    scale = np.abs(by_strain).max()
    assert scale > 1e-4  # eV/Å³: a vanishing stress would have no sign
    np.testing.assert_allclose(predicted, by_strain, atol=1e-6 * scale)  # central differences at a step of 1e-5


def test_package_reads_every_label_back_exactly(found):
    assert found["read_back"] == {"positions": 0, "forces": 0, "energy": 0, "cell": 0, "stress": 0}


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_resume_is_exact(found, schedule):
    """The same numbers to the last bit after a break in mid-schedule and in mid-pass."""
    straight, resumed = found[schedule]
    assert resumed["resumed"]
    assert not straight["resumed"]
    assert resumed["epochs"] == straight["epochs"]
    assert resumed["best_epoch"] == straight["best_epoch"]
    assert [epoch["step"] for epoch in straight["epochs"]] == list(range(2, 20, 2))
    rates = [epoch["lr"] for epoch in straight["epochs"]]
    assert rates[0] > rates[4], "without a drop before the break this shows little"
    assert rates[5] > rates[-1], "nor without one after it"


def test_cosine_sets_the_rate_of_every_step(found):
    """The last step of each interval, counted from 0: lr_min + (lr − lr_min)·(1 + cos π·step/18)/2."""
    rates = [epoch["lr"] for epoch in found["cosine"][0]["epochs"]]
    steps = np.arange(1, 18, 2)
    np.testing.assert_allclose(rates, 1e-6 + (0.2 - 1e-6) * (1 + np.cos(np.pi * steps / 18)) / 2, rtol=1e-12)


def test_torchsim_model_agrees_with_the_calculator(found):
    for name, deviation in found["torchsim"].items():
        assert deviation < 1e-11, name  # float64


def test_torch_sims_neighbour_list_finds_the_same_pairs_as_matscipy(found):
    assert set(found["own_neighbours"]) == {"cells_energy", "cells_forces", "no_cell_energy", "no_cell_forces"}
    for name, deviation in found["own_neighbours"].items():
        assert deviation < 1e-11, name  # float64


def test_float64_is_really_float64(found):
    double, single = found["dtypes"]
    assert double == ["torch.float64"]
    assert "torch.float32" in single
    assert 0 < found["float32_from_float64"] < 1e-4  # eV/Å: the same weights, another rounding


def test_package_alone_repeats_the_training_from_the_native_folder(folder, found):
    native = folder / "cosine" / "native"
    done = subprocess.run(
        [str(Path(PYTHON).parent / "nequip-train"), "-cn", "config"],
        cwd=native, env={**ENVIRONMENT, "PYTHONPATH": "."}, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    compare = (
        "import sys, torch; a, b = (torch.load(f, weights_only=False)['state_dict'] for f in sys.argv[1:]);"
        "assert a.keys() == b.keys();"
        "assert all(torch.equal(a[k], b[k]) for k in a if isinstance(a[k], torch.Tensor))"
    )
    files = [str(native / "checkpoint" / "best.ckpt"), str(folder / "cosine" / "checkpoint" / "best.ckpt")]
    done = subprocess.run([PYTHON, "-c", compare, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
