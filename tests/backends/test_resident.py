"""A fork of a resident worker computes what a process of its own computes, bit by bit, with a real package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest

from mlpbench import config
from mlpbench.backends import processes
from mlpbench.backends.environment import resolve
from mlpbench.errors import UserError
from mlpbench.protocol import Task
from mlpbench.testing import Subject, split_frames

pytestmark = [pytest.mark.backend, pytest.mark.slow]

TASKS = [Task("train"), Task("predict", options={"splits": ["valid"], "batch_size": 10})]
TIMES = {"time", "seconds", "step_seconds"}  # of an event


@pytest.fixture(params=["schnet", "nequip", "mace", "sevennet", "soap_bpnn"])
def subject(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    name = request.param
    trial = config.load_trial([f"architecture={name}", "size=tiny"])
    try:
        environment = resolve(trial.backend_config)
    except UserError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    monkeypatch.setenv(processes.SWITCH, "1")
    return Subject(name, environment, trial, tmp_path)


def test_bit_identical_to_a_process_of_its_own(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = {}
    for folder, switch in (("first", "1"), ("second", "1"), ("alone", "0")):
        monkeypatch.setenv(processes.SWITCH, switch)
        results = subject.run(folder, TASKS, split_frames(), budget={"epochs": 2})
        assert [result.status for result in results.values()] == ["done", "done"], results
        peaks[folder] = results["train"].peak_memory_mb
        if switch == "1":
            resident = psutil.Process().children()
            assert len(resident) == 1
            assert not resident[0].children(), "nothing an import started, and no trial, outlives the trial"
    epochs = {
        folder: [{k: v for k, v in event.items() if k not in TIMES} for event in subject.events(folder)]
        for folder in peaks
    }
    assert len(epochs["alone"]) >= 2
    assert epochs["first"] == epochs["second"] == epochs["alone"]
    alone = subject.predictions("alone")
    for folder in ("first", "second"):
        predicted = subject.predictions(folder)
        assert predicted.keys() == alone.keys()
        for name, array in alone.items():
            np.testing.assert_array_equal(predicted[name], array)
        assert peaks[folder] == pytest.approx(peaks["alone"], rel=0.05), "peak memory means the same"


def test_several_threads_compute_after_the_fork(subject: Subject) -> None:
    """OpenMP hangs in a fork if its threads were started before."""
    from dataclasses import replace

    from mlpbench.backends.launcher import launch

    request = subject.request("threads", TASKS, split_frames(), budget={"epochs": 1})
    results = launch(replace(request, threads=2), subject.environment, timeout=600)
    assert [result.status for result in results.values()] == ["done", "done"], results
    log = (subject.root / "threads" / "worker.log").read_text(errors="replace")
    assert "in a process of its own" not in log
