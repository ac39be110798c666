"""mlpbench's own training loop: it can be repeated from the trial's folder, and it resumes to the last digit."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mlpbench import config
from mlpbench.backends.environment import resolve
from mlpbench.backends.processes import worker_environment
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.protocol import Task, read_events
from mlpbench.testing import Subject, split_frames

pytestmark = [pytest.mark.backend, pytest.mark.slow]


@pytest.fixture(params=["sevennet", "soap_bpnn", "pet", "ani", "dimenet_pp"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    trial = config.load_trial([f"architecture={request.param}", "size=tiny", "dtype=float64"])
    try:
        environment = resolve(trial.backend_config)
    except UserError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    return Subject(request.param, environment, trial, tmp_path)


def test_the_folder_native_repeats_the_training_without_mlpbench(subject: Subject) -> None:
    result = subject.run("main", [Task("train")], split_frames(), budget={"epochs": 2})["train"]
    assert result.status == "done", result.reason
    native = subject.root / "main" / "native"
    command = [str(subject.environment.python), *shlex.split(result.values["native_command"])[1:]]
    done = subprocess.run(
        command, cwd=native, env=worker_environment(subject.environment, 1), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    again = [event["valid_loss"] for event in read_events(native / "again" / "events.jsonl")]
    assert again == [event["valid_loss"] for event in subject.events("main")]


def test_frames_without_neighbours_and_single_atoms_have_energies(subject: Subject) -> None:
    """An atom alone has no pair to differentiate; in a batch with others, and by itself."""
    from ase import Atoms

    far = Atoms("CH", [(0, 0, 0), (0, 0, 20)])
    one = Frames.from_atoms([Atoms("H", [(1, 2, 3)]), far])
    mixed = Frames.concatenate([one, split_frames()["valid"].select([0])])
    tasks = [Task("train"), Task("predict", options={"splits": ["one", "mixed"], "batch_size": 5})]
    results = subject.run("alone", tasks, {**split_frames(), "one": one, "mixed": mixed}, budget={"epochs": 1})
    assert results["predict"].status == "done", results["predict"].reason
    found = subject.predictions("alone")
    assert np.isfinite(found["one.energy"]).all()
    assert np.abs(found["one.forces"]).max() < 1e-12
    np.testing.assert_allclose(found["mixed.energy"][:2], found["one.energy"], atol=1e-8)
