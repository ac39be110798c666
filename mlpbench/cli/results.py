"""``mlpbench table``, ``studies`` and ``score``: what lies in the results; and its scores made anew."""

from __future__ import annotations

import argparse
import os
import shutil
from collections import Counter
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError, close_match
from mlpbench.files import locked

if TYPE_CHECKING:
    import pandas as pd


MOST = 10  # trials without a result that are listed


def register_table(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench table``."""
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


def execute_table(arguments: argparse.Namespace) -> int:
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
    lost = trials[(trials["status"] != "done") | (trials["unfinished"] != "")]
    rows = lost.head(MOST).to_dict("records")
    lines = [f"  {row['trial']}: {row['unfinished'] or '{status}: {reason}'.format_map(row)}" for row in rows]
    return [*lines, f"  and {len(lost) - MOST} more"] if len(lost) > MOST else lines


def register_studies(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench studies``."""
    parser.add_argument("--results-dir", type=Path, default=Path("results"), help="folder of the studies (results)")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--rename", nargs=2, metavar=("STUDY", "NEW"), help="give a study another name")
    change.add_argument(
        "--delete", nargs="+", metavar="STUDY[/TRIAL]", help="delete studies, or trials, which the same command of "
        "mlpbench run then runs again",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="delete; without it, only say what would be deleted")
    parser.epilog = (
        "examples:\n  mlpbench studies --rename first tuning\n"
        "  mlpbench studies --delete first/mace-tiny-ethanol-n50-r0-1a2b3c4d --yes"
    )


def execute_studies(arguments: argparse.Namespace) -> int:
    """Print one line for each study, the one that ran last first; or rename or delete what is named.

    Raises:
        UserError: there is no such folder, study or trial; a trial is being run; or deleting was not confirmed.
    """
    from mlpbench.records import RECORD

    root: Path = arguments.results_dir
    folders = sorted({path.parent.parent for path in root.glob(f"*/*/{RECORD}")})
    if not folders:
        raise UserError(f"{root}: no study with results here", "Make one: mlpbench run study=NAME; or --results-dir.")
    if arguments.rename:
        return _rename(root, *arguments.rename)
    if arguments.delete:
        return _delete(root, arguments.delete, arguments.yes)
    rows = sorted((_row(folder) for folder in folders), key=lambda row: row[-1], reverse=True)
    table = [("study", "trials", "data set", "architectures", "last run (UTC)"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print("show one: mlpbench table STUDY")
    print("run a trial again: mlpbench studies --delete STUDY/TRIAL, and the same command")
    return EXIT_DONE


def _rename(root: Path, name: str, new: str) -> int:
    """Move a study's folder, and write the new name into its records; finished trials stay cached under it."""
    from mlpbench.config.schema import study_name
    from mlpbench.protocol import ProtocolError, read_json, write_json
    from mlpbench.records import RECORD
    from mlpbench.study.study import find_study

    folder = find_study(name, root)
    try:
        target = root / study_name(new)
    except ValueError as error:
        raise UserError(f"'{new}': {error}") from error
    if target.exists() or folder.is_symlink():
        what = f"{target} is there already" if target.exists() else f"{folder} is a link"
        raise UserError(what, "Choose another name, or move the folder by hand.")
    with ExitStack() as held:
        for trial in _trials(folder):
            held.enter_context(_unused(trial))
        os.rename(folder, target)
    for path in target.glob(f"*/{RECORD}"):
        try:
            record = read_json(path)
        except ProtocolError:
            continue  # mlpbench run writes it anew
        write_json(path, {**record, "study": new, "config": {**record.get("config", {}), "study": new}})
    _write_tables(target)
    print(f"{folder} is {target} now; a report of it in reports/{name} is left as it is: mlpbench report {new}")
    return EXIT_DONE


def _delete(root: Path, names: list[str], sure: bool) -> int:
    """Delete studies and single trials, each of them as a whole."""
    from mlpbench.study.study import find_study

    folders = []
    for name in names:
        study, _, trial = name.partition("/")
        folder = find_study(study, root)
        known = [path.name for path in _trials(folder)]
        if trial and trial.rstrip("/") not in known:
            raise UserError(f"there is no trial '{trial}' in {folder}", close_match(trial, known))
        folders.append(folder / trial.rstrip("/") if trial else folder)
    linked = next((folder for folder in folders if folder.is_symlink()), None)
    if linked is not None:
        raise UserError(f"{linked} is a link", "Delete it by hand.")
    sizes = [sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) for folder in folders]
    told = "\n".join(f"  {folder} ({size / 1e6:.1f} MB)" for folder, size in zip(folders, sizes, strict=True))
    if not sure:
        raise UserError(f"this would delete\n{told}", "Add --yes to do it; nothing has been deleted.")
    with ExitStack() as held:
        for folder in folders:
            for trial_folder in _trials(folder) or [folder]:
                held.enter_context(_unused(trial_folder))
        for folder in folders:
            shutil.rmtree(folder)
    for folder in {folder.parent for folder in folders if folder.parent != root and folder.parent.is_dir()}:
        _write_tables(folder)
    print(f"deleted\n{told}")
    return EXIT_DONE


def _trials(study: Path) -> list[Path]:
    """Folders of trials, also of those that have no record yet."""
    return sorted({path.parent for name in ("record.json", "config.yaml") for path in study.glob(f"*/{name}")})


def _unused(trial: Path) -> AbstractContextManager[None]:
    """The trial's lock, so that nothing runs in it meanwhile.

    Raises:
        UserError: when entered: a process runs it.
    """
    return locked(trial / ".lock", wait=False, busy=f"{trial} is being run by another process")


def _write_tables(study: Path) -> None:
    from mlpbench import tables
    from mlpbench.study.study import Study

    if any(study.glob("*/record.json")):
        tables.write(Study.load(study.name, study.parent))


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


def register_score(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench score``."""
    parser.add_argument("study", help="name of the study")
    parser.add_argument("--all", action="store_true", help="every score, also those that are as they should be")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.epilog = "example:\n  mlpbench score mystudy"


def execute_score(arguments: argparse.Namespace) -> int:
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
