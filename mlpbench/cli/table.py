"""``mlpbench table``: a study's comparison table on the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mlpbench.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    import pandas as pd

HELP = "print a study's comparison table"
MOST = 10  # trials without a result that are listed


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("study", metavar="STUDY", help="name of the study, a folder of the results")
    parser.add_argument("--split", help="test split to show (default: the in-distribution one)")
    parser.add_argument("--metric", action="append", metavar="NAME", help="show this metric (may be repeated)")
    parser.add_argument("--speed", action="store_true", help="show speeds, one row per deployment and precision")
    parser.add_argument("--csv", action="store_true", help="as comma-separated values")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )
    parser.epilog = (
        "examples:\n  mlpbench table quickstart --split test_1000K --metric force_mae --metric energy_mae\n"
        "  mlpbench table speed --speed"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Print one row for each setting and training size: mean and standard deviation over its repetitions.

    Raises:
        UserError: a study, split or metric that is not known, or ``--speed`` where nothing was timed.
    """
    from mlpbench import tables
    from mlpbench.study.study import Study

    study = Study.load(arguments.study, arguments.results)
    tables.write(study)
    if arguments.speed:
        if study.speed.empty:
            raise UserError(
                f"no potential of {study.name} was timed", "Run the study's trials once more with evaluation=speed."
            )
        table = tables.speeds(study.speed)
    else:
        table = tables.settings_table(study, arguments.split, arguments.metric)
    if arguments.csv:
        print(table.to_csv(index=False), end="")
        return EXIT_DONE
    if not arguments.speed:
        splits = {name: arguments.split or study.in_distribution(name) for name in study.datasets}
        where = ", ".join(dict.fromkeys(str(split) for split in splits.values() if split))
        if where:
            print(f"{study.name}: errors on {where}; geometric mean ± standard deviation over repetitions")
        else:
            print(f"{study.name}: no trial has finished")
    print(table.to_string(index=False))
    restless = study.trials[study.trials["at_rest"] == False]  # noqa: E712  # pandas: NaN is neither
    if len(restless) and not arguments.speed:
        print(
            f"{len(restless)} of {len(study.trials)} trainings had not come to rest within their budget: "
            "their order is one of optimisation speed, not of what the architectures can reach"
        )
    for line in _unfinished(study.trials):
        print(line)
    return EXIT_DONE


def _unfinished(trials: pd.DataFrame) -> list[str]:
    """A line for each trial that has no result, with the reason; the first of many."""
    lost = trials[trials["status"] != "done"]
    lines = [f"  {row.trial}: {row.status}: {row.reason}" for row in lost.head(MOST).itertuples()]
    return [*lines, f"  and {len(lost) - MOST} more without a result"] if len(lost) > MOST else lines
