"""``mlpbench report``: a study's HTML report."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mlpbench.cli import share
from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError

HELP = "write a study's report: one HTML file that opens offline, figures and tables"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("study", metavar="STUDY", nargs="+", help="name of a study, a folder of the results")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: reports/STUDY)")
    parser.add_argument(
        "--margin", type=share, default=0.05, metavar="SHARE", help="relative difference that does not matter, "
        "inside which two potentials tie (default: 0.05)",
    )  # fmt: skip
    parser.add_argument("--pdf", action="store_true", help="also write each figure as PDF (slower)")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )
    parser.add_argument(
        "--reports", type=Path, default=Path("reports"), help="folder of the reports (default: reports)"
    )
    parser.epilog = (
        "example:\n  mlpbench report quickstart\n  mlpbench report quickstart --out /tmp/first --pdf\n\n"
        "ends with 1 if a section could not be made: the page says so in its place, errors.log beside it has the cause."
    )


def execute(arguments: argparse.Namespace) -> int:
    """Write each report and print the path of its page. 1 where a section failed: the page says so in its place.

    Raises:
        UserError: there is no such study, or ``--out`` for several at once.
    """
    from mlpbench import tables
    from mlpbench.report import write_report
    from mlpbench.report.render import ERRORS
    from mlpbench.study.study import Study

    if arguments.out is not None and len(arguments.study) > 1:
        raise UserError(
            f"--out names one folder, but {len(arguments.study)} studies were given",
            "Leave it out: each report then goes to its own folder, reports/STUDY.",
        )
    studies = [Study.load(name, arguments.results, arguments.margin) for name in arguments.study]
    code = EXIT_DONE
    for study in studies:
        tables.write(study)
        out = arguments.out or arguments.reports / study.name
        written = write_report(study, out, pdf=arguments.pdf)
        print(written.page)
        for one in written.failed:
            print(f"mlpbench: section '{one.name}' failed: {one.reason} (see {out / ERRORS})", file=sys.stderr)
            code = EXIT_FAILED
    return code
