"""What is special about DeePMD-kit's adapter; what it shares with the others stands in mlpbench.testing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpbench import config
from mlpbench.backends.environment import resolve
from mlpbench.backends.processes import worker_environment
from mlpbench.errors import UserError

pytestmark = [pytest.mark.backend, pytest.mark.slow]

PROBE = Path(__file__).parent / "deepmd_probe.py"
ARCHITECTURES = ("se_e2_a", "dpa1", "dpa3")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the probe found, once for all tests: importing DeePMD-kit alone takes ten seconds."""
    try:
        environment = resolve(config.load_trial(["architecture=se_e2_a", "size=tiny"]).backend_config)
    except UserError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("deepmd")
    done = subprocess.run(
        [str(environment.python), "-P", "-s", str(PROBE), str(folder)], env=worker_environment(environment, 1),
        capture_output=True, text=True, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    values: dict[str, Any] = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return values


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_resume_is_exact_in_the_middle_of_a_schedule_and_of_a_pass(found: dict[str, Any], name: str) -> None:
    straight, cut = found[name]["straight"], found[name]["cut"]
    assert cut["resumed"]
    assert not straight["resumed"]
    assert cut["epochs"] == straight["epochs"]
    assert len(straight["epochs"]) == 6


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_torchsim_and_the_calculator_say_what_predict_says(found: dict[str, Any], name: str) -> None:
    for way in ("torchsim", "calculator"):
        assert max(found[name][way].values()) < 1e-10, way


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_deployed_forms_agree_and_their_forces_are_the_slope_of_their_energy(found: dict[str, Any], name: str) -> None:
    """The tables of a compressed model are an approximation, but one whose forces belong to its energies."""
    assert "TorchScript" in found[name]["deployed"]
    for means, (difference, slope) in found[name]["deployed"].items():
        assert max(difference.values()) < (1e-10 if means == "TorchScript" else 1e-4), means
        assert slope < 1e-4, means


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_more_neighbours_than_places_are_refused_and_not_left_out(found: dict[str, Any], name: str) -> None:
    for way in ("crowded", "crowded_calculator"):
        assert "more neighbours than this potential has places for" in found[name][way]
    assert found[name]["crowded_torchsim"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_element_that_was_not_trained_on_is_named(found: dict[str, Any], name: str) -> None:
    assert "was not trained on the elements with the atomic numbers [14, 30]" in found[name]["unknown_element"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_float32_is_float32_and_near_float64(found: dict[str, Any], name: str) -> None:
    assert all(0 < difference < 1e-3 for difference in found[name]["float32"].values())


def test_the_packages_own_loss_and_rate_stand_in_place_of_the_common_ones(found: dict[str, Any]) -> None:
    """Rates fall from lr to stop_lr every three steps, whatever the schedule of the others."""
    rates = [epoch[2] for epoch in found["own"]["epochs"]]
    decay = (1e-5 / 0.02) ** (3 / 12)
    np.testing.assert_allclose(rates, [0.02 * decay ** ((2 * i + 1) // 3) for i in range(6)], rtol=1e-12)


def test_options_that_deepmd_kit_does_not_have_are_refused(found: dict[str, Any]) -> None:
    assert "Did you mean: axis_neuron" in found["refused"]["option"]
    assert "set init_seed" in found["refused"]["decided"]
    assert "native.loss.start_pref_q" in found["refused"]["loss"]
    assert "training.schedule=cosine" in found["refused"]["rate"]


def test_the_native_folder_repeats_the_training(found: dict[str, Any]) -> None:
    losses, complaints = found["native"]
    assert losses == pytest.approx([epoch[0] for epoch in found["se_e2_a"]["straight"]["epochs"]], rel=1e-12), (
        complaints
    )
