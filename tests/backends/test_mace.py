"""What is special about MACE's adapter; what it shares with the others stands in mlpbench.testing."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

PYTHON = os.environ.get("MLPBENCH_MACE_PYTHON", "")
PROBE = Path(__file__).parent / "mace_probe.py"
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ.get('PATH', '')}",
}

pytestmark = [
    pytest.mark.backend,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="MLPBENCH_MACE_PYTHON names no interpreter with MACE"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the probe trained, once for all tests: importing MACE alone takes ten seconds."""
    folder = tmp_path_factory.mktemp("mace")
    done = subprocess.run(
        [PYTHON, "-P", "-s", str(PROBE), str(folder)], env=ENVIRONMENT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return json.loads((folder / "found.json").read_text())


def test_loss_is_the_common_one_for_frames_of_different_sizes_and_any_weights(found):
    for common, package in found["losses"]:
        assert package == pytest.approx(common, rel=1e-10)  # float64 throughout; only the order of the sums differs


def test_best_is_kept_by_the_common_loss_over_all_validation_frames(found):
    """Five frames of two sizes in unequal batches; the kept weights (averaged) must give the loss that was reported."""
    straight = found["straight"]
    reported = [row["valid_loss"] for row in straight["rows"]]
    assert straight["best_valid_loss"] == min(reported)
    assert straight["best_epoch"] == 1 + int(np.argmin(reported))
    assert found["kept_loss"] == pytest.approx(straight["best_valid_loss"], rel=1e-4)  # float32


def test_no_training_frame_is_dropped(found):
    """Ten frames in batches of four: MACE alone would take two steps an epoch and drop two frames."""
    assert [row["step"] for row in found["straight"]["rows"]] == [3 * epoch for epoch in range(1, 10)]


def test_patience_really_stops(found):
    """Validated against wrong signs, so that training makes the validation loss worse; the budget is 60 epochs."""
    outcome = found["patience"]
    assert outcome["stopped_by"] == "patience"
    assert outcome["epochs"] == outcome["best_epoch"] + 2 == len(outcome["rows"]) < 60


def test_resume_is_exact(found):
    """The same numbers to the last bit, through drops of the learning rate on both sides of the break."""
    straight, resumed = found["straight"], found["resumed"]
    assert resumed["resumed"]
    assert not straight["resumed"]
    assert resumed["rows"] == straight["rows"]
    assert resumed["best_epoch"] == straight["best_epoch"]
    rates = [row["lr"] for row in straight["rows"]]
    assert rates[0] > rates[6] > rates[-1], "without a drop of the rate before and after epoch 7 this shows little"


def test_a_finished_training_is_not_trained_again(found):
    assert found["again"]["rows"] == found["resumed"]["rows"]
    assert found["again"]["stopped_by"] == "epochs"


def test_the_rate_is_annealed_step_by_step(found):
    """18 steps; the rate reported is that of each interval's last step."""
    rates = [row["lr"] for row in found["annealed"]["rows"]]
    steps = np.arange(2, 18, 3)
    np.testing.assert_allclose(rates, 1e-6 + (0.02 - 1e-6) * 0.5 * (1 + np.cos(np.pi * steps / 18)), rtol=1e-12)


def test_stress_is_the_derivative_of_the_energy_in_ases_sign(found):
    predicted, by_strain = found["stress"]
    scale = np.abs(by_strain).max()
    assert scale > 1e-4  # eV/Å³: a vanishing stress would have no sign
    np.testing.assert_allclose(predicted, by_strain, atol=1e-6 * scale)  # central differences at a step of 1e-5


def test_package_reads_every_label_back_exactly(found):
    assert found["read_back"] == {"positions": 0, "forces": 0, "energy": 0, "cell": 0, "stress": 0, "weight": 0}


@pytest.mark.parametrize("kind", ["periodic", "open"])
def test_torchsim_model_agrees_with_the_calculator(found, kind):
    for name, deviation in found["torchsim"][kind].items():
        assert deviation < 1e-11, name  # float64


def test_float64_is_really_float64(found):
    """Cast from float32, the constants of the tensor products would break the symmetry at 1e-7."""
    assert 0 < found["dtypes"]["single"] < 1e-4  # eV/Å: the same weights, another rounding
    assert found["dtypes"]["rotation"] < 1e-12


@pytest.mark.parametrize("name", ["annealed", "straight"])
def test_package_alone_repeats_the_training_from_the_native_folder(folder, found, name):
    """By cosine, with Adam, without stress; and by MACE's plateau scheduler, with AMSGrad and stress."""
    native = folder / name / "native"
    words = [word for word in shlex.split(found[name]["native_command"]) if "=" not in word]
    assert words == ["python", "train.py", "--config", "config.yaml"]
    done = subprocess.run(
        [PYTHON, *words[1:]], cwd=native, env=ENVIRONMENT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    compare = (
        "import sys, torch; a, b = (torch.load(f, weights_only=False).state_dict() for f in sys.argv[1:]);"
        "assert a.keys() == b.keys(); assert all(torch.equal(a[k], b[k]) for k in a)"
    )
    files = [str(native / "mace.model"), str(folder / name / "checkpoint" / "potential.model")]
    done = subprocess.run([PYTHON, "-c", compare, *files], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
