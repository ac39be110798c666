"""Counts and distributions of a set of frames, gathered chunk by chunk so that no set is too large to describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mlpbench.frames import Float, Frames
from mlpbench.units import GPA


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
