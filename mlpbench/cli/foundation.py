"""``mlpbench foundation``: which foundation models there are, and what one has to know of each."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from mlpbench.errors import EXIT_DONE

if TYPE_CHECKING:
    from mlpbench.backends.foundation import Foundation

WIDTH = 110  # columns, where the output is no terminal


def register_foundation(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of this command."""
    parser.epilog = (
        "examples:\n  mlpbench foundation list\n  mlpbench foundation show 7net-0\n"
        "  mlpbench run -m architecture=sevennet start=zero_shot,foundation start.foundation=7net-0 dataset.n_train=50"
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="all foundation models, in a table", description="All foundation models.")
    show = actions.add_parser("show", help="all that is known of one", description="All that is known of one.")
    show.add_argument("name", help="as in the list")


def execute_foundation(arguments: argparse.Namespace) -> int:
    """Print the table, or one entry."""
    from mlpbench.backends.foundation import find, foundations
    from mlpbench.config import conf_dirs

    if arguments.action == "show":
        print(_entry(find(arguments.name, conf_dirs())))
        return EXIT_DONE
    models = foundations(conf_dirs()).values()
    rows = [_row(model) for model in models]
    heads = ("name", "architecture", "package", "elements", "licence", "MB", "weights")
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print(
        "\n* academic: the licence forbids commercial use, and start.use=commercial skips it. Weights by hand:\n"
        "start.foundation=NAME start.file=PATH. mlpbench foundation show NAME says more."
    )
    return EXIT_DONE


def _row(model: Foundation) -> tuple[str, ...]:
    licence = model.licence + ("" if model.commercial else " *academic" if model.commercial is False else " ?")
    size = "" if model.size_mb is None else f"{model.size_mb:.1f}"
    return (
        model.name, model.architecture or "–", model.package, str(len(model.numbers)), licence, size,
        "in the package" if model.inside else "by hand",
    )  # fmt: skip


def _entry(model: Foundation) -> str:
    """All that is known of one, line by line."""
    allowed = {True: "allowed", False: "forbidden", None: "not stated"}[model.commercial]
    check = f"sha256 {model.sha256}" if model.sha256 else "no digest is published here: that of the file is recorded"
    where = f"inside the package: {model.inside}" if model.inside else "by hand: start.file=PATH"
    lines = [
        ("title", model.title),
        ("architecture", model.architecture or "none here runs it yet"),
        ("package", model.package),
        ("elements", f"{len(model.numbers)}: {model.elements}"),
        ("level of theory", model.level),
        ("licence", f"{model.licence}; commercial use {allowed}"),
        ("size", "not known" if model.size_mb is None else f"{model.size_mb:.1f} MB"),
        ("weights", where),
        ("to be had from", model.source),
        ("checked by", check),
        *([("note", model.note)] if model.note else []),
    ]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    told = [textwrap.fill(f"{name:<16}{text}", width, subsequent_indent=" " * 16) for name, text in lines]
    return "\n".join([model.name, *told])
