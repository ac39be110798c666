"""Molecular dynamics: who survives, what the others die of, and the error a simulation really suffers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlpbench.evaluators.md import SCORES
from mlpbench.evaluators.md_deaths import CAUSES
from mlpbench.evaluators.md_frames import FOLDER
from mlpbench.metrics import metric
from mlpbench.protocol import ProtocolError, read_json
from mlpbench.report.cell import mean_cell
from mlpbench.report.drawing import canvas, legend, looks
from mlpbench.report.estimates import cells, chosen
from mlpbench.report.numbers import listing, number, plural
from mlpbench.report.section import Block, Cell, Column, Figure, Panel, Section, Table, Text
from mlpbench.report.study import Study, select
from mlpbench.statistics.survival import kaplan_meier

ORDER = 66

SHOWN = (
    "md_survival", "md_stable_time", "md_temperature_error", "nve_drift", "nve_drift_ratio", "nve_order",
    "hr_mae", "rdf_error", "adf_error", "vdos_error", "diffusion",
)  # fmt: skip
WORDS = {
    "survived": "survived", "wall_limit": "stopped by the clock", "non_finite": "not finite", "exploded": "exploded",
    "too_cold": "froze", "too_hot": "overheated", "bond": "bond broken", "overlap": "atoms overlap",
    "fragment": "atom left", "structure": "structure lost",
}  # fmt: skip


@dataclass(frozen=True)
class Replicas:
    """The replicas of one candidate, over its repetitions.

    Attributes:
        times: ps until death or until the observation ended.
        died: whether it died.
        causes: of every replica.
        details: of the dead, e.g. which bond broke.
        planned: ps.
        kelvin: target temperature.
        reasons: why frames of the own trajectory have no label, if they have none.
    """

    times: list[float]
    died: list[bool]
    causes: list[str]
    details: list[str]
    planned: float
    kelvin: float
    reasons: list[str]


def build(study: Study) -> Section | None:
    """Survival, causes, scores and the error on the own trajectory of each data set whose trials ran MD."""
    blocks: list[Block] = []
    finding = ""
    for dataset in study.datasets:
        splits = sorted({s for d, _, s in study._parts if d == dataset and s.startswith("md_")})
        if not splits:
            continue
        found = {c: r for c in chosen(study, dataset) if (r := _replicas(study, dataset, c)) is not None}
        if found:
            blocks += [_survival_figure(study, dataset, found), _cause_table(study, dataset, found)]
        for split in splits:
            blocks += _score_table(study, dataset, split)
            blocks += _own_table(study, dataset, split)
        blocks += [Text(reason, "note") for reason in sorted({x for r in found.values() for x in r.reasons})]
        finding = finding or _finding(found, study.largest(dataset))
    return Section("md", "Molecular dynamics", finding, blocks) if blocks else None


def _replicas(study: Study, dataset: str, candidate: str) -> Replicas | None:
    """All replicas at constant temperature of a candidate at the largest training set; None where no file is left."""
    part = select(study.values, dataset=dataset, candidate=candidate, n_train=study.largest(dataset))
    kept = [k for trial in part["trial"].unique() if (k := _scores(study, str(trial))) is not None]
    rows = [replica for k in kept for replica in k["runs"]["nvt"]["replicas"]]
    if not rows:
        return None
    reasons = [str((k.get("own_trajectory") or {}).get("reason") or "") for k in kept]
    return Replicas(
        times=[float(r["time_ps"]) for r in rows],
        died=[r["cause"] in CAUSES for r in rows],
        causes=[str(r["cause"]) for r in rows],
        details=[str(r["detail"]) for r in rows if r["detail"]],
        planned=float(kept[0]["runs"]["nvt"]["length_ps"]),
        kelvin=float(kept[0]["temperature_K"]),
        reasons=[f"Error on the own trajectory of {candidate}: {reason}" for reason in reasons if reason],
    )


def _scores(study: Study, trial: str) -> dict[str, Any] | None:
    try:
        kept = read_json(study.root / trial / FOLDER / SCORES)
    except (FileNotFoundError, ProtocolError):
        return None  # results that were moved without their arrays: the tables remain
    return kept if "nvt" in kept["runs"] else None


def _survival_figure(study: Study, dataset: str, found: dict[str, Replicas]) -> Figure:
    style = looks(study)
    with canvas(5.6, 3.0) as (figure, axes):
        for candidate, replicas in found.items():
            curve = kaplan_meier(replicas.times, replicas.died)
            x = np.concatenate([[0.0], curve.times, [max([curve.horizon, *curve.times])]])
            y = np.concatenate([[1.0], curve.survival, [curve.at(np.inf)]])
            look = style[candidate]
            axes.step(x, y, where="post", color=look.color, linestyle=look.dash, label=candidate)
        axes.set_ylim(-0.03, 1.06)
        axes.set_xlabel("time (ps)")
        axes.set_ylabel("share of sound replicas")
        legend(axes)
    one = next(iter(found.values()))
    counts = {len(r.times) for r in found.values()}
    caption = (
        f"Survival of {dataset} at {one.kelvin:g} K, {study.largest(dataset)} training frames: Kaplan–Meier "
        f"over {'–'.join(map(str, sorted(counts)))} replicas, repetitions together, planned for {one.planned:g} ps. "
        "A replica that the clock stopped is censored. Curves that lie on each other hide each other: see the table."
    )
    return Figure(caption, [Panel(f"survival-{dataset}", figure, f"Survival curves of {', '.join(found)}.")])


def _cause_table(study: Study, dataset: str, found: dict[str, Replicas]) -> Table:
    present = [c for c in WORDS if any(c in r.causes for r in found.values())]
    columns = [
        Column("Candidate", numeric=False), Column("Replicas"),
        *(Column(WORDS[cause].capitalize()) for cause in present), Column("First deaths", numeric=False),
    ]  # fmt: skip
    rows = []
    for candidate, replicas in found.items():
        counts = Counter(replicas.causes)
        rows.append([
            Cell(candidate), Cell(str(len(replicas.times)), len(replicas.times)),
            *(Cell(str(counts[cause]), counts[cause], mark="bad" if counts[cause] and cause in CAUSES else "")
              for cause in present),
            Cell("; ".join(replicas.details[:3]) or "–"),
        ])  # fmt: skip
    caption = f"What became of the replicas of {dataset}; thresholds: evaluation.md.limits in the configuration."
    return Table(f"deaths-{dataset}", caption, columns, rows)


def _score_table(study: Study, dataset: str, split: str) -> list[Block]:
    names = [m for m in SHOWN if m in study.metrics_of(dataset, split)]
    if not names:
        return []
    n_train = study.largest(dataset)
    columns = [Column("Candidate", numeric=False)]
    columns += [Column(metric(m).symbol, metric(m).unit, metric(m).description) for m in names]
    rows = [
        [Cell(c), *(mean_cell(cells(study, dataset, m, split).get((c, n_train))) for m in names)]
        for c in chosen(study, dataset)
    ]
    caption = f"Dynamics of {dataset}, {split}, {n_train} training frames; observables before collapse only."
    return [Table(f"md-{dataset}-{split}", caption, columns, rows)]


def _own_table(study: Study, dataset: str, split: str) -> list[Block]:
    """Error on the own trajectory beside the test error."""
    if "own_trajectory_force_mae" not in study.metrics_of(dataset, split):
        return []
    test, n_train = str(study.in_distribution(dataset)), study.largest(dataset)
    rows = []
    for candidate in chosen(study, dataset):
        key = (candidate, n_train)
        own = cells(study, dataset, "own_trajectory_force_mae", split).get(key)
        if own is None:
            continue
        usual = cells(study, dataset, "force_mae", test).get(key)
        ratio = Cell("–") if usual is None else Cell(number(own.value / usual.value), own.value / usual.value)
        energy = cells(study, dataset, "own_trajectory_energy_mae", split).get(key)
        rows.append([Cell(candidate), mean_cell(usual), mean_cell(own), ratio, mean_cell(energy)])
    columns = [
        Column("Candidate", numeric=False),
        Column(f"F MAE, {test}", "meV/Å", "Force MAE on the test split."),
        Column("F MAE, own MD", "meV/Å", metric("own_trajectory_force_mae").description),
        Column("own / test", "", "Above 1, the simulation goes where the potential knows less than on the test split."),
        Column("E MAE, own MD", "meV/atom", metric("own_trajectory_energy_mae").description),
    ]
    frames = sorted({int(n) for n in study.part(dataset, "own_trajectory_force_mae", split)["n"]})
    caption = (
        f"The error that a simulation of {dataset} suffers: frames of each potential's own trajectory at "
        f"{split.removeprefix('md_').removesuffix('K')} K, labelled by the reference method "
        f"(frames a trial: {'–'.join(map(str, frames))}; "
        f"{n_train} training frames)."
    )
    return [Table(f"own-{dataset}-{split}", caption, columns, rows)]


def _finding(found: dict[str, Replicas], n_train: int) -> str:
    if not found:
        return ""
    one = next(iter(found.values()))
    whole = [c for c, r in found.items() if not any(r.died) and "wall_limit" not in r.causes]
    dead = {c: sum(r.died) for c, r in found.items() if any(r.died)}
    held = f"{listing(whole)} held in all replicas over {one.planned:g} ps at {one.kelvin:g} K" if whole else ""
    lost = listing([f"{c} lost {n} of {plural(len(found[c].times), 'replica')}" for c, n in dead.items()])
    said = "; ".join(part for part in (held, lost) if part)
    return f"{said} ({n_train} training frames)." if said else ""
