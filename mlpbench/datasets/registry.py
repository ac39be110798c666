"""The data sets there are: every YAML of ``conf/dataset``, the user's own folder first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlpbench.datasets.schema import DatasetConfig
from mlpbench.errors import UserError, close_match

TEMPLATE = "file"  # conf/dataset/file.yaml is for the user's own data, not a set


@dataclass(frozen=True)
class Entry:
    """One YAML of the registry.

    Attributes:
        name: its stem, as in ``dataset=NAME``.
        path: the file.
        values: its content.
    """

    name: str
    path: Path
    values: dict[str, Any]

    def config(self, variant: str | None = None) -> DatasetConfig:
        """The entry as a configuration.

        Args:
            variant: one of the entry's variants; None: the one that the file names.

        Raises:
            UserError: no such variant, or the file says something that is not allowed.
        """
        known = [str(v) for v in self.values.get("variants") or []]
        if variant is not None and variant not in known:
            raise UserError(f"data set {self.name} has no variant '{variant}'", close_match(variant, known))
        values = {**self.values, **({"variant": variant} if variant is not None else {})}
        try:
            return DatasetConfig.model_validate(values)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc'])) or 'dataset'}: {e['msg']}" for e in error.errors()]
            raise UserError(f"{self.path}: {'; '.join(lines)}", "Mend the file.") from error


def entries(folders: list[Path]) -> dict[str, Entry]:
    """name -> entry, sorted by name; a file in an earlier folder hides one of the same name in a later.

    Args:
        folders: configuration folders, as ``mlpbench.config.conf_dirs()`` gives them.

    Raises:
        UserError: a file is not YAML.
    """
    found: dict[str, Entry] = {}
    for folder in folders:
        for path in sorted((folder / "dataset").glob("*.yaml")):
            if path.stem == TEMPLATE or path.stem.startswith("_") or path.stem in found:
                continue
            try:
                values = yaml.safe_load(path.read_text(encoding="utf-8"))
            except yaml.YAMLError as error:
                raise UserError(f"{path}: not YAML ({error})") from error
            if not isinstance(values, dict):
                raise UserError(f"{path}: expected keys and values")
            values.pop("defaults", None)  # Hydra's; what it would bring in are the schema's own defaults
            found[path.stem] = Entry(path.stem, path, values)
    return dict(sorted(found.items()))


def find(name: str, folders: list[Path]) -> DatasetConfig:
    """The configuration of ``NAME`` or ``NAME/VARIANT``.

    Raises:
        UserError: there is none of that name; with the close match.
    """
    known = entries(folders)
    stem, _, variant = name.partition("/")
    if stem not in known:
        raise UserError(f"there is no data set '{stem}'", close_match(stem, known))
    return known[stem].config(variant or None)
