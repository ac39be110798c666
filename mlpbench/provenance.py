"""Where a result came from: versions, commit, command."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import mlpbench

CORE_PACKAGES = ("hydra-core", "numpy", "scipy", "pandas", "ase")


def now() -> str:
    """The time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command() -> str:
    """The command line of this process as a user would type it, without what looks like a secret."""
    program = Path(sys.argv[0]).name.split()  # "mlpbench run" while Hydra has the arguments
    words = [scrubbed(word) for word in sys.argv[1:] if word != "hydra.mode=MULTIRUN"]
    return shlex.join([*program, *words])


_SECRET = r"(?:token|secret|passw(?:or)?d|credential|api_?key|private_?key|access_?key)"


def scrubbed(text: str) -> str:
    """``text`` as a record may hold it: ``***`` for passwords in addresses and values of keys that name a secret, the
    variable's name for the value of an environment variable that names one.
    """
    for name, value in os.environ.items():
        if len(value) >= 8 and re.search(_SECRET, name, re.IGNORECASE):
            text = text.replace(value, f"${name}")
    text = re.sub(r"(://[^/@\s:]+):[^/@\s]+@", r"\1:***@", text)
    return re.sub(rf"([\w.]*{_SECRET}\w*\s*[=:]\s*)(?!\$)[^\s,&}}]+", r"\1***", text, flags=re.IGNORECASE)


@cache
def core() -> dict[str, Any]:
    """mlpbench's version, its commit and whether the checkout was changed (None: not a checkout), Python, packages."""
    commit, dirty = _git()
    return {
        "mlpbench": mlpbench.__version__,
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in CORE_PACKAGES},
    }


def _git() -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout this package runs from."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None, None  # installed from a wheel: the version says it all
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None  # no git on this machine
    return head.stdout.strip(), bool(status.stdout.strip())
