"""The data sets there are (every YAML of ``conf/dataset``, the user's own folder first), and the registry as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mlpbench.datasets.loading import labels_of, resolve
from mlpbench.datasets.readers import read
from mlpbench.datasets.readers.base import Notes
from mlpbench.datasets.schema import UNVERIFIED, DatasetConfig, Download
from mlpbench.datasets.statistics import Summary, summarise
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Frames

TEMPLATE = "file"  # conf/dataset/file.yaml is for the user's own data, not a set
_TITLES = ("NAME", "WHAT", "LABELS", "LICENCE", "STATE", "CHECKSUM")

_WHAT = _TITLES.index("WHAT")
_NARROWEST = 12  # characters of contents that are worth showing


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
            raise UserError(f"{self.path}: {'; '.join(lines)}", "Correct the file.") from error


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


def table(rows: list[tuple[str, DatasetConfig, str]], width: int | None = None) -> str:
    """Name, contents, labels, licence, state on this machine, and how well the files are known.

    Args:
        rows: name, configuration and state of each data set.
        width: of the terminal, in characters; contents are cut to fit. None: no limit.
    """
    cells = [_TITLES]
    for name, config, state in rows:
        labels = "+".join({"energy": "E", "forces": "F", "stress": "S"}[label] for label in config.labels)
        shown = f"{name}/..." if config.variants else name
        cells.append((shown, config.description, labels, config.licence.split(" (")[0], state, trust(config)))
    widths = [max(len(row[i]) for row in cells) for i in range(len(_TITLES))]
    excess = 0 if width is None else sum(widths) + 2 * (len(widths) - 1) - width
    widths[_WHAT] = max(_NARROWEST, widths[_WHAT] - max(0, excess))
    return "\n".join(
        "  ".join(f"{_cut(cell, width):<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1].rstrip()}…"


def trust(config: DatasetConfig) -> str:
    """``sha256``, ``git blob``, ``partial`` (first digits) or ``unverified``: the weakest of the files."""
    if config.kind != "download":
        return "sha256" if config.kind == "embedded" else "-"
    order = ("sha256", "git blob", "partial", UNVERIFIED)
    return max((_trust(item) for item in config.downloads), key=order.index)


def _trust(item: Download) -> str:
    if item.sha256 != UNVERIFIED:
        return "sha256"
    if item.git_blob is not None:
        return "git blob"
    return "partial" if item.sha256_starts is not None else UNVERIFIED


def describe(config: DatasetConfig, state: str) -> str:
    """What the registry knows of ``config``: contents, origin, terms, traps, files."""
    rows = [
        ("name", config.name), ("what", config.description), ("contents", config.contents),
        ("variants", ", ".join(config.variants)), ("labels", ", ".join(config.labels)),
        ("test splits", ", ".join([*config.test_paths, *config.test_indices]) or f"held out ({config.split.strategy})"),
        ("in distribution", config.in_distribution or ""), ("level of theory", config.level_of_theory),
        ("licence", config.licence), ("cite", config.citation), ("homepage", config.homepage), ("state", state),
        ("cost of a label", f"{config.label_seconds} s" if config.label_seconds else ""),
    ]  # fmt: skip
    lines = [f"{name:<17}{value}" for name, value in rows if value]
    lines += [f"{'beware' if i == 0 else '':<17}{trap}" for i, trap in enumerate(config.traps)]
    for i, item in enumerate(config.downloads[:12]):
        known = f"{_trust(item)}, address {item.address}"
        lines.append(f"{'files' if i == 0 else '':<17}{item.filename} ({known})\n{'':<17}{item.url}")
    if len(config.downloads) > 12:
        lines.append(f"{'':<17}and {len(config.downloads) - 12} more")
    return "\n".join(lines)


def describe_frames(config: DatasetConfig, progress: Callable[[int], None] | None = None) -> str:
    """Counts and distributions of the pool and each test file, read as a stream.

    Args:
        config: a data set whose files are on this machine.
        progress: called with the number of frames read so far.
    """
    parts = {"pool": [config.path] if isinstance(config.path, str) else list(config.path or [])}
    parts |= {name: [path] for name, path in config.test_paths.items()}
    parts |= {"test": [config.test_path]} if config.test_path else {}
    blocks = []
    for name, patterns in parts.items():
        notes = Notes()
        summary = _summary(config, patterns, notes, progress)
        lines = [f"  {title:<24}{value}" for title, value in summary.rows()]
        lines += [f"  {'read' if i == 0 else '':<24}{note}" for i, note in enumerate(notes.listed())]
        blocks.append("\n".join([f"\n{name}", *lines]))
    return "\n".join(blocks)


def _summary(
    config: DatasetConfig, patterns: list[str], notes: Notes, progress: Callable[[int], None] | None
) -> Summary:
    def chunks() -> Iterator[Frames]:
        count = 0
        for pattern in patterns:
            for file in resolve(config, pattern):
                for chunk in read(file, config.format, labels_of(config), notes):
                    count += len(chunk.frames)
                    if progress is not None:
                        progress(count)
                    yield chunk.frames

    return summarise(chunks())
