"""Build a backend's environment with uv, so that a half-built one is never taken for a good one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

from mlpbench.backends.probe import driver_present
from mlpbench.backends.registry import (
    COMPLETE,
    BackendConfig,
    Environment,
    base_python,
    build_lock,
    built_folder,
    built_lock,
    home,
    interpreter,
    is_complete,
    python_version,
    read_pins,
)
from mlpbench.backends.uv import Progress, run_uv, source_variables, uv_command
from mlpbench.backends.wheels import Pin, read_compiled
from mlpbench.errors import UserError
from mlpbench.files import locked
from mlpbench.protocol import read_json, write_json

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


FIRST_TORCH_GB = 6.0  # cache and environment together; measured with torch 2.13 and its CUDA libraries
NEXT_TORCH_GB = 1.5  # where uv can hard-link torch from its cache
SMALL_GB = 0.5

_BUSY = "another process is building"


def build(
    backend: BackendConfig,
    *,
    wheels: Path | None = None,
    offline: bool = False,
    rebuild: bool = False,
    torch: TorchBuild = "auto",
    progress: Progress,
    home_folder: Path | None = None,
) -> Environment:
    """Build the environment of ``backend``, or do nothing if it is there.

    Built where it will stay, since virtual environments cannot be moved; the mark that it is complete comes
    last.

    Args:
        backend: what to build.
        wheels: a folder with wheels, looked into besides the package index (with ``offline``: instead of it).
        offline: use no network.
        rebuild: build even if it is complete.
        torch: ``cpu`` for torch's CPU build, ``default`` for the ordinary package (on Linux with CUDA),
            ``auto`` for the CPU build where there is no GPU driver and it can be had, else the ordinary one.
        progress: called with a line on each step.
        home_folder: in place of ``$MLPBENCH_HOME``.

    Raises:
        UserError: a package of the system or disk space is missing, no such folder of wheels, or uv's own message.
    """
    if wheels is not None:
        _check_wheels(backend, wheels, offline)
    require_packages(backend)
    folder = built_folder(backend, home_folder)
    environment = Environment(backend.name, interpreter(folder), (), built_lock(backend), False, backend.package)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder, progress):
        if is_complete(folder) and interpreter(folder).exists() and not rebuild:
            progress(f"{backend.name}: built already, {folder}")
            return environment
        _clear(folder)
        check_disk(backend, home(home_folder))
        try:
            seconds = _build(backend, folder, wheels, offline, torch, progress)
        except BaseException:  # Ctrl-C as well: what is half-built goes away
            _clear(folder)
            raise
        progress(f"{backend.name}: built in {seconds:.0f} s, {folder}")
    return environment


def require_packages(backend: BackendConfig) -> None:
    """Raises:
    UserError: the system lacks packages that the code is built with, or starts.
    """
    missing = backend.missing_packages()
    if missing:
        raise UserError(
            f"'{backend.name}' needs packages of the system that are not here: {', '.join(missing)}",
            f"With Debian: apt install {' '.join(missing)}. Elsewhere, adopt an interpreter: "
            f"backend.{backend.name}.python=/path/to/python",
        )


def check_disk(backend: BackendConfig, home_folder: Path) -> None:
    """Compare what the build needs with what is free, before anything is downloaded.

    Raises:
        UserError: too little.
    """
    torch = _torch_line(backend)
    need = SMALL_GB
    if torch is not None:
        marks = (home_folder / "envs").glob(f"*/{COMPLETE}")
        cached = any(read_json(mark).get("torch") == torch for mark in marks)
        need = NEXT_TORCH_GB if cached else FIRST_TORCH_GB
    for path, free in disk_left(home_folder).items():
        if free < need:
            raise UserError(
                f"building '{backend.name}' takes about {need:.1f} GB, but {path} has {free:.1f} GB left",
                "Free some space, or set MLPBENCH_HOME and UV_CACHE_DIR to folders on a larger disk "
                "(the same one: then files are linked, not copied).",
            )


def disk_left(home_folder: Path) -> dict[Path, float]:
    """Free space (10⁹ bytes) where environments and uv's downloads go."""
    return {path: shutil.disk_usage(_nearest(path)).free / 1e9 for path in (home_folder, _uv_cache())}


