"""``mlpbench score``: finished trials rescored from their stored arrays where a formula or a reference file changed."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlpbench.errors import EXIT_DONE, EXIT_FAILED

HELP = "rescore finished trials from their stored arrays where a formula or a reference file changed; trains nothing"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("study", help="name of the study")
    parser.add_argument("--all", action="store_true", help="every score, also those that are as they should be")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.epilog = "example:\n  mlpbench score mystudy"


def execute(arguments: argparse.Namespace) -> int:
    """Score what is outdated, print a line for each trial that changed, and write the tables."""
    from mlpbench import tables
    from mlpbench.evaluators import SCORERS
    from mlpbench.files import locked
    from mlpbench.records import load_all
    from mlpbench.scoring import rescore
    from mlpbench.study.difference import outdated
    from mlpbench.study.study import Study, find_study

    root = find_study(arguments.study, arguments.results)
    changed = failed = 0
    for record in load_all(root):
        reasons = outdated(record)
        if arguments.all:
            done = {name for name, task in record["tasks"].items() if task["status"] == "done"}
            reasons = {s.name: reasons.get(s.name, "asked for") for s in SCORERS.values() if s.task in done}
        if not reasons:
            continue
        busy = f"another process is running the trial {record['trial']}"
        try:
            with locked(root / record["trial"] / ".lock", wait=False, busy=busy):
                status = rescore(root, record, list(reasons))["status"]
        except (OSError, KeyError) as error:
            print(f"{record['trial']}: cannot be scored here: {error}")
            failed += 1
            continue
        changed += 1
        failed += status != "done"
        print(f"{record['trial']}: {'; '.join(f'{name} ({why})' for name, why in reasons.items())}")
    tables.write(Study.load(root.name, root.parent))
    print(f"{changed} trial{'s' * (changed != 1)} rescored, {failed} failed; nothing was trained")
    return EXIT_FAILED if failed else EXIT_DONE
