"""Whether a file of labelled structures is what it seems: physical checks, each with the numbers of the frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlpbench.datasets import sources
from mlpbench.datasets.labels import frames_without
from mlpbench.datasets.leaks import Fingerprinted, lag_ratio
from mlpbench.datasets.loading import labels_of
from mlpbench.datasets.readers import ASE_ORDER, read, stress_order
from mlpbench.datasets.readers.base import Notes
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.datasets.statistics import Summary, summarise
from mlpbench.datasets.validation.finding import Finding, Subject
from mlpbench.datasets.validation.forces_check import check_forces, check_net_force
from mlpbench.datasets.validation.labels_check import check_labels, check_outliers, check_plausible
from mlpbench.datasets.validation.overview import overview
from mlpbench.datasets.validation.stress import check_stress
from mlpbench.datasets.validation.structure_check import (
    check_cells,
    check_compositions,
    check_duplicates,
    check_overlaps,
)
from mlpbench.errors import UserError
from mlpbench.frames import Frames

CHECKS: dict[str, Callable[[Subject], list[Finding]]] = {
    "labels present and finite": check_labels,
    "energy and force units plausible": check_plausible,
    "forces against energies (sign, unit)": check_forces,
    "stress against strain (sign, unit, order)": check_stress,
    "net force": check_net_force,
    "outliers": check_outliers,
    "atoms on top of each other": check_overlaps,
    "cells and periodicity": check_cells,
    "compositions": check_compositions,
    "copies and order in time": check_duplicates,
}
_SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Validation:
    """The report on one data set or file.

    Attributes:
        name: of the data set or file.
        summary: counts and distributions of all frames.
        findings: errors first.
        notes: what the reader detected or assumed.
        frames: the frames that were checked.
        looked_at: their number, and the number there are.
        structure: temperatures, trajectories and copies, as name and value.
    """

    name: str
    summary: Summary
    findings: list[Finding]
    notes: list[str]
    frames: Frames
    looked_at: tuple[int, int]
    structure: list[tuple[str, str]]

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Counts, distributions and structure, as name and value."""
        return [*self.summary.rows(), *self.structure]

    @property
    def ok(self) -> bool:
        """True if nothing is an error."""
        return not any(finding.severity == "error" for finding in self.findings)


def validate(config: DatasetConfig, max_frames: int = 20_000) -> list[Validation]:
    """Check the pool of ``config`` and each of its test files.

    Args:
        config: the data set; labels that training uses but a file lacks are findings, not failures.
        max_frames: of larger files, the first so many frames are checked (neighbours in time are needed);
            the summary counts all.

    Raises:
        UserError: a file is missing or cannot be read at all.
    """
    if config.path is None:
        raise UserError(f"data set {config.name} has no path", "Give a file.")
    sources.fetch_all(config)
    patterns = [config.path] if isinstance(config.path, str) else list(config.path)
    jobs = [(config.name, patterns, config)]
    tests = {**({"test": config.test_path} if config.test_path else {}), **config.test_paths}
    plain = config.model_copy(update={"index": ":"})
    jobs += [(f"{config.name}, split {name}", [pattern], plain) for name, pattern in tests.items()]
    return [_validate(name, patterns, config, max_frames) for name, patterns, config in jobs]


def check_frames(
    name: str,
    frames: Frames,
    config: DatasetConfig,
    headers: list[dict[str, Any]] | None = None,
    notes: list[str] | None = None,
    total: int | None = None,
    summary: Summary | None = None,
    read_as: str = ASE_ORDER,
) -> Validation:
    """Run every check on ``frames``.

    Args:
        name: for the report.
        frames: in eV and Å, in the order of the file.
        config: the data set's configuration.
        headers: what each frame's header says.
        notes: what the reader detected.
        total: number of frames there are, where only some are checked.
        summary: of all frames; None: of these.
        read_as: order in which the reader took the file's stress components.
    """
    whole = _without_broken(frames)
    prints = Fingerprinted.of(whole)
    subject = Subject(whole, prints, config, headers or [], lag_ratio(prints), read_as)
    findings = check_labels(replace(subject, frames=frames))
    for check in CHECKS.values():
        if check is not check_labels and len(whole):
            findings += check(subject)
    original = _original_numbers(frames)
    findings = [f if f.check == "labels" else replace(f, frames=[int(original[i]) for i in f.frames]) for f in findings]
    findings.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    counted = summary or summarise([frames])
    structure = overview(subject.lag_ratio, subject.headers, findings)
    return Validation(name, counted, findings, notes or [], frames, (len(frames), total or len(frames)), structure)


def _validate(name: str, patterns: list[str], config: DatasetConfig, max_frames: int) -> Validation:
    notes, summary = Notes(), Summary()
    parts: list[Frames] = []
    headers: list[dict[str, Any]] = []
    files = [file for pattern in patterns for file in sources.resolve(config, pattern)]
    for number, file in enumerate(files):
        for chunk in read(file, config.format, labels_of(config), notes):
            frames = replace(chunk.frames, group=np.full(len(chunk.frames), number, dtype=np.int64))
            if config.periodic is False:
                frames = replace(frames, cell=np.zeros_like(frames.cell), pbc=np.zeros_like(frames.pbc))
            summary.add(frames)
            if sum(map(len, parts)) < max_frames:
                parts.append(frames)
                headers += chunk.headers
    frames = Frames.concatenate(parts).select(slice(0, max_frames))
    order = stress_order(files[0], config)
    return check_frames(name, frames, config, headers, notes.listed(), summary.frames, summary, order)


def _without_broken(frames: Frames) -> Frames:
    """The frames whose positions and cell are finite: the others can only be reported."""
    return frames.select(_original_numbers(frames))


def _original_numbers(frames: Frames) -> Any:
    broken = np.union1d(frames_without(frames, "positions"), frames_without(frames, "cell"))
    return np.setdiff1d(np.arange(len(frames)), broken)
