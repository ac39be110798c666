"""What mlpbench itself needs on a machine without a network: in the versions that run here."""

from __future__ import annotations

import sys
from pathlib import Path

from mlpbench.backends.locks import base_python
from mlpbench.backends.probe import Installed, applicable, normalise, probe
from mlpbench.backends.uv import Progress, run_uv, source_variables
from mlpbench.backends.wheels import Pin
from mlpbench.errors import UserError

ROOT = Path(__file__).parents[2]


def core_pins() -> list[Pin]:
    """Exact versions, as installed here, of all that mlpbench needs, directly or not, itself excepted.

    Raises:
        UserError: mlpbench was not installed (its source folder merely stands on the path).
    """
    installed = probe(Path(sys.executable))
    if "mlpbench" not in installed.distributions:
        raise UserError("mlpbench is not installed in this environment", "Install it: pip install -e .")
    parents = _parents(installed, "mlpbench")
    return [Pin(name, installed.versions[name], frozenset(via)) for name, via in sorted(parents.items())]


def build_core_wheel(out: Path, progress: Progress) -> bool:
    """Build mlpbench's own wheel into ``out`` from its checkout; False if it runs from a wheel."""
    if not (ROOT / "pyproject.toml").is_file():
        return False
    progress("building a wheel of mlpbench itself")
    variables = source_variables(None, False, progress)
    quiet: list[str] = []
    arguments = [
        "build",
        "--wheel",
        "--python",
        str(base_python()),
        "--out-dir",
        str(out.absolute()),
        str(ROOT),
    ]
    run_uv(arguments, variables, quiet.append, out)
    (out / ".gitignore").unlink(missing_ok=True)  # uv's own, which would hide the folder from a copy by git
    return True


def _parents(installed: Installed, root: str) -> dict[str, set[str]]:
    """Every installed package ``root`` needs, directly or not -> those that ask for it."""
    parents: dict[str, set[str]] = {}
    todo = [root]
    while todo:
        name = todo.pop()
        for line in installed.distributions[name][1]:
            need = applicable(line, installed.python)
            wanted = normalise(need.name) if need is not None else ""
            if wanted not in installed.distributions or wanted == root:
                continue
            if wanted not in parents:
                todo.append(wanted)
            parents.setdefault(wanted, set()).add(name)
    return parents
