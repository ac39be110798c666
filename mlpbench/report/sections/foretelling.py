"""Which cheap score goes with which property, over all trials of a study: can survival be known without MD?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlpbench.errors import UserError
from mlpbench.metrics import metric
from mlpbench.numbers import plural
from mlpbench.quantities import QUANTITIES
from mlpbench.report.section import Block, Cell, Column, Section, Table
from mlpbench.statistics.association import FEWEST, Association, spearman
from mlpbench.study.study import Study, remembered, select

CHAPTERS = {"foretelling": 68}

SPREAD = "committee_spread"  # no metric: repetitions of one setting, each against their mean
SCORES = ("force_mae", "force_p95", "force_max", "energy_mae")  # on every test split
PROBES = (
    "rare_force_error", "smooth_force_error", "smooth_tortuosity", "smooth_minima", "dissociation_energy_error",
    "conformer_energy_error", "force_consistency", "cutoff_jump", "frequency_mae",
)  # fmt: skip
TARGETS = (
    "md_stable_time", "md_survival", "own_trajectory_force_mae", "frequency_mae", "minimum_rmsd", "path_energy_error",
    "path_barrier_error", "neb_barrier_error", "dissociation_energy_error", "conformer_energy_error", "eos_b0_error",
    "elastic_c44_error", "phonon_bands_error", "vacancy_energy_error", "surface_energy_error",
)  # fmt: skip
Key = tuple[str, str]  # metric, split


@dataclass(frozen=True)
class Foretold:
    """How one score goes with one property; positive: potentials with the better score have the better property."""

    dataset: str
    score: Key
    target: Key
    association: Association


def foretelling_section(study: Study) -> Section | None:
    """A table for each data set with eight or more potentials that have a score and a property."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        found = associations(study, dataset)
        if found:
            blocks.append(_table(dataset, found))
    if not blocks:
        return None
    finding = (
        "Over all trials of the study, whatever their architecture, training set or setting: Spearman's ρ between a "
        "score that needs no dynamics and a property. Above 0, the better score goes with the better property; an "
        "interval that holds 0 decides nothing. What goes with survival among these potentials need not do so among "
        "others."
    )
    return Section("foretelling", "Which score foretells which property?", finding, blocks)


@remembered
def associations(study: Study, dataset: str) -> list[Foretold]:
    """Every score with every property that eight or more trials of a data set have, by property and strength."""
    values = _values(study, dataset)
    architecture = dict(zip(study.trials["trial"], study.trials["architecture"], strict=True))
    found = []
    for target in [key for name in TARGETS for key in sorted(values) if key[0] == name]:
        for score in [key for key in values if key[0] in (*SCORES, SPREAD, *PROBES) and key != target]:
            trials = sorted(set(values[target]) & set(values[score]))
            if len(trials) < FEWEST:
                continue
            x, y = (np.array([_better(key, values[key][t]) for t in trials]) for key in (score, target))
            result = spearman(x, y, [str(architecture[t]) for t in trials])
            if math.isfinite(result.value):
                found.append(Foretold(dataset, score, target, result))
    return sorted(found, key=lambda one: (TARGETS.index(one.target[0]), one.target[1], -one.association.value))


def _values(study: Study, dataset: str) -> dict[Key, dict[str, float]]:
    """(metric, split) -> trial -> value, of all trials that are done, chosen or not."""
    done = select(study.trials, dataset=dataset, status="done")["trial"] if len(study.trials) else pd.Series(dtype=str)
    rows = study.metrics[study.metrics["trial"].isin(done) & study.metrics["metric"].isin((*SCORES, *PROBES, *TARGETS))]
    rows = rows[~rows["split"].isin(("train", "valid"))]
    values: dict[Key, dict[str, float]] = {}
    rows = rows.dropna(subset=["value"])
    columns = (rows[name].astype(str) for name in ("metric", "split", "trial"))
    for name, split, trial, value in zip(*columns, rows["value"].astype(float), strict=True):
        values.setdefault((name, split), {})[trial] = value
    for split in study.test_splits(dataset):
        spread = dict(committee_spread(study, dataset, split))
        if spread:
            values[SPREAD, split] = spread
    return values


def committee_spread(study: Study, dataset: str, split: str) -> Mapping[str, float]:
    """Trial -> root mean square of its force components' distance from the mean of its repetitions, meV/Å.

    Of trials with repetitions whose predictions still lie in the study's folder.
    """
    spread: dict[str, float] = {}
    done = select(study.trials, dataset=dataset, status="done")
    for _, part in done.groupby(["name", "n_train", "setting"], dropna=False):
        forces = {str(t): study.predictions(str(t)).get(f"{split}.forces") for t in part["trial"]}
        known = {trial: value for trial, value in forces.items() if value is not None}
        if len(known) < 2:
            continue
        mean = np.mean(list(known.values()), axis=0)
        spread |= {trial: 1e3 * float(np.sqrt(np.mean((value - mean) ** 2))) for trial, value in known.items()}
    return spread


def _better(key: Key, value: float) -> float:
    """The value turned so that larger is better: an error with a sign by its size."""
    name = key[0]
    if name == SPREAD or name in QUANTITIES:
        return -value
    direction = metric(name).direction
    return value if direction == "higher" else -abs(value)


def _table(dataset: str, found: list[Foretold]) -> Table:
    columns = [
        Column("Property", numeric=False), Column("Score", numeric=False), Column("ρ"),
        Column("95 % interval", numeric=False), Column("n", "", "potentials"),
    ]  # fmt: skip
    rows = []
    for one in found:
        rho = one.association
        rows.append([
            Cell(words(one.target)), Cell(words(one.score)), Cell(f"{rho.value:+.2f}", rho.value),
            Cell(f"{rho.lower:+.2f} to {rho.upper:+.2f}", note="excludes 0" if rho.decided else "holds 0"),
            Cell(str(rho.n), rho.n),
        ])  # fmt: skip
    clusters = {one.association.clusters for one in found}
    drawn = (
        f"{plural(max(clusters), 'architecture')} drawn as wholes"
        if min(clusters)
        else "single potentials drawn, or whole architectures where there are five"
    )
    caption = (
        f"{dataset}: Spearman's ρ of scores and properties over trials, both turned so that more is better. Interval: "
        f"bootstrap, {drawn}. Not corrected for the number of pairs."
    )
    return Table(f"foretelling-{dataset}", caption, columns, rows, headers=2, searchable=True)


def words(key: Key) -> str:
    """A score or property and its split as a reader sees it."""
    name, split = key
    if name == SPREAD:
        symbol = "committee spread of F"
    else:
        try:
            symbol = metric(name).symbol
        except UserError:  # of an outside package
            symbol = name
    return f"{symbol}, {split.replace('_', ' ')}" if split else symbol
