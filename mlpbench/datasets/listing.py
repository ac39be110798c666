"""The registry as text: one line for each set, and one page for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mlpbench.datasets import sources
from mlpbench.datasets.loading import labels_of
from mlpbench.datasets.readers import read
from mlpbench.datasets.readers.base import Notes
from mlpbench.datasets.schema import UNVERIFIED, DatasetConfig, Download
from mlpbench.datasets.statistics import Summary, summarise
from mlpbench.frames import Frames

_TITLES = ("NAME", "WHAT", "LABELS", "LICENCE", "STATE", "CHECKSUM")

_WHAT = _TITLES.index("WHAT")
_NARROWEST = 12  # characters of contents that are worth showing


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
            for file in sources.resolve(config, pattern):
                for chunk in read(file, config.format, labels_of(config), notes):
                    count += len(chunk.frames)
                    if progress is not None:
                        progress(count)
                    yield chunk.frames

    return summarise(chunks())
