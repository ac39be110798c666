"""Dynamics with the real potentials: batched equals single, and a bad potential scores as bad."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlpbench import config, protocol
from mlpbench.backends.environment import resolve
from mlpbench.backends.launcher import launch
from mlpbench.backends.processes import worker_environment
from mlpbench.errors import UserError
from mlpbench.evaluators import SCORERS, Context
from tests.support import ETHANOL, ethanol_frames, make_request

pytestmark = [pytest.mark.backend, pytest.mark.slow]

PROBE = Path(__file__).parent / "md_probe.py"
ARCHITECTURES = ("schnet", "painn", "nequip", "mace", "sevennet")
REFERENCES = {"minimum": str(ETHANOL / "reference_minimum.xyz"), "hessian": str(ETHANOL / "reference_hessian.json")}


def trial(architecture: str, folder: Path, tasks: list[protocol.Task], n_train: int, epochs: int) -> dict[str, Any]:
    """Train and do ``tasks``; returns the results by name, or skips where the environment is not built."""
    settings = config.load_trial([f"architecture={architecture}", "size=tiny"])
    try:
        environment = resolve(settings.backend_config)
    except UserError as error:
        pytest.skip(str(error))
    request = make_request(
        folder, settings.backend_config.adapter, settings.architecture.model_dump(), [protocol.Task("train"), *tasks],
        n_train=n_train, training=settings.training.model_dump(), budget={"epochs": epochs},
    )  # fmt: skip
    results = launch(request, environment, timeout=1500)
    for result in results.values():
        assert result.status == "done", (result.task, result.reason)
    return {"environment": environment, **results}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batched_equals_single_replica_in_float64(architecture: str, tmp_path: Path) -> None:
    """50 steps of NVE: four replicas at once through torch-sim, and one by one through the ASE calculator."""
    environment = trial(architecture, tmp_path, [], n_train=10, epochs=1)["environment"]
    done = subprocess.run(
        [str(environment.python), "-P", "-s", str(PROBE), str(tmp_path)],
        env=worker_environment(environment, 1), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((tmp_path / "md_found.json").read_text())
    assert found["engine"] == "torch-sim"
    assert found["moved_A"] > 0.1
    assert found["largest_difference_A"] < 1e-8


def test_a_bad_potential_scores_as_bad_and_a_better_one_as_better(tmp_path: Path) -> None:
    """SchNet after one epoch on 10 frames, and after 60 on 100: the scores must tell them apart by far."""
    evaluation = config.load_trial(["architecture=schnet", "evaluation=dev"]).evaluation
    assert evaluation.physics is not None
    assert evaluation.md is not None
    physics, md = evaluation.physics.model_dump(), evaluation.md.model_dump()
    nvt = {**md["nvt"], "length_ps": 0.5, "wall_seconds": None}
    tasks = [
        protocol.Task("physics", options={**physics, "references": REFERENCES}),
        protocol.Task("md", options={**md, "nvt": nvt, "nve": None, "own_trajectory": None}),
    ]
    context = Context({"test_500K": ethanol_frames("test_500K", 20)}, "test_500K", REFERENCES)
    found = {}
    for name, n_train, epochs in (("bad", 10, 1), ("good", 100, 60)):
        results = trial("schnet", tmp_path / name, tasks, n_train, epochs)
        rows = [r for t in ("physics", "md") for r in SCORERS[t](tmp_path / name, results[t].values, context)]
        found[name] = {r["metric"]: r["value"] for r in rows}
    bad, good = found["bad"], found["good"]
    assert good["frequency_mae"] < 150 < 0.5 * bad["frequency_mae"]
    assert good["minimum_rmsd"] < 0.1 < bad["minimum_rmsd"]
    assert good["md_survival"] == 1.0
    assert bad["md_stable_time"] < 0.8 * good["md_stable_time"]
    for checks in (bad, good):  # symmetry is the architecture's, not the training's
        assert checks["rotation_error"] < 1e-6
        assert checks["permutation_error"] < 1e-6
        assert checks["force_consistency"] < 1e-4
    assert np.isfinite(list(good.values())).all()
