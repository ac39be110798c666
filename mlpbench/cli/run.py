"""``mlpbench run``: every trial is composed and checked before the first one starts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from mlpbench.backends.environment import NotBuilt
from mlpbench.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, UserError
from mlpbench.numbers import plural

if TYPE_CHECKING:
    from mlpbench.config import SweepPlan
    from mlpbench.study.artefacts import Status
    from mlpbench.study.trial import Find, Trial


def main(arguments: Sequence[str]) -> int:
    """Run the trials that ``arguments`` describe.

    Returns:
        0 if every trial is done (or some of them skipped with a reason), 1 if some failed or all were skipped.

    Raises:
        UserError: a mistake in the overrides, the data or an environment (one that is not built, where nobody says that
            it shall be); nothing has been started then.
        KeyboardInterrupt: the user stopped it; tables are up to date.
    """
    from hydra._internal.utils import get_args_parser

    from mlpbench import config

    parser = get_args_parser()
    parser.prog = "mlpbench run"
    parser.add_argument("--build", action="store_true", help="build the environments that are needed and not built yet")
    try:
        parsed = parser.parse_intermixed_args(list(arguments))
    except SystemExit as stop:
        return EXIT_DONE if stop.code in (0, None) else EXIT_USAGE
    # Hydra's own parser wants all overrides in one piece: options first, then the overrides.
    options = list(arguments)
    for override in parsed.overrides:
        options.remove(override)
    arguments = [*(option for option in options if option != "--build"), *parsed.overrides]
    config.prepare_hydra()
    if parsed.multirun and (parsed.cfg or parsed.info):
        raise UserError("--cfg and --info show one configuration, -m runs many", "Leave one of them out.")
    if parsed.cfg or parsed.info or parsed.help:
        config.expand(parsed.overrides, parsed.multirun)  # a mistake is reported in our words, not as a traceback
    if parsed.help or parsed.hydra_help or parsed.cfg or parsed.info or parsed.shell_completion:
        return _hydra(arguments)
    _well_formed(parsed.overrides)
    sweep = config.expand(parsed.overrides, parsed.multirun)
    try:
        session = _preflight(sweep)
    except NotBuilt:
        from mlpbench.cli.building import build_missing

        build_missing(sweep, ask=not parsed.build)
        session = _preflight(sweep)
    try:
        if sweep.in_turn:
            session.run()
        else:
            _hydra([*arguments, "hydra.mode=MULTIRUN"] if sweep.multirun else arguments)
    finally:
        roots = session.finish()
    return EXIT_FAILED if session.failed(roots) else EXIT_DONE


def application() -> int:
    """Hand over to Hydra, which reads ``sys.argv``; ends as Hydra ends, with SystemExit where it reports an error."""
    import hydra

    from mlpbench.config import CONFIG_NAME, packaged_conf, prepare_hydra

    prepare_hydra()
    hydra.main(config_path=str(packaged_conf()), config_name=CONFIG_NAME, version_base="1.3")(run_job)()
    return EXIT_DONE


def _hydra(arguments: Sequence[str]) -> int:
    """:func:`application` with ``arguments``."""
    before = sys.argv
    sys.argv = ["mlpbench run", *arguments]
    try:
        return application()
    except SystemExit as stop:
        return int(stop.code or 0) if not isinstance(stop.code, str) else EXIT_FAILED
    finally:
        sys.argv = before


def _well_formed(overrides: Sequence[str]) -> None:
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise UserError(f"'{override}' is not KEY=VALUE", f"Give it a value: {override}=...")


class Session:
    """The trials of one command: where they stand, and what is written once they are through."""

    def __init__(self, standings: list[Status]) -> None:
        self.standings = standings
        self.names: dict[Path, list[str]] = {}
        self.ended: dict[str, str] = {}  # trial -> status, of those that ran in this process
        for standing in standings:
            self.names.setdefault(standing.trial.study_root, []).append(standing.trial.name)

    def run(self) -> None:
        """One trial after another, in this process."""
        for number, standing in enumerate(self.standings, start=1):
            run_one(standing, number, len(self.standings), self)

    def ran(self, trial: Trial, status: str) -> None:
        """Note a trial of this command, also one that came about on the way (a longer training)."""
        self.ended[trial.name] = status
        names = self.names.setdefault(trial.study_root, [])
        if trial.name not in names:
            names.append(trial.name)

    def finish(self) -> list[Path]:
        """Write the tables of every study that was touched and say what came of it; returns the studies' folders."""
        from mlpbench import tables
        from mlpbench.progress import summary
        from mlpbench.study.study import Study

        roots = [root for root in self.names if any(root.glob("*/record.json"))]
        for root in roots:
            study = Study.load(root.name, root.parent)
            tables.write(study)
            print(summary(study.trials, self.names[root], root))
        return roots

    def failed(self, roots: list[Path]) -> bool:
        """True if a trial of this command is neither done nor skipped, or all were skipped: nothing was done then."""
        from mlpbench.records import load_all

        ended: set[str | None] = set()
        for root, names in self.names.items():
            status = self.ended
            if any(name not in status for name in names):  # they ran in other processes
                status = {r["trial"]: r["status"] for r in load_all(root)} if root in roots else {}
            ended |= {status.get(name) for name in names}
        return bool(ended) and (not ended <= {"done", "skipped"} or ended == {"skipped"})


