"""The command line, run as a user runs it: another process, a folder of its own, the toy in this interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """The toy's packages are numpy and ASE, which this interpreter has: adopted, so that nothing need be built."""
    return {**os.environ, "MLPBENCH_TOY_PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


@pytest.fixture
def mlpbench(tmp_path: Path) -> Run:
    """``mlpbench("run", ...)`` in ``tmp_path``; returns the finished process."""

    def run(*arguments: str, cwd: Path = tmp_path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mlpbench", *arguments],
            cwd=cwd, env={**environment(), **more}, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip

    return run
