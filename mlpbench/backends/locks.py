"""Where environments lie, and the lock that says what is in one."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from mlpbench.backends.schema import BackendConfig
from mlpbench.errors import UserError

COMPLETE = ".mlpbench-complete.json"  # written last: a folder without it is half-built


@dataclass(frozen=True)
class Environment:
    """The interpreter a backend runs in.

    Attributes:
        name: the backend's name.
        python: absolute path of the interpreter, symbolic links kept (a venv is known by them).
        pythonpath: folders put first on its path.
        lock: sha256 of what determines the packages in it: of a built one the pinned requirements and
            Python's major.minor, of an adopted one the versions found there.
        adopted: True if it was not built by mlpbench.
    """

    name: str
    python: Path
    pythonpath: tuple[str, ...]
    lock: str
    adopted: bool


def home(override: Path | None = None) -> Path:
    """``$MLPBENCH_HOME``, else ``mlpbench`` in ``$XDG_CACHE_HOME``, else in ``~/.cache``."""
    if override is not None:
        return override.expanduser().absolute()
    named = os.environ.get("MLPBENCH_HOME")
    if named:
        return Path(named).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    # The XDG specification wants relative values ignored.
    base = Path(cache) if cache and os.path.isabs(cache) else Path.home() / ".cache"
    return base / "mlpbench"


def base_python() -> Path:
    """The interpreter under the running one, which outlives the core's own virtual environment."""
    return Path(getattr(sys, "_base_executable", None) or sys.executable)


def python_version() -> str:
    """Major.minor of the running interpreter, which built environments share."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def read_pins(backend: BackendConfig) -> list[str]:
    """The lines of the backend's pinned requirements, without comments and blank lines, sorted.

    Raises:
        UserError: the backend has no requirements file, or it cannot be read.
    """
    path = backend.requirements_path()
    if path is None:
        raise UserError(
            f"the backend '{backend.name}' has no requirements file, so its environment cannot be built",
            f"Adopt an interpreter: backend.{backend.name}.python=/path/to/python",
        )
    return read_requirements(path)


def read_requirements(path: Path) -> list[str]:
    """The requirement lines of a file, without comments, sorted.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"requirements file {path} cannot be read: {error.strerror}") from error
    lines = (re.sub(r"(^|\s)#.*$", "", line).strip() for line in text.replace("\\\n", " ").splitlines())
    return sorted(line for line in lines if line)


def built_lock(backend: BackendConfig) -> str:
    """sha256 over the pinned requirements and Python's major.minor.

    Raises:
        UserError: see :func:`read_pins`.
    """
    return _sha256([f"python {python_version()}", *read_pins(backend)])


def versions_lock(python: str, versions: Mapping[str, str]) -> str:
    """sha256 over the versions found in an adopted environment and its Python version."""
    return _sha256([f"adopted python {python}", *(f"{name}=={versions[name]}" for name in sorted(versions))])


def built_folder(backend: BackendConfig, home_folder: Path | None = None) -> Path:
    """Where the backend's built environment lies, whether or not it is there.

    Raises:
        UserError: see :func:`read_pins`.
    """
    return home(home_folder) / "envs" / f"{backend.name}-{built_lock(backend)[:12]}"


def interpreter(folder: Path) -> Path:
    """The interpreter of the virtual environment in ``folder``."""
    return folder / "bin" / "python"


def build_lock(folder: Path) -> FileLock:
    """The lock that whoever builds or removes ``folder`` holds."""
    return FileLock(folder.parent / f".{folder.name}.lock")


def is_complete(folder: Path) -> bool:
    """True if a build of ``folder`` went to its end."""
    return (folder / COMPLETE).is_file()


def _sha256(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
