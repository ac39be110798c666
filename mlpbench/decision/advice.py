"""Ready commands: further repetitions, more data, or the evaluation that a study lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import yaml

from mlpbench.config import conf_dirs
from mlpbench.decision.commands import run_commands
from mlpbench.decision.evidence import Table
from mlpbench.decision.model import Advice, Candidate, Constraint
from mlpbench.metrics import metric
from mlpbench.statistics.curves import NotAtRest, fit_learning_curve
from mlpbench.statistics.extrapolation import frames_needed


def more_repetitions(table: Table, candidate: Candidate, count: int, why: str) -> Advice:
    """``count`` further repetitions of ``candidate``, numbered after those it has."""
    first = max(candidate.repetitions, default=-1) + 1
    overrides = table.overrides(candidate.label)
    commands = run_commands(table.study, [(overrides, r) for r in range(first, first + count)])
    return Advice("\n".join(commands), why, count * candidate.trial_seconds / 3600)


def measuring(table: Table, name: str) -> str:
    """Commands that would measure metric ``name`` on the finished trials of ``table``; empty: no evaluation does."""
    evaluation = _evaluation(name)
    if evaluation is None:
        return ""
    done = table.trials[table.trials["status"] == "done"]
    trials = []
    for row in (done if len(done) else table.trials).to_dict("records"):
        overrides = table.overrides_of(row, without=("evaluation",)) | {"evaluation": evaluation}
        trials.append((overrides, int(row["repetition"])))
    return "\n".join(run_commands(table.study, trials))


# Metrics that need a part of an evaluation which an option may leave out.
_PARTS = {"own_trajectory": "own_trajectory", "death": "own_trajectory", "speedup": "reference",
          "reference_seconds": "reference", "breakeven": "reference", "nve": "nve"}  # fmt: skip


def _evaluation(name: str) -> str | None:
    """The option of ``conf/evaluation`` that measures a metric; None for what every trial measures, or none can."""
    group = metric(name).group
    part = next((part for start, part in _PARTS.items() if name.startswith(start)), None)
    files = {path.stem: path for folder in reversed(conf_dirs()) for path in (folder / "evaluation").glob("*.yaml")}
    options = {name: yaml.safe_load(path.read_text(encoding="utf-8")) or {} for name, path in files.items()}
    able = [
        option for option, content in options.items()
        if content.get(group) is not None and (part is None or content[group].get(part) is not None)
    ]  # fmt: skip
    # The leanest that does: the fewest parts besides the one that is wanted.
    return min(able, key=lambda n: (sum(v is not None for v in options[n].values()), n), default=None)


def more_data(
    table: Table, constraint: Constraint, candidates: Sequence[Candidate], rows: pd.DataFrame
) -> list[Advice]:
    """For each architecture that fails an error limit: the training set that its learning curve says would do.

    Args:
        table: the study.
        constraint: an upper limit on an error.
        candidates: those of one data set.
        rows: ``setting, repetition, value`` of the metric, one row a trial.
    """
    found = []
    curves: dict[tuple[object, ...], list[Candidate]] = {}
    for candidate in candidates:
        curves.setdefault((candidate.values["architecture"], candidate.values["size"]), []).append(candidate)
    for (architecture, size), members in curves.items():
        n_of = {c.label: float(str(c.values["n_train"])) for c in members}
        part = rows[rows["setting"].isin(n_of) & (rows["value"] > 0)]
        n = part["setting"].map(n_of)
        if n.nunique() < 2:
            continue
        rest = part["at_rest"].eq(True).to_numpy() if "at_rest" in part else True
        try:
            curve = fit_learning_curve(
                n.to_numpy(dtype=float), part["value"].to_numpy(), part["repetition"].to_numpy(), at_rest=rest
            )
        except NotAtRest:
            continue  # it says how far the optimisation got, not what more data would do
        need = frames_needed(curve, constraint.limit)
        largest = max(members, key=lambda c: n_of[c.label])
        if not need.reachable or need.n <= n_of[largest.label]:
            continue
        frames = int(np.ceil(need.n / 10) * 10)
        overrides = {**table.overrides(largest.label), "dataset.n_train": str(frames)}
        hours = 3 * largest.trial_seconds * frames / n_of[largest.label] / 3600
        why = (
            f"{architecture} {size} would reach {constraint} with about {need.n:.0f} training frames "
            f"({need.note or f'95 % interval {need.lower:.0f} to {need.upper:.0f}'}), by its learning curve"
        )
        valid = int(table.trials["n_valid"].max()) if "n_valid" in table.trials else 0
        lacking = max(frames + valid - table.pool, 0) if table.pool is not None else 0
        if lacking:
            why += f"; {lacking} more frames must be labelled first (the pool has {table.pool}, {valid} for validation)"
        price = table.config(largest.label).get("dataset", {}).get("label_seconds")
        commands = run_commands(table.study, [(overrides, repetition) for repetition in range(3)])
        found.append(Advice("\n".join(commands), why, hours, lacking * float(price) / 3600 if price else 0.0))
    return found
