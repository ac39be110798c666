"""Hydra's complaints in words a user can act on."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from hydra import compose
from hydra.errors import OverrideParseException
from omegaconf import DictConfig

from mlpbench.config.setup import CONFIG_NAME, conf_dirs, hydra_state
from mlpbench.errors import UserError, close_match

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
    found = {path.stem for folder in conf_dirs() for path in (folder / group).glob("*.yaml")}
    if not found:  # a group with folders in it, such as preset/<architecture>
        found = {path.name for folder in conf_dirs() for path in (folder / group).glob("*") if path.is_dir()}
    if group == "hydra/launcher":
        found = {"basic", *LAUNCHERS}
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


def _known_keys(overrides: Sequence[str], name: str) -> list[str]:
    """Keys of the configuration, with the options that were chosen (architecture=schnet has keys of its own)."""
    groups = {path.name for folder in conf_dirs() for path in folder.iterdir() if path.is_dir()}
    chosen = [o.split(",")[0] for o in overrides if o.split("=")[0] in groups]
    with hydra_state():
        config = compose(name, overrides=chosen)
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
