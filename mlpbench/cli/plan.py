"""``mlpbench plan``: what a sweep would do, without doing it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlpbench.cli import share
from mlpbench.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from mlpbench.backends.registry import BackendConfig, Environment
    from mlpbench.study.artefacts import Status
    from mlpbench.study.trial import Find, Trial


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
    from mlpbench.run import require_options
    from mlpbench.study.trial import remembering

    sweep = config.expand(arguments.overrides, arguments.multirun, command="plan")
    if not sweep.enumerable:
        print("This sweeper chooses its trials as it goes; the first one would be:")
    missing: dict[str, UserError] = {}
    standings = _examined(sweep.trials, remembering(partial(_environment, missing)))
    require_options(standing for standing, _ in standings)
    estimate = _Estimate()
    for standing, limit in standings:
        longer = "" if limit is None else f"; then twice the steps until it converges, at most {limit}"
        print(f"{standing.trial.name:<60} {_line(standing, estimate)}{longer}")
    count, open_ended = len(standings), any(limit is not None for _, limit in standings)
    more = " for the next training of each; longer ones may follow" if open_ended else ""
    print(f"{count} trial{'s' * (count != 1)}; {estimate.text()}{more}")
    for name, error in missing.items():
        print(f"backend {name} is not ready: {error}")
    return EXIT_DONE


def _examined(trials: Sequence[Sequence[str]], find: Find) -> list[tuple[Status, int | None]]:
    """Where each trial stands, see :func:`mlpbench.converging.reached`; nothing is written."""
    from mlpbench import config
    from mlpbench.converging import reached
    from mlpbench.study.artefacts import examine
    from mlpbench.study.trial import identify

    return [reached(examine(identify(raw, find, write=False)), examine) for raw in config.compose_each(trials)]


def _environment(missing: dict[str, UserError], backend: BackendConfig) -> Environment | None:
    """The backend's environment; None where there is none, which ``missing`` notes."""
    from mlpbench.backends.environment import resolve

    try:
        return resolve(backend)
    except UserError as error:
        missing[backend.name] = error
        return None


def _line(standing: Status, estimate: _Estimate) -> str:
    """The state of a trial, what is to be done, and why."""
    trial = standing.trial
    if trial.skip is not None:
        return f"skipped: {trial.skip}"
    if standing.state == "cached":
        return "cached"
    tasks = ", ".join(task.name for task in standing.outstanding)
    reasons = "" if standing.state == "new" else "; ".join(standing.reasons)
    if any(task.name == "train" for task in standing.outstanding):
        tasks += estimate.of(trial)
    told = "; ".join(part for part in (tasks, reasons) if part)
    return f"{standing.state}: {told}" if told else standing.state


class _Estimate:
    """What is known of the time the trainings will take, from finished trials."""

    def __init__(self) -> None:
        self._records: dict[str, list[dict[str, Any]]] = {}
        self._seconds, self._unknown = 0.0, 0

    def of(self, trial: Trial) -> str:
        """The time of one training, in brackets; empty where it is not known."""
        from mlpbench.records import load_all
        from mlpbench.study.trial import estimate_seconds

        root = str(trial.study_root)
        if root not in self._records:
            self._records[root] = load_all(trial.study_root)
        seconds = estimate_seconds(self._records[root], trial)
        self._unknown += seconds is None
        self._seconds += seconds or 0.0
        return f" (about {seconds:.0f} s)" if seconds is not None else ""

    def text(self) -> str:
        """Of all trainings asked for."""
        if not self._seconds and not self._unknown:
            return "nothing to train"
        known = f"about {self._seconds:.0f} s of training, from finished trials" if self._seconds else ""
        trainings = f"{self._unknown} training{'s' * (self._unknown != 1)}"
        rest = f"{trainings} without an estimate (none of that architecture and size has run)" if self._unknown else ""
        return ", ".join(part for part in (known, rest) if part)


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
