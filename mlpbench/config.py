"""Configuration: where it is found, how Hydra composes it, and what it may say.

Hydra composes ``conf/``; pydantic then holds the result to types and ranges, so that a mistake ends the command before
anything is trained.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mlpbench.backends.registry import backend_nodes
from mlpbench.backends.schema import BackendConfig
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.errors import UserError, close_match

CONFIG_NAME = "config"


class Strict(BaseModel):
    """A node that knows all its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Architecture(BaseModel):
    """An architecture with the hyperparameters of its preset (further fields, checked against the preset)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="as in every table, e.g. mace")
    backend: str = Field(description="the package that runs it")
    cutoff: float = Field(gt=0, description="Å; atoms farther apart are no neighbours")
    native: dict[str, Any] = Field(default_factory=dict, description="merged verbatim over the package's configuration")


class Training(Strict):
    """Optimisation, common to all architectures. Loss: w_E·⟨(ΔE/N)²⟩ + w_F·⟨ΔF²⟩ + w_S·⟨Δσ²⟩."""

    batch_size: int = Field(gt=0, description="frames per optimiser step")
    lr: float = Field(gt=0, description="first learning rate of Adam")
    schedule: Literal["plateau", "exponential", "constant"] = Field(description="how lr falls")
    lr_gamma: float = Field(gt=0, le=1, description="exponential: lr is multiplied by it after every epoch")
    lr_factor: float = Field(gt=0, lt=1, description="factor at each plateau")
    lr_patience: int = Field(gt=0, description="epochs without improvement before lr falls")
    lr_min: float = Field(ge=0, description="lr never falls below")
    ema_decay: float | None = Field(gt=0, lt=1, description="moving average of the weights per step; None: none")
    gradient_clip: float | None = Field(gt=0, description="largest norm of the gradient; None: no limit")
    weight_decay: float = Field(ge=0, description="L2 term of Adam")
    energy_weight: float = Field(ge=0, description="w_E, 1/eV²")
    force_weight: float = Field(ge=0, description="w_F, (Å/eV)²")
    stress_weight: float = Field(ge=0, description="w_S, (Å³/eV)²")


class Budget(Strict):
    """How long a training may take; the first limit reached ends it."""

    epochs: int | None = Field(gt=0)
    steps: int | None = Field(gt=0)
    seconds: float | None = Field(gt=0)
    patience: int | None = Field(gt=0, description="epochs without a better validation loss")

    @model_validator(mode="after")
    def _limited(self) -> Budget:
        if self.epochs is None and self.steps is None and self.seconds is None:
            raise ValueError("a budget needs a limit: set budget.epochs, budget.steps or budget.seconds")
        return self


class Evaluation(Strict):
    """What is measured after training; a null part is not measured."""

    batch_size: int = Field(gt=0, description="frames in one forward pass")
    physics: dict[str, Any] | None
    md: dict[str, Any] | None
    speed: dict[str, Any] | None


class TrialConfig(Strict):
    """All that one trial is made of, resolved."""

    study: str
    dataset: DatasetConfig
    architecture: Architecture
    size: str
    training: Training
    budget: Budget
    evaluation: Evaluation
    backend: dict[str, BackendConfig]
    repetition: int = Field(ge=0)
    split_seed: int | None = Field(ge=0)
    init_seed: int | None = Field(ge=0)
    device: str = Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    dtype: Literal["float32", "float64"]
    threads: int = Field(gt=0)
    timeout: float | None = Field(gt=0)
    results_dir: Path
    reports_dir: Path

    @field_validator("study")
    @classmethod
    def _folder_name(cls, study: str) -> str:
        if not re.fullmatch(r"[\w][\w.+-]*", study):
            raise ValueError("a study's name becomes a folder: use letters, digits, '-', '_', '.' and '+'")
        return study

    @model_validator(mode="after")
    def _known_backend(self) -> TrialConfig:
        if self.architecture.backend not in self.backend:
            raise ValueError(
                f"architecture '{self.architecture.name}' wants the backend '{self.architecture.backend}', "
                f"which has no file in conf/backend. {close_match(self.architecture.backend, self.backend)}"
            )
        return self

    @property
    def backend_config(self) -> BackendConfig:
        """The one backend this trial runs with."""
        return self.backend[self.architecture.backend]


@dataclass(frozen=True)
class SweepPlan:
    """One list of overrides for each trial of a command.

    Attributes:
        trials: the overrides of each trial.
        multirun: whether Hydra runs it as a sweep.
        enumerable: False for a sweeper that chooses trials as it goes (Optuna ...); ``trials`` then holds an example.
    """

    trials: list[list[str]]
    multirun: bool
    enumerable: bool


def packaged_conf() -> Path:
    """The ``conf`` folder that belongs to this installation: in the wheel, or at the top of the repository."""
    inside = Path(__file__).parent / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "conf"


def conf_dirs() -> list[Path]:
    """Folders with configuration, the first wins: ``$MLPBENCH_CONF`` or ``./conf``, then the packaged one.

    Raises:
        UserError: ``$MLPBENCH_CONF`` is set, but no folder.
    """
    packaged = packaged_conf()
    named = os.environ.get("MLPBENCH_CONF")
    own = Path(named) if named else Path("conf")
    if named and not own.is_dir():
        raise UserError(f"MLPBENCH_CONF is '{named}', which is no folder", "Unset it, or run: mlpbench init DIR")
    has_groups = own.is_dir() and any((own / group.name).is_dir() for group in packaged.iterdir() if group.is_dir())
    if has_groups and own.resolve() != packaged.resolve():
        return [own.resolve(), packaged]
    return [packaged]


class ConfSearchPath(SearchPathPlugin):
    """Puts the user's ``conf`` before the packaged one, so that one's own file of the same name wins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra when it sets up."""
        for folder in reversed(conf_dirs()):
            search_path.prepend("mlpbench", f"file://{folder}")


def prepare_hydra() -> None:
    """Tell Hydra where configuration lies, and which backends there are. Safe to call again."""
    Plugins.instance().register(ConfSearchPath)
    ConfigStore.instance().store(group="backend", name="all", node=backend_nodes(conf_dirs()), provider="mlpbench")


@contextmanager
def _hydra() -> Iterator[None]:
    """Hydra's global state, ours for a moment."""
    prepare_hydra()
    with initialize_config_dir(config_dir=str(packaged_conf()), version_base="1.3", job_name="mlpbench"):
        yield