def _build(
    backend: BackendConfig, folder: Path, wheels: Path | None, offline: bool, torch: TorchBuild, progress: Progress
) -> float:
    start = time.monotonic()
    variables = source_variables(wheels, offline, progress) | backend.settings_of_build()
    progress(f"{backend.name}: building {folder} with Python {sys.version.split()[0]}")
    run_uv(["venv", "--python", str(base_python()), str(folder)], variables, progress, folder.parent)
    pins = _cpu_pins(backend, folder, torch, offline, variables, progress)
    requirements = backend.requirements_path()
    assert requirements is not None  # built_folder has read it
    arguments = ["pip", "install", "--python", str(interpreter(folder))]
    if pins is not None:
        requirements = folder / "requirements.cpu.txt"
        requirements.write_text("".join(f"{pin.line}\n" for pin in pins), encoding="utf-8")
        arguments += ["--torch-backend", "cpu"]
    run_uv([*arguments, "-r", str(requirements.absolute())], variables, progress, folder.parent)
    seconds = time.monotonic() - start
    mark = {"backend": backend.name, "lock": built_lock(backend), "python": python_version()}
    mark |= {"torch": _torch_line(backend) or "", "build": "default" if pins is None else "cpu"}
    write_json(folder / COMPLETE, {**mark, "seconds": round(seconds, 1)})
    return seconds


def _cpu_pins(
    backend: BackendConfig,
    folder: Path,
    torch: TorchBuild,
    offline: bool,
    variables: dict[str, str],
    progress: Progress,
) -> list[Pin] | None:
    """The pins for the CPU build of torch, or None for the ordinary package."""
    requirements, line = backend.requirements_path(), _torch_line(backend)
    if requirements is None or line is None or not wants_cpu_build(torch, offline):
        return None
    pins = read_compiled(requirements)
    wanted = next(pin for pin in pins if pin.name == "torch")
    if cpu_build_exists(uv_command(), interpreter(folder), wanted, variables):
        progress(f"{backend.name}: taking the CPU build of torch")
        return without_cuda(pins)
    if torch == "cpu":
        raise UserError(f"no CPU build of {line} is available", "Omit --torch to take the ordinary package.")
    return None


def _torch_line(backend: BackendConfig) -> str | None:
    return next((line for line in read_pins(backend) if line.startswith("torch==")), None)


def _check_wheels(backend: BackendConfig, wheels: Path, offline: bool) -> None:
    if not wheels.is_dir():
        raise UserError(f"--wheels {wheels}: there is no such folder")
    if not offline:
        return
    have = {canonicalize_name(path.name.split("-")[0]) for path in wheels.glob("*.whl")}
    pins = [line.split("==")[0].split("[")[0].strip() for line in read_pins(backend)]
    missing = [name for name in pins if canonicalize_name(name) not in have]
    if missing:
        shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise UserError(
            f"--wheels {wheels} lacks {shown}, which '{backend.name}' needs",
            f"Gather them where there is a network: mlpbench env wheels {backend.name} --out DIR. "
            "Where an interpreter here has them, adopt it: 'env wheels' prints how.",
        )


@contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(build_lock(folder), wait=False, busy=_BUSY))
        except UserError as error:
            if error.message != _BUSY:
                raise
            progress(f"{_BUSY} {folder.name}: waiting for it")
            stack.enter_context(locked(build_lock(folder)))
        yield


def _clear(folder: Path) -> None:
    (folder / COMPLETE).unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)


def _uv_cache() -> Path:
    done = subprocess.run([uv_command(), "cache", "dir"], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def _nearest(path: Path) -> Path:
    """``path``, or the nearest folder above it that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())
