"""The environment of each backend: the one that was built, or an interpreter that exists already."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlpbench.backends.probe import Installed, clashes, normalise, probe, run_python
from mlpbench.backends.registry import (
    COMPLETE,
    BackendConfig,
    Environment,
    build_lock,
    built_folder,
    built_lock,
    home,
    interpreter,
    is_complete,
    read_requirements,
    versions_lock,
)
from mlpbench.errors import UserError
from mlpbench.files import locked
from mlpbench.worker import bootstrap

__all__ = ["Environment", "Need", "NotBuilt", "State", "check", "environments", "needs", "remove", "resolve"]

MINIMUM_PYTHON = (3, 12)  # the worker is written in it


class NotBuilt(UserError):
    """A backend's environment has not been built; ``backend`` says which.

    Args:
        backend: whose it is.
        begun: a part of it is there.
    """

    def __init__(self, backend: BackendConfig, begun: bool) -> None:
        what = "is incomplete, or has lost its interpreter" if begun else "is not built yet"
        super().__init__(
            f"the environment of backend '{backend.name}' {what}", f"Run: mlpbench env build {backend.name}"
        )
        self.backend = backend


@dataclass(frozen=True)
class Need:
    """A package the backend asks for by name: ``version`` is the one it was tried with."""

    name: str
    version: str | None
    optional: bool


@dataclass(frozen=True)
class State:
    """A row of ``mlpbench env list``.

    Attributes:
        name: the backend's name; for a folder no backend uses, the folder's.
        state: ``built``, ``adopted``, ``missing``, ``half-built``, ``broken`` or ``unused``.
        path: folder of a built environment, interpreter of an adopted one.
        detail: versions, or what is wrong and how to fix it.
        size_gb: 10⁹ bytes of the files in a built or half-built environment, each hard link counted in full; of a
            missing one what the backend declares; None where neither is known.
    """

    name: str
    state: str
    path: Path
    detail: str
    size_gb: float | None = None


def resolve(backend: BackendConfig, home_folder: Path | None = None) -> Environment:
    """The environment to run ``backend`` in.

    That of ``python`` in its configuration; else of the variable ``MLPBENCH_<NAME>_PYTHON``; else the built
    one.

    Raises:
        NotBuilt: it was not built; names the command.
        UserError: the adopted interpreter cannot be used; says why.
    """
    adopted, source = adopted_python(backend)
    pythonpath = _pythonpath(backend)
    if adopted is not None:
        try:
            return _adopt(backend, adopted, pythonpath, home_folder)
        except UserError as error:
            raise UserError(f"{source}: {error.message}", error.hint) from error
    folder = built_folder(backend, home_folder)
    if not is_complete(folder) or not interpreter(folder).exists():
        raise NotBuilt(backend, folder.exists())
    if pythonpath:  # folders put first change what is found: hold the whole to the checks of an adopted one
        return _adopt(backend, interpreter(folder), pythonpath, home_folder)
    return Environment(backend.name, interpreter(folder), (), built_lock(backend), False, backend.package)


def adopted_python(backend: BackendConfig) -> tuple[Path | None, str]:
    """The interpreter the user names for ``backend``, and where it was named; None if there is none."""
    if backend.python:
        return _absolute(backend.python), f"backend.{backend.name}.python"
    variable = f"MLPBENCH_{backend.name.upper().replace('-', '_')}_PYTHON"
    named = os.environ.get(variable)
    return (_absolute(named), variable) if named else (None, "")


def needs(backend: BackendConfig) -> list[Need]:
    """What the backend asks for by name, in the ``.in`` file beside its pins; without such a file, every pin.

    A line of that file ending in ``# optional`` names what an adopted environment may lack.

    Raises:
        UserError: the requirements file cannot be read.
    """
    path = backend.requirements_path()
    if path is None:
        return []
    source = path.with_suffix(".in")
    optional: set[str] = set()
    if source.is_file():
        marked = [line for line in source.read_text(encoding="utf-8").splitlines() if "# optional" in line]
        optional = {line.split("#")[0].strip() for line in marked}
    found = []
    for line in read_requirements(source if source.is_file() else path):
        name, _, version = line.partition("==")
        found.append(
            Need(normalise(name.split("[")[0].strip()), version.split(";")[0].strip() or None, line in optional)
        )
    return found


def check(backend: BackendConfig, installed: Installed) -> tuple[list[str], list[str]]:
    """Hold what an interpreter finds against what the backend asks for.

    Returns:
        Errors (it cannot work) and notes (it differs from what was tried).
    """
    errors: list[str] = []
    notes: list[str] = []
    if tuple(int(part) for part in installed.python.split(".")[:2]) < MINIMUM_PYTHON:
        errors.append(f"Python {installed.python} is too old, 3.12 or later is needed")
    present: dict[bool, list[str]] = {False: [], True: []}  # by whether they are optional
    wanted = needs(backend)
    for need in wanted:
        have = installed.versions.get(need.name)
        if have is None:
            (notes if need.optional else errors).append(f"{need.name} is not installed")
            continue
        present[need.optional].append(need.name)
        if need.version is not None and have.split("+")[0] != need.version.split("+")[0]:
            notes.append(f"{need.name} {have} differs from {need.version}, the version that mlpbench was tested with")
    if any(need.name == "torch" and not need.optional for need in wanted) and not installed.torch:
        errors.append("torch cannot be found")
    path = backend.requirements_path()
    pinned = {normalise(line.split("==")[0]) for line in read_requirements(path)} if path is not None else set()
    errors += [
        f"{package}, which the worker imports, is not installed"
        for package in ("numpy", "ase")
        if package not in installed.distributions and (package in pinned or not pinned)
    ]
    errors += clashes(installed, present[False], backend.unused)
    # What an optional package lacks may be optional in turn: torch-sim runs without the GPU neighbour lists it names.
    notes += [text for text in clashes(installed, present[True], backend.unused) if text not in errors]
    return sorted(set(errors)), notes


def environments(backends: Iterable[BackendConfig], home_folder: Path | None = None) -> list[State]:
    """One row for each backend, then one for each folder that no backend uses."""
    rows, used = [], set()
    for backend in backends:
        adopted, _ = adopted_python(backend)
        if backend.requirements is not None:  # that of an adopted backend is wanted again once it is adopted no more
            used.add(built_folder(backend, home_folder))
        rows.append(_state(backend, adopted, home_folder))
    folder = home(home_folder) / "envs"
    for path in sorted(folder.glob("*")) if folder.is_dir() else []:
        if path.is_dir() and path not in used:
            detail = "no backend uses it; mlpbench env remove --unused"
            rows.append(State(path.name, "unused", path, detail, disk_gb(path)))
    return rows


def disk_gb(folder: Path) -> float:
    """Size of all files below ``folder`` in 10⁹ bytes.

    uv links files of its cache into an environment, so several environments share most of what each of them counts.
    """
    files = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    return sum(file.lstat().st_size for file in files) / 1e9


def remove(path: Path) -> None:
    """Remove a built environment; its mark goes first, so that a removal cut short looks like one.

    Raises:
        UserError: another process is building it.
    """
    with locked(build_lock(path), wait=False, busy=f"{path} is being built by another process"):
        (path / COMPLETE).unlink(missing_ok=True)
        shutil.rmtree(path)


def _state(backend: BackendConfig, adopted: Path | None, home_folder: Path | None) -> State:
    if adopted is None and backend.requirements is None:
        return State(backend.name, "missing", Path(), f"adopt one: backend.{backend.name}.python=/path/to/python")
    path = adopted if adopted is not None else built_folder(backend, home_folder)
    try:
        environment = resolve(backend, home_folder)
        installed = probe(environment.python, environment.pythonpath, home_folder)
    except UserError as error:
        state = "broken" if adopted is not None else "half-built" if path.exists() else "missing"
        detail = error.hint if state == "missing" and error.hint else str(error).replace("\n ", ";")
        size = {"half-built": disk_gb(path), "missing": backend.size_gb}.get(state)
        return State(backend.name, state, path, detail, size)
    found = [f"{need.name} {installed.versions.get(need.name, 'missing')}" for need in needs(backend)]
    if adopted is not None:
        return State(backend.name, "adopted", path, ", ".join(found))
    return State(backend.name, "built", path, ", ".join(found), disk_gb(path))


def _adopt(backend: BackendConfig, python: Path, pythonpath: tuple[str, ...], home_folder: Path | None) -> Environment:
    for folder in pythonpath:
        if not Path(folder).is_dir():
            raise UserError(f"backend.{backend.name}.pythonpath names {folder}, which is not a folder")
    installed = probe(python, pythonpath, home_folder)
    errors, _ = check(backend, installed)
    if errors:
        raise UserError(
            f"{python} cannot run backend '{backend.name}': {'; '.join(errors)}",
            f"Install what is missing there, or put a folder that has it first: "
            f"backend.{backend.name}.pythonpath=[/path/to/folder] (see: mlpbench env check {backend.name})",
        )
    lock = versions_lock(installed.python, installed.versions)
    return Environment(backend.name, python, pythonpath, lock, True, backend.package)


def _pythonpath(backend: BackendConfig) -> tuple[str, ...]:
    return tuple(str(_absolute(folder)) for folder in backend.pythonpath)


def _absolute(path: str) -> Path:
    """Absolute, with symbolic links kept: the link in a virtual environment is what makes it one."""
    return Path(os.path.abspath(Path(path).expanduser()))


# The adapter imports the package it adapts, so importing it is the whole test.
_INSIDE = """
import importlib, json, os, runpy, sys, time
if {package!r}:
    os.environ["MLPBENCH_PACKAGE"] = {package!r}
