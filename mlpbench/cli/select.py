"""``mlpbench select``: the setting that keeps the constraints at the least cost."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlpbench.errors import EXIT_DONE, EXIT_FAILED

HELP = "which potential to take: constraints first, then the cheapest that passes, and how sure that is"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("study", metavar="STUDY", help="name of the study, a folder of the results")
    parser.add_argument("--max", action="append", default=[], metavar="METRIC=LIMIT", help="at most (may be repeated)")
    parser.add_argument("--min", action="append", default=[], metavar="METRIC=LIMIT", help="at least (may be repeated)")
    parser.add_argument(
        "--objective", metavar="METRIC",
        help="what orders those that pass: a metric, 'labels', or cheapest (default where an error is limited), "
        "accurate (default otherwise), fewest_labels",
    )  # fmt: skip
    parser.add_argument("--split", help="test split of the errors (default: the in-distribution one)")
    parser.add_argument("--dataset", help="where the study has several")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )
    parser.epilog = (
        "example:\n"
        "  mlpbench select quickstart --max force_mae=30 --min md_survival=0.95\n"
        "  mlpbench select quickstart --max force_mae@test_1000K=80 --objective fewest_labels\n\n"
        "units are those of the tables: meV/Å, meV/atom, µs, s, MB. Ends with 1 if nothing passes."
    )


def execute(arguments: argparse.Namespace) -> int:
    """Print the decision. 0: something passes; 1: nothing does.

    Raises:
        UserError: a study, metric, split or data set that is not known, or a constraint that is not METRIC=LIMIT.
    """
    from mlpbench.decision import describe, parse_constraint, select
    from mlpbench.study.study import Study

    constraints = [parse_constraint(text, "max") for text in arguments.max]
    constraints += [parse_constraint(text, "min") for text in arguments.min]
    study = Study.load(arguments.study, arguments.results)
    decision = select(study, constraints, arguments.objective, dataset=arguments.dataset, split=arguments.split)
    print(describe(decision))
    return EXIT_DONE if decision.chosen is not None else EXIT_FAILED
