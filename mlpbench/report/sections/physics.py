"""The potential itself, before any dynamics: symmetries, its minimum and frequencies, energy along scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase.io import iread

from mlpbench.errors import UserError
from mlpbench.evaluators import Context
from mlpbench.evaluators.physics import ARRAYS, mode_pairs
from mlpbench.frames import Float
from mlpbench.metrics import metric
from mlpbench.numbers import listing, number
from mlpbench.report.drawing import canvas, legend, looks
from mlpbench.report.estimates import cells
from mlpbench.report.facts import references_of
from mlpbench.report.section import Block, Column, Details, Figure, Panel, Section, Table, mean_cell
from mlpbench.report.section import Cell as TableCell
from mlpbench.study.study import Study, select

CHAPTERS = {"physics": 62}

AGAINST_DFT = (
    "imaginary_modes", "frequency_mae", "frequency_max", "minimum_rmsd", "lattice_constant_error", "elastic_mae",
)  # fmt: skip
SIGNED = ("barrier_error_", "elastic_error_")
CHECKS = (
    "force_consistency", "rotation_error", "translation_error", "permutation_error", "extensivity_error", "cutoff_jump",
)  # fmt: skip


def physics_section(study: Study) -> Section | None:
    """Tables and figures for each data set whose trials were probed."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        names = {m for m in study.metrics_of(dataset, "") if _group(m) == "physics"}
        if not names:
            continue
        scans = sorted(m for m in names if m.startswith(("scan_rmse_", *SIGNED)))
        shown = [m for m in AGAINST_DFT if m in names] + scans
        if shown:
            blocks.append(_table(study, dataset, "physics", shown, "against the reference"))
        blocks += _frequency_figure(study, dataset)
        blocks += _scan_figure(study, dataset)
        checks = [m for m in CHECKS if m in names]
        table = _table(study, dataset, "symmetries", checks, "in float64")
        blocks.append(Details("Symmetries and smoothness", [table]))
        finding = finding or _finding(study, dataset)
    return Section("physics", "Physics of the potential", finding, blocks) if blocks else None


def _group(name: str) -> str:
    try:
        return metric(name).group
    except UserError:
        return ""  # a metric of an outside package, or of a later version


def _table(study: Study, dataset: str, name: str, metrics: list[str], words: str) -> Table:
    n_train = study.largest(dataset)
    columns = [Column("Candidate", numeric=False)]
    columns += [Column(metric(m).symbol, metric(m).unit, metric(m).description) for m in metrics]
    rows = [
        [TableCell(candidate), *(_mean(study, dataset, m, candidate, n_train) for m in metrics)]
        for candidate in study.lines(dataset)
    ]
    repeated = sorted({int(n) for n in select(study.values, dataset=dataset, n_train=n_train)
                       .groupby("candidate")["repetition"].nunique()})  # fmt: skip
    mean = "; mean over repetitions" if repeated[-1:] != [1] else "; one repetition"
    caption = f"{dataset}, {n_train} training frames, {words}{mean}."
    return Table(f"{name}-{dataset}", caption, columns, rows)


def _mean(study: Study, dataset: str, name: str, candidate: str, n_train: int) -> TableCell:
    if name == "imaginary_modes":
        return _modes_cell(study, dataset, candidate, n_train)
    if not name.startswith(SIGNED):
        return mean_cell(cells(study, dataset, name, "").get((candidate, n_train)))
    values = select(study.part(dataset, name, ""), candidate=candidate, n_train=n_train)["value"]
    if values.empty:
        return TableCell("–")
    return TableCell(f"{values.mean():+.3g}", float(values.mean()))  # it has a sign: no geometric mean


def first_trials(study: Study, dataset: str) -> dict[str, str]:
    """Candidate -> its first finished trial at the largest training set, where its arrays still lie."""
    part = select(study.values, dataset=dataset, n_train=study.largest(dataset)).sort_values("repetition")
    trials: dict[str, str] = {}
    for candidate in study.lines(dataset):
        for trial in part.loc[part["candidate"] == candidate, "trial"].unique():
            if (study.root / str(trial) / ARRAYS).is_file():
                trials[candidate] = str(trial)
                break
    return trials