start = time.perf_counter()
runpy.run_path({bootstrap!r}, run_name="mlpbench_bootstrap")["_mount"]()
module, _, name = {adapter!r}.partition(":")
adapter = getattr(importlib.import_module(module), name)
found = {{"seconds": time.perf_counter() - start, "packages": list(getattr(adapter, "packages", ()))}}
torch = sys.modules.get("torch")
if torch is None:
    import importlib.util
    if importlib.util.find_spec("torch"):
        import torch
if torch is not None:
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found["torch"] = {{"version": torch.__version__, "cuda": torch.version.cuda, "devices": names,
                      "tf32": bool(torch.backends.cuda.matmul.allow_tf32)}}
print("mlpbench-check:" + json.dumps(found))
"""


@dataclass(frozen=True)
class Report:
    """What ``env check`` prints, and whether the backend can be used."""

    works: bool
    lines: list[str]


def check_inside(backend: BackendConfig, environment: Environment) -> Report:
    """Import the backend's adapter in ``environment``.

    Raises:
        UserError: the interpreter cannot be started.
    """
    installed = probe(environment.python, environment.pythonpath)
    errors, notes = check(backend, installed)
    kind = "adopted" if environment.adopted else "built"
    lines = [f"{backend.name}: {kind}, Python {installed.python}, {environment.python}"]
    lines += [f"  first on its path: {folder}" for folder in environment.pythonpath]
    code = _INSIDE.format(bootstrap=bootstrap.__file__, adapter=backend.adapter, package=environment.package)
    done = run_python(environment.python, code, environment.pythonpath, timeout=600)
    found = next((line for line in done.stdout.splitlines() if line.startswith("mlpbench-check:")), None)
    if found is None:
        last = done.stderr.strip().splitlines()[-8:] or ["it printed nothing"]
        return Report(False, [*lines, *_marked("error", errors), "  the adapter cannot be imported:", *last])
    data = json.loads(found.removeprefix("mlpbench-check:"))
    names = dict.fromkeys(
        ["numpy", "ase", *(normalise(n) for n in data["packages"]), *(n.name for n in needs(backend))]
    )
    lines += [f"  {name} {installed.versions.get(name, 'missing')}" for name in names]
    lines.append(f"  imported in {data['seconds']:.1f} s")
    lines += _device_lines(data.get("torch"))
    return Report(not errors, [*lines, *_marked("note", notes), *_marked("error", errors)])


def _device_lines(torch: dict[str, object] | None) -> list[str]:
    if torch is None:
        return ["  device: cpu (no torch)"]
    devices = torch["devices"]
    assert isinstance(devices, list)
    built = f"torch built for CUDA {torch['cuda']}" if torch["cuda"] else "torch built for the CPU only"
    if not devices:
        return [f"  device: cpu ({built}; it sees no CUDA device)"]
    shown = ", ".join(f"cuda:{i} {name}" for i, name in enumerate(devices))
    return [f"  device: {shown} ({built}; TF32 {'on' if torch['tf32'] else 'off'})"]


def _marked(kind: str, texts: list[str]) -> list[str]:
    return [f"  {kind}: {text}" for text in texts]
