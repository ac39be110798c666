"""The CPU build of torch, for machines without a GPU: it spares some gigabytes of CUDA libraries."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from mlpbench.backends.accelerator import driver_present
from mlpbench.backends.wheels import Pin

TorchBuild = Literal["auto", "cpu", "default"]

LIMIT = 10.0  # s to find out whether a CPU build can be had
_CUDA_ONLY = ("nvidia-", "cuda-", "triton")


def wants_cpu_build(choice: TorchBuild, offline: bool) -> bool:
    """Whether to look for a CPU build: asked for, or no GPU driver here and no choice of the user's own in uv."""
    if choice != "auto":
        return choice == "cpu"
    return not offline and not driver_present() and "UV_TORCH_BACKEND" not in os.environ


def cpu_build_exists(uv: str, python: Path, torch: Pin, variables: Mapping[str, str]) -> bool:
    """Whether uv finds a CPU build of ``torch`` within :data:`LIMIT` seconds; it downloads nothing."""
    return _found(uv, str(python), torch.line, tuple(sorted(variables.items())))


def without_cuda(pins: Sequence[Pin]) -> list[Pin]:
    """The pins without the CUDA libraries that only torch, or one of them, asks for."""
    dropped = {"torch"}
    while True:
        more = {p.name for p in pins if p.name.startswith(_CUDA_ONLY) and p.via and p.via <= dropped} - dropped
        if not more:
            return [pin for pin in pins if pin.name == "torch" or pin.name not in dropped]
        dropped |= more


@cache
def _found(uv: str, python: str, line: str, variables: tuple[tuple[str, str], ...]) -> bool:
    arguments = ["pip", "install", "--dry-run", "--no-deps", "--torch-backend", "cpu", "--python", python, line]
    environment = {**os.environ, **dict(variables), "UV_HTTP_RETRIES": "0"}
    try:
        done = subprocess.run(
            [uv, *arguments], env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and "+cpu" in done.stdout + done.stderr
