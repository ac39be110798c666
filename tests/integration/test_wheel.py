"""An installed wheel is whole: configuration, embedded data, worker and templates travel with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files, built from a copy of the sources, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(target), str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    return target


def test_a_wheel_runs_a_trial_and_writes_its_report(installed: Path, tmp_path: Path) -> None:
    def mlpbench(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "mlpbench", *arguments],
            cwd=tmp_path, env={**environment(), "PYTHONPATH": str(installed)}, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip

    where = subprocess.run(
        [sys.executable, "-P", "-c", "import mlpbench; print(mlpbench.__file__)"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(installed))
    done = mlpbench("run", "study=w", "architecture=toy", "dataset.n_train=20", "budget.steps=3")
    assert done.returncode == 0, done.stderr
    report = mlpbench("report", "w")
    assert report.returncode == 0, report.stderr
    assert (tmp_path / "reports" / "w" / "index.html").stat().st_size > 10_000
    assert mlpbench("init", "mine").returncode == 0
    assert (tmp_path / "mine" / "conf" / "config.yaml").is_file()
