"""Foundation models inside their packages: their forces, files from strangers, and what freezing leaves as it was."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import write

from mlpbench import config
from mlpbench.backends.environment import resolve
from mlpbench.backends.foundation import find
from mlpbench.backends.launcher import launch
from mlpbench.backends.processes import worker_environment
from mlpbench.errors import UserError
from mlpbench.protocol import CHECKPOINT, Task
from mlpbench.testing import Subject, ethanol_frames, split_frames
from mlpbench.testing.subject import declared_architectures

pytestmark = [pytest.mark.backend, pytest.mark.slow]

# The package's own calculator for its model, as its documentation has it; ``atoms`` are frames of ethanol.
OWN = {
    "7net-0": "from sevenn.calculator import SevenNetCalculator\n"
    "calculator = SevenNetCalculator('7net-0', device='cpu')",
    "chgnet-0.3.0": "from chgnet.model.dynamics import CHGNetCalculator\n"
    "calculator = CHGNetCalculator(use_device='cpu')\n"
    "for one in atoms:\n    one.set_cell([25, 25, 25])\n    one.pbc = True",
    "so3lr": "from so3krates_torch.calculator.so3 import SO3LRCalculator\n"
    "calculator = SO3LRCalculator(default_dtype='float64')\n"
    "import torch\ntorch.set_default_dtype(torch.float64)",
}
ARCHITECTURE = {"7net-0": "sevennet", "chgnet-0.3.0": "chgnet", "so3lr": "so3krates"}
FORCES = """\
import sys

import numpy as np
from ase.io import read

atoms = read(sys.argv[1], index=":")
{own}
forces = []
for one in atoms:
    one.calc = calculator
    forces.append(one.get_forces())
np.save(sys.argv[2], np.concatenate(forces))
"""
STRANGER = """\
import sys

import torch


class Stranger:
    def __reduce__(self):
        return (open, (sys.argv[2], "w"))


torch.save({"model": Stranger(), "config": {}}, sys.argv[1])
"""
COMPARE = """\
import json
import sys

import torch

first, second = (torch.load(path, map_location="cpu", weights_only=True)["model"] for path in sys.argv[1:])
same = {name: bool(torch.equal(first[name], second[name])) for name in first}
assert set(first) == set(second)
print(json.dumps(same))
"""


def _subject(name: str, root: Path) -> Subject:
    trial = config.load_trial([f"architecture={name}", "size=tiny", "dtype=float64"])
    try:
        environment = resolve(trial.backend_config)
    except UserError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    return Subject(name, environment, trial, root)


def _python(subject: Subject, script: str, *arguments: Path) -> str:
    done = subprocess.run(
        [str(subject.environment.python), "-W", "ignore", "-c", script, *map(str, arguments)], cwd=subject.root,
        env=worker_environment(subject.environment, 1), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _start(file: Path, kind: str) -> dict[str, Any]:
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return {
        "kind": kind, "freeze": "none", "weights": "x", "foundation": "given", "file": str(file), "options": {},
        "trust": False, "sha256": sha256,
    }  # fmt: skip


@pytest.mark.parametrize("model", OWN)
def test_a_model_as_it_is_has_the_forces_of_its_packages_own_calculator(model: str, tmp_path: Path) -> None:
    """Read without trust, from the file inside the package, whose digest is the one that the list has."""
    subject = _subject(ARCHITECTURE[model], tmp_path)
    entry = find(model, [config.packaged_conf()])
    file = entry.weights(subject.environment, None)
    assert file is not None
    assert hashlib.sha256(file.read_bytes()).hexdigest() == entry.sha256
    frames = ethanol_frames("test_500K", 3)
    look = [Task("probe", options={"splits": ["test"], "calculator": ["test"]})]
    request = subject.request("as-it-is", look, {**split_frames(), "test": frames})
    subject.probe([replace(request, start=_start(file, "zero_shot"))])
    write(tmp_path / "frames.xyz", frames.to_atoms(), format="extxyz")
    _python(subject, FORCES.format(own=OWN[model]), tmp_path / "frames.xyz", tmp_path / "own.npy")
    own, found = np.load(tmp_path / "own.npy"), subject.predictions("as-it-is", "probe.npz")
    assert np.abs(own).max() > 1.0
    for key in ("test.forces", "test.calculator.forces"):
        np.testing.assert_allclose(found[key], own, atol=2e-4)  # two of the packages' own calculators have float32


@pytest.mark.parametrize("name", ["sevennet", "chgnet", "so3krates"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(name: str, tmp_path: Path) -> None:
    subject = _subject(name, tmp_path)
    file, sign = tmp_path / "stranger.pth", tmp_path / "code-ran"
    _python(subject, STRANGER, file, sign)
    request = subject.request("stranger", [Task("train")], split_frames())
    result = launch(replace(request, start=_start(file, "foundation")), subject.environment, timeout=900)["train"]
    assert result.status == "failed"
    assert "stranger.pth is no" in result.reason
    assert not sign.exists()


def _freezing() -> list[str]:
    return [name for name, backend in declared_architectures().items() if "representation" in backend.freezes]


@pytest.mark.parametrize("name", _freezing())
def test_what_is_frozen_stays_bit_by_bit_and_the_readout_learns(name: str, tmp_path: Path) -> None:
    subject = _subject(name, tmp_path)
    some: dict[str, Any] = {"budget": {"epochs": None, "steps": 6, "interval": 3}}
    requests = [subject.request("from", [Task("probe")], split_frames(), **some)]
    for freeze in ("representation", "none"):
        request = subject.request(freeze, [Task("probe")], split_frames(), training={"lr": 1e-2}, start="from", **some)
        requests.append(replace(request, start={**request.start, "freeze": freeze}))
    subject.probe(requests)
    best = {folder: tmp_path / folder / CHECKPOINT / "best.pt" for folder in ("from", "representation", "none")}
    frozen = json.loads(_python(subject, COMPARE, best["from"], best["representation"]))
    free = json.loads(_python(subject, COMPARE, best["from"], best["none"]))
    moved = {parameter for parameter, same in frozen.items() if not same}
    assert moved
    assert len(moved) < len(frozen) / 2
    trained = {parameter for parameter, same in free.items() if not same}
    assert moved < trained  # without freezing these move too, and others
    assert not any(parameter.startswith(("bond", "angle", "atom_conv", "euclidean", "onehot")) for parameter in moved)
