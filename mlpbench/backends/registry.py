"""Which backends there are, what the YAML of one may say, and where environments lie.

The lock of an environment says what is in it. All that mlpbench knows of a package stands in one file,
``conf/backend/<name>.yaml``: the core reads it without importing the adapter, and it is stored with every result.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from mlpbench.errors import UserError

ADAPTERS = Path(__file__).parents[1] / "worker" / "adapters"


class ArchitectureInfo(BaseModel):
    """How an architecture is called, and what a paper that uses it cites."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(description="as its authors write it")
    family: str | None = Field(
        default=None, max_length=20, description="kernel, descriptors, invariant, equivariant, unconstrained or pair"
    )
    cite: list[str] = Field(default_factory=list, description="keys of a bibliography")
    place: int | None = Field(default=None, ge=0, description="its colour in reports; None: the first that is free")
    invariant: bool = Field(default=True, description="whether its energy is the same for a frame that is turned")


class BackendConfig(BaseModel):
    """One package that trains and runs architectures: its adapter, its environment, and what is said of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", description="as in conf/backend/<name>.yaml")
    adapter: str = Field(pattern=r"^[\w.]+:\w+$", description="module:Class, imported by the worker")
    adapter_version: int = Field(default=1, ge=1, description="raised when the adapter's results change")
    requirements: str | None = Field(
        default=None, description="pinned requirements: a file beside the adapter, or an absolute path"
    )
    python: str | None = Field(default=None, description="an interpreter that exists, used instead of a built one")
    pythonpath: list[str] = Field(default_factory=list, description="folders put first on the worker's path")
    package: str | None = Field(default=None, description="folder of the outside package that holds the adapter")
    distribution: str | None = Field(default=None, description="the adapted package, as pip knows it")
    licence: str | None = Field(default=None, description="of the adapted package, SPDX")
    terms: str | None = Field(default=None, description="what its licence forbids; printed where it is chosen")
    cite: list[str] = Field(default_factory=list, description="for the package: keys of a bibliography")
    bibliography: str | None = Field(default=None, description="a .bib file beside the adapter, with further keys")
    architectures: dict[str, ArchitectureInfo] = Field(default_factory=dict, description="by name, as in conf")
    unused: list[str] = Field(
        default_factory=list, description="what the package requires and never imports: an environment may lack it"
    )
    labels: list[Literal["energy", "forces", "stress"]] = Field(
        default=["energy", "forces", "stress"], description="what it can train on"
    )
    masks_forces: bool = Field(
        default=False, description="whether forces of held atoms can be left out of its loss, atom by atom"
    )
    periodic: bool = Field(default=True, description="whether it knows periodic boundary conditions")
    exact_resume: bool = Field(default=True, description="whether a resumed training equals one without a break")
    starts: list[Literal["potential", "foundation"]] = Field(
        default_factory=list, description="what else than fresh weights its trainings can start from"
    )
    freezes: list[Literal["representation"]] = Field(
        default_factory=list, description="what start.freeze can leave untrained"
    )
    pickled: bool = Field(default=False, description="whether the package's files of weights can run code when loaded")
    trainer: Literal["package", "mlpbench"] = Field(
        default="package", description="whose training loop: the package's, or mlpbench's around its model and loss"
    )
    iterations: bool = Field(
        default=True, description="false: solved at once, so that budgets, rates and resumption do not apply"
    )
    dtypes: list[Literal["float32", "float64"]] = Field(
        default=["float32", "float64"],
        min_length=1,
        description="what it computes in; the first replaces another",
    )
    devices: list[Literal["cpu", "cuda"]] = Field(
        default=["cpu", "cuda"], min_length=1, description="what it runs on; the first replaces another"
    )
    system: dict[str, str] = Field(
        default_factory=dict,
        description="Debian package that it needs -> a file (a glob) or program that shows it is there",
    )
    build_variables: dict[str, str] = Field(
        default_factory=dict, description="for the build alone: variable -> a file beside the adapter"
    )
    default: bool = Field(default=True, description="whether 'env build --all' builds it; if not, by name alone")
    size_gb: float | None = Field(
        default=None, gt=0, description="about how large its environment is, with CUDA's libraries (10⁹ bytes)"
    )

    def requirements_path(self) -> Path | None:
        """Where the pinned requirements stand, or None if the backend can only be adopted."""
        return None if self.requirements is None else self._beside_adapter(self.requirements)

    def bibliography_path(self) -> Path | None:
        """Where the backend's own BibTeX entries stand, or None."""
        return None if self.bibliography is None else self._beside_adapter(self.bibliography)

    def _beside_adapter(self, name: str) -> Path:
        path = Path(name).expanduser()
        return path if path.is_absolute() else (Path(self.package) if self.package else ADAPTERS) / path

    def missing_packages(self) -> list[str]:
        """Debian packages of :attr:`system` whose file or program is not on this machine."""
        return [name for name, sign in self.system.items() if not (glob.glob(sign) or shutil.which(sign))]

    def settings_of_build(self) -> dict[str, str]:
        """Variables that the build needs, with absolute paths."""
        return {name: str(self._beside_adapter(file).resolve()) for name, file in self.build_variables.items()}

    def capabilities(self) -> dict[str, Any]:
        """What the worker is told of it: see :attr:`mlpbench.protocol.Request.capabilities`."""
        return {"labels": list(self.labels), "periodic": self.periodic}


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
        package: folder of the outside package that holds the adapter; None: the adapter is mlpbench's own.
    """

    name: str
    python: Path
    pythonpath: tuple[str, ...]
    lock: str
    adopted: bool
    package: str | None = None


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

    A file holds one top-level key, the backend's name. The first conf folder wins.

    Args:
        conf_dirs: conf folders, most important first.

    Raises:
        UserError: a file is not YAML or not of this form, or an outside package brings a backend or an architecture
            under a name that another has already.
    """
    nodes: dict[str, dict[str, Any]] = {}
    packages = outside_packages()
    for folder in conf_dirs:
        for path in sorted((folder / "backend").glob("*.yaml")):
            name, node = read_backend(path)
            package = packages.get(str(node.get("adapter")).split(".")[0])
            if package is not None:
                node = {"package": str(package), **node}
            if folder.parent in packages.values():
                _check_new(name, node, path, nodes)
            nodes.setdefault(name, node)
    return nodes