def compose_raw(overrides: Sequence[str], *, with_hydra: bool = False) -> DictConfig:
    """What Hydra makes of ``overrides``, unresolved.

    Raises:
        UserError: an override that Hydra cannot parse, or a key or option that is not there; has the close match.
    """
    try:
        with _hydra():
            return compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=with_hydra)
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, overrides) from error


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
    return _backends(nodes["backend"])


def expand(overrides: Sequence[str], multirun: bool = False) -> SweepPlan:
    """The grid that ``overrides`` describe, as Hydra's basic sweeper makes it.

    Args:
        overrides: as typed, sweeps included.
        multirun: whether ``-m`` was given; an experiment may also ask for it through ``hydra.mode``.

    Raises:
        UserError: see :func:`compose_raw`.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    try:
        with _hydra():
            # Sweep values cannot be composed all at once: take the first of each, to read hydra.sweeper with.
            parser = OverridesParser.create(GlobalHydra.instance().config_loader())
            parsed = parser.parse_overrides(list(overrides))
            first = [_first_value(override) for override in parsed]
            config = compose(CONFIG_NAME, overrides=first, return_hydra_config=True)
            if not multirun and "MULTIRUN" not in str(config.hydra.mode):
                compose(CONFIG_NAME, overrides=list(overrides))  # complains of several values without -m
                return SweepPlan([list(overrides)], multirun=False, enumerable=True)
            sweeper = config.hydra.sweeper
            if not str(sweeper.get("_target_", "")).endswith("BasicSweeper"):
                return SweepPlan([first], multirun=True, enumerable=False)
            parameters = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
            trials = BasicSweeper.split_arguments([*parser.parse_overrides(parameters), *parsed], None)[0]
            return SweepPlan([list(trial) for trial in trials], multirun=True, enumerable=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, overrides) from error


def _first_value(override: Any) -> str:
    if override.is_sweep_override() and override.is_discrete_sweep():
        return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"
    return str(override.input_line)


def validate(config: DictConfig) -> TrialConfig:
    """Hold a composed configuration to types, ranges and the preset it started from.

    Raises:
        UserError: names each key that is wrong, its value, and what is expected.
    """
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key} is not set", f"Set it: mlpbench run {error.full_key}=VALUE") from error
    plain = {key: value for key, value in plain.items() if key not in ("hydra", "experiment", "preset")}
    _check_unknown(plain)
    plain["backend"] = _backends(plain.get("backend") or {})
    try:
        trial = TrialConfig(**plain)
    except ValidationError as error:
        raise UserError(_pydantic_message(error)) from error
    _check_against_preset(trial)
    return trial


def _check_unknown(plain: dict[str, Any]) -> None:
    for key in plain:
        if key not in TrialConfig.model_fields:
            raise UserError(f"the configuration has no key '{key}'", close_match(key, TrialConfig.model_fields))


def _backends(nodes: dict[str, Any]) -> dict[str, BackendConfig]:
    found: dict[str, BackendConfig] = {}
    for name, node in nodes.items():
        try:
            found[name] = BackendConfig(name=name, **node)
        except (ValidationError, TypeError) as error:
            text = _pydantic_message(error, f"backend.{name}.") if isinstance(error, ValidationError) else str(error)
            raise UserError(text, f"Mend conf/backend/{name}.yaml or the override.") from error
    return found


def _check_against_preset(trial: TrialConfig) -> None:
    """Hyperparameters keep the type the preset gives them: 'lots' is no number of channels."""
    given = trial.architecture.model_extra or {}
    preset = _preset(trial.architecture.name, trial.size)
    for key, default in preset.items():
        value = given.get(key, default)
        if not _same_kind(value, default):
            raise UserError(
                f"architecture.{key}={value!r} is a {type(value).__name__}; "
                f"{trial.architecture.name}/{trial.size} has {default!r}, a {type(default).__name__}",
                f"Give architecture.{key} a value of that type.",
            )


def _preset(architecture: str, size: str) -> dict[str, Any]:
    for folder in conf_dirs():
        path = folder / "preset" / architecture / f"{size}.yaml"
        if path.is_file():
            loaded = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            return dict(loaded.get("architecture") or {})
    return {}


def _same_kind(value: Any, default: Any) -> bool:
    if default is None or value is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))


def _pydantic_message(error: ValidationError, prefix: str = "") -> str:
    lines = []
    for item in error.errors():
        key = prefix + ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        shown = f"{key}={item['input']!r}: " if key and item["type"] not in ("missing", "value_error") else ""
        lines.append(f"{shown or (key + ': ' if key else '')}{message[0].lower() + message[1:]}")
    return "\n".join(lines)


def _explain(error: Exception, overrides: Sequence[str]) -> UserError:
    """Hydra's message, shortened to what a user can act on, with the close match for what was typed."""
    text = str(error)
    if error.__cause__ is not None and "Could not override" in text:
        text = text.splitlines()[0]
    missing = re.search(r"Could not find '([^']+)'", text)
    if missing:
        group, _, option = missing.group(1).rpartition("/")
        if group.startswith("preset/") and not missing.group(1).startswith("preset/null"):
            architecture = group.removeprefix("preset/")
            return UserError(
                f"architecture '{architecture}' has no size '{option}'",
                f"{close_match(option, _options(group))} (a new one is conf/preset/{architecture}/{option}.yaml)",
            )
        return UserError(f"{group}={option}: there is no such {group}", close_match(option, _options(group)))
    typed = _offending_key(text, overrides)
    if typed is not None:
        known = [key for key in _known_keys(overrides) if key != typed]
        same_leaf = [key for key in known if key.rpartition(".")[2] == typed.rpartition(".")[2]]
        match = same_leaf[:1] or difflib.get_close_matches(typed, known, n=1, cutoff=0.6)
        hint = f"Did you mean '{match[0]}'? " if match else ""
        return UserError(f"the configuration has no key '{typed}'", f"{hint}See all keys: mlpbench run --cfg job")
    if text.startswith("Ambiguous value"):
        argument = text.splitlines()[0].removeprefix("Ambiguous value for argument ")
        return UserError(f"{argument} gives several values", "For a sweep over them add -m: mlpbench run -m ...")
    return UserError(text.splitlines()[0], "See: mlpbench run --help")


def _options(group: str) -> list[str]:
    found = {path.stem for folder in conf_dirs() for path in (folder / group).glob("*.yaml")}
    if not found:  # a group with folders in it, such as preset/<architecture>
        found = {path.name for folder in conf_dirs() for path in (folder / group).glob("*") if path.is_dir()}
    return sorted(name for name in found if not name.startswith("_"))


def _offending_key(text: str, overrides: Sequence[str]) -> str | None:
    found = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if found:
        return found.group(1)
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("+~")
        if key and f"'{key}'" in text:
            return key
    return None


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """Keys of the configuration, with the options that were chosen (architecture=schnet has keys of its own)."""
    groups = {path.name for folder in conf_dirs() for path in folder.iterdir() if path.is_dir()}
    chosen = [o.split(",")[0] for o in overrides if o.split("=")[0] in groups]
    with _hydra():
        config = compose(CONFIG_NAME, overrides=chosen)
    keys: list[str] = []

    def walk(node: DictConfig, prefix: str) -> None:
        for key in map(str, node):
            path = f"{prefix}{key}"
            keys.append(path)
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                walk(child, f"{path}.")

    walk(config, "")
    return keys
