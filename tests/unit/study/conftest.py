"""Toy trials in this process, planned and run without the command line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlpbench.run import run_trial
from mlpbench.study.trial import Trial, plan_trial

TOY = [
    "architecture=toy", "size=tiny", "dataset.n_train=12", "dataset.n_valid=5", "budget=epochs", "budget.epochs=2",
    "evaluation=none", "study=s",
]  # fmt: skip
PHYSICS = ["evaluation=dev", "evaluation.md=null", "evaluation.speed=null", "evaluation.physics.n_frames=1"]
Plan = Callable[..., Trial]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """``plan("training.lr=0.1", ...)``: a toy trial whose results lie in ``tmp_path``."""
    monkeypatch.setenv("MLPBENCH_TOY_PYTHON", sys.executable)
    monkeypatch.chdir(tmp_path)
    return lambda *overrides: plan_trial([*TOY, *overrides])


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one finished trial with physics checks; to be copied, not changed."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLPBENCH_TOY_PYTHON", sys.executable)
        patch.chdir(root)
        assert run_trial(plan_trial([*TOY, *PHYSICS]))["status"] == "done"
    return root / "results"


@pytest.fixture
def finished(tmp_path: Path, finished_study: Path, plan: Plan) -> Trial:
    """A finished toy trial with physics checks, in a folder of the test's own."""
    shutil.copytree(finished_study, tmp_path / "results")
    return plan(*PHYSICS)
