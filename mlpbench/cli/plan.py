"""``mlpbench plan``: what a sweep would do, without doing it."""

from __future__ import annotations

import argparse

from mlpbench.errors import EXIT_DONE

HELP = "what a sweep would run, what is cached, what would be skipped and why; runs nothing"


def register(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this command."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for mlpbench run")
    parser.add_argument("-m", "--multirun", action="store_true", help="every combination of comma-separated values")
    parser.epilog = "example:\n  mlpbench plan -m study=compare architecture=schnet,mace repetition=0,1,2"


def execute(arguments: argparse.Namespace) -> int:
    """Print one line a trial and the totals."""
    from mlpbench import config, store
    from mlpbench.backends.environment import Environment, resolve
    from mlpbench.backends.schema import BackendConfig
    from mlpbench.errors import UserError
    from mlpbench.plan import estimate_seconds, plan_trial
    from mlpbench.records import load_all

    sweep = config.expand(arguments.overrides, arguments.multirun)
    if not sweep.enumerable:
        print("This sweeper chooses its trials as it goes; the first one would be:")
    seconds, unknown = 0.0, 0
    missing: dict[str, UserError] = {}

    def find(backend: BackendConfig) -> Environment | None:
        try:
            return resolve(backend)
        except UserError as error:
            missing[backend.name] = error
            return None

    records: dict[str, list[dict[str, object]]] = {}
    for overrides in sweep.trials:
        trial = plan_trial(overrides, find)
        state: str = store.state(trial)
        note = ""
        if trial.skip is not None:
            state, note = "skipped", f": {trial.skip}"
        elif state != "cached":
            known = records.setdefault(str(trial.study_root), load_all(trial.study_root))
            estimate = estimate_seconds(known, trial)
            unknown += estimate is None
            seconds += estimate or 0.0
            note = f": {', '.join(task.name for task in store.outstanding(trial))}" + (
                f" (about {estimate:.0f} s)" if estimate is not None else ""
            )
        print(f"{trial.name:<60} {state}{note}")
    known_time = f"about {seconds:.0f} s of training known from finished trials"
    print(f"{len(sweep.trials)} trials; {known_time}, {unknown} without an estimate")
    for name, error in missing.items():
        print(f"backend {name} is not ready: {error}")
    return EXIT_DONE
