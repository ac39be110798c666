"""Foundation models: what ``conf/foundation.yaml`` says of each, and where its weights lie."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from ase.data import atomic_numbers, chemical_symbols
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mlpbench.backends.registry import Environment
from mlpbench.errors import UserError, close_match

FILE = "foundation.yaml"


class Foundation(BaseModel):
    """One foundation model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="as in start.foundation")
    title: str = Field(description="as its authors write it")
    architecture: str | None = Field(default=None, description="the one here that runs it; None: none does yet")
    package: str = Field(description="that runs it, with the version that was looked at")
    options: dict[str, Any] = Field(default_factory=dict, description="of the package for these weights")
    elements: str = Field(description="ranges by atomic number, such as 'H-Bi Ac-Pu'")
    level: str = Field(description="the level of theory of its labels")
    licence: str = Field(description="of the weights")
    commercial: bool | None = Field(description="whether that licence allows commercial use; None: it does not say")
    cutoff: float | None = Field(default=None, gt=0, description="Å")
    size_mb: float | None = Field(default=None, gt=0, description="of the file, 10⁶ bytes")
    inside: str | None = Field(default=None, description="where the package brings it, below site-packages")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="of the file")
    source: str = Field(description="where the file is to be had")
    note: str = Field(default="", description="what else one has to know")

    @field_validator("elements")
    @classmethod
    def _known(cls, text: str) -> str:
        elements_in(text)
        return text

    @property
    def numbers(self) -> set[int]:
        """Atomic numbers of the elements that it knows."""
        return elements_in(self.elements)

    def weights(self, environment: Environment | None, brought: Path | None) -> Path | None:
        """The file of weights: the one that was brought, else the one inside the package; None: there is none.

        Args:
            environment: of the backend; None where it is not built.
            brought: ``start.file``.
        """
        if brought is not None or self.inside is None or environment is None:
            return brought
        root = environment.python.parent.parent
        folders = [Path(folder) for folder in environment.pythonpath]
        folders += sorted((root / "lib").glob("python3*/site-packages"))
        return next((folder / self.inside for folder in folders if (folder / self.inside).is_file()), None)


def elements_in(text: str) -> set[int]:
    """Atomic numbers in ``text``, such as ``H-Bi Ac-Pu``.

    Raises:
        ValueError: a part is no element and no range of elements.
    """
    numbers: set[int] = set()
    for part in text.split():
        first, _, last = part.partition("-")
        try:
            numbers |= set(range(atomic_numbers[first], atomic_numbers[last or first] + 1))
        except KeyError as error:
            raise ValueError(f"'{part}' is neither an element nor a range such as H-Bi") from error
    return numbers


def symbols_of(numbers: Iterable[int]) -> str:
    """Elements as a sentence has them, by atomic number."""
    return ", ".join(chemical_symbols[z] for z in sorted(numbers))


def foundations(conf_dirs: Iterable[Path]) -> dict[str, Foundation]:
    """All foundation models by name; of entries of one name the first folder's counts.

    Args:
        conf_dirs: conf folders, most important first.

    Raises:
        UserError: a file is not YAML, or an entry says something else than :class:`Foundation`.
    """
    models: dict[str, Foundation] = {}
    for folder in conf_dirs:
        path = folder / FILE
        if not path.is_file():
            continue
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            for name, node in content.items():
                models.setdefault(str(name), Foundation(name=str(name), **node))
        except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, ValidationError) as error:
            raise UserError(f"{path}: {error}", "See the entries of mlpbench's own conf/foundation.yaml.") from error
    return models


def find(name: str, conf_dirs: Iterable[Path]) -> Foundation:
    """The foundation model called ``name``.

    Raises:
        UserError: there is none; with the close match.
    """
    models = foundations(conf_dirs)
    if name not in models:
        raise UserError(f"there is no foundation model '{name}'", close_match(name, models))
    return models[name]
