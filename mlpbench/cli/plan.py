"""``mlpbench plan``: what a sweep would do, without doing it."""

from __future__ import annotations

import argparse
from pathlib import Path

from mlpbench.cli import share
from mlpbench.errors import EXIT_DONE

HELP = "what a sweep would run, what is cached, what would be skipped and why; runs nothing"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for mlpbench run")
    parser.add_argument("-m", "--multirun", action="store_true", help="every combination of comma-separated values")
    parser.add_argument("--pilot", metavar="STUDY", help="from this study's repetitions: how many would decide")
    parser.add_argument("--margin", type=share, default=0.05, metavar="SHARE", help="of a tie (default: 0.05)")
    parser.add_argument("--metric", help="what the pilot is to decide on (default: the force error)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="default: results")
    parser.epilog = (
        "examples:\n  mlpbench plan -m study=compare architecture=schnet,mace repetition=0,1,2\n"
        "  mlpbench plan --pilot compare"
    )


def execute(arguments: argparse.Namespace) -> int:
    """Print one line a trial and the totals."""
    if arguments.pilot is not None:
        return _pilot(arguments)
    from mlpbench import config
    from mlpbench.backends.environment import Environment, resolve
    from mlpbench.backends.registry import BackendConfig
    from mlpbench.converging import reached
    from mlpbench.errors import UserError
    from mlpbench.records import load_all
    from mlpbench.study.artefacts import examine
    from mlpbench.study.trial import estimate_seconds, identify, remembering

    sweep = config.expand(arguments.overrides, arguments.multirun, command="plan")
    if not sweep.enumerable:
        print("This sweeper chooses its trials as it goes; the first one would be:")
    seconds, unknown, open_ended = 0.0, 0, 0
    missing: dict[str, UserError] = {}

    def find(backend: BackendConfig) -> Environment | None:
        try:
            return resolve(backend)
        except UserError as error:
            missing[backend.name] = error
            return None

    records: dict[str, list[dict[str, object]]] = {}
    once = remembering(find)
    for raw in config.compose_each(sweep.trials):
        standing, limit = reached(examine(identify(raw, once, write=False)), examine)
        trial, state = standing.trial, str(standing.state)
        note = ""
        if trial.skip is not None:
            state, note = "skipped", f": {trial.skip}"
        elif state != "cached":
            reasons = [] if state == "new" else standing.reasons
            note = f": {', '.join(task.name for task in standing.outstanding)}" if standing.outstanding else ""
            if any(task.name == "train" for task in standing.outstanding):
                known = records.setdefault(str(trial.study_root), load_all(trial.study_root))
                estimate = estimate_seconds(known, trial)
                unknown += estimate is None
                seconds += estimate or 0.0
                note += f" (about {estimate:.0f} s)" if estimate is not None else ""
            note += f"; {'; '.join(reasons)}" if reasons and note else f": {'; '.join(reasons)}" if reasons else ""
        if limit is not None:
            open_ended += 1
            note += f"; then twice the steps until it converges, at most {limit}"
        print(f"{trial.name:<60} {state}{note}")
    print(
        f"{len(sweep.trials)} trial{'s' * (len(sweep.trials) != 1)}; {_time(seconds, unknown)}"
        f"{' for the next training of each; longer ones may follow' if open_ended else ''}"
    )
    for name, error in missing.items():
        print(f"backend {name} is not ready: {error}")
    return EXIT_DONE


def _time(seconds: float, unknown: int) -> str:
    """What is known of the time the trainings will take."""
    if not seconds and not unknown:
        return "nothing to train"
    known = f"about {seconds:.0f} s of training, from finished trials" if seconds else ""
    rest = f"{unknown} training{'s' * (unknown != 1)} without an estimate (none of that architecture and size has run)"
    return ", ".join(part for part in (known, rest if unknown else "") if part)


def _pilot(arguments: argparse.Namespace) -> int:
    """Print how many repetitions a study needs before it decides, and the hours they cost."""
    from mlpbench.metrics import metric
    from mlpbench.pilot import plan_pilot
    from mlpbench.study.study import Study

    study = Study.load(arguments.pilot, arguments.results, arguments.margin)
    if arguments.metric is not None:
        metric(arguments.metric)
    print(plan_pilot(study, arguments.metric).text)
    return EXIT_DONE
