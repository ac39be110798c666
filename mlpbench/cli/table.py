"""``mlpbench table``: a study's comparison table on the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mlpbench.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    import pandas as pd

HELP = "print a study's comparison table"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("study", metavar="STUDY", help="name of the study, a folder of the results")
    parser.add_argument("--split", help="test split to show (default: the in-distribution one)")
    parser.add_argument("--metric", action="append", metavar="NAME", help="show this metric (may be repeated)")
    parser.add_argument("--speed", action="store_true", help="show how fast each potential is, in every way it was run")
    parser.add_argument("--csv", action="store_true", help="as comma-separated values")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )
    parser.epilog = (
        "examples:\n  mlpbench table quickstart --split test_1000K --metric force_mae --metric energy_mae\n"
        "  mlpbench table speed --speed"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Print one row a setting, mean and standard deviation over its repetitions."""
    from mlpbench import records, summary, tables

    root = tables.find_study(arguments.study, arguments.results)
    trials, metrics = tables.load(root)
    if arguments.speed:
        return _speed(arguments, tables.build_speed(records.load_all(root)))
    split = arguments.split or _in_distribution(records.load_all(root))
    table = summary.comparison(trials, metrics, split, arguments.metric)
    if arguments.csv:
        print(table.to_csv(index=False), end="")
        return EXIT_DONE
    print(f"{arguments.study}: errors on {split}; mean ± standard deviation over repetitions")
    print(table.to_string(index=False))
    unconverged = trials[trials["converged"] == False]  # noqa: E712  # pandas: NaN is neither
    if len(unconverged):
        print(
            f"{len(unconverged)} of {len(trials)} trials had not converged within their budget: "
            "their order is one of optimisation speed, not of what the architectures can reach"
        )
    return EXIT_DONE


def _speed(arguments: argparse.Namespace, table: pd.DataFrame) -> int:
    """Print the speed table.

    Raises:
        UserError: no potential of the study was timed.
    """
    from mlpbench import summary

    if table.empty:
        raise UserError(
            f"no potential of {arguments.study} was timed", "Run the study's trials once more with evaluation=speed."
        )
    found = summary.speeds(table)
    print(found.to_csv(index=False).rstrip("\n") if arguments.csv else found.to_string(index=False))
    return EXIT_DONE


def _in_distribution(found: list[dict[str, object]]) -> str | None:
    names = [str(record["split"].get("in_distribution") or "") for record in found if isinstance(record["split"], dict)]
    return next((name for name in names if name), None)
