"""A composed configuration held to the schema and to the preset it started from."""

from __future__ import annotations

from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from mlpbench.backends.schema import BackendConfig
from mlpbench.config.places import conf_dirs
from mlpbench.config.schema import TrialConfig
from mlpbench.errors import UserError, close_match


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
    plain["backend"] = check_backends(plain.get("backend") or {})
    try:
        trial = TrialConfig(**plain)
    except ValidationError as error:
        raise UserError(pydantic_message(error)) from error
    _check_against_preset(trial)
    return trial


def _check_unknown(plain: dict[str, Any]) -> None:
    for key in plain:
        if key not in TrialConfig.model_fields:
            raise UserError(f"the configuration has no key '{key}'", close_match(key, TrialConfig.model_fields))


def check_backends(nodes: dict[str, Any]) -> dict[str, BackendConfig]:
    """The nodes of ``backend``, each held to :class:`BackendConfig`.

    Raises:
        UserError: names the backend, the field and what is expected.
    """
    found: dict[str, BackendConfig] = {}
    for name, node in nodes.items():
        try:
            found[name] = BackendConfig(name=name, **node)
        except (ValidationError, TypeError) as error:
            text = pydantic_message(error, f"backend.{name}.") if isinstance(error, ValidationError) else str(error)
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


def pydantic_message(error: ValidationError, prefix: str = "") -> str:
    """One line for each mistake: key, value, what is expected."""
    lines = []
    for item in error.errors():
        key = prefix + ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        shown = f"{key}={item['input']!r}: " if key and item["type"] not in ("missing", "value_error") else ""
        lines.append(f"{shown or (key + ': ' if key else '')}{message[0].lower() + message[1:]}")
    return "\n".join(lines)
