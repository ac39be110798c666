"""Several trials at once: Hydra's launchers carry whole sweeps, with one summary and one cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hydra.errors import MissingConfigException

from mlpbench.config.checks import explain
from tests.integration.conftest import Run

SWEEP = ["architecture=toy", "dataset.n_train=20,30", "repetition=0,1", "budget.steps=3"]


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_a_sweep_in_other_processes(launcher: str, mlpbench: Run, tmp_path: Path) -> None:
    pytest.importorskip(f"hydra_plugins.hydra_{launcher.split('_')[0]}_launcher")
    command = ["run", "-m", f"hydra/launcher={launcher}", "study=par", *SWEEP]
    first = mlpbench(*command)
    assert first.returncode == 0, first.stderr
    assert "4 done in results/par" in first.stdout
    assert len(list(tmp_path.glob("results/par/*/record.json"))) == 4
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("results/par/*/record.json")}
    # How a sweep is launched is no part of what it trains: the plain launcher finds everything done.
    second = mlpbench("run", "-m", "study=par", *SWEEP)
    assert "4 trials: 4 cached" in second.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_failing_trial_fails_the_command(mlpbench: Run, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = mlpbench("run", "-m", "hydra/launcher=joblib", "study=par", *SWEEP, "timeout=0.001")
    assert done.returncode == 1
    assert "4 timeout" in done.stdout


def test_a_launcher_that_is_not_installed_is_named_with_its_extra() -> None:
    error = explain(MissingConfigException("Could not find 'hydra/launcher/submitit_slurm'"), [])
    assert "pip install 'mlpbench[slurm]'" in str(error)


def test_a_misspelt_launcher(mlpbench: Run) -> None:
    done = mlpbench("run", "-m", "hydra/launcher=jobli", *SWEEP)
    assert done.returncode == 2
    assert "joblib" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slurm
@pytest.mark.skipif(shutil.which("sbatch") is None, reason="no sbatch on this machine")
def test_a_sweep_on_a_cluster(mlpbench: Run, tmp_path: Path) -> None:
    command = ["run", "-m", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5", "study=par", *SWEEP]
    done = mlpbench(*command)
    assert done.returncode == 0, done.stderr
    assert "4 done in results/par" in done.stdout
    jobs = list(tmp_path.glob("results/par/.hydra/.submitit/*"))
    assert len(jobs) >= 4
