"""The data sets there are (every YAML of ``conf/dataset``, the user's own folder first), and the registry as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase.data import chemical_symbols
from pydantic import ValidationError

from mlpbench.datasets.loading import labels_of, resolve
from mlpbench.datasets.readers import read
from mlpbench.datasets.readers.base import Notes
from mlpbench.datasets.schema import UNVERIFIED, DatasetConfig, Download
from mlpbench.errors import UserError, close_match
from mlpbench.frames import Float, Frames
from mlpbench.units import GPA

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
    known: dict[str, Entry] = {}
    for folder in folders:
        for path in sorted((folder / "dataset").glob("*.yaml")):
            if path.stem == TEMPLATE or path.stem.startswith("_") or path.stem in known:
                continue
            try:
                values = yaml.safe_load(path.read_text(encoding="utf-8"))
            except yaml.YAMLError as error:
                raise UserError(f"{path}: not YAML ({error})") from error
            if not isinstance(values, dict):
                raise UserError(f"{path}: expected keys and values")
            values.pop("defaults", None)  # Hydra's; what it would bring in are the schema's own defaults
            known[path.stem] = Entry(path.stem, path, values)
    return dict(sorted(known.items()))


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
    """``sha256``, ``git blob``, ``git tree``, ``partial`` (first digits) or ``unverified``: the weakest."""
    if config.kind != "download":
        return "sha256" if config.kind == "embedded" else "-"
    order = ("sha256", "git blob", "git tree", "partial", UNVERIFIED)
    return max((_trust(item) for item in config.downloads), key=order.index)


def _trust(item: Download) -> str:
    if item.sha256 != UNVERIFIED:
        return "sha256"
    if item.git_blob is not None:
        return "git blob"
    if item.git_tree is not None:
        return "git tree"
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
        """The frames of all files, a chunk at a time."""
        count = 0
        for pattern in patterns:
            for file in resolve(config, pattern):
                for chunk in read(file, config.format, labels_of(config), notes):
                    count += len(chunk.frames)
                    if progress is not None:
                        progress(count)
                    yield chunk.frames

    return summarise(chunks())


@dataclass
class Running:
    """Count, mean, variance and range of values that arrive in pieces (Chan and co-workers, 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    smallest: float = float("inf")
    largest: float = float("-inf")

    def add(self, values: Float) -> None:
        """Take in ``values``; those that are not finite are left out."""
        values = values[np.isfinite(values)]
        if len(values) == 0:
            return
        n, total = len(values), self.count + len(values)
        with np.errstate(over="ignore"):  # a damaged file may hold 1e300: infinite, and seen to be
            mean = values.mean()
            shift = mean - np.float64(self.mean)
            self.squares += float(((values - mean) ** 2).sum() + shift**2 * (self.count * n / total))
        self.mean += float(shift * n / total)
        self.count = total
        self.smallest = min(self.smallest, float(values.min()))
        self.largest = max(self.largest, float(values.max()))

    @property
    def std(self) -> float:
        """Standard deviation; NaN without values."""
        return float(np.sqrt(self.squares / self.count)) if self.count else float("nan")

    @property
    def rms(self) -> float:
        """Root mean square; NaN without values."""
        return float(np.sqrt(self.squares / self.count + np.float64(self.mean) ** 2)) if self.count else float("nan")


@dataclass
class Summary:
    """What ``data describe`` prints.

    Attributes:
        frames: number of frames.
        atoms: atoms of a frame (smallest and largest in the Running).
        elements: element -> number of atoms in all frames.
        sizes: number of atoms -> frames; at most 1000 sizes are kept apart.
        labelled: label -> frames that have it.
        periodic: frames periodic along at least one vector.
        energy: eV per atom.
        forces: eV/Å, components.
        stress: eV/Å³, components.
        volume: Å³ per atom of periodic frames.
        groups: trajectories.
    """

    frames: int = 0
    atoms: Running = field(default_factory=Running)
    elements: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    labelled: Counter[str] = field(default_factory=Counter)
    periodic: int = 0
    energy: Running = field(default_factory=Running)
    forces: Running = field(default_factory=Running)
    stress: Running = field(default_factory=Running)
    volume: Running = field(default_factory=Running)
    groups: int = 0

    def add(self, frames: Frames) -> None:
        """Take in some frames."""
        self.frames += len(frames)
        self.atoms.add(frames.n_atoms.astype(np.float64))
        for z, count in zip(*np.unique(frames.numbers, return_counts=True), strict=True):
            self.elements[chemical_symbols[z]] += int(count)
        for size, count in zip(*np.unique(frames.n_atoms, return_counts=True), strict=True):
            self.sizes[int(size)] += int(count)
        finite = np.isfinite(frames.forces).all(axis=1)
        starts = frames.offsets[:-1][frames.n_atoms > 0]
        self.labelled["energy"] += int(np.isfinite(frames.energy).sum())
        self.labelled["forces"] += int(np.logical_and.reduceat(finite, starts).sum()) if len(starts) else 0
        self.labelled["stress"] += int(np.isfinite(frames.stress).all(axis=1).sum())
        self.periodic += int(frames.pbc.any(axis=1).sum())
        self.energy.add(frames.energy / frames.n_atoms)
        self.forces.add(frames.forces.ravel())
        self.stress.add(frames.stress.ravel())
        whole = frames.pbc.all(axis=1)
        self.volume.add(np.abs(np.linalg.det(frames.cell[whole])) / frames.n_atoms[whole])
        self.groups = max(self.groups, int(frames.group.max(initial=-1)) + 1)

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each line, for terminal and HTML."""
        size = f"{self.atoms.smallest:.0f}"
        if self.atoms.largest != self.atoms.smallest:
            size += f" to {self.atoms.largest:.0f}, mean {self.atoms.mean:.1f}"
        rows = [
            ("frames", f"{self.frames:,}"),
            ("atoms per frame", size if self.frames else "-"),
            ("elements", ", ".join(f"{s} {n:,}" for s, n in self.elements.most_common())),
            ("periodic", f"{self.periodic:,} of {self.frames:,}"),
            ("labels", ", ".join(f"{name} {self.labelled[name]:,}" for name in ("energy", "forces", "stress"))),
        ]
        if self.energy.count:
            spread = f"mean {self.energy.mean:.4f}, std {1000 * self.energy.std:.1f} meV/atom"
            rows.append(("energy per atom (eV)", f"{spread}, {self.energy.smallest:.4f} to {self.energy.largest:.4f}"))
        if self.forces.count:
            largest = max(abs(self.forces.smallest), abs(self.forces.largest))
            rows.append(("force components (eV/Å)", f"rms {self.forces.rms:.3f}, largest {largest:.2f}"))
        if self.stress.count:
            largest = max(abs(self.stress.smallest), abs(self.stress.largest))
            rows.append(("stress components (GPa)", f"rms {self.stress.rms / GPA:.3g}, largest {largest / GPA:.3g}"))
        if self.volume.count:
            low, high = self.volume.smallest, self.volume.largest
            rows.append(("volume per atom (Å³)", f"mean {self.volume.mean:.2f}, {low:.2f} to {high:.2f}"))
        return rows

    def as_json(self) -> dict[str, Any]:
        """The numbers, units in the names."""
        return {
            "frames": self.frames,
            "elements": dict(self.elements),
            "labelled": dict(self.labelled),
            "periodic_frames": self.periodic,
            "energy_mean_eV_per_atom": self.energy.mean if self.energy.count else None,
            "energy_std_eV_per_atom": self.energy.std if self.energy.count else None,
            "force_rms_eV_per_A": self.forces.rms if self.forces.count else None,
        }


def summarise(parts: Iterable[Frames]) -> Summary:
    """The summary of all ``parts`` together; each is dropped once counted."""
    summary = Summary()
    for frames in parts:
        summary.add(frames)
    return summary
