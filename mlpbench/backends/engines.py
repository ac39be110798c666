"""Engines of molecular dynamics: each has an environment of its own, built and adopted like a backend's.

LAMMPS is found by the process that times it at the very end of its path: nothing that the potential's package brings is
replaced, and the environments of the backends stay as they are. i-PI is started from its own interpreter.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from mlpbench.backends.environment import resolve
from mlpbench.backends.probe import probe, run_python
from mlpbench.backends.registry import BackendConfig
from mlpbench.errors import UserError
from mlpbench.files import digest

ENVIRONMENTS = {"lammps": "lammps", "ipi": "ipi"}  # engine -> entry in conf/backend; others come with the backends


@dataclass(frozen=True)
class Place:
    """Where an engine is.

    Attributes:
        site: folder of its environment's packages; empty for one that comes with the backends.
        python: its interpreter.
        version: in words.
        command: of a LAMMPS of the user's own.
        reason: why there is none; empty if there is.
        lock: what determines its packages; another text where it is not built.
    """

    site: str = ""
    python: str = ""
    version: str = ""
    command: str = ""
    reason: str = ""
    lock: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As the worker gets it."""
        return {name: value for name, value in asdict(self).items() if value and name != "lock"}


def places_of(engines: tuple[str, ...], backends: Mapping[str, BackendConfig], command: str | None) -> dict[str, Place]:
    """Engine -> where it is.

    Args:
        engines: as ``evaluation.speed.engines`` names them.
        backends: of the configuration.
        command: what starts a LAMMPS of the user's own, or None.

    Raises:
        UserError: the user's LAMMPS is not there.
    """
    places = {}
    for engine in engines:
        name = ENVIRONMENTS.get(engine)
        if name is None:
            places[engine] = Place()
            continue
        place = _place(backends[name].model_dump_json()) if name in backends else _missing(name)
        if engine == "lammps" and command:
            _check(command)
            place = Place(**{**asdict(place), "command": command, "lock": digest([place.lock, command])})
        places[engine] = place
    return places


@cache
def _place(node: str) -> Place:
    backend = BackendConfig.model_validate_json(node)
    try:
        environment = resolve(backend)
    except UserError as error:
        return Place(reason=f"{error.message}; {(error.hint or '').rstrip('.')}".strip("; "), lock="not built")
    found = run_python(environment.python, "import sysconfig; print(sysconfig.get_path('platlib'))", (), timeout=60)
    site = found.stdout.strip()
    if found.returncode != 0 or not site:
        return Place(reason=f"{environment.python} does not say where its packages are", lock="broken")
    versions = probe(environment.python, environment.pythonpath).versions
    name = backend.distribution or backend.name
    version = f"{name} {versions.get(name, '')}".strip()
    return Place(site, str(environment.python), version, lock=environment.lock)


def _missing(name: str) -> Place:
    return Place(reason=f"conf/backend has no '{name}'", lock="not declared")


def _check(command: str) -> None:
    program = (shlex.split(command) or [""])[0]
    if shutil.which(program) is None:
        raise UserError(f"engine.lammps.command: there is no program '{program}'", "Give its path, then its options.")
