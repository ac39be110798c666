"""Molecular dynamics: who survives, what the others die of, and the error a simulation really suffers."""

from __future__ import annotations

import numpy as np

from mlpbench.frames import Float
from mlpbench.metrics import metric
from mlpbench.numbers import interval, listing, number, plural
from mlpbench.report.dynamics import (
    Replicas,
    causes_figure,
    collect,
    curves_of,
    distribution_figure,
    scores_of,
    spectrum_figure,
    survival_figure,
    trials_with_md,
)
from mlpbench.report.estimates import cells
from mlpbench.report.facts import reference_modes
from mlpbench.report.own_errors import death_table, own_blocks, own_finding
from mlpbench.report.section import Block, Bullets, Cell, Column, Details, Section, Table
from mlpbench.study.rows import natural
from mlpbench.study.study import Study, select

CHAPTERS = {"md": 66}

SHOWN = (
    "md_survival", "md_stable_time", "md_temperature_error", "nve_drift", "nve_drift_ratio", "nve_order",
    "hr_mae", "rdf_error", "adf_error", "vdos_error", "diffusion",
)  # fmt: skip


def md_section(study: Study) -> Section | None:
    """Survival, causes, scores and the error on the own trajectory of each data set whose trials ran MD."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        splits = sorted({s for d, _, s in study._parts if d == dataset and s.startswith("md_")}, key=natural)
        groups = collect(study, dataset)
        if not splits and not groups:
            continue
        if groups:
            blocks += [survival_figure(study, dataset, groups), causes_figure(dataset, groups)]
        blocks += [table for split in splits if (table := _score_table(study, dataset, split)) is not None]
        if groups:
            blocks += own_blocks(study, dataset)
            blocks += _deaths(study, dataset, groups)
            blocks += _distributions(study, dataset)
            blocks += _unscored(study, dataset)
        if groups and not finding:
            finding = f"{_finding(groups)} {own_finding(study, dataset, max(r.n_train for r in groups))}".strip()
    return Section("md", "Molecular dynamics", finding, blocks) if blocks else None


def _score_table(study: Study, dataset: str, split: str) -> Table | None:
    names = [m for m in SHOWN if m in study.metrics_of(dataset, split)]
    sizes = sorted({int(n) for m in names for n in study.part(dataset, m, split)["n_train"]})
    if not names:
        return None
    columns = [Column("Candidate", numeric=False), Column("Training frames")]
    columns += [Column(metric(m).symbol, metric(m).unit, metric(m).description) for m in names]
    rows = [
        [Cell(c), Cell(str(n), n), *(_mean(study, dataset, m, split, c, n) for m in names)]
        for n in sizes for c in study.lines(dataset)
        if any(len(select(study.part(dataset, m, split), candidate=c, n_train=n)) for m in names)
    ]  # fmt: skip
    caption = (
        f"Dynamics of {dataset}, {split.removeprefix('md_').replace('_', ' ').replace('K', ' K')}; observables before "
        "collapse only, at constant energy where the name says NVE. Small print: 95 % interval over replicas (or over "
        "repetitions, where there are several)."
    )
    return Table(f"md-{dataset}-{split}", caption, columns, rows, headers=2)


def _mean(study: Study, dataset: str, name: str, split: str, candidate: str, n_train: int) -> Cell:
    """One trial's value with the interval over its replicas, or the arithmetic mean over repetitions, since
    zero survival has no logarithm.
    """
    part = select(study.part(dataset, name, split), candidate=candidate, n_train=n_train)
    if part.empty:
        return Cell("–", note="not scored: see the notes below the tables")
    value = float(part["value"].mean())
    if len(part) == 1:
        low, high = (float(part[k].iloc[0]) if part[k].notna().all() else None for k in ("lower", "upper"))
        shown = interval(low, high) if low != high else ""
        return Cell(number(value), value, shown, note="interval over replicas" if shown else "")
    mean = cells(study, dataset, name, split).get((candidate, n_train)) if (part["value"] > 0).all() else None
    detail = interval(mean.low, mean.high) if mean is not None else ""
    return Cell(number(value), value, detail, note=plural(len(part), "repetition"))


def _deaths(study: Study, dataset: str, groups: list[Replicas]) -> list[Block]:
    """Which bonds broke first, and a second look at single deaths."""
    rows = []
    for r in groups:
        if any(r.died):
            times = sorted(t for t, died in zip(r.times, r.died, strict=True) if died)
            bonds = ", ".join(f"{bond} ×{count}" for bond, count in r.bonds.most_common()) or "–"
            rows.append([
                Cell(r.candidate), Cell(str(r.n_train), r.n_train), Cell(r.condition),
                Cell(f"{len(times)} of {len(r.times)}", len(times)), Cell(number(times[0]), times[0]),
                Cell(number(float(np.median(times))), float(np.median(times))), Cell(bonds),
            ])  # fmt: skip
    if not rows:
        return []
    columns = [
        Column("Candidate", numeric=False), Column("Training frames"), Column("Temperature", numeric=False),
        Column("Dead"), Column("First death", "ps"), Column("Median death", "ps", "Of those that died."),
        Column("First bond to break", numeric=False, note="Of each replica that died with a bond out of range."),
    ]  # fmt: skip
    caption = (
        f"Deaths of {dataset}. The last picosecond of every dead replica lies beside the trial's results as "
        "md/death-RUN-REPLICA.xyz."
    )
    table = Table(f"deaths-{dataset}", caption, columns, rows)
    labelled = death_table(study, dataset)
    return [table, *([Details("A second look at single deaths", [labelled])] if labelled is not None else [])]


def _distributions(study: Study, dataset: str) -> list[Block]:
    """Figures of the largest training set that ran MD, the first repetition of each candidate."""
    trials = trials_with_md(study, dataset)
    n_train = max(n for _, n, _ in trials)
    first = {candidate: trial for candidate, n, trial in reversed(trials) if n == n_train}
    curves = {c: curves_of(study, first[c]) for c in study.lines(dataset) if c in first}
    harmonic: Float | None = reference_modes(study, next(iter(first.values())))
    figures = [
        distribution_figure(study, dataset, n_train, curves),
        spectrum_figure(study, dataset, n_train, curves, harmonic),
    ]
    return [figure for figure in figures if figure is not None]


def _unscored(study: Study, dataset: str) -> list[Block]:
    """Why an observable or the error on the own trajectory is missing, each reason once."""
    lines: dict[str, set[str]] = {}
    for candidate, _, trial in trials_with_md(study, dataset):
        kept = scores_of(study, trial)
        for name, reason in (kept.get("not_run") or {}).items():
            lines.setdefault(f"{name.upper()} was not run: {reason}", set()).add(candidate)
        for name, reason in (kept.get("not_scored") or {}).items():
            lines.setdefault(f"{metric(name).symbol}: {reason}", set()).add(candidate)
        reason = str((kept.get("own_trajectory") or {}).get("reason") or "")
        if reason:
            lines.setdefault(f"Error on the own trajectory: {reason}", set()).add(candidate)
    everyone = len(study.lines(dataset))
    said = [f"{text} ({listing(sorted(who))})" if len(who) < everyone else text for text, who in lines.items()]
    return [Details(f"Not scored, and why ({len(said)})", [Bullets(said, "note")])] if said else []


def _finding(groups: list[Replicas]) -> str:
    """One sentence on the largest training set: who held everywhere, and the share that each of the others lost."""
    if not groups:
        return ""
    n_train = max(r.n_train for r in groups)
    here = [r for r in groups if r.n_train == n_train]
    said = []
    for condition in dict.fromkeys(r.condition for r in here):
        part = [r for r in here if r.condition == condition]
        whole = [r.candidate for r in part if not any(r.died) and "wall_limit" not in r.causes]
        lost = [f"{r.candidate} lost {sum(r.died)} of {plural(len(r.times), 'replica')}" for r in part if any(r.died)]
        if len(whole) == len(part):
            said.append(f"at {condition} every replica held over {part[0].planned:g} ps")
        else:
            held = f"{listing(whole)} held in all replicas over {part[0].planned:g} ps" if whole else ""
            text = "; ".join(x for x in (held, listing(lost)) if x)
            said += [f"at {condition} {text}"] if text else []
    text = ". ".join(x[0].upper() + x[1:] for x in said)
    return f"{text} ({n_train} training frames)." if text else ""