def _check_new(name: str, node: Mapping[str, Any], path: Path, nodes: Mapping[str, Mapping[str, Any]]) -> None:
    """The backend of an outside package and its architectures hide no others, and are hidden by none."""
    hint = "Rename it in that package, or uninstall the package."
    if name in nodes and nodes[name].get("adapter") != node.get("adapter"):
        raise UserError(f"{path}: there is another backend '{name}', with the adapter {nodes[name]['adapter']}", hint)
    for other, known in nodes.items():
        common = set(known.get("architectures") or {}) & set(node.get("architectures") or {})
        if common and other != name:
            raise UserError(f"{path}: the backend '{other}' has an architecture '{min(common)}' already", hint)


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


def outside_packages() -> dict[str, Path]:
    """Folder of each installed package that an entry point in the group ``mlpbench.backends`` names.

    Such a package holds an adapter, its requirements and a folder ``conf`` like mlpbench's own. It is not imported
    here: its adapter needs packages that only its own environment has.

    Raises:
        UserError: an entry point does not name a package, or names one without the folder ``conf``.
    """
    return dict(_find_outside(tuple(sys.path)))


@cache
def _find_outside(path: tuple[str, ...]) -> dict[str, Path]:
    packages: dict[str, Path] = {}
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        said = f"entry point '{point.name}' ({point.value}) of {ENTRY_POINTS}"
        spec = util.find_spec(point.value) if re.fullmatch(r"\w+", point.value) else None
        if spec is None or not spec.submodule_search_locations or spec.origin is None:
            raise UserError(
                f"{said} does not name a package that can be found",
                "It must be the name of a top-level package with an __init__.py; or uninstall "
                f"{point.dist.name if point.dist else point.value}.",
            )
        folder = Path(spec.origin).parent
        if not (folder / "conf").is_dir():
            raise UserError(f"{said}: {folder} has no folder 'conf'", "See 'A backend of your own' in CONTRIBUTING.md.")
        packages[point.value] = folder
    return packages
