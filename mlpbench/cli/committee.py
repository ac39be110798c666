"""``mlpbench committee``: where the repetitions of a candidate disagree, and those frames as a file for labelling."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlpbench.errors import EXIT_DONE, UserError, close_match

HELP = "frames on which the repetitions disagree most, as a list or a file to label"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("study", metavar="STUDY", help="name of the study, a folder of the results")
    parser.add_argument(
        "--candidate", metavar="NAME", help="whose repetitions, as the report names it (default: the most accurate)"
    )
    parser.add_argument(
        "--split",
        action="append",
        metavar="NAME",
        help="look on this split only (may be repeated; default: all test splits)",
    )
    parser.add_argument("--dataset", help="where the study has several")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="how many frames (default: 20)")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the frames without labels, e.g. frames.xyz")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder of the results (default: results)"
    )
    parser.epilog = (
        "example:\n  mlpbench committee quickstart --top 50 --export frames.xyz\n\n"
        "the file holds geometries only, with the disagreement, the split and the index of each frame in its info. A "
        "frame of a test split that goes into training is no test frame any more."
    )


def execute(arguments: argparse.Namespace) -> int:
    """Print the frames, the largest disagreement first; write them where ``--export`` says.

    Raises:
        UserError: a study, data set, candidate or split that is not known, or no two repetitions with predictions.
    """
    from mlpbench.report.committees import committees_of, most_disagreed, write_frames
    from mlpbench.report.estimates import cells
    from mlpbench.study.study import Study

    if arguments.top < 1:
        raise UserError(f"--top {arguments.top}: nothing would be listed", "Give a number of at least 1.")
    study = Study.load(arguments.study, arguments.results)
    dataset = _one("data set", arguments.dataset, study.datasets, study.datasets[0])
    if arguments.dataset is None and len(study.datasets) > 1:
        raise UserError(f"{study.name} has several data sets", f"Choose one: --dataset {' | '.join(study.datasets)}")
    names = committees_of(study, dataset)
    if not names:
        raise UserError(
            f"{study.name} has no two finished repetitions with predictions of the same frames",
            "Run more: mlpbench run -m ... repetition=0,1,2",
        )
    first = str(study.in_distribution(dataset))
    means = cells(study, dataset, study.headline(dataset), first)
    best = min(names, key=lambda c: min(m.value for (name, _), m in means.items() if name == c))
    candidate = _one("candidate", arguments.candidate, names, best)
    splits = [_one("test split", s, study.test_splits(dataset), s) for s in arguments.split or []]
    found = most_disagreed(study, dataset, candidate, splits or study.test_splits(dataset), arguments.top)
    if not found:
        raise UserError(f"{candidate} has no predictions on {', '.join(splits)}", "Leave --split out to see all.")
    one = found[0].committee
    print(f"{candidate}: {len(one.members)} repetitions of {one.n_train} training frames; {one.unit}")
    print(f"{'split':<16} {'frame':>6} {'disagreement':>13} {'true error':>11}")
    for frame in found:
        numbers = f"{1e3 * frame.disagreement:>13.3g} {1e3 * frame.error:>11.3g}"
        print(f"{frame.committee.split:<16} {frame.frame:>6} {numbers}")
    if arguments.export is not None:
        write_frames(found, arguments.export)
        print(f"{arguments.export}: {len(found)} frames without labels")
    return EXIT_DONE


def _one(what: str, wanted: str | None, known: list[str], default: str) -> str:
    """``wanted`` as it is spelt, in whatever case, or ``default`` if nothing was wanted.

    Raises:
        UserError: it is not known; the message has the close match.
    """
    if wanted is None:
        return default
    named = {name.lower(): name for name in known}
    if wanted.lower() not in named:
        raise UserError(f"there is no {what} '{wanted}'", close_match(wanted, known))
    return named[wanted.lower()]
