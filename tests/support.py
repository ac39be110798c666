"""Helpers that tests share: ethanol frames, a request, and a worker run by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mlpbench import protocol
from mlpbench.testing.subject import ETHANOL, ethanol_frames

__all__ = ["BOOTSTRAP", "CASES", "ETHANOL", "TRAINING", "ethanol_frames", "make_request", "run_worker"]


CASES = Path(__file__).parent / "cases"  # small inputs that once failed, one folder each
BOOTSTRAP = Path(__file__).parents[1] / "mlpbench" / "worker" / "bootstrap.py"

TRAINING: dict[str, Any] = {
    "batch_size": 10,
    "optimizer": "adam",
    "lr": 0.01,
    "schedule": "plateau",
    "warmup_steps": 0,
    "lr_gamma": 0.98,
    "lr_factor": 0.5,
    "lr_patience": 25,
    "lr_min": 1e-6,
    "ema_decay": 0.99,
    "gradient_clip": 10.0,
    "weight_decay": 0.0,
    "energy_weight": 1.0,
    "force_weight": 1.0,
    "stress_weight": 0.0,
}


def make_request(
    directory: Path,
    adapter: str,
    architecture: dict[str, Any],
    tasks: list[protocol.Task] | None = None,
    *,
    n_train: int = 40,
    n_valid: int = 10,
    training: dict[str, Any] | None = None,
    budget: dict[str, Any] | None = None,
    seed: int = 0,
    dtype: str = "float32",
    threads: int = 1,
    device: str = "cpu",
) -> protocol.Request:
    """Write a small ethanol request into ``directory`` and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    pool = ethanol_frames("pool_500K")
    parts = {
        "train": pool.select(slice(0, n_train)),
        "valid": pool.select(slice(500, 500 + n_valid)),
        "test_500K": ethanol_frames("test_500K", 20),
    }
    files = {}
    for name, frames in parts.items():
        files[name] = str(directory / f"{name}.npz")
        frames.save(Path(files[name]))
    if tasks is None:
        tasks = [
            protocol.Task("train"),
            protocol.Task("predict", options={"splits": ["valid", "test_500K"], "batch_size": 10}),
        ]
    request = protocol.Request(
        adapter=adapter,
        directory=str(directory),
        architecture=architecture,
        training={**TRAINING, **(training or {})},
        budget={"epochs": 3, "steps": None, "seconds": None, "patience": None, **(budget or {})},
        seed=seed,
        device=device,
        dtype=dtype,
        threads=threads,
        frames=files,
        labels=["energy", "forces"],
        tasks=tasks,
    )
    request.write(directory / protocol.REQUEST)
    return request


def run_worker(directory: Path, python: str = sys.executable, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run the worker on the request in ``directory`` with the interpreter ``python``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [python, "-P", "-s", str(BOOTSTRAP), str(directory)],
        env=environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
