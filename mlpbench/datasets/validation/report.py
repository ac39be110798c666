"""The validation report: text for the terminal, one self-contained HTML file for the browser."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
from jinja2 import Environment, select_autoescape

from mlpbench.datasets.validation import CHECKS, Validation
from mlpbench.frames import Float, Int

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
    found = ", ".join(
        f"{counts[severity]} {severity}{'' if counts[severity] == 1 else 's'}"
        for severity in ("error", "warning") if counts[severity]
    )  # fmt: skip
    passed = sum(outcome == "passed" for outcome in report.outcomes.values())
    unmade = {name: why for name, why in report.outcomes.items() if why not in ("passed", "found")}
    words = f"{len(report.outcomes)} checks: {found}; {passed} passed" if found else f"{passed} checks passed"
    if not unmade:
        return [words if found else f"{words}, nothing wrong found"]
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
