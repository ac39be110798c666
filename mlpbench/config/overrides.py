"""The way back: from a trial's resolved configuration to the overrides that compose it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from mlpbench.config.checks import validate
from mlpbench.config.composing import compose_raw
from mlpbench.config.setup import conf_dirs
from mlpbench.errors import UserError

_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")  # text that Hydra reads as text without quotes
_WORDS = {"null", "true", "false", "inf", "nan"}
_OWN = {
    "study",
    "reports_dir",
    "logging",
    "repetition",
    "architecture.name",
    "architecture.backend",
    "size",
    "dataset.n_train",
    "acquisition.until",
}
# What a known data set's file tells its reader and no trial depends on: rewording it asks for no override.
_TOLD = {f"dataset.{key}" for key in ("description", "contents", "level_of_theory", "licence", "citation", "homepage",
                                      "traps", "label_noise")}  # fmt: skip
_GROUPS = ("training", "budget", "evaluation")
_BACKEND = ("python", "pythonpath")  # what an override may say of a backend and still mean the same adapter


def overrides_of(config: Mapping[str, Any], *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Overrides, key -> value in Hydra's grammar, that compose ``config`` again.

    Groups come first (``dataset``, ``architecture``, ``size`` and, where the default is not the closest, ``training``,
    ``budget``, ``evaluation``), then ``dataset.n_train``, then every value that differs from what they compose.
    The study's name, ``repetition`` and ``reports_dir`` are left to the caller.

    Args:
        config: of a record.
        without: keys and groups that are left as they are by default, e.g. ``evaluation``.

    Raises:
        UserError: the data set, architecture or size has no file in ``conf`` any more.
    """
    data = config["dataset"]
    overrides = {
        "dataset": _dataset_option(data),
        "architecture": str(config["architecture"]["name"]),
        "size": str(config["size"]),
    }
    needed = {"dataset.variant": _value(data["variant"])} if data.get("variant") is not None else {}
    if data.get("kind") == "file":
        needed["dataset.path"] = _value(data["path"])
    start = config.get("start") or {}
    if start.get("kind", "scratch") != "scratch":
        overrides["start"] = str(start["kind"])
        needed |= {f"start.{key}": _value(start[key]) for key in ("potential", "foundation", "file") if start.get(key)}
    acquisition = str((config.get("acquisition") or {}).get("kind", "none"))
    if acquisition != "none":
        overrides["acquisition"] = acquisition
    base = _composed(_texts({**overrides, **needed}))
    for group in _GROUPS:
        wanted = config.get(group) or {}
        if group not in without and any(True for _ in _unlike(base[group], wanted, group)):
            option = _closest(_texts({**overrides, **needed}), group, wanted)
            if option is not None:
                overrides[group] = option
    chosen = _texts({**overrides, **needed})
    overrides["dataset.n_train"] = str(data["n_train"])
    overrides |= needed
    told = set() if data.get("kind") == "file" else _TOLD  # of one's own file the user said it
    for key, value in _unlike(_composed(chosen), config):
        if key not in {*_OWN, *told, *needed, *without} and key.split(".")[0] not in {*without, "backend"}:
            # A key that no file has must be added, and so must what a mapping holds.
            added = isinstance(value, Mapping) or OmegaConf.select(_raw(chosen), key, default=_raw) is _raw
            overrides[f"++{key}" if added else key] = _value(value)
    own = str(config["architecture"]["backend"])
    for name in _BACKEND:
        value = (config.get("backend") or {}).get(own, {}).get(name)
        if value:
            overrides[f"backend.{own}.{name}"] = _value(value)
    return overrides


def option_of(config: Mapping[str, Any], group: str) -> str | None:
    """The option of ``group``, e.g. of ``training``, that composes to what ``config`` has there; None if none does."""
    try:
        data = config["dataset"]
        base = {
            "dataset": _dataset_option(data),
            "architecture": str(config["architecture"]["name"]),
            "size": str(config["size"]),
        }
        if data.get("variant") is not None:
            base["dataset.variant"] = _value(data["variant"])
        if data.get("kind") == "file":
            base["dataset.path"] = _value(data["path"])
        wanted = config.get(group) or {}
        for name in sorted({path.stem for folder in conf_dirs() for path in (folder / group).glob("[!_]*.yaml")}):
            try:
                composed = _composed((*_texts(base), f"{group}={name}"))[group]
            except UserError:
                continue  # not for every architecture, as training=recommended
            if not any(True for _ in _unlike(composed, wanted, group)):
                return name
    except (UserError, KeyError):
        return None  # of another version's configuration
    return None


