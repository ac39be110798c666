"""A reference method from ``conf/reference`` and overrides, for commands that take nothing else from Hydra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mlpbench.config.places import conf_dirs
from mlpbench.errors import UserError, close_match


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
    found = {path.stem: path for folder in reversed(conf_dirs()) for path in (folder / "reference").glob("*.yaml")}
    if name not in found:
        raise UserError(f"reference={name}: there is no such file in conf/reference", close_match(name, found))
    return found[name]
