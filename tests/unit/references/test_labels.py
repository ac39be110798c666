"""Labels: the key, the cache shared by trials, and what is said when the method is another one or fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mlpbench.backends.locks import Environment
from mlpbench.backends.schema import BackendConfig
from mlpbench.errors import UserError
from mlpbench.evaluators import Context
from mlpbench.references import labels, own
from tests.support import ethanol_frames

BACKEND = BackendConfig(name="pyscf", adapter="mlpbench.references.pyscf_script:main")
METHOD = labels.complete_method({"code": "pyscf", "xc": "pbe", "basis": "def2-svp"})
NUMBERS = np.array([8, 1, 1])
WATER = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])

FAKE = """
import json, sys
from pathlib import Path
path = Path(sys.argv[1]); request = json.loads(path.read_text())
log = Path(r"{log}"); log.write_text(str(len(request["frames"]) + int(log.read_text())))
for frame in request["frames"]:
    if frame["positions"][0][0] > 90: sys.exit("no convergence in sight")
    good = frame["positions"][0][0] < 50
    (path.parent / (frame["id"] + ".json")).write_text(json.dumps({{
        "energy": -2000.0 - frame["positions"][0][0], "converged": good, "seconds": 2.0,
        "forces": [[0.1, 0.0, 0.0]] * len(frame["numbers"]) if good else None}}))
"""


@pytest.fixture
def computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stand-in for PySCF; returns how many frames it was asked for so far."""
    log = tmp_path / "log"
    log.write_text("0")
    script = tmp_path / "fake.py"
    script.write_text(FAKE.format(log=log))
    monkeypatch.setitem(labels.SCRIPTS, "pyscf", script)
    monkeypatch.setattr(labels, "resolve", lambda backend: Environment("pyscf", Path(sys.executable), (), "x", True))
    return lambda: int(log.read_text())


def test_key_depends_on_geometry_and_method_alone() -> None:
    key = labels.label_key(NUMBERS, WATER, METHOD)
    assert key == labels.label_key(NUMBERS.astype(np.int32), WATER.copy(order="F"), dict(reversed(METHOD.items())))
    assert key != labels.label_key(NUMBERS, WATER + 1e-9, METHOD)
    assert key != labels.label_key(NUMBERS[::-1], WATER, METHOD)
    assert key != labels.label_key(NUMBERS, WATER, {**METHOD, "xc": "pbe0"})


def test_no_frame_is_computed_twice(tmp_path: Path, computed) -> None:
    cache = tmp_path / "cache"
    first = labels.label(NUMBERS, [WATER, WATER + 1.0], METHOD, BACKEND, cache=cache)
    assert computed() == 2
    assert [label.energy for label in first if label] == [-2000.0, -2001.0]
    again = labels.label(NUMBERS, [WATER + 1.0, WATER + 2.0], METHOD, BACKEND, cache=cache)
    assert computed() == 3
    assert [label.cached for label in again if label] == [True, False]
    assert again[0] is not None
    assert again[0].seconds == 2.0  # what it cost when it was computed
    assert again[0].forces.shape == (3, 3)


def test_what_does_not_converge_is_none_and_remembered(tmp_path: Path, computed) -> None:
    far = WATER + 60.0
    assert labels.label(NUMBERS, [far], METHOD, BACKEND, cache=tmp_path / "c") == [None]
    assert labels.label(NUMBERS, [far], METHOD, BACKEND, cache=tmp_path / "c") == [None]
    assert computed() == 1


def test_a_crash_keeps_what_was_done_and_says_why(tmp_path: Path, computed) -> None:
    with pytest.raises(UserError, match="no convergence in sight"):
        labels.label(NUMBERS, [WATER, WATER + 95.0], METHOD, BACKEND, cache=tmp_path / "c")
    before = computed()
    assert labels.label(NUMBERS, [WATER], METHOD, BACKEND, cache=tmp_path / "c")[0] is not None
    assert computed() == before


def test_method_is_checked() -> None:
    with pytest.raises(UserError, match="has no setting 'basiss'"):
        labels.complete_method({"code": "pyscf", "xc": "pbe", "basiss": "sto-3g"})
    with pytest.raises(UserError, match="needs 'basis'"):
        labels.complete_method({"code": "pyscf", "xc": "pbe"})
    with pytest.raises(UserError, match="reference code 'psycf' is not known"):
        labels.complete_method({"code": "psycf"})


def test_another_level_of_theory_is_refused(tmp_path: Path, computed) -> None:
    """The stand-in's energies are not those of the data set: the potential must not be charged with that."""
    frames = ethanol_frames("test_500K", 3)
    with pytest.raises(UserError, match="is not the data set's"):
        own.verify(
            frames.numbers[:9], Context({"test_500K": frames}, "test_500K"), METHOD, BACKEND, cache=tmp_path / "c"
        )


def test_what_hinders_labelling_is_a_status(tmp_path: Path) -> None:
    (tmp_path / "md").mkdir()
    values = {"runs": {"nvt": {}}, "options": {"own_trajectory": {"frames": 3, "reference": {"code": "pyscf"}}}}
    found = own.label_trial(tmp_path, values, Context({}), {"pyscf": BACKEND})
    assert found["status"] == "skipped"
    assert "no frame behind its start" in found["reason"]
    assert json.loads((tmp_path / "md" / "own_labels.json").read_text()) == found
    values["options"]["own_trajectory"] = None
    assert own.label_trial(tmp_path, values, Context({}), {}) == {}


def test_environment_that_is_not_built_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPBENCH_HOME", str(tmp_path))
    monkeypatch.delenv("MLPBENCH_PYSCF_PYTHON", raising=False)
    folder = Path(labels.__file__).parent
    backend = BackendConfig(name="pyscf", adapter="a.b:c", requirements=str(folder / "pyscf.requirements.txt"))
    with pytest.raises(UserError, match="mlpbench env build pyscf"):
        labels.label(NUMBERS, [WATER], METHOD, backend)
