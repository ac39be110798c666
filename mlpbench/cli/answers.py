"""``mlpbench report``, ``select``, ``compare`` and ``committee``: what a study says, as a page and on the terminal."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlpbench.cli import share
from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError, close_match

if TYPE_CHECKING:
    from mlpbench.study.study import Study


def register_report(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench report``."""
    parser.add_argument("study", metavar="STUDY", nargs="+", help="name of a study, a folder of the results")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write (default: reports/STUDY)")
    parser.add_argument(
        "--margin", type=share, default=0.05, metavar="SHARE", help="relative difference that does not matter, "
        "inside which two potentials tie (default: 0.05)",
    )  # fmt: skip
    parser.add_argument("--pdf", action="store_true", help="also write each figure as PDF (slower)")
    parser.add_argument("--png", action="store_true", help="also write each figure as PNG, 300 dots an inch")
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


def execute_report(arguments: argparse.Namespace) -> int:
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
        written = write_report(study, out, pdf=arguments.pdf, png=arguments.png)
        print(written.page)
        for one in written.failed:
            print(f"mlpbench: section '{one.name}' failed: {one.reason} (see {out / ERRORS})", file=sys.stderr)
            code = EXIT_FAILED
    return code


def register_select(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench select``."""
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


def execute_select(arguments: argparse.Namespace) -> int:
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


def register_compare(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench compare``."""
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


def execute_compare(arguments: argparse.Namespace) -> int:
    """Print the comparison. 0, or 1 if ``--fail-on`` asks for it.

    Raises:
        UserError: a study, metric or split that is not there, or nothing in common.
    """
    from mlpbench.comparison import compare_studies, describe, load_side
    from mlpbench.report.render import write_comparison

    first, second = (load_side(name, arguments.results) for name in (arguments.first, arguments.second))
    comparison = compare_studies(first, second, arguments.metric, arguments.split, margin=arguments.margin)
    print(describe(comparison))
    if arguments.html or arguments.out:
        out = arguments.out or arguments.reports / f"{comparison.first}-vs-{comparison.second}"
        print(f"\n{write_comparison(comparison, out)}")
    bad = bool(comparison.regressions or comparison.lost)
    if arguments.fail_on == "undecided":
        bad = bad or bool(comparison.undecided)
    return EXIT_FAILED if arguments.fail_on and bad else EXIT_DONE


def register_committee(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench committee``."""
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


def execute_committee(arguments: argparse.Namespace) -> int:
    """Print the frames, the largest disagreement first; write them where ``--export`` says.

    Raises:
        UserError: a study, data set, candidate or split that is not known, or no two repetitions with predictions.
    """
    from mlpbench.report.committees import committees_of, most_disagreed, write_frames
    from mlpbench.study.study import Study

    if arguments.top < 1:
        raise UserError(f"--top {arguments.top}: nothing would be listed", "Give a number of at least 1.")
    study = Study.load(arguments.study, arguments.results)
    dataset = dataset_of(study, arguments.dataset)
    names = committees_of(study, dataset)
    if not names:
        raise UserError(
            f"{study.name} has no two finished repetitions with predictions of the same frames",
            "Run more: mlpbench run -m ... repetition=0,1,2",
        )
    candidate = candidate_of(study, dataset, arguments.candidate, names)
    splits = [_one("test split", s, study.test_splits(dataset), s) for s in arguments.split or []]
    frames = most_disagreed(study, dataset, candidate, splits or study.test_splits(dataset), arguments.top)
    if not frames:
        raise UserError(f"{candidate} has no predictions on {', '.join(splits)}", "Leave --split out to see all.")
    one = frames[0].committee
    print(f"{candidate}: {len(one.members)} repetitions of {one.n_train} training frames; {one.unit}")
    print(f"{'split':<16} {'frame':>6} {'disagreement':>13} {'true error':>11}")
    for frame in frames:
        numbers = f"{1e3 * frame.disagreement:>13.3g} {1e3 * frame.error:>11.3g}"
        print(f"{frame.committee.split:<16} {frame.frame:>6} {numbers}")
    if arguments.export is not None:
        write_frames(frames, arguments.export)
        print(f"{arguments.export}: {len(frames)} frames without labels")
    return EXIT_DONE


def dataset_of(study: Study, wanted: str | None) -> str:
    """The data set that was named, or the study's only one.

    Raises:
        UserError: it is not known, or there are several and none was named.
    """
    dataset = _one("data set", wanted, study.datasets, study.datasets[0])
    if wanted is None and len(study.datasets) > 1:
        raise UserError(f"{study.name} has several data sets", f"Choose one: --dataset {' | '.join(study.datasets)}")
    return dataset


def candidate_of(study: Study, dataset: str, wanted: str | None, names: list[str]) -> str:
    """The one of ``names`` that was named, or the most accurate of them in distribution.

    Raises:
        UserError: it is not known, or no trial of them is done.
    """
    from mlpbench.report.estimates import cells

    means = cells(study, dataset, study.headline(dataset), str(study.in_distribution(dataset)))
    best = {c: min((m.value for (name, _), m in means.items() if name == c), default=math.inf) for c in names}
    if not best or math.isinf(min(best.values())):
        raise UserError(f"{study.name} has no finished trial on {dataset}", "Run it first: mlpbench run study=...")
    return _one("candidate", wanted, names, min(names, key=lambda name: best[name]))


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
