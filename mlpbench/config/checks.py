"""A composed configuration checked against the schema and the preset it started from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from mlpbench.backends.registry import BackendConfig
from mlpbench.config.schema import TrialConfig
from mlpbench.config.setup import conf_dirs
from mlpbench.errors import UserError, close_match


def validate(config: DictConfig) -> TrialConfig:
    """Hold a composed configuration to types, ranges and the preset it started from.

    Raises:
        UserError: names each key that is wrong, its value, and what is expected.
    """
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        if str(error.full_key).startswith("training."):
            name = config.architecture.name
            raise UserError(
                f"architecture '{name}' has no recommended training",
                f"Leave it out, or write what its authors use to conf/training/recommended/{name}.yaml.",
            ) from error
        raise UserError(f"{error.full_key} is not set", f"Set it: mlpbench run {error.full_key}=VALUE") from error
    plain = {key: value for key, value in plain.items() if key not in ("hydra", "experiment", "preset")}
    _check_unknown(plain)
    plain["backend"] = check_backends(plain.get("backend") or {})
    try:
        trial = TrialConfig(**plain)
    except ValidationError as error:
        raise UserError(pydantic_message(error, model=TrialConfig), _hint(error)) from error
    _check_against_preset(trial)
    return trial


def environment_texts(config: DictConfig) -> dict[str, str]:
    """Dotted key -> what stands there, of every text that is taken from an environment variable, directly or through
    another key: a token must not be stored resolved.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    texts: dict[str, str] = {}

    def walk(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, dict | list):
            for key, value in node.items() if isinstance(node, dict) else enumerate(node):
                walk(value, (*path, str(key)))
        elif isinstance(node, str) and "${" in node and "oc.env" in _expanded(plain, node):
            texts[".".join(path)] = node

    walk(plain, ())
    return texts


def _expanded(plain: dict[str, Any], text: str, depth: int = 5) -> str:
    """``text`` with the raw text of every key it refers to behind it."""
    parts = [text]
    for name in re.findall(r"\$\{([\w.]+)\}", text) if depth else []:
        node: Any = plain
        for part in name.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, str):
            parts.append(_expanded(plain, node, depth - 1))
    return " ".join(parts)


def _check_unknown(plain: dict[str, Any]) -> None:
    for key in plain:
        if key not in TrialConfig.model_fields:
            raise UserError(f"the configuration has no key '{key}'", close_match(key, TrialConfig.model_fields))


def check_backends(nodes: dict[str, Any]) -> dict[str, BackendConfig]:
    """The nodes of ``backend``, each validated as a :class:`BackendConfig`.

    Raises:
        UserError: names the backend, the field and what is expected.
    """
    found: dict[str, BackendConfig] = {}
    for name, node in nodes.items():
        try:
            found[name] = BackendConfig(name=name, **node)
        except (ValidationError, TypeError) as error:
            text = str(error)
            if isinstance(error, ValidationError):
                text = pydantic_message(error, f"backend.{name}.", model=BackendConfig)
            raise UserError(text, f"Correct conf/backend/{name}.yaml or the override.") from error
    return found


def _check_against_preset(trial: TrialConfig) -> None:
    """Hyperparameters are those of the preset, and keep the type that it gives them ('lots' is not a number)."""
    given = trial.architecture.model_extra or {}
    preset = _preset(trial.architecture.name, trial.size)
    known = {**_stated("architecture", trial.architecture.name), **preset}
    for key in given:
        if known and key not in known:
            fields = [*known, *type(trial.architecture).model_fields]
            raise UserError(f"architecture.{key}: {trial.architecture.name} has no such key", close_match(key, fields))
    for key, default in preset.items():
        value = given.get(key, default)
        if not _same_kind(value, default):
            raise UserError(
                f"architecture.{key}={value!r} is a {type(value).__name__}; "
                f"{trial.architecture.name}/{trial.size} has {default!r}, a {type(default).__name__}",
                f"Give architecture.{key} a value of that type.",
            )


def _preset(architecture: str, size: str) -> dict[str, Any]:
    return dict(_stated(f"preset/{architecture}", size).get("architecture") or {})


def _stated(group: str, name: str) -> dict[str, Any]:
    """What the file ``conf/<group>/<name>.yaml`` says, before Hydra puts it together; empty if there is none."""
    for folder in conf_dirs():
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            return _read(path, path.stat().st_mtime_ns)
    return {}


@lru_cache(maxsize=64)
def _read(path: Path, time: int) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})


def _same_kind(value: Any, default: Any) -> bool:
    if default is None or value is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    return isinstance(value, type(default))


def pydantic_message(error: ValidationError, prefix: str = "", model: type[BaseModel] | None = None) -> str:
    """One line for each mistake: key, value, what is expected; of an unknown key the one it was taken for.

    Args:
        error: what pydantic says.
        prefix: of the keys.
        model: the model that was being filled, to know the keys there are.
    """
    lines = []
    for item in error.errors():
        key = prefix + ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = _fields_at(model, item["loc"][:-1])
            lines.append(f"there is no key '{key}'. {close_match(str(item['loc'][-1]), known)}")
            continue
        message = item["msg"].removeprefix("Value error, ")
        shown = f"{key}={item['input']!r}: " if key and item["type"] not in ("missing", "value_error") else ""
        lines.append(f"{shown or (key + ': ' if key else '')}{message[0].lower() + message[1:]}")
    return "\n".join(lines)


def _fields_at(model: type[BaseModel] | None, path: Sequence[Any]) -> list[str]:
    """Names of the fields of the model that stands at ``path`` inside ``model``."""
    for part in path:
        annotation = model.model_fields[part].annotation if model is not None and part in model.model_fields else None
        kinds = [annotation, *getattr(annotation, "__args__", ())]
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return list(model.model_fields) if model is not None else []


def _hint(error: ValidationError) -> str | None:
    """An evaluation that was given in part lacks the rest of its keys."""
    if any(item["type"] == "missing" and item["loc"][0] == "evaluation" for item in error.errors()):
        return "Start from a complete one: evaluation=dev, fast, standard or speed, and override what differs."
    return None