def _arrays(study: Study, trial: str) -> dict[str, Float]:
    with np.load(study.root / trial / ARRAYS, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _frequency_figure(study: Study, dataset: str) -> list[Block]:
    """Error of each mode against its DFT frequency."""
    pairs: dict[str, tuple[Float, Float]] = {}
    for candidate, trial in first_trials(study, dataset).items():
        references, arrays = references_of(study, trial), _arrays(study, trial)
        if "hessian" in arrays and {"minimum", "hessian"} <= set(references):
            context = Context({}, references=references)
            pairs[candidate] = mode_pairs(arrays["hessian"], arrays["minimum"], context)
    if not pairs:
        return []
    style = looks(study)
    with canvas(5.6, 3.0) as (figure, axes):
        for candidate, (ours, theirs) in pairs.items():
            look = style[candidate]
            axes.plot(theirs, ours - theirs, look.marker, color=look.color, markersize=4, label=candidate)
        axes.axhline(0, color="0.5", linewidth=0.8)
        axes.set_xlabel("harmonic frequency of the reference (cm⁻¹)")
        axes.set_ylabel("error (cm⁻¹)")
        legend(axes)
    caption = (
        f"Error of each harmonic frequency of {dataset}, each potential at its own minimum; first repetition, "
        f"{study.largest(dataset)} training frames. Modes are paired in order of frequency."
    )
    alt = f"Frequency errors of {', '.join(pairs)}; means and maxima in the table above."
    return [Figure(caption, [Panel(f"frequencies-{dataset}", figure, alt)])]


def _scan_figure(study: Study, dataset: str) -> list[Block]:
    """The energy along each scan, reference and potentials."""
    trials = first_trials(study, dataset)
    arrays = {candidate: _arrays(study, trial) for candidate, trial in trials.items()}
    names = sorted({key for stored in arrays.values() for key in stored if key.startswith("scan.")})
    panels: list[Panel] = []
    for name in (key.removeprefix("scan.") for key in names):
        references = references_of(study, next(iter(trials.values())))
        if name in references:
            panels.append(_scan_panel(study, dataset, name, references[name], arrays))
    if not panels:
        return []
    caption = f"Energy along the reference's scans of {dataset}, relative to its lowest frame; first repetition."
    return [Figure(caption, panels, small=True)]


def _scan_panel(study: Study, dataset: str, name: str, path: Path, arrays: dict[str, dict[str, Float]]) -> Panel:
    frames = list(iread(path, index=":"))
    reference = np.array([atoms.get_potential_energy() for atoms in frames])
    lowest = int(np.argmin(reference))
    key = next((k for k in ("angle_deg", "distance_A", "r_A") if k in frames[0].info), None)
    x = [atoms.info[key] for atoms in frames] if key else list(range(len(frames)))
    style = looks(study)
    with canvas(3.0, 2.4) as (figure, axes):
        axes.plot(x, 1000 * (reference - reference[lowest]), color="0.35", linewidth=2.4, label="reference")
        for candidate, stored in arrays.items():
            energy = stored.get(f"scan.{name}")
            if energy is not None and len(energy) == len(reference):
                look = style[candidate]
                axes.plot(x, 1000 * (energy - energy[lowest]), color=look.color, linestyle=look.dash, linewidth=1.2,
                          label=candidate)  # fmt: skip
        axes.set_xlabel({"angle_deg": "angle (°)", None: "frame"}.get(key, "distance (Å)"))
        axes.set_ylabel("energy (meV)")
        legend(axes, 2)
    alt = f"Energy along {name} for the reference and {', '.join(arrays)}; errors in the table above."
    return Panel(f"scan-{dataset}-{name}", figure, alt, name.replace("_", " "))


def _modes_cell(study: Study, dataset: str, candidate: str, n_train: int) -> TableCell:
    """Imaginary modes of every repetition: a count has no geometric mean, and one saddle is one too many."""
    counts = _saddles(study, dataset, n_train).get(candidate)
    if not counts:
        return TableCell("–")
    note = "" if not any(counts) else "a saddle: the relaxed geometry is no minimum of this potential"
    text = ", ".join(map(str, counts)) if len(set(counts)) > 1 else str(counts[0])
    return TableCell(text, float(np.mean(counts)), mark="warn" if any(counts) else "", note=note)


def _saddles(study: Study, dataset: str, n_train: int) -> dict[str, list[int]]:
    """Candidate -> imaginary modes of each repetition."""
    rows = select(study.part(dataset, "imaginary_modes", ""), n_train=n_train).sort_values("repetition")
    return {str(c): [int(v) for v in part["value"]] for c, part in rows.groupby("candidate", sort=False)}


def _saddle_words(study: Study, dataset: str, n_train: int) -> str:
    """Who relaxes to a saddle; empty if nobody does."""
    saddles = {c: counts for c, counts in _saddles(study, dataset, n_train).items() if any(counts)}
    said = []
    for candidate in (c for c in study.lines(dataset) if c in saddles):
        counts = saddles[candidate]
        modes = sorted({count for count in counts if count})
        span = f"{modes[0]}" if len(modes) == 1 else f"{modes[0]} to {modes[-1]}"
        share = f" in {sum(map(bool, counts))} of {len(counts)} repetitions" if len(counts) > 1 else ""
        said.append(f"{candidate} ({span} imaginary mode{'' if span == '1' else 's'}{share})")
    if not said:
        return ""
    verb = "ends" if len(said) == 1 else "end"
    return (
        f"Relaxed from the reference's minimum, {listing(said)} {verb} on a saddle, not in a minimum "
        f"({n_train} training frames). "
    )


def _finding(study: Study, dataset: str) -> str:
    n_train = study.largest(dataset)
    return _saddle_words(study, dataset, n_train) + _frequency_words(study, dataset, n_train)


def _frequency_words(study: Study, dataset: str, n_train: int) -> str:
    errors = {c: e.value for (c, n), e in cells(study, dataset, "frequency_mae", "").items() if n == n_train}
    if not errors:
        return ""
    best = min(errors, key=lambda c: errors[c])
    worst = max(errors, key=lambda c: errors[c])
    rest = f", {worst}'s by {number(errors[worst])}" if len(errors) > 1 else ""
    return f"{best}'s frequencies are off by {number(errors[best])} cm⁻¹ on average{rest} ({n_train} training frames)."
