"""A composed configuration checked against the schema and the preset it started from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from mlpbench.backends.registry import BackendConfig
from mlpbench.config.schema import TrialConfig
from mlpbench.config.setup import CONFIG_NAME, conf_dirs, hydra_state
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
        """Note each text that an environment variable gave."""
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
    backends: dict[str, BackendConfig] = {}
    for name, node in nodes.items():
        try:
            backends[name] = BackendConfig(name=name, **node)
        except (ValidationError, TypeError) as error:
            text = str(error)
            if isinstance(error, ValidationError):
                text = pydantic_message(error, f"backend.{name}.", model=BackendConfig)
            raise UserError(text, f"Correct conf/backend/{name}.yaml or the override.") from error
    return backends


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
    missing = [item["loc"] for item in error.errors() if item["type"] == "missing" and item["loc"][0] == "evaluation"]
    if not missing:
        return None
    sections = " ".join(sorted({f"evaluation.{place[1]}=null" for place in missing if len(place) > 2}))
    return "Start from a complete one: evaluation=dev, fast, standard or speed, and override what differs." + (
        f" An experiment may have set a part of it: {sections} leaves that out." if sections else ""
    )


# Hydra's launchers that run several trials at once, and the extra of mlpbench that brings each.
LAUNCHERS = {"joblib": "parallel", "submitit_local": "slurm", "submitit_slurm": "slurm"}


# What other programs call it -> our key.
_SYNONYMS = {
    "learning_rate": "lr", "lr_rate": "lr", "batch": "batch_size", "batchsize": "batch_size", "optimiser": "optimizer",
    "max_epochs": "epochs", "n_epochs": "epochs", "max_steps": "steps", "seed": "repetition", "r_max": "cutoff",
    "r_cut": "cutoff", "rcut": "cutoff", "ntrain": "n_train", "n_val": "n_valid", "val": "n_valid",
}  # fmt: skip


def explain(error: Exception, overrides: Sequence[str], name: str = CONFIG_NAME, *, command: str = "run") -> UserError:
    """Hydra's message on ``conf/<name>.yaml``, shortened to what a user can act on, with the close match."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        if not equals:
            return UserError(f"'{error.override}' is not KEY=VALUE", "See: mlpbench run --help")
        return UserError(
            f"{error.override}: Hydra cannot read this value",
            f"Quote it, for Hydra and for the shell: '{key}=\"{value}\"'",
        )
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
        if group == "hydra/launcher" and option in LAUNCHERS:
            return UserError(
                f"the launcher '{option}' is not installed", f"Install it: pip install 'mlpbench[{LAUNCHERS[option]}]'"
            )
        return UserError(f"{group}={option}: there is no such {group}", close_match(option, _options(group)))
    typed = _offending_key(text, overrides)
    if typed is not None:
        keys = _known_keys(overrides, name)
        if typed in keys:  # a mapping, and the override brings entries that it does not have
            return UserError(
                f"'{typed}' does not have all the entries that are given", f"To add to it, write a plus: +{typed}=..."
            )
        known = keys
        same_leaf = [key for key in known if key.rpartition(".")[2] == typed.rpartition(".")[2]]
        meant = _SYNONYMS.get(typed.rpartition(".")[2])
        same_leaf = [key for key in known if key.rpartition(".")[2] == meant] or same_leaf
        match = same_leaf[:1] or difflib.get_close_matches(typed, known, n=1, cutoff=0.6)
        hint = f"Did you mean '{match[0]}'? " if match else ""
        all_keys = "mlpbench run --cfg job" if name == CONFIG_NAME else f"conf/{name}.yaml and the groups it names"
        return UserError(f"the configuration has no key '{typed}'", f"{hint}See all keys: {all_keys}")
    if text.startswith("Ambiguous value"):
        argument = text.splitlines()[0].removeprefix("Ambiguous value for argument ")
        return UserError(f"{argument} gives several values", f"For a sweep over them add -m: mlpbench {command} -m ...")
    return UserError(text.splitlines()[0], "See: mlpbench run --help")


def _options(group: str) -> list[str]:
    options = {path.stem for folder in conf_dirs() for path in (folder / group).glob("*.yaml")}
    if not options:  # a group with folders in it, such as preset/<architecture>
        options = {path.name for folder in conf_dirs() for path in (folder / group).glob("*") if path.is_dir()}
    if group == "hydra/launcher":
        options = {"basic", *LAUNCHERS}
    return sorted(name for name in options if not name.startswith("_"))


def _offending_key(text: str, overrides: Sequence[str]) -> str | None:
    match = re.search(r"Could not override '([^']+)'", text) or re.search(r"full_key: (\S+)", text)
    if match:
        return match.group(1)
    for override in overrides:
        key = override.split("=", 1)[0].lstrip("+~")
        if key and f"'{key}'" in text:
            return key
    return None


def _known_keys(overrides: Sequence[str], name: str) -> list[str]:
    """Keys of the configuration, with the options that were chosen (architecture=schnet has keys of its own)."""
    groups = {path.name for folder in conf_dirs() for path in folder.iterdir() if path.is_dir()}
    chosen = [o.split(",")[0] for o in overrides if o.split("=")[0] in groups]
    with hydra_state():
        config = compose(name, overrides=chosen)
    keys: list[str] = []

    def walk(node: DictConfig, prefix: str) -> None:
        """Note every key below ``node``."""
        for key in map(str, node):
            path = f"{prefix}{key}"
            keys.append(path)
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none():
                walk(child, f"{path}.")

    walk(config, "")
    return keys
