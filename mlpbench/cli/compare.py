"""``mlpbench compare``: what changed between two studies."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlpbench.cli import share
from mlpbench.errors import EXIT_DONE, EXIT_FAILED

HELP = "what changed between two studies: settings, packages, hardware, and every metric with significance"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("first", metavar="STUDY_A", help="before: name of a study, or the path of its folder")
    parser.add_argument("second", metavar="STUDY_B", help="after")
    parser.add_argument("--metric", action="append", default=[], metavar="NAME", help="judge this (may be repeated)")
    parser.add_argument(
        "--split", action="append", default=[], help="test split of the errors (may be repeated; default: the "
        "in-distribution one)",
    )  # fmt: skip
    parser.add_argument(
        "--margin", type=share, default=0.05, metavar="SHARE", help="relative difference that does not matter "
        "(default: 0.05)",
    )  # fmt: skip
    parser.add_argument(
        "--fail-on", choices=["worse", "undecided"], help="end with 1 if a metric is worse by more than the margin can "
        "hide or a trial was lost; 'undecided': also if one cannot be decided",
    )  # fmt: skip
    parser.add_argument("--html", action="store_true", help="also write a page, reports/A-vs-B/index.html")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write the page (implies --html)")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )
    parser.add_argument(
        "--reports", type=Path, default=Path("reports"), help="folder of the reports (default: reports)"
    )
    parser.epilog = (
        "Trials match by setting and repetition. A setting that is constant in each study but differs between them\n"
        "is what changed. Errors are judged only on the same test frames, times only on the same hardware. Each\n"
        "metric is judged over all settings, for each architecture, and for each setting; where nothing has\n"
        "changed, each of these calls it worse in at most 2.5 % of cases. For a gate, name one --metric.\n\n"
        "example:\n  mlpbench compare torch-2.12 torch-2.13 --fail-on worse\n"
        "  mlpbench compare mine /data/colleague/results/mine --html --metric force_mae --split test_1000K"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Print the comparison. 0, or 1 if ``--fail-on`` asks for it.

    Raises:
        UserError: a study, metric or split that is not there, or nothing in common.
    """
    from mlpbench.comparison import compare_studies, describe, load_side
    from mlpbench.report.compare import write_comparison

    first, second = (load_side(name, arguments.results) for name in (arguments.first, arguments.second))
    found = compare_studies(first, second, arguments.metric, arguments.split, margin=arguments.margin)
    print(describe(found))
    if arguments.html or arguments.out:
        out = arguments.out or arguments.reports / f"{found.first}-vs-{found.second}"
        print(f"\n{write_comparison(found, out)}")
    bad = bool(found.regressions or found.lost)
    if arguments.fail_on == "undecided":
        bad = bad or bool(found.undecided)
    return EXIT_FAILED if arguments.fail_on and bad else EXIT_DONE
