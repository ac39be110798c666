"""Ready commands: further repetitions, more data, or the evaluation that a study lacks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import yaml

from mlpbench.config import conf_dirs
from mlpbench.decision.model import Advice, Candidate, Constraint
from mlpbench.metrics import metric
from mlpbench.statistics.curves import fit_learning_curve
from mlpbench.statistics.extrapolation import frames_needed
from mlpbench.statistics.settings import BASE, swept_columns


def run_command(study: str, values: dict[str, object], repetitions: Sequence[int], swept: Sequence[str]) -> str:
    """``mlpbench run`` for ``repetitions`` of one setting.

    Args:
        study: its name.
        values: dataset, architecture, size, n_train and swept settings.
        repetitions: their numbers, consecutive.
        swept: names of ``values`` that are given as they stand (constant ones too: they made the trials).
    """
    names = {"n_train": "dataset.n_train"}
    parts = [f"{names.get(name, name)}={values[name]}" for name in BASE]
    parts += [f"{name}={_plain(values[name])}" for name in swept if _given(values.get(name)) and name not in names]
    numbers = ",".join(str(r) for r in repetitions)
    if len(repetitions) > 6:
        numbers = f"range({repetitions[0]},{repetitions[-1] + 1})"  # Hydra's; always consecutive here
    multi = " -m" if len(repetitions) > 1 else ""
    quoted = f"'repetition={numbers}'" if "(" in numbers else f"repetition={numbers}"  # a shell's brackets
    return f"mlpbench run{multi} study={study} {' '.join(parts)} {quoted}"


def _given(value: object) -> bool:
    return value is not None and value == value


def _plain(value: object) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:g}"
    return str(value)


def more_repetitions(study: str, candidate: Candidate, count: int, why: str, swept: Sequence[str]) -> Advice:
    """``count`` further repetitions of ``candidate``, numbered after those it has."""
    first = max(candidate.repetitions, default=-1) + 1
    command = run_command(study, candidate.values, range(first, first + count), swept)
    return Advice(command, why, count * candidate.trial_seconds / 3600)


def measuring(study: str, name: str, trials: pd.DataFrame) -> str:
    """The command that would measure metric ``name`` on the study's trials."""
    group = metric(name).group
    axes = {"dataset": "dataset", "architecture": "architecture", "size": "size", "n_train": "dataset.n_train",
            "repetition": "repetition"}  # fmt: skip
    parts = [f"{key}={','.join(str(v) for v in sorted(set(trials[column])))}" for column, key in axes.items()]
    for setting in swept_columns(trials):
        given = sorted({_plain(v) for v in trials[setting] if _given(v)})
        parts += [f"{setting}={','.join(given)}"] if given and setting != "setting" else []
    evaluation = _evaluation(group)
    return f"mlpbench run -m study={study} {' '.join(parts)}{f' evaluation={evaluation}' if evaluation else ''}"


def _evaluation(group: str) -> str | None:
    """The option of ``conf/evaluation`` that measures ``group``; None for what every trial measures."""
    if group in ("accuracy", "cost"):
        return None
    files = {path.stem: path for folder in reversed(conf_dirs()) for path in (folder / "evaluation").glob("*.yaml")}
    options = {name: yaml.safe_load(path.read_text(encoding="utf-8")) or {} for name, path in files.items()}
    able = [name for name, option in options.items() if option.get(group) is not None]
    # The leanest that does: the fewest parts besides the one that is wanted.
    return min(able, key=lambda n: (sum(v is not None for v in options[n].values()), n), default=f"{group}")


def more_data(
    study: str, constraint: Constraint, candidates: Sequence[Candidate], rows: pd.DataFrame, swept: Sequence[str]
) -> list[Advice]:
    """For each architecture that fails an error limit: the training set that its learning curve says would do.

    Args:
        study: its name.
        constraint: an upper limit on an error.
        candidates: those of one data set.
        rows: ``setting, repetition, value`` of the metric, one row a trial.
        swept: names of swept settings.
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
        curve = fit_learning_curve(n.to_numpy(dtype=float), part["value"].to_numpy(), part["repetition"].to_numpy())
        need = frames_needed(curve, constraint.limit)
        largest = max(members, key=lambda c: n_of[c.label])
        if not need.reachable or need.n <= n_of[largest.label]:
            continue
        frames = int(np.ceil(need.n / 10) * 10)
        values = {**largest.values, "n_train": frames}
        hours = 3 * largest.trial_seconds * frames / n_of[largest.label] / 3600
        why = (
            f"{architecture} {size} would reach {constraint} with about {need.n:.0f} training frames "
            f"(95 % interval {need.lower:.0f} to {need.upper:.0f}), by its learning curve"
        )
        found.append(Advice(run_command(study, values, (0, 1, 2), swept), why, hours))
    return found
