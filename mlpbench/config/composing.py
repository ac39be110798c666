"""From overrides to configurations: one trial, the backends alone, or the grid of a sweep."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlpbench.backends.registry import BackendConfig, backend_nodes
from mlpbench.config.checks import check_backends, explain, validate
from mlpbench.config.schema import TrialConfig
from mlpbench.config.setup import CONFIG_NAME, conf_dirs, hydra_state
from mlpbench.errors import UserError, close_match


@dataclass(frozen=True)
class SweepPlan:
    """One list of overrides for each trial of a command.

    Attributes:
        trials: the overrides of each trial.
        multirun: whether Hydra runs it as a sweep.
        enumerable: False for a sweeper that chooses trials as it goes (Optuna ...); ``trials`` then holds an example.
        in_turn: whether they run one after another in this process; False: one of Hydra's launchers runs them.
    """

    trials: list[list[str]]
    multirun: bool
    enumerable: bool
    in_turn: bool = True


def compose_raw(overrides: Sequence[str], *, with_hydra: bool = False, name: str = CONFIG_NAME) -> DictConfig:
    """What Hydra makes of ``conf/<name>.yaml`` and ``overrides``, unresolved.

    Raises:
        UserError: an override that Hydra cannot parse, or a key or option that is not there; has the close match.
    """
    try:
        with hydra_state():
            return compose(name, overrides=list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides, name) from error


def load_trial(overrides: Sequence[str]) -> TrialConfig:
    """Compose and validate one trial.

    Raises:
        UserError: see :func:`compose_raw` and :func:`validate`.
    """
    return validate(compose_raw(overrides))


def load_backends(overrides: Sequence[str] = ()) -> dict[str, BackendConfig]:
    """Every backend with its settings, from the YAMLs alone: nothing else in ``conf`` need be in order for this.

    Args:
        overrides: ``backend.<name>.<field>=value``.

    Raises:
        UserError: a backend's YAML or an override does not fit :class:`BackendConfig`.
    """
    node: Any = OmegaConf.create({"backend": backend_nodes(conf_dirs())})
    try:
        node = OmegaConf.merge(node, OmegaConf.from_dotlist(list(overrides)))
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0], "Overrides here look like backend.mace.python=/path") from error
    nodes: Any = OmegaConf.to_container(node, resolve=True)
    return check_backends(nodes["backend"])


def compose_each(trials: Sequence[Sequence[str]]) -> Generator[DictConfig]:
    """As :func:`compose_raw` for one trial after another, in a fraction of the time.

    The trials of a sweep mostly differ in values. What the chosen files come to is composed once for each choice, and
    the values are set in a copy of it, by Hydra's own function that would have set them.

    Raises:
        UserError: see :func:`compose_raw`.
    """
    bases: dict[tuple[str, ...], DictConfig] = {}
    with hydra_state():
        loader: Any = GlobalHydra.instance().config_loader()
        parser = OverridesParser.create(loader)
        for overrides in trials:
            try:
                values: list[Any] = []
                choices: list[Any] = []
                for override in parser.parse_overrides(list(overrides)):
                    (values if _sets_value(override, loader) else choices).append(override)
                key = tuple(str(choice.input_line) for choice in choices)
                if key not in bases:
                    bases[key] = compose(CONFIG_NAME, overrides=list(key))
                config = copy.deepcopy(bases[key])
                ConfigLoaderImpl._apply_overrides_to_config(values, config)
            except (HydraException, OmegaConfBaseException) as error:
                raise explain(error, overrides) from error
            yield config


def _sets_value(override: Any, loader: Any) -> bool:
    """Whether an override sets a value of the configuration, and chooses no file of it (and none of Hydra's own)."""
    group = loader.repository.group_exists(override.key_or_group)
    return not (group or override.is_delete() or override.is_hydra_override() or override.is_sweep_override())


def expand(overrides: Sequence[str], multirun: bool = False, *, command: str = "run") -> SweepPlan:
    """The grid that ``overrides`` describe, as Hydra's basic sweeper makes it.

    Args:
        overrides: as typed, sweeps included.
        multirun: whether ``-m`` was given; an experiment may also ask for it through ``hydra.mode``.
        command: for messages.

    Raises:
        UserError: see :func:`compose_raw`.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    try:
        with hydra_state():
            # Sweep values cannot be composed all at once: take the first of each, to read hydra.sweeper with.
            parser = OverridesParser.create(GlobalHydra.instance().config_loader())
            parsed = parser.parse_overrides(list(overrides))
            first = [_first_value(override) for override in parsed]
            config = compose(CONFIG_NAME, overrides=first, return_hydra_config=True)
            if not multirun and "MULTIRUN" not in str(config.hydra.mode):
                compose(CONFIG_NAME, overrides=list(overrides))  # complains of several values without -m
                return SweepPlan([list(overrides)], False, True, _in_turn(config))
            sweeper = config.hydra.sweeper
            if not str(sweeper.get("_target_", "")).endswith("BasicSweeper"):
                return SweepPlan([first], True, False, False)
            parameters = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
            trials = BasicSweeper.split_arguments([*parser.parse_overrides(parameters), *parsed], None)[0]
            return SweepPlan([list(trial) for trial in trials], True, True, _in_turn(config))
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides, command=command) from error


def _in_turn(config: DictConfig) -> bool:
    """Whether Hydra would do nothing but call us once for each trial: its basic launcher, and no callbacks."""
    return str(config.hydra.launcher.get("_target_", "")).endswith("BasicLauncher") and not config.hydra.callbacks


def _first_value(override: Any) -> str:
    if override.is_sweep_override() and override.is_discrete_sweep():
        return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
    return str(override.input_line)


def load_reference(overrides: Sequence[str], default: dict[str, Any] | None) -> dict[str, Any]:
    """The method that ``overrides`` describe, not yet validated by its code's schema.

    Args:
        overrides: ``reference=NAME`` (a file of ``conf/reference``) and ``reference.SETTING=VALUE``.
        default: without ``reference=NAME``: the data set's own method, or None.

    Raises:
        UserError: no such file, an override of something else, or neither a name nor a default.
    """
    named = [text.partition("=")[2] for text in overrides if text.startswith("reference=")]
    others = [text for text in overrides if not text.startswith("reference=")]
    for text in others:
        if not text.startswith("reference.") or "=" not in text:
            problem = f"'{text}' is not a setting of a reference method"
            raise UserError(problem, "Give reference=NAME or reference.SETTING=VALUE.")
    if not named and default is None:
        raise UserError("the data set names no reference method", "Give one, e.g. reference=pyscf or reference=xtb.")
    node = OmegaConf.load(_file(named[-1])) if named else OmegaConf.create(default or {})
    try:
        dotted = [text.removeprefix("reference.") for text in others]
        merged: Any = OmegaConf.to_container(OmegaConf.merge(node, OmegaConf.from_dotlist(dotted)), resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(str(error).splitlines()[0], "Overrides here look like reference.basis=def2-tzvp") from error
    return dict(merged)


def _file(name: str) -> Path:
    files = {path.stem: path for folder in reversed(conf_dirs()) for path in (folder / "reference").glob("*.yaml")}
    if name not in files:
        raise UserError(f"reference={name}: there is no such file in conf/reference", close_match(name, files))
    return files[name]
