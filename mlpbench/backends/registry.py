"""Which backends there are, what the YAML of one may say, and where environments lie.

The lock of an environment says what is in it.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from mlpbench.errors import UserError

ADAPTERS = Path(__file__).parents[1] / "worker" / "adapters"


class BackendConfig(BaseModel):
    """One package that trains and runs architectures, and where its interpreter is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", description="as in conf/backend/<name>.yaml")
    adapter: str = Field(pattern=r"^[\w.]+:\w+$", description="module:Class, imported by the worker")
    adapter_version: int = Field(default=1, ge=1, description="raised when the adapter's results change")
    requirements: str | None = Field(
        default=None, description="pinned requirements: a file beside the adapters, or an absolute path"
    )
    python: str | None = Field(default=None, description="an interpreter that exists, used instead of a built one")
    pythonpath: list[str] = Field(default_factory=list, description="folders put first on the worker's path")
    torchsim: bool = Field(default=False, description="whether the environment has torch-sim for batched MD")

    def requirements_path(self) -> Path | None:
        """Where the pinned requirements stand, or None if the backend can only be adopted."""
        if self.requirements is None:
            return None
        path = Path(self.requirements).expanduser()
        return path if path.is_absolute() else ADAPTERS / path


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


def build_lock(folder: Path) -> Path:
    """The lock file that whoever builds or removes ``folder`` holds."""
    return folder.parent / f".{folder.name}.lock"


def is_complete(folder: Path) -> bool:
    """True if a build of ``folder`` went to its end."""
    return (folder / COMPLETE).is_file()


def _sha256(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


ENTRY_POINTS = "mlpbench.backends"


def backend_nodes(conf_dirs: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """Every backend's settings by name, without the name itself.

    A file holds one top-level key, the backend's name. The first conf folder wins, and any of them wins
    over an outside package, whose entry point in group ``mlpbench.backends`` must give the path of such a
    file.

    Args:
        conf_dirs: conf folders, most important first.

    Raises:
        UserError: a file is not YAML or not of this form.
    """
    nodes: dict[str, dict[str, Any]] = {}
    for folder in conf_dirs:
        for path in sorted((folder / "backend").glob("*.yaml")):
            name, node = read_backend(path)
            nodes.setdefault(name, node)
    for path in _outside():
        name, node = read_backend(path)
        requirements = node.get("requirements")
        if requirements is not None and not Path(requirements).expanduser().is_absolute():
            node["requirements"] = str(path.parent / requirements)  # it stands beside the outside package's YAML
        nodes.setdefault(name, node)
    return nodes


def read_backend(path: Path) -> tuple[str, dict[str, Any]]:
    """Name and settings from one YAML file.

    Raises:
        UserError: it cannot be read, is not YAML, or has not exactly one top-level key with settings below
            it.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(data, dict) or len(data) != 1 or not isinstance(next(iter(data.values())), dict):
        raise UserError(
            f"{path}: a backend's file has one top-level key, its name, with the settings below it",
            "See conf/backend/toy.yaml for an example.",
        )
    name, node = next(iter(data.items()))
    return str(name), {str(key): value for key, value in node.items()}


def _outside() -> Iterable[Path]:
    for point in metadata.entry_points(group=ENTRY_POINTS):
        try:
            target = point.load()
        except Exception as error:  # an outside package's import can fail in any way
            raise UserError(
                f"entry point '{point.name}' ({point.value}) of {ENTRY_POINTS} cannot be loaded: "
                f"{type(error).__name__}: {error}",
                f"Fix or uninstall the package {point.dist.name if point.dist else point.module}.",
            ) from error
        path = Path(target() if callable(target) else target)
        if not path.is_file():
            raise UserError(f"entry point '{point.name}' of {ENTRY_POINTS} gives '{path}', which is not a file")
        yield path
