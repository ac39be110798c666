"""What is special about SchNetPack's adapter; what it shares with the others stands in mlpbench.testing."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

PYTHON = os.environ.get("MLPBENCH_SCHNETPACK_PYTHON", "")
PROBE = Path(__file__).parent / "schnetpack_probe.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

pytestmark = [
    pytest.mark.backend,
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="MLPBENCH_SCHNETPACK_PYTHON names no interpreter with SchNetPack"),
]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the probe saw: one process for all tests, because importing SchNetPack alone takes ten seconds."""
    folder = tmp_path_factory.mktemp("schnetpack")
    done = subprocess.run(
        [PYTHON, "-P", "-s", str(PROBE), str(folder)],
        env=ENVIRONMENT, cwd=folder, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "found.json").read_text())


def test_loss_is_the_common_one_for_frames_of_different_sizes_and_any_weights(found):
    for common, package in found["losses"]:
        assert package == pytest.approx(common, rel=1e-10)  # float64 throughout; only the order of the sums differs


def test_validation_loss_is_the_common_one_over_the_whole_set(found):
    """Although its batches hold 4 frames and then 1, with different numbers of atoms."""
    assert found["straight"]["best_valid_loss"] == pytest.approx(found["valid_loss"], rel=1e-9)


def test_metrics_agree_for_frames_of_different_sizes(found):
    assert found["metrics"] == pytest.approx(found["ours"], rel=1e-9)


def test_stress_is_the_derivative_of_the_energy_in_ases_sign(found):
    """Left-handed cells included, of which SchNetPack itself gives the stress with the wrong sign."""
    predicted, by_strain = found["stress"]
    scale = np.abs(by_strain).max()
    assert scale > 1e-4  # eV/Å³: a vanishing stress would have no sign
    np.testing.assert_allclose(predicted, by_strain, atol=1e-6 * scale)  # central differences at a step of 1e-5


def test_resume_is_exact(found):
    """The same numbers to the last bit, through drops of the learning rate on both sides of the break."""
    straight, resumed = found["straight"], found["resumed"]
    assert resumed["resumed"]
    assert not straight["resumed"]
    assert resumed["curve"] == straight["curve"]
    assert resumed["best_epoch"] == straight["best_epoch"]
    rates = [row[-1] for row in straight["curve"]]
    assert len(set(rates)) > 1


def test_finished_training_is_left_as_it_is(found):
    assert found["finished"]["curve"] == found["straight"]["curve"]
    assert found["finished"]["stopped_by"] == "epochs"


def test_patience_and_steps_end_a_training_at_an_epochs_end(found):
    patience, steps = found["patience"], found["steps"]
    assert patience["stopped_by"] == "patience"
    assert patience["epochs"] == patience["best_epoch"] + 2
    assert (steps["stopped_by"], steps["epochs"], steps["steps"]) == ("steps", 3, 9)  # three steps an epoch


def test_package_alone_repeats_the_training(found):
    assert found["native"] == pytest.approx(found["straight"]["best_valid_loss"], rel=1e-5)  # printed with 6 digits


@pytest.mark.parametrize("systems", ["torchsim_crystals", "torchsim_molecules"])
def test_torchsim_in_one_batch_equals_the_calculator(found, systems):
    for quantity, difference in found[systems].items():
        assert difference < 1e-10, quantity  # eV, eV/Å, eV/Å³ in float64
    assert ("stress" in found[systems]) == (systems == "torchsim_crystals")


def test_slabs_have_the_neighbours_of_two_periodic_directions(found):
    flat, gap, full = found["slab"]
    assert flat == pytest.approx(full, abs=1e-10)
    assert gap == pytest.approx(full, abs=1e-10)


def test_no_lock_file_in_the_working_directory(found):
    assert found["lock_files"] == []
