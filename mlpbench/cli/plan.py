"""``mlpbench plan``: what the same words would run, what is cached and what it would cost; nothing is trained."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlpbench.cli import share
from mlpbench.cli.run import distinct, left_out, print_terms
from mlpbench.errors import EXIT_DONE, UserError
from mlpbench.numbers import plural

if TYPE_CHECKING:
    from mlpbench.backends.registry import BackendConfig, Environment
    from mlpbench.progress import Estimate
    from mlpbench.study.artefacts import Status
    from mlpbench.study.trial import Trial


def register_plan(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench plan``."""
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


def execute_plan(arguments: argparse.Namespace) -> int:
    """Print one line a trial and the totals."""
    if arguments.pilot is not None:
        return _pilot(arguments)
    from mlpbench import config
    from mlpbench.progress import Estimate
    from mlpbench.run import require_options
    from mlpbench.study.trial import remembering

    sweep = config.expand(arguments.overrides, arguments.multirun, command="plan")
    if not sweep.enumerable:
        print("This sweeper chooses its trials as it goes; the first one would be:")
    missing: dict[str, UserError] = {}
    trials, same = distinct(sweep.trials, remembering(partial(_environment, missing)), write=False)
    standings = [_examined(trial) for trial in trials]
    require_options(standing for standing, _ in standings)
    estimate = Estimate()
    for standing, longer in standings:
        print(f"{standing.trial.name:<60} {_line(standing, estimate)}{longer}")
    more = " for the next training of each; others may follow" if any(longer for _, longer in standings) else ""
    print(f"{plural(len(standings), 'trial')}; {estimate.text()}{more}")
    print_terms(trials)
    if same:
        print(left_out(same))
    for name, error in missing.items():
        print(f"backend {name} is not ready: {error}")
    return EXIT_DONE


def _examined(trial: Trial) -> tuple[Status, str]:
    """Where the trial (or series of trials) stands, and what may follow in words; nothing is written."""
    from mlpbench.converging import reached
    from mlpbench.rounds import reached_round
    from mlpbench.study.artefacts import examine

    standing, until = reached_round(trial, lambda trial: reached(examine(trial), examine)[0])
    standing, steps = reached(standing, examine)
    words = [] if steps is None else [f"then twice the steps until it converges, at most {steps}"]
    words += [] if until is None else [f"then rounds up to {until} training frames"]
    return standing, "".join(f"; {part}" for part in words)


def _environment(missing: dict[str, UserError], backend: BackendConfig) -> Environment | None:
    """The backend's environment; None where there is none, which ``missing`` notes."""
    from mlpbench.backends.environment import resolve

    try:
        return resolve(backend)
    except UserError as error:
        missing[backend.name] = error
        return None


def _line(standing: Status, estimate: Estimate) -> str:
    """The state of a trial, what is to be done, and why."""
    trial = standing.trial
    if trial.skip is not None:
        return f"skipped: {trial.skip}"
    if standing.state == "cached":
        return "cached"
    tasks = ", ".join(task.name for task in standing.outstanding)
    if not trial.iterates:
        tasks += ", solved at once: budgets, rates and resumption do not apply"
    reasons = "" if standing.state == "new" else "; ".join(standing.reasons)
    if any(task.name == "train" for task in standing.outstanding):
        tasks += estimate.of(trial)
    told = "; ".join(part for part in (tasks, reasons) if part)
    return f"{standing.state}: {told}" if told else standing.state


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
