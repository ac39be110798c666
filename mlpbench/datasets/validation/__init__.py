"""Whether a file of labelled structures is what it seems: physical checks, each with the numbers of the frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlpbench.datasets.dataset import broken_cells, frames_without, free_atoms
from mlpbench.datasets.leaks import Fingerprinted, lag_ratio
from mlpbench.datasets.loading import fetch_all, labels_of, of_file, resolve
from mlpbench.datasets.readers import ASE_ORDER, read, stress_order
from mlpbench.datasets.readers.base import Notes
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.datasets.statistics import Summary, summarise
from mlpbench.datasets.validation.finding import Finding, Subject, overview
from mlpbench.datasets.validation.forces import check_forces, check_net_force
from mlpbench.datasets.validation.labels import (
    check_charges,
    check_energy_unit,
    check_labels,
    check_outliers,
    check_sizes,
)
from mlpbench.datasets.validation.stress import check_stress
from mlpbench.datasets.validation.structures import (
    check_cells,
    check_compositions,
    check_duplicates,
    check_overlaps,
)
from mlpbench.errors import UserError
from mlpbench.frames import Frames

CHECKS: dict[str, Callable[[Subject], list[Finding]]] = {
    "labels present and finite": check_labels,
    "energy unit against free atoms": check_energy_unit,
    "sizes of energies, forces and stress": check_sizes,
    "forces against energies (sign, unit)": check_forces,
    "stress against strain (sign, unit, order)": check_stress,
    "net force": check_net_force,
    "charges and spins": check_charges,
    "outliers": check_outliers,
    "atoms on top of each other": check_overlaps,
    "cells and periodicity": check_cells,
    "compositions": check_compositions,
    "copies and order in time": check_duplicates,
}
_SEVERITIES = ("error", "warning", "note", "unmade")


@dataclass(frozen=True)
class Validation:
    """The report on one data set or file.

    Attributes:
        name: of the data set or file.
        summary: counts and distributions of all frames.
        findings: errors first, without the checks that could not be made.
        outcomes: check -> "passed", "found", or the reason why it could not be made.
        notes: what the reader detected or assumed.
        frames: the frames that were checked.
        looked_at: their number, and the number there are.
        structure: temperatures, trajectories and copies, as name and value.
    """

    name: str
    summary: Summary
    findings: list[Finding]
    outcomes: dict[str, str]
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
    fetch_all(config)
    patterns = [config.path] if isinstance(config.path, str) else list(config.path)
    jobs = [(config.name, patterns, config, True)]
    tests = {**({"test": config.test_path} if config.test_path else {}), **config.test_paths}
    plain = config.model_copy(update={"index": ":"})
    if config.valid_path is not None:
        jobs.append((f"{config.name}, validation", [config.valid_path], plain, True))
    jobs += [(f"{config.name}, extension {path}", [path], plain, True) for path in config.extend_paths]
    jobs += [(f"{config.name}, split {name}", [pattern], plain, False) for name, pattern in tests.items()]
    return [_validate(*job, max_frames) for job in jobs]


def check_frames(
    name: str,
    frames: Frames,
    config: DatasetConfig,
    headers: list[dict[str, Any]] | None = None,
    notes: list[str] | None = None,
    total: int | None = None,
    summary: Summary | None = None,
    read_as: str = ASE_ORDER,
    is_pool: bool = True,
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
        is_pool: training uses these frames, so that labels of ``config.labels`` must be there.
    """
    original = _original_numbers(frames)
    free = free_atoms(frames, headers or []) if is_pool else original[:0]
    if 0 < len(free) < len(frames):  # reference energies, not training frames
        original = np.setdiff1d(original, free)
        notes = [*(notes or []), f"{len(free)} frames of config_type IsolatedAtom: reference energies, not checked"]
    seen = np.setdiff1d(np.arange(len(frames)), free) if len(free) < len(frames) else np.arange(len(frames))
    whole = frames.select(original)
    prints = Fingerprinted.of(whole)
    kept = [headers[i] for i in original] if headers else []
    subject = Subject(whole, prints, config, kept, lag_ratio(prints), read_as, is_pool)
    findings, outcomes = [], {}
    for check_name, check in CHECKS.items():
        if check in (check_labels, check_cells):
            outcome = check(replace(subject, frames=frames.select(seen)))
            outcome = [replace(f, frames=[int(seen[i]) for i in f.frames]) for f in outcome]
        elif len(whole):
            outcome = [replace(f, frames=[int(original[i]) for i in f.frames]) for f in check(subject)]
        else:
            outcome = [Finding(check_name, "unmade", "no frame has finite positions and a proper cell")]
        findings += [finding for finding in outcome if finding.severity != "unmade"]
        missing = [finding.message for finding in outcome if finding.severity == "unmade"]
        found = any(finding.severity in ("error", "warning") for finding in outcome)
        outcomes[check_name] = "found" if found else missing[0] if missing else "passed"
    said = [note.removeprefix("warning: ") for note in notes or [] if note.startswith("warning: ")]
    findings += [Finding("reading", "warning", text) for text in said]
    findings.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    counted = summary or summarise([frames])
    structure = overview(subject.lag_ratio, subject.headers, findings)
    quiet = [note for note in notes or [] if not note.startswith("warning: ")]
    return Validation(name, counted, findings, outcomes, quiet, frames, (len(frames), total or len(frames)), structure)


def _validate(name: str, patterns: list[str], config: DatasetConfig, is_pool: bool, max_frames: int) -> Validation:
    notes, summary = Notes(), Summary()
    parts: list[Frames] = []
    headers: list[dict[str, Any]] = []
    files = [file for pattern in patterns for file in resolve(config, pattern)]
    for number, file in enumerate(files):
        for chunk in read(file, config.format, labels_of(config), notes):
            frames = of_file(chunk.frames, number, config)
            summary.add(frames)
            if sum(map(len, parts)) < max_frames:
                parts.append(frames)
                headers += chunk.headers
    frames = Frames.concatenate(parts).select(slice(0, max_frames))
    order = stress_order(files[0], config)
    said = notes.listed()
    return check_frames(name, frames, config, headers[: len(frames)], said, summary.frames, summary, order, is_pool)


def _original_numbers(frames: Frames) -> Any:
    """The frames that checks can look at: the others, without finite positions or a proper cell, are only reported."""
    broken = [frames_without(frames, "positions"), frames_without(frames, "cell"), broken_cells(frames)]
    return np.setdiff1d(np.arange(len(frames)), np.concatenate(broken))
