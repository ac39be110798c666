"""``mlpbench explore``: a committee finds frames by its own dynamics, the reference method labels them, and so on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mlpbench.errors import EXIT_DONE, EXIT_FAILED, UserError
from mlpbench.numbers import listing, plural

if TYPE_CHECKING:
    from mlpbench.acquisition.exploring import Exploration
    from mlpbench.exploring import Explored, Labelling, Round
    from mlpbench.study.explored import Acquired
    from mlpbench.study.trial import Trial

CONFIG = "explore"


def register_explore(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench explore``."""
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE",
        help="as for mlpbench run, for one trial; explore.KEY=VALUE (conf/explore.yaml); reference=NAME and "
        "reference.KEY=VALUE (default: the data set's own method)",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="labels at once (default: 1)")
    parser.epilog = (
        "Each round trains a committee, simulates with its first potential, and labels frames whose forces the\n"
        "committee disputes, between two trust levels. The data set that grows is dataset=STUDY/acquired. The same\n"
        "command goes on where it was stopped.\n\n"
        "example:\n  mlpbench explore study=mine dataset=file dataset.path=start.xyz dataset.n_train=30 "
        "architecture=painn \\\n      reference=xtb explore.labels=60 explore.temperatures_K=[300,600,1000]\n"
        "  mlpbench run study=mine dataset=mine/acquired architecture=mace"
    )


def execute_explore(arguments: argparse.Namespace) -> int:
    """Explore until the budget is spent; 1 if a training failed.

    Raises:
        UserError: a mistake in the overrides or the data, a method that is not the data set's, or dynamics that fail.
    """
    from mlpbench.config import compose_raw, load_backends
    from mlpbench.config.composing import load_reference
    from mlpbench.datasets.stages import stages
    from mlpbench.exploring import Labelling, relabelled, require_method
    from mlpbench.references.methods import complete_method, environment_of, require_open
    from mlpbench.study.explored import begin
    from mlpbench.study.trial import identify

    if arguments.jobs < 1:
        raise UserError(f"--jobs={arguments.jobs}: at least one process is needed")
    own, reference, others = _sorted(arguments.overrides)
    options = _options(own)
    raw = compose_raw(others)
    start = identify(raw)
    _require_trial(start)
    method = complete_method(load_reference(reference, start.dataset.info.get("reference_method")))
    require_open(method, bool(start.dataset.pool.pbc.any()))
    backend = environment_of(method, load_backends([one for one in others if one.startswith("backend.")]))
    with stages(start.dataset.name) as progress:
        labelling = Labelling(method, backend, arguments.jobs, on_label=partial(progress, "labelled"))
        seconds = None if options.relabel else require_method(start, labelling)
        relabel = partial(relabelled, labelling=labelling) if options.relabel else None
        acquired = begin(raw, start, method, options.deciding, relabel)
        return _explored(acquired, start, options, labelling, seconds)


def _explored(
    acquired: Acquired, start: Trial, options: Exploration, labelling: Labelling, seconds: float | None
) -> int:
    from mlpbench.exploring import explore

    price = "" if seconds is None else f" of {seconds:.2g} s"
    print(
        f"{acquired.name}: {start.config.dataset.n_train} frames of {start.dataset.name} to begin with; up to "
        f"{options.labels} labels{price}, {plural(options.rounds, 'round')}, "
        f"{listing([f'{kelvin:g} K' for kelvin in options.temperatures_K])}",
        flush=True,
    )
    explored = explore(acquired, options, labelling, partial(_carry_out, options), on_round=_tell)
    return _account(explored, acquired, start)


