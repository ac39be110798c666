"""``mlpbench init``: a starting ``conf`` folder to edit."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlpbench.errors import EXIT_DONE

HELP = "write a starting conf/ folder to edit"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="folder for conf/; created if missing")
    parser.epilog = "example:\n  mlpbench init myproject && cd myproject && mlpbench run architecture=mace size=tiny"


def execute(arguments: argparse.Namespace) -> int:
    """Copy the packaged configuration to ``DIR/conf``.

    Raises:
        UserError: ``DIR/conf`` is there already; nothing is overwritten.
    """
    import shutil

    from mlpbench.config import packaged_conf
    from mlpbench.errors import UserError

    target = arguments.directory / "conf"
    if target.exists():
        raise UserError(f"{target} exists already", "Choose another folder, or remove it first.")
    shutil.copytree(packaged_conf(), target)
    print(f"{target} written; commands started in {arguments.directory} use it, file by file, before the packaged one")
    return EXIT_DONE