_session: Session | None = None  # None also in a process that a launcher (joblib, submitit) started
TOTAL = "MLPBENCH_RUN_TRIALS"  # how many trials this command has, for those processes


def _preflight(sweep: SweepPlan) -> Session:
    """Plan every trial, so that a mistake in the last one shows before the first one trains."""
    global _session
    from mlpbench.backends.environment import resolve
    from mlpbench.logs import require_packages
    from mlpbench.progress import announce
    from mlpbench.run import require_options
    from mlpbench.study.artefacts import examine
    from mlpbench.study.trial import remembering

    trials, same = distinct(sweep.trials, remembering(resolve))
    for trial in trials:
        require_packages(trial.config.logging)
    standings = [examine(trial) for trial in trials]
    if sweep.in_turn:  # what another launcher starts may run on another machine
        _require_devices(standings)
    require_options(standings)
    announce(standings)
    print_terms(trials)
    if same:
        print(left_out(same))
    os.environ[TOTAL] = str(len(standings))
    _session = Session(standings)
    return _session


def _require_devices(standings: Sequence[Status]) -> None:
    """Ask for the devices and locks of all trials that have something to do, before the first one starts.

    Raises:
        UserError: a device is not there, or the folder of this machine's locks cannot be used.
    """
    from mlpbench.devices import require_locks, resolve_device

    wanted = {
        (standing.trial.config.device, standing.trial.environment): None
        for standing in standings
        if standing.outstanding and standing.trial.environment is not None
    }
    if wanted:
        require_locks()
    for device, environment in wanted:
        resolve_device(device, environment)


def run_job(raw: DictConfig) -> str:
    """Hydra's task function, for its launchers: one trial. Returns its status."""
    from hydra.core.hydra_config import HydraConfig

    from mlpbench.study.artefacts import examine
    from mlpbench.study.trial import identify

    hydra = HydraConfig.get()
    number = 1 + int(OmegaConf.select(OmegaConf.structured(hydra), "job.num", default=0) or 0)
    total = int(os.environ.get(TOTAL, number))
    try:
        standing = examine(identify(raw))
    except UserError as error:
        print(f"mlpbench: {error}", file=sys.stderr)
        return "failed"
    return run_one(standing, number, total, _session, shared=_session is None)


def distinct(sweep: Sequence[Sequence[str]], find: Find, *, write: bool = True) -> tuple[list[Trial], int]:
    """The trials of a sweep, and how many were left out: the same as others but for what has no effect on them.

    Raises:
        UserError: the same trial twice.
    """
    from mlpbench import config
    from mlpbench.study.trial import identify

    trials: dict[tuple[Path, str], Trial] = {}
    same = 0
    with closing(config.compose_each(sweep)) as composed:
        for raw in composed:
            trial = identify(raw, find, write=write)
            rounds = "" if trial.rounds is None else trial.rounds.model_dump_json()
            place = (trial.study_root, trial.name + rounds)  # series of rounds may begin with the same trial
            if place in trials and trial.iterates:
                raise UserError(f"the sweep contains the trial {trial.name} twice", "Give each value only once.")
            same += place in trials
            trials.setdefault(place, trial)
    return list(trials.values()), same


def print_terms(trials: Sequence[Trial]) -> None:
    """What the licences of the chosen backends forbid, each once."""
    configs = [trial.config for trial in trials]
    for name, terms in {one.architecture.name: one.backend_config.terms for one in configs}.items():
        if terms is not None:
            print(f"{name}: {terms}")


def left_out(same: int) -> str:
    """How many trials of a sweep were the same as others, in words."""
    return f"{plural(same, 'trial')} left out: the same as others but for budgets or rates, which do not apply"


def run_one(standing: Status, number: int, total: int, session: Session | None, *, shared: bool = False) -> str:
    """Run one trial (with ``budget=converge`` the longer ones too, with an acquisition its further rounds) and show how
    it goes; a mistake is told and never stops the sweep. Returns the status of the last one.

    Args:
        standing: where it stands.
        number: its place among the command's trials, from 1.
        total: how many there are.
        session: of this command; None in a process that a launcher started.
        shared: other trials report on the same terminal.
    """
    from mlpbench.converging import converge
    from mlpbench.logs import curves_of
    from mlpbench.progress import Progress
    from mlpbench.rounds import carry_out_rounds
    from mlpbench.run import predict_forces, run_trial
    from mlpbench.study.artefacts import examine

    def carry_out(trial: Trial) -> dict[str, Any]:
        """One training of the trial and its evaluations, with a progress line."""
        here = standing if trial is standing.trial else examine(trial)
        status = "failed"
        try:
            with Progress(here, number, total, shared=shared) as progress, curves_of(trial) as curves:

                def on_event(event: dict[str, Any]) -> None:
                    progress.event(event)
                    curves.event(event)

                record = run_trial(trial, on_event, wait=standing.trial.rounds is not None)
                curves.end(record)
                progress.done(record)
            status = str(record["status"])
        finally:
            if session is not None:
                session.ran(trial, status)
        return record

    def trained(trial: Trial) -> dict[str, Any]:
        """A trial, and the longer ones that its budget asks for."""
        return converge(trial, carry_out, trial.with_steps)

    try:
        return str(carry_out_rounds(standing.trial, trained, predict_forces)["status"])
    except UserError as error:
        print(f"mlpbench: {error}", file=sys.stderr)
        return "failed"
