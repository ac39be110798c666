"""What is special about DimeNet++'s adapter: the forward pass is mlpbench's, around the package's blocks."""

import json
import subprocess
from pathlib import Path

import pytest

from mlpbench import config
from mlpbench.backends.environment import resolve
from mlpbench.backends.processes import worker_environment
from mlpbench.errors import UserError

PROBE = Path(__file__).parent / "pyg_probe.py"

pytestmark = [pytest.mark.backend, pytest.mark.slow]


@pytest.fixture(scope="module")
def found():
    try:
        environment = resolve(config.load_backends()["pyg"])
    except UserError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    done = subprocess.run(
        [str(environment.python), "-P", "-s", str(PROBE)], env=worker_environment(environment, 1), capture_output=True,
        text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_energies_are_those_of_the_packages_own_forward_pass(found):
    assert found["ours"] == pytest.approx(found["theirs"], rel=1e-7)  # the package rounds a norm to float32
    assert abs(found["ours"]) > 0.1


def test_a_crystal_with_atoms_in_line_is_as_extensive_as_it_should_be(found):
    """Each atom has images of itself as neighbours, and angles of 0 and 180°, where an arc tangent has no gradient."""
    energy, finite = found["crystal"]
    assert finite
    assert found["repeated"] == pytest.approx(8 * energy, rel=1e-10)
