"""Whether a file of labelled structures is what it seems: physical checks, each with the numbers of the frames."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jinja2 import Environment, select_autoescape

from mlpbench.datasets.dataset import broken_cells, frames_without, free_atoms
from mlpbench.datasets.leaks import Fingerprinted, lag_ratio
from mlpbench.datasets.loading import fetch_all, labels_of, of_file, resolve
from mlpbench.datasets.readers import ASE_ORDER, read, stress_order
from mlpbench.datasets.readers.base import Notes
from mlpbench.datasets.registry import Summary, summarise
from mlpbench.datasets.schema import DatasetConfig
from mlpbench.datasets.validation.finding import Finding, Subject, overview
from mlpbench.datasets.validation.forces import check_forces, check_net_force
from mlpbench.datasets.validation.labels import (
    check_charges,
    check_energy_unit,
    check_labels,
    check_outliers,
    check_sizes,
)
from mlpbench.datasets.validation.structures import (
    check_cells,
    check_compositions,
    check_duplicates,
    check_overlaps,
    check_stress,
)
from mlpbench.errors import UserError
from mlpbench.frames import Float, Frames, Int

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
        problems = any(finding.severity in ("error", "warning") for finding in outcome)
        outcomes[check_name] = "found" if problems else missing[0] if missing else "passed"
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


_MARKS = {"error": "ERROR", "warning": "warning", "note": "note"}


def as_text(report: Validation) -> str:
    """The report as lines of at most about 120 columns."""
    lines = [report.name, "-" * len(report.name)]
    lines += [f"  {name:<24}{value}" for name, value in report.rows]
    lines += [f"  {'read':<24}{note}" if i == 0 else f"  {'':<24}{note}" for i, note in enumerate(report.notes)]
    if report.looked_at[0] < report.looked_at[1]:
        lines.append(f"  {'checked':<24}the first {report.looked_at[0]:,} of {report.looked_at[1]:,} frames")
    lines.append("")
    for finding in report.findings:
        lines.append(f"  {_MARKS[finding.severity]}: {finding.check}: {finding.message}")
        if finding.hint:
            lines.append(f"      {finding.hint}")
    return "\n".join([*lines, *(f"  {line}" for line in conclusion(report))])


def conclusion(report: Validation) -> list[str]:
    """How many checks found something, passed, or could not be made; the last with their reasons, a line each."""
    counts = Counter(finding.severity for finding in report.findings)
    counted = ", ".join(
        f"{counts[severity]} {severity}{'' if counts[severity] == 1 else 's'}"
        for severity in ("error", "warning") if counts[severity]
    )  # fmt: skip
    passed = sum(outcome == "passed" for outcome in report.outcomes.values())
    unmade = {name: why for name, why in report.outcomes.items() if why not in ("passed", "found")}
    words = f"{len(report.outcomes)} checks: {counted}; {passed} passed" if counted else f"{passed} checks passed"
    if not unmade:
        return [words if counted else f"{words}, nothing wrong found"]
    return [f"{words}, {len(unmade)} could not be made:", *(f"    {name}: {why}" for name, why in unmade.items())]


def as_html(reports: list[Validation]) -> str:
    """One HTML page with nothing loaded from a network; plots are inline SVG."""
    environment = Environment(autoescape=select_autoescape(default=True))
    return environment.from_string(_TEMPLATE).render(
        reports=[(report, _plots(report), conclusion(report)) for report in reports], checks=list(CHECKS), marks=_MARKS
    )


def _plots(report: Validation) -> list[tuple[str, str]]:
    frames = report.frames
    energy = frames.energy / frames.n_atoms
    finite = np.isfinite(energy)
    plots = []
    if finite.sum() > 1:
        relative = 1000 * (energy[finite] - np.median(energy[finite]))
        plots.append(("Energy per atom", _histogram(relative, "meV/atom, relative to the median")))
        plots.append(("Energy along the file", _series(np.flatnonzero(finite), relative)))
    norms = np.linalg.norm(frames.forces, axis=1)
    norms = norms[np.isfinite(norms)]
    if len(norms) > 1:
        plots.append(("Force on an atom", _histogram(norms, "eV/Å")))
    return plots


def _figure() -> tuple[object, object]:
    from matplotlib.figure import Figure  # a second to import, only for HTML

    figure = Figure(figsize=(4.6, 2.5), layout="constrained")
    axes = figure.subplots()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _svg(figure: object) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})  # type: ignore[attr-defined]
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _histogram(values: Float, label: str) -> str:
    figure, axes = _figure()
    low, high = np.percentile(values, [0.1, 99.9])
    axes.hist(np.clip(values, low, high), bins=60, color="#3b6ea5")  # type: ignore[attr-defined]
    axes.set_xlabel(label)  # type: ignore[attr-defined]
    axes.set_ylabel("count")  # type: ignore[attr-defined]
    return _svg(figure)


def _series(numbers: Int, values: Float) -> str:
    figure, axes = _figure()
    step = max(1, len(numbers) // 2000)
    axes.plot(numbers[::step], values[::step], ".", ms=2, color="#3b6ea5")  # type: ignore[attr-defined]
    axes.set_xlabel("frame")  # type: ignore[attr-defined]
    axes.set_ylabel("meV/atom")  # type: ignore[attr-defined]
    return _svg(figure)


_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Validation: {{ reports[0][0].name }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; border-bottom: 1px solid #d5dce4; margin-top: 2.5rem; }
table { border-collapse: collapse; } th { text-align: left; font-weight: 600; padding: .15rem 1.2rem .15rem 0; }
td { padding: .15rem 0; overflow-wrap: anywhere; }
.finding { border-left: 5px solid #8a97a6; padding: .4rem .9rem; margin: .6rem 0; background: #f5f7f9; }
.error { border-color: #b3261e; background: #fdf1f0; } .warning { border-color: #b26a00; background: #fdf6ec; }
.hint { color: #44525f; } .plots { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; max-width: 100%; }
figure svg { max-width: 100%; height: auto; } figcaption { font-size: .9rem; } details { color: #44525f; }
@media print { body { max-width: none; margin: 0; } .finding, figure { break-inside: avoid; } }
</style></head><body>
<h1>Validation report</h1>
<p>{{ checks|length }} checks: {{ checks|join(", ") }}.</p>
{% for report, plots, conclusion in reports %}
<h2>{{ report.name }}</h2>
<table>{% for name, value in report.rows %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}
{% for note in report.notes %}<tr><th>{{ "read" if loop.first else "" }}</th><td>{{ note }}</td></tr>{% endfor %}
{% if report.looked_at[0] < report.looked_at[1] %}<tr><th>checked</th>
<td>the first {{ report.looked_at[0] }} of {{ report.looked_at[1] }} frames</td></tr>{% endif %}</table>
{% for finding in report.findings %}
<div class="finding {{ finding.severity }}"><strong>{{ marks[finding.severity] }}: {{ finding.check }}.</strong>
{{ finding.message }}{% if finding.hint %}<div class="hint">{{ finding.hint }}</div>{% endif %}
{% if finding.frames|length > 10 %}<details><summary>all {{ finding.frames|length }} frames</summary>
{{ finding.frames|join(", ") }}</details>{% endif %}</div>
{% endfor %}
<p>{{ conclusion[0] }}</p>{% if conclusion|length > 1 %}<ul>
{% for line in conclusion[1:] %}<li>{{ line }}</li>{% endfor %}</ul>{% endif %}
<div class="plots">{% for title, svg in plots %}<figure><figcaption>{{ title }}</figcaption>{{ svg|safe }}</figure>
{% endfor %}</div>
{% endfor %}</body></html>
"""
