"""What a machine has for torch, and what is installed where an interpreter looks, remembered on disk."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from mlpbench.backends.registry import home
from mlpbench.errors import UserError
from mlpbench.protocol import replacing

# NVIDIA, NVIDIA under WSL, AMD. Asking torch itself takes seconds, and needs a torch.
_DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def driver_present() -> bool:
    """Whether the machine has a driver for a device that torch could use."""
    return any(os.path.exists(path) for path in _DEVICE_FILES)


def hidden() -> bool:
    """Whether ``CUDA_VISIBLE_DEVICES`` hides every device."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")


TIMEOUT = 120.0  # s; an interpreter on a cold network file system takes its time

# Runs in the foreign interpreter: standard library only. The first distribution on the path wins.
_SCRIPT = r"""
import importlib.metadata, importlib.util, json, os, platform, re, sys
found = {}
for d in importlib.metadata.distributions():
    name = d.metadata["Name"]
    if name and d.version:
        found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), [d.version, list(d.requires or [])])
paths = {p: os.stat(p).st_mtime_ns for p in sys.path if p and os.path.exists(p)}
torch = importlib.util.find_spec("torch") is not None
print("mlpbench-probe:" + json.dumps(
    {"python": platform.python_version(), "distributions": found, "paths": paths, "torch": torch}))
"""


@dataclass(frozen=True)
class Installed:
    """What an interpreter finds.

    Attributes:
        python: full version.
        distributions: normalised name -> (version, its requirement lines).
        paths: existing entries of ``sys.path`` -> modification time in ns, changed by every installation.
        torch: whether a module ``torch`` is there.
    """

    python: str
    distributions: dict[str, tuple[str, list[str]]]
    paths: dict[str, int]
    torch: bool

    @property
    def versions(self) -> dict[str, str]:
        """Version of each distribution."""
        return {name: version for name, (version, _) in self.distributions.items()}


def child_environment(pythonpath: Sequence[str] = ()) -> dict[str, str]:
    """This process's variables, without those that lead a foreign interpreter to the core's packages."""
    keep = {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}
    found = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") or k in keep}
    found.pop("VIRTUAL_ENV", None)
    found.pop("MLPBENCH_PACKAGE", None)
    found.pop("PYTEST_CURRENT_TEST", None)  # a resident worker serves one set of variables, and not one test alone
    if pythonpath:
        found["PYTHONPATH"] = os.pathsep.join(pythonpath)
    return found


def probe(python: Path, pythonpath: Sequence[str] = (), home_folder: Path | None = None) -> Installed:
    """Ask ``python`` what it finds, or take the answer kept from last time if nothing has changed since.

    Raises:
        UserError: it does not exist, cannot be started, or does not answer as a Python 3 would.
    """
    if not python.is_file():
        raise UserError(f"there is no interpreter {python}")
    stamp = _stamp(python)
    cache = _cache_file(python, pythonpath, home_folder)
    kept = _read_cache(cache, stamp)
    if kept is not None:
        return kept
    installed = _ask(python, pythonpath)
    _write_cache(cache, stamp, installed)
    return installed


def run_python(
    python: Path, code: str, pythonpath: Sequence[str] = (), timeout: float = TIMEOUT
) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in the foreign interpreter and return what came of it.

    Raises:
        UserError: it cannot be started, or does not end within ``timeout`` seconds.
    """
    try:
        return subprocess.run(
            [str(python), "-P", "-s", "-c", code],
            env=child_environment(pythonpath), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=timeout, check=False,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"{python} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{python} did not answer within {timeout:.0f} s") from error


def clashes(installed: Installed, roots: Sequence[str], unused: Collection[str] = ()) -> list[str]:
    """What ``roots`` (normalised names) need, directly or not, and miss or have in a wrong version, but for ``unused``.

    ``uv pip check`` looks at one site-packages folder: it sees neither the folders that ``pythonpath`` puts first nor
    which clashes concern the backend, and a shared cluster environment is full of others.
    """
    problems: list[str] = []
    todo, seen = list(roots), set(roots)
    while todo:
        name = todo.pop()
        version, lines = installed.distributions[name]
        for line in lines:
            need = applicable(line, installed.python)
            if need is None:
                continue
            wanted = normalise(need.name)
            if wanted in unused:
                continue
            have = installed.distributions.get(wanted)
            if have is None:
                problems.append(f"{name} {version} needs {need.name}{need.specifier}, which is not installed")
            elif have[0] and not need.specifier.contains(have[0], prereleases=True):
                problems.append(f"{name} {version} needs {need.name}{need.specifier}, but {have[0]} is installed")
            if have is not None and wanted not in seen:
                seen.add(wanted)
                todo.append(wanted)
    return sorted(set(problems))


def normalise(name: str) -> str:
    """A distribution's name as PyPA compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def applicable(line: str, python: str) -> Requirement | None:
    """The requirement in a line of a distribution's metadata, if it holds for that Python without extras."""
    marker = {"python_version": ".".join(python.split(".")[:2]), "python_full_version": python}
    try:
        need = Requirement(line)
    except InvalidRequirement:
        return None  # old metadata holds lines no installer understands either
    if need.marker is not None and not need.marker.evaluate({**marker, "extra": ""}):
        return None
    return need


def _ask(python: Path, pythonpath: Sequence[str]) -> Installed:
    done = run_python(python, _SCRIPT, pythonpath)
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("mlpbench-probe:"):
            return _installed(json.loads(line.removeprefix("mlpbench-probe:")))
    last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    raise UserError(f"{python} does not answer as Python 3.12 would (exit code {done.returncode}): {last}")


def _installed(data: dict[str, Any]) -> Installed:
    return Installed(
        python=data["python"],
        distributions={name: (version, list(requires)) for name, (version, requires) in data["distributions"].items()},
        paths=data["paths"],
        torch=data["torch"],
    )


def _stamp(python: Path) -> list[int]:
    """Changes when the interpreter, or the virtual environment it stands in, is replaced."""
    stat = python.stat()
    settings = python.parent.parent / "pyvenv.cfg"
    return [stat.st_mtime_ns, stat.st_size, settings.stat().st_mtime_ns if settings.is_file() else 0]


def _cache_file(python: Path, pythonpath: Sequence[str], home_folder: Path | None) -> Path:
    text = "\0".join([str(python), *pythonpath])
    return home(home_folder) / "probes" / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"


def _read_cache(cache: Path, stamp: list[int]) -> Installed | None:
    try:
        data = json.loads(cache.read_text(encoding="utf-8"))
        installed = _installed(data["installed"]) if data["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or written by another version: ask again
    if installed is None:
        return None
    return installed if all(_mtime(path) == mtime for path, mtime in installed.paths.items()) else None


def _mtime(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


def _write_cache(cache: Path, stamp: list[int], installed: Installed) -> None:
    try:
        with replacing(cache) as part:
            part.write_text(json.dumps({"stamp": stamp, "installed": asdict(installed)}), encoding="utf-8")
    except OSError:
        return  # a home that cannot be written to costs a second each time, and nothing else