def _sorted(overrides: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Overrides of ``explore``, of the reference method, and of the trial."""
    own = [one for one in overrides if one.startswith("explore.")]
    reference = [one for one in overrides if one.startswith(("reference=", "reference."))]
    return own, reference, [one for one in overrides if one not in own and one not in reference]


def _options(overrides: Sequence[str]) -> Exploration:
    from omegaconf import OmegaConf
    from pydantic import ValidationError

    from mlpbench.acquisition.exploring import Exploration
    from mlpbench.config import compose_raw
    from mlpbench.config.checks import pydantic_message

    node: Any = OmegaConf.to_container(compose_raw(overrides, name=CONFIG), resolve=True)
    try:
        options = Exploration.model_validate(node["explore"])
    except ValidationError as error:
        raise UserError(pydantic_message(error, "explore."), "See conf/explore.yaml.") from error
    _ = options.chooser  # there is such an acquisition, and it needs no labels
    return options


def _require_trial(start: Trial) -> None:
    """What is begun with must be one ordinary training with forces.

    Raises:
        UserError: it is not.
    """
    if start.skip is not None:
        raise UserError(start.skip)
    if start.rounds is not None:
        raise UserError("explore has rounds of its own: acquisition=... chooses from a labelled pool",
                        "Leave acquisition out, or set explore.acquisition.")  # fmt: skip
    if "forces" not in start.labels:
        raise UserError("explore goes by forces, and the training uses none", "Train on forces too: dataset.labels.")
    if not start.iterates:
        raise UserError(
            f"potentials of {start.config.architecture.name} that differ in their initialisation alone are the same",
            "Choose an architecture that is trained step by step.",
        )


def _carry_out(options: Exploration, trial: Trial) -> dict[str, Any]:
    """One training (with ``budget=converge`` the longer ones too), with a progress line."""
    from mlpbench.converging import converge
    from mlpbench.progress import Progress
    from mlpbench.run import run_trial
    from mlpbench.study.artefacts import examine

    def once(one: Trial) -> dict[str, Any]:
        with Progress(examine(one), one.member + 1, options.members, shared=False) as progress:
            record = run_trial(one, progress.event)
            progress.done(record)
        return record

    return converge(trial, once, trial.with_steps)


def _tell(one: Round) -> None:
    """A line on a round that is through."""
    manifest, counts = one.manifest, one.manifest.counts
    died = sum(manifest.deaths.values())
    causes = f" ({listing([f'{n} {cause}' for cause, n in manifest.deaths.items()])})" if died else ""
    print(
        f"round {manifest.round}: {counts['frames']} frames, {counts['collapsed']} after a collapse of {died} of "
        f"{manifest.replicas} replicas{causes}; {counts['accurate']} accurate, {counts['candidates']} candidates, "
        f"{counts['failed']} too wrong (trust levels {manifest.levels[0]:.3g} and {manifest.levels[1]:.3g} eV/Å); "
        f"{counts['candidates'] - counts['distinct']} near-copies; {one.labelled} of {len(manifest.chosen)} labelled"
        + "".join(f"; {n} not: {reason}" for reason, n in one.left_out.items()),
        flush=True,
    )


def _account(explored: Explored, acquired: Acquired, start: Trial) -> int:
    from mlpbench import tables
    from mlpbench.study.study import Study

    if any(start.study_root.glob("*/record.json")):
        tables.write(Study.load(start.config.study, start.config.results_dir))
    if explored.failed is not None:
        print(f"{explored.failed['trial']}: {explored.failed['status']}, {explored.failed['reason']}")
        return EXIT_FAILED
    labels = sum(one.labelled for one in explored.rounds)
    print(f"ended: {explored.ended}. {plural(labels, 'label')} in {plural(len(explored.rounds), 'round')}, "
          f"{sum(one.seconds for one in explored.rounds):.3g} s of the reference method")  # fmt: skip
    where = "" if start.config.results_dir.as_posix() == "results" else (
        f" 'hydra.searchpath=[file://{acquired.entry.parents[2].resolve()}]'"
    )  # fmt: skip
    print(f"to train on them: mlpbench run study={start.config.study} dataset={acquired.name}{where} architecture=...")
    return EXIT_DONE