def _texts(overrides: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in overrides.items())


def _unlike(base: Mapping[str, Any], config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of ``config`` whose values are not those of ``base``, as deep as both are mappings."""
    for name, value in config.items():
        key = f"{prefix}.{name}" if prefix else name
        known = base.get(name)
        if isinstance(value, Mapping) and isinstance(known, Mapping) and known:
            yield from _unlike(known, value, key)
        elif name not in base or value != known:
            yield key, value


@lru_cache(maxsize=256)
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    return dict(validate(_raw(overrides)).model_dump(mode="json"))


@lru_cache(maxsize=256)
def _raw(overrides: tuple[str, ...]) -> DictConfig:
    return compose_raw(list(overrides))


def _closest(overrides: tuple[str, ...], group: str, wanted: Mapping[str, Any]) -> str | None:
    """The option of ``group`` with the fewest differences; None for the default one."""
    files = {path.stem: path for folder in reversed(conf_dirs()) for path in (folder / group).glob("[!_]*.yaml")}
    scores = {}
    for name, path in files.items():
        content = _option(path, overrides, group)
        if content is not None:
            scores[name] = len(list(_unlike(content, wanted, group)))
    best = min(scores, key=lambda name: (scores[name], name != "default", name))
    return None if best == "default" else best


@lru_cache(maxsize=512)
def _read(path: Path, changed: int) -> dict[str, Any]:
    """A YAML file; ``changed`` is when it was written last, so that a file that changes is read again."""
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})


def _option_content(path: Path) -> dict[str, Any] | None:
    """What an option's file says, those of its own group that it is made of included; None where it needs Hydra."""
    content = dict(_read(path, path.stat().st_mtime_ns))
    merged: dict[str, Any] = {}
    parts = content.pop("defaults", [])
    for name in parts if "_self_" in parts else [*parts, "_self_"]:
        if name == "_self_":
            merged = _merged(merged, content)
        elif isinstance(name, str) and (path.parent / f"{name}.yaml").is_file():
            below = _option_content(path.parent / f"{name}.yaml")
            if below is None:
                return None
            merged = _merged(merged, below)
        else:
            return None
    return merged if "${" not in str(merged) and "???" not in merged.values() else None


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {k: _merged(base[k], v) for k, v in over.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return {**base, **over, **both}


def _option(path: Path, overrides: tuple[str, ...], group: str) -> Mapping[str, Any] | None:
    """What an option of ``group`` comes to; None where this architecture has none, as of training=recommended."""
    content = _option_content(path)
    if content is not None:
        return content
    try:  # made of other groups: only Hydra knows what it comes to
        composed: Mapping[str, Any] = _composed((*overrides, f"{group}={path.stem}"))[group]
    except UserError:
        return None
    return composed


def _dataset_option(data: Mapping[str, Any]) -> str:
    """The file in ``conf/dataset`` that says the most of this data set and contradicts it the least."""
    scores = {}
    for folder in reversed(conf_dirs()):
        for path in (folder / "dataset").glob("[!_]*.yaml"):
            stated = _read(path, path.stat().st_mtime_ns)
            stated = {k: v for k, v in stated.items() if k not in ("defaults", "n_train", "n_valid", "per_variant")}
            variant = str(data.get("variant"))
            filled = {k: v.replace("{variant}", variant) if isinstance(v, str) else v for k, v in stated.items()}
            known = {k: v for k, v in filled.items() if v not in (None, "", "???") and not isinstance(v, dict | list)}
            same = sum(data.get(key) == value for key, value in known.items())
            scores[path.stem] = (len(known) - same, -same)
    # Its name and kind may not be contradicted by more than the settings that an override changes.
    return min(scores, key=lambda name: (scores[name][0] + scores[name][1], scores[name], name))


def _value(value: Any) -> str:
    """``value`` in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{_value(str(k))}:{_value(v)}' for k, v in value.items())}}}"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    # Double quotes read better once a shell's single ones stand around the whole.
    return f"'{text}'" if any(sign in text for sign in '"\\\\$') else f'"{text}"'
