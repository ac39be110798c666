"""``mlpbench report``: a study's HTML report."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlpbench.errors import EXIT_DONE, UserError

HELP = "write a study's report: one HTML file that opens offline, figures and tables"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("study", metavar="STUDY", nargs="+", help="name of a study, a folder of the results")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: reports/STUDY)")
    parser.add_argument("--pdf", action="store_true", help="also write each figure as PDF (slower)")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )
    parser.add_argument(
        "--reports", type=Path, default=Path("reports"), help="folder of the reports (default: reports)"
    )
    parser.epilog = (
        "example:\n  mlpbench report quickstart\n  mlpbench report quickstart --out /tmp/first --pdf"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Write each report and print the path of its page.

    Raises:
        UserError: there is no such study, or ``--out`` for several at once.
    """
    from mlpbench.report import load_study, write_report

    if arguments.out is not None and len(arguments.study) > 1:
        raise UserError(
            f"--out names one folder, but {len(arguments.study)} studies were given",
            "Leave it out: each report then goes to its own folder, reports/STUDY.",
        )
    studies = [load_study(name, arguments.results) for name in arguments.study]
    for study in studies:
        print(write_report(study, arguments.out or arguments.reports / study.name, pdf=arguments.pdf))
    return EXIT_DONE
