"""``mlpbench studies``: which studies lie in the results folder, and how their trials stand."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

HELP = "list the studies: trials by status, architectures, last run"


def register(parser: argparse.ArgumentParser) -> None:
    """Options."""
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="folder of the studies (results)")


def execute(arguments: argparse.Namespace) -> int:
    """Print one line for each study, the one that ran last first.

    Raises:
        UserError: there is no such folder, or no study in it.
    """
    from mlpbench.errors import UserError
    from mlpbench.records import RECORD

    root: Path = arguments.results_dir
    folders = sorted({path.parent.parent for path in root.glob(f"*/*/{RECORD}")})
    if not folders:
        raise UserError(f"{root}: no study with results here", "Make one: mlpbench run study=NAME; or --results-dir.")
    rows = sorted((_row(folder) for folder in folders), key=lambda row: row[-1], reverse=True)
    table = [("study", "trials", "data set", "architectures", "last run (UTC)"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print("show one: mlpbench table STUDY; rerun a trial: delete its folder below the study, then the same command")
    return 0


def _row(folder: Path) -> tuple[str, ...]:
    """Name, trials by status, data sets, architectures and time of the last run of one study."""
    from mlpbench.protocol import ProtocolError
    from mlpbench.records import RECORD, load_record

    status: Counter[str] = Counter()
    names: dict[str, set[str]] = {"dataset": set(), "architecture": set()}
    last = ""
    for path in folder.glob(f"*/{RECORD}"):
        try:
            record = load_record(path.parent)
        except (OSError, ProtocolError):
            status["unreadable"] += 1
            continue
        status[record["status"]] += 1
        last = max(last, str(record["finished"]))
        for kind, members in names.items():
            members.add(str(record["identifiers"][kind]))
    trials = ", ".join(f"{count} {name}" for name, count in status.most_common())
    return folder.name, trials, *(", ".join(sorted(members)) for members in names.values()), last[:16].replace("T", " ")
