"""Environments that a command needs and that are not built yet: said, asked for, built."""

from __future__ import annotations

import sys
from contextlib import closing

from mlpbench import config
from mlpbench.backends.build import build
from mlpbench.backends.environment import NotBuilt, resolve
from mlpbench.backends.registry import BackendConfig
from mlpbench.config import SweepPlan
from mlpbench.errors import UserError


def build_missing(sweep: SweepPlan, *, ask: bool) -> None:
    """Build every environment that a trial of the sweep needs and that is not there.

    Args:
        sweep: the trials of the command.
        ask: ask on the terminal first.

    Raises:
        UserError: the answer is no, or there is nobody to ask; or a build fails.
    """
    missing = missing_of(sweep)
    names = " ".join(backend.name for backend in missing)
    print("not built yet:", file=sys.stderr)
    for backend in missing:
        print(f"  {told(backend)}", file=sys.stderr)
    if ask and not agreed():
        some = "environment is" if len(missing) == 1 else "environments are"
        raise UserError(f"{len(missing)} {some} not built: {names}", f"Run: mlpbench env build {names}, or add --build")
    for backend in missing:
        build(backend, progress=lambda line: print(line, file=sys.stderr, flush=True))


def missing_of(sweep: SweepPlan) -> list[BackendConfig]:
    """The backends of the sweep's trials without an environment, each once."""
    missing: dict[str, BackendConfig] = {}
    with closing(config.compose_each(sweep.trials)) as composed:
        for raw in composed:
            backend = config.validate(raw).backend_config
            if backend.name in missing:
                continue
            try:
                resolve(backend)
            except NotBuilt:
                missing[backend.name] = backend
    return list(missing.values())


def told(backend: BackendConfig) -> str:
    """Name, package, size and licence of what would be built."""
    size = f"about {backend.size_gb:.1f} GB" if backend.size_gb else "size not declared"
    shared = ", most of it shared with other environments by hard links" if (backend.size_gb or 0) > 2 else ""
    facts = "; ".join(filter(None, [backend.distribution, f"{size}{shared}", backend.licence, backend.terms]))
    return f"{backend.name}: {facts}"


def agreed() -> bool:
    """The answer to the question whether to build them; no, where there is no terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print("Build now? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
