"""The same checkpoint says the same on every device, and a trial can be killed and resumed there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpbench.backends.environment import resolve
from mlpbench.backends.launcher import launch
from mlpbench.config import load_backends
from mlpbench.protocol import CHECKPOINT, PREDICTIONS, Request
from tests.integration.conftest import Run

SMALL = ["size=tiny", "dataset.n_train=20", "dataset.n_valid=10", "budget.steps=2", "dtype=float64"]
GPU = [pytest.mark.gpu, pytest.mark.backend, pytest.mark.slow]
DEVICES = [
    ("toy", "cpu"),
    *(pytest.param(name, "cuda", marks=GPU) for name in ("schnet", "painn", "nequip", "mace")),
]


def trained(tmp_path: Path, mlpbench: Run, architecture: str, device: str) -> tuple[Path, dict[str, Any]]:
    """The folder and the record of a small trial on ``device``."""
    done = mlpbench("run", "study=s", f"architecture={architecture}", f"device={device}", *SMALL)
    assert done.returncode == 0, done.stderr
    folder = next(tmp_path.glob("results/s/*/record.json")).parent
    return folder, json.loads((folder / "record.json").read_text())


@pytest.mark.parametrize(("architecture", "device"), DEVICES)
def test_the_cpu_predicts_what_the_device_predicted(
    tmp_path: Path, mlpbench: Run, monkeypatch: pytest.MonkeyPatch, architecture: str, device: str
) -> None:
    folder, record = trained(tmp_path, mlpbench, architecture, device)
    request = Request.read(folder / "request.json")
    there = tmp_path / "again"
    shutil.copytree(folder / CHECKPOINT, there / CHECKPOINT)
    predict = [task for task in request.tasks if task.name == "predict"]
    again = replace(request, directory=str(there), device="cpu", tasks=predict)
    if architecture == "toy":
        import sys

        monkeypatch.setenv("MLPBENCH_TOY_PYTHON", sys.executable)
    backend = load_backends()[record["config"]["architecture"]["backend"]]
    results = launch(again, resolve(backend))
    assert results["predict"].status == "done", results["predict"].reason
    with np.load(folder / PREDICTIONS) as first, np.load(there / PREDICTIONS) as second:
        assert set(first) == set(second)
        for name in first:
            # float64 on both: what is left is the order of sums
            np.testing.assert_allclose(first[name], second[name], rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.gpu
@pytest.mark.backend
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["schnet", "painn", "nequip", "mace"])
def test_the_record_of_a_trial_on_a_gpu(tmp_path: Path, mlpbench: Run, architecture: str) -> None:
    _, record = trained(tmp_path, mlpbench, architecture, "auto")
    hardware, torch = record["provenance"]["hardware"], record["provenance"]["backend"]["torch"]
    assert hardware["device"] == "cuda"
    assert hardware["device_name"]
    assert hardware["gpus"][0]["driver"]
    assert torch["cuda"]
    assert torch["device_memory_mb"] > 0
    assert isinstance(torch["tf32"], bool)
    assert record["tasks"]["train"]["peak_device_memory_mb"] > 0
