"""``mlpbench acquire``: which structures of a file to label next, and their labels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError

if TYPE_CHECKING:
    from mlpbench.study.study import Study


def register_acquire(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench acquire``."""
    parser.add_argument("study", metavar="STUDY", help="name of the study, a folder of the results")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        required=True,
        metavar="FILE",
        help="structures, in any format that ASE reads",
    )
    parser.add_argument("--n", type=int, default=20, metavar="N", help="how many (default: 20)")
    parser.add_argument(
        "--acquisition", default="committee_farthest", metavar="NAME",
        help="committee, farthest, committee_farthest or random (default: committee_farthest)",
    )  # fmt: skip
    parser.add_argument(
        "--candidate", metavar="NAME", help="whose potentials, as the report names it (default: the most accurate)"
    )
    parser.add_argument("--dataset", help="where the study has several")
    parser.add_argument(
        "--export", type=Path, required=True, metavar="FILE", help="where to write them, e.g. frames.xyz"
    )
    parser.add_argument(
        "--label", type=Path, metavar="FILE", help="label them with the reference method and write them here"
    )
    parser.add_argument(
        "--reference", action="append", default=[], metavar="KEY=VALUE",
        help="the method, e.g. reference=xtb (default: the data set's own); may be repeated",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="labels at once (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default: cpu)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the studies")
    parser.epilog = (
        "The committee is the candidate's repetitions at its largest training size, and the further members that\n"
        "rounds of an acquisition trained beside them. Structures that were trained on, or are twice in FILE, are\n"
        "left out.\n\n"
        "example:\n  mlpbench acquire mystudy --from md.xyz --n 50 --export frames.xyz --label labelled.xyz\n"
        "  mlpbench run ... dataset.extend_paths=[labelled.xyz] dataset.n_train=all"
    )


def execute_acquire(arguments: argparse.Namespace) -> int:
    """Write the structures, label them if asked, and print what was chosen; 1 if one could not be labelled.

    Raises:
        UserError: something that is not there, cannot be chosen from, or cannot be labelled.
    """
    from mlpbench.acquire import committee_of, suggest, write_suggestions
    from mlpbench.cli.answers import candidate_of, dataset_of
    from mlpbench.references.labels import read_structures
    from mlpbench.study.study import Study

    for path in (arguments.export, arguments.label):
        if path is not None and path.exists() and path.samefile(arguments.source):
            raise UserError(f"{path} is the file that is chosen from", "Give another file.")
    study = Study.load(arguments.study, arguments.results)
    dataset = dataset_of(study, arguments.dataset)
    candidate = candidate_of(study, dataset, arguments.candidate, study.lines(dataset))
    structures = read_structures(arguments.source)
    trials = committee_of(study, dataset, candidate)
    suggested = suggest(study, trials, structures, arguments.n, arguments.acquisition, arguments.device)
    write_suggestions(suggested, arguments.export)
    name, unit = suggested.score
    print(f"{suggested.kind}: {len(suggested.suggestions)} of {suggested.candidates} structures of {arguments.source}")
    if suggested.known:
        print(f"left out: {suggested.known} that were trained on or are twice in the file")
    if suggested.trials:
        print(f"potentials: {', '.join(suggested.trials)}")
    if name:
        print(f"{'frame':>8} {name}{f' / {unit}' if unit else ''}")
        for one in suggested.suggestions:
            print(f"{one.frame:>8} {one.score:.3g}")
    print(f"{arguments.export}: {len(suggested.suggestions)} structures without labels")
    return EXIT_DONE if arguments.label is None else _label(study, dataset, arguments)


def _label(study: Study, dataset: str, arguments: argparse.Namespace) -> int:
    from functools import partial

    from mlpbench.config import load_backends
    from mlpbench.config.composing import load_reference
    from mlpbench.datasets.stages import stages
    from mlpbench.references.labels import label_file
    from mlpbench.references.methods import complete_method, environment_of, level_of, parse_method

    own = next((method for method in study.split_info(dataset, "reference_method") if method), None)
    method = complete_method(load_reference(arguments.reference, own))
    backend = environment_of(method, load_backends())
    with stages(str(arguments.export)) as progress:
        filed = label_file(
            arguments.export, arguments.label, method, backend, jobs=arguments.jobs,
            on_label=partial(progress, "labelled"),
        )  # fmt: skip
    good = len(filed.labels) - len(filed.left_out)
    print(f"{arguments.label}: {good} of {len(filed.labels)} labelled")
    for number, answer in filed.left_out:
        print(f"  structure {number}: {answer.reason}")
    if own is not None and level_of(complete_method(own)) != level_of(method):
        words = [parse_method(one).words() for one in (method, own)]
        print(f"warning: these labels are {words[0]}, those of {dataset} {words[1]}: they cannot be learnt together")
    elif good:
        print(f"to train on them: dataset.extend_paths=[{arguments.label}] dataset.n_train=all")
    return EXIT_FAILED if filed.left_out else EXIT_DONE
