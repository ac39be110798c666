"""Build a backend's environment with uv, so that a half-built one is never taken for a good one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from packaging.utils import canonicalize_name

from mlpbench.backends.locks import (
    COMPLETE,
    Environment,
    base_python,
    built_folder,
    built_lock,
    home,
    interpreter,
    is_complete,
    python_version,
    read_pins,
)
from mlpbench.backends.pip_settings import uv_variables
from mlpbench.backends.schema import BackendConfig
from mlpbench.errors import UserError
from mlpbench.protocol import write_json

Progress = Callable[[str], None]

FIRST_TORCH_GB = 6.0  # cache and environment together; measured with torch 2.13 and its CUDA libraries
NEXT_TORCH_GB = 1.5  # where uv can hard-link torch from its cache
SMALL_GB = 0.5


def build(
    backend: BackendConfig,
    *,
    wheels: Path | None = None,
    offline: bool = False,
    rebuild: bool = False,
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
        rebuild: build anew even if it is complete.
        progress: called with a line on each step.
        home_folder: in place of ``$MLPBENCH_HOME``.

    Raises:
        UserError: too little disk, no such folder of wheels, or uv's own message if it fails.
    """
    if wheels is not None:
        _check_wheels(backend, wheels, offline)
    folder = built_folder(backend, home_folder)
    environment = Environment(backend.name, interpreter(folder), (), built_lock(backend), False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _build_lock(folder, progress):
        if is_complete(folder) and interpreter(folder).exists() and not rebuild:
            progress(f"{backend.name}: built already, {folder}")
            return environment
        _clear(folder)
        check_disk(backend, home(home_folder))
        try:
            seconds = _build(backend, folder, wheels, offline, progress)
        except BaseException:  # Ctrl-C as well: what is half-built goes away
            _clear(folder)
            raise
        progress(f"{backend.name}: built in {seconds:.0f} s, {folder}")
    return environment


def uv_command() -> str:
    """The uv that came with mlpbench.

    Raises:
        UserError: it is not there.
    """
    import uv

    try:
        return str(uv.find_uv_bin())
    except FileNotFoundError as error:
        raise UserError("uv, which builds environments, cannot be found", "Run: pip install uv") from error


def run_uv(arguments: list[str], variables: dict[str, str], progress: Progress, folder: Path) -> None:
    """Run uv in ``folder``, its lines going to ``progress``.

    Raises:
        UserError: it fails; the message holds the last of what it said.
    """
    said: list[str] = []
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
    process = subprocess.Popen(
        [uv_command(), *arguments, "--no-progress"],
        cwd=folder, env={**environment, **variables}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    assert process.stdout is not None
    try:
        for line in process.stdout:
            said.append(line.rstrip())
            if line.strip() and not line.startswith(" + "):  # the list of 100 packages helps nobody
                progress(f"  {line.rstrip()}")
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code != 0:
        text = "\n  ".join([line for line in said if line.strip()][-25:])
        raise UserError(f"uv {' '.join(arguments[:2])} failed (exit code {code}):\n  {text}")


def source_variables(wheels: Path | None, offline: bool, progress: Progress) -> dict[str, str]:
    """uv's variables that say where packages come from."""
    variables = {"UV_PYTHON_DOWNLOADS": "never"}
    if offline:
        variables |= {"UV_OFFLINE": "1"}
    if wheels is not None and offline:
        # Nothing but the folder: the indexes and folders of another machine must not get in the way.
        nothing = {"UV_NO_INDEX": "1", "UV_NO_CONFIG": "1", "UV_INDEX": ""}
        return variables | nothing | {"UV_FIND_LINKS": str(wheels.absolute())}
    variables |= uv_variables(os.environ, progress)
    if wheels is not None:
        links = [
            variables.get("UV_FIND_LINKS") or os.environ.get("UV_FIND_LINKS", ""),
            str(wheels.absolute()),
        ]
        variables["UV_FIND_LINKS"] = ",".join(link for link in links if link)
        variables.setdefault("UV_INDEX_STRATEGY", os.environ.get("UV_INDEX_STRATEGY", "unsafe-best-match"))
    return variables


def check_disk(backend: BackendConfig, home_folder: Path) -> None:
    """Compare what the build needs with what is free, before anything is downloaded.

    Raises:
        UserError: too little.
    """
    if not any(line.startswith("torch==") for line in read_pins(backend)):
        need = SMALL_GB
    else:
        another = any(
            is_complete(path) and path.name.split("-")[0] != "toy" for path in (home_folder / "envs").glob("*")
        )
        need = NEXT_TORCH_GB if another else FIRST_TORCH_GB
    for path in (home_folder, _uv_cache()):
        free = shutil.disk_usage(_nearest(path)).free / 1e9
        if free < need:
            raise UserError(
                f"building '{backend.name}' takes about {need:.1f} GB, but {path} has {free:.1f} GB left",
                "Free some space, or set MLPBENCH_HOME and UV_CACHE_DIR to folders on a larger disk "
                "(the same one: then files are linked, not copied).",
            )


def _build(backend: BackendConfig, folder: Path, wheels: Path | None, offline: bool, progress: Progress) -> float:
    start = time.monotonic()
    requirements = backend.requirements_path()
    assert requirements is not None  # built_folder has read it
    variables = source_variables(wheels, offline, progress)
    progress(f"{backend.name}: building {folder} with Python {sys.version.split()[0]}")
    run_uv(["venv", "--python", str(base_python()), str(folder)], variables, progress, folder.parent)
    python = str(interpreter(folder))
    run_uv(
        ["pip", "install", "--python", python, "-r", str(requirements.absolute())],
        variables,
        progress,
        folder.parent,
    )
    seconds = time.monotonic() - start
    write_json(
        folder / COMPLETE,
        {
            "backend": backend.name,
            "lock": built_lock(backend),
            "python": python_version(),
            "seconds": round(seconds, 1),
        },
    )
    return seconds


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
            f"Gather them where there is a network: mlpbench env wheels {backend.name} --out DIR. Where an interpreter "
            "here has them, adopt it: 'env wheels' prints how.",
        )


def _build_lock(folder: Path, progress: Progress) -> FileLock:
    lock = FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        progress(f"another process is building {folder.name}: waiting for it")
        lock.acquire()
    return lock


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
