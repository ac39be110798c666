"""Conditions of a study in words: budget, hardware, level of theory, data, leaks; and what went wrong."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from mlpbench.backends.registry import BackendConfig
from mlpbench.config.overrides import overrides_of
from mlpbench.errors import UserError
from mlpbench.evaluators.physics import reference_frequencies
from mlpbench.frames import Float
from mlpbench.numbers import THIN, listing, number, plural, seconds
from mlpbench.study.acquired import acquisitions_of
from mlpbench.study.rows import backends, natural
from mlpbench.study.settings import given_name
from mlpbench.study.start import starts_of
from mlpbench.study.study import Study, remembered, rows_of, unique

MACHINE = ["device", "device_name", "cpu", "threads"]
UNSTATED = "not stated"
WRONG = ("failed", "timeout", "out_of_memory", "interrupted", "skipped")


def budget(config: dict[str, Any]) -> str:
    """The training budget of one trial, e.g. ``100 epochs, at most 3600 s``."""
    limits = config.get("budget") or {}
    parts = [plural(int(limits[key]), key.removesuffix("s")) for key in ("epochs", "steps") if limits.get(key)]
    if limits.get("seconds"):
        parts.append(seconds(float(limits["seconds"])))
    text = ("at most " if len(parts) > 1 or limits.get("patience") else "") + " or ".join(parts)
    if limits.get("patience"):
        text += f", ended early after {limits['patience']} epochs without improvement"
    return text or "no stated limit"


@remembered
def budgets(study: Study, dataset: str | None = None) -> list[str]:
    """The different budgets of the study's trials."""
    return sorted({budget(config) for config in study.config(dataset)}, key=natural)


@remembered
def declared(study: Study) -> dict[str, BackendConfig]:
    """What the study's backends declare of themselves: as installed here, else as their records hold it."""
    installed, said = backends(), {}
    for record in study.records:
        name = str(record["identifiers"].get("backend"))
        if name in said:
            continue
        node = ((record.get("config") or {}).get("backend") or {}).get(name)
        with contextlib.suppress(ValidationError, TypeError):  # of a version of mlpbench that declared other things
            said[name] = installed[name] if name in installed else BackendConfig.model_validate(node)
    return dict(sorted(said.items()))


def level_of_theory(study: Study, dataset: str) -> str:
    """Functional, basis and code of the labels, as the configuration states it, else the file's headers."""
    stated = [(config.get("dataset") or {}).get("level_of_theory") for config in study.config(dataset)]
    levels = [level for level in unique([*stated, *study.split_info(dataset, "level_of_theory")]) if level != UNSTATED]
    return " / ".join(levels) if levels else UNSTATED


def hardware(row: dict[str, Any]) -> str:
    """One trial's hardware, e.g. ``1 thread of Example CPU 3000``."""
    name, device = row.get("device_name"), str(row.get("device") or "cpu")
    cpu = row.get("cpu") if isinstance(row.get("cpu"), str) and row.get("cpu") else "a CPU"
    cpu = re.sub(r"\((R|TM)\)", "", str(cpu))
    threads = row.get("threads")
    count = plural(int(threads), "thread") if threads is not None and threads == threads else "threads not recorded"
    if device.startswith("cuda"):
        return f"{name if isinstance(name, str) and name else device} (with {count} of {cpu})"
    return f"{count} of {cpu}"


def machines(table: pd.DataFrame) -> list[str]:
    """The different hardware that rows of the trials table ran on; trials that never started count as
    none.
    """
    known = table[table["status"].isin(["done"])] if "status" in table and (table["status"] == "done").any() else table
    return sorted({hardware(row) for row in rows_of(known[MACHINE].drop_duplicates())})


def train_sizes(study: Study, dataset: str) -> list[int]:
    """Numbers of training frames, ascending."""
    return sorted(int(n) for n in study.trials.loc[study.trials["dataset"] == dataset, "n_train"].unique())


def statuses(study: Study) -> str:
    """How many trials ended how, e.g. ``33 of 36 trials done; 2 failed, 1 interrupted``."""
    counts = study.trials["status"].value_counts()
    total, done = len(study.trials), int(counts.get("done", 0))
    rest = [f"{int(counts[s])} {s.replace('_', ' ')}" for s in WRONG if counts.get(s, 0)]
    lost = int((study.trials["unfinished"] != "").sum())
    rest += [f"{lost} without an evaluation that was asked for"] if lost else []
    return f"{done} of {plural(total, 'trial')} done" + (f"; {listing(rest)}" if rest else "")


def unrested(table: pd.DataFrame) -> pd.DataFrame:
    """The trials that are done, but whose training had not come to rest."""
    open_ended = (table["status"] == "done").to_numpy() & ~table["at_rest"].map(rested).to_numpy(dtype=bool)
    rows: pd.DataFrame = table[open_ended]
    return rows


def rested(at_rest: Any) -> bool:
    """Whether a training is known to have come to rest."""
    return at_rest is True or bool(at_rest == True)  # noqa: E712


@remembered
def mean_words(study: Study, dataset: str, n_train: int | None = None) -> str:
    """What an error shown is: ``geometric mean over 3 repetitions``, or ``one repetition``.

    Args:
        study: the study.
        dataset: of it.
        n_train: training frames; None: of all sizes.
    """
    done = study.table[(study.table["dataset"] == dataset) & (study.table["status"] == "done")]
    done = done if n_train is None else done[done["n_train"] == n_train]
    counts = done.groupby(["candidate", "n_train"])["repetition"].nunique()
    low, high = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
    if high <= 1:
        return "one repetition"
    return f"geometric mean over {high if low == high else f'{low} to {high}'} repetitions"


def tested(converged: Any) -> str:
    """``yes``, ``no`` or ``not tested``."""
    known = converged is not None and converged == converged
    return ("yes" if rested(converged) else "no") if known else "not tested"


@remembered
def split_words(study: Study, dataset: str, split: str) -> str:
    """A split with its role, e.g. ``test_500K (in distribution, 200 frames)``."""
    role = "in distribution" if split == study.in_distribution(dataset) else "out of distribution"
    counts = unique([
        (r.get("split") or {}).get("counts", {}).get(split) for r in study.records
        if (r.get("identifiers") or {}).get("dataset") == dataset
    ])  # fmt: skip
    frames = f", {number(int(counts[0]))}{THIN}frames" if counts else ""
    return f"{split} ({role if split != 'valid' else 'validation'}{frames})"


def run_again(study: Study, dataset: str, *overrides: str, only: Sequence[str] = ()) -> str:
    """A command that runs the study's architectures again with further overrides; what is known stays cached.

    Args:
        study: the study.
        dataset: of it.
        overrides: in place of those of the study; without ``dataset.n_train`` its largest is taken.
        only: candidates; all where none is named.
    """
    rows = study.table[study.table["dataset"] == dataset]
    rows = rows[rows["candidate"].isin(only)] if only else rows
    done = rows[rows["status"] == "done"]
    model = str((done if len(done) else rows)["trial"].iloc[0])
    rows = rows[[_budget(study, trial) == _budget(study, model) for trial in rows["trial"]]]  # a command has one
    names = ",".join(dict.fromkeys(rows["architecture"].astype(str)))
    sizes = ",".join(dict.fromkeys(str(study.record[trial]["config"]["size"]) for trial in rows["trial"]))
    named = any(override.startswith("dataset.n_train=") for override in overrides)
    chosen = [] if named else [f"dataset.n_train={max(train_sizes(study, dataset))}"]
    starts = starts_of([study.record[trial]["config"] for trial in rows["trial"]])
    rounds = acquisitions_of([study.record[trial]["config"] for trial in rows["trial"]])
    if rounds:  # a series reaches its smaller sizes on the way to the largest
        overrides = tuple(_largest(o) if o.startswith("dataset.n_train=") else o for o in overrides)
    chosen = [*(f"{key}={value}" for key, value in {**starts, **rounds}.items()), *chosen]
    groups = {override.partition("=")[0] for override in overrides}
    shared = {
        key: value for key, value in _shared_overrides(study, model).items()
        if key not in groups and key.lstrip("+").split(".")[0] not in groups
    }  # fmt: skip
    data = shared.pop("dataset")
    kept = [shlex.quote(f"{key}={value}") for key, value in shared.items()]
    command = f"mlpbench run -m study={study.name} dataset={data} architecture={names} size={sizes}"
    return " ".join([command, *_where(study), *kept, *chosen, *overrides])


def _where(study: Study) -> list[str]:
    """The option that says where the study lies, if that is not ``results`` in the folder where the reader stands."""
    folder, here = study.root.parent.resolve(), Path.cwd()
    named = folder.relative_to(here) if folder.is_relative_to(here) else folder
    return [] if named == Path("results") else [shlex.quote(f"results_dir={named}")]


def _budget(study: Study, trial: str) -> dict[str, Any]:
    """How long a trial was trained; without the steps where they were doubled until it converged."""
    budget = study.record[trial]["config"].get("budget") or {}
    return {key: value for key, value in budget.items() if key != "steps" or not budget.get("converge")}


def _largest(override: str) -> str:
    key, _, sizes = override.partition("=")
    return f"{key}={max(int(n) for n in sizes.split(','))}"


@remembered
def _shared_overrides(study: Study, trial: str) -> dict[str, str]:
    """What was set for ``trial`` beside architecture, size, training size and evaluation, so that a command finds it
    and those like it again; by name alone where the data set is in no ``conf`` any more.
    """
    record = study.record[trial]
    try:
        found = overrides_of(record["config"], without=("evaluation", "split_seed", "init_seed"))
    except (UserError, KeyError):
        return {"dataset": given_name(record)}
    own = ["architecture", "size", "dataset.n_train", "start", "start.potential", "start.foundation", "start.file"]
    if len({one["config"].get("dtype") for one in study.records}) > 1:
        own.append("dtype")  # some can compute in one only
    nodes = ("architecture.", "acquisition")  # the latter: of all trials, not of the first
    kept = {k: v for k, v in found.items() if k not in own and not k.lstrip("+").startswith(nodes)}
    return {k: v for k, v in kept.items() if k not in PLACES and not _INTERPRETER.fullmatch(k)}


# Where things lay on the machine that trained: no part of a trial, and another machine has its own.
PLACES = ("results_dir", "reports_dir")
_INTERPRETER = re.compile(r"backend\.[\w-]+\.(python|pythonpath)")


def rest_words(table: pd.DataFrame) -> str:
    """How many finished trainings are at rest and have converged, e.g. ``all 6 at rest; converged: 4 of 6``."""
    done = table[table["status"] == "done"]
    rest = int(done["at_rest"].map(rested).sum())
    counts = done["converged"].map(tested).value_counts()
    first = f"all {len(done)} at rest" if rest == len(done) else f"{rest} of {len(done)} at rest"
    untested, converged = int(counts.get("not tested", 0)), int(counts.get("yes", 0))
    if untested == len(done):
        return f"{first}; converged: not tested (budget=converge does that)"
    open_ones = f" ({untested} not tested)" if untested else ""
    return f"{first}; converged: {converged} of {len(done)}{open_ones}"


TRIVIAL = "Trivial predictor"
TRIVIAL_WORDS = (
    f"{TRIVIAL}: what knows no geometry gets on the same frames (reference energies fitted to the training "
    "compositions, zero forces, the mean training stress)."
)


@remembered
def trivial_errors(study: Study, dataset: str, split: str) -> dict[str, tuple[float, float, float]]:
    """Metric -> error of a predictor without geometry on a split: mean over the trials' splits, lowest, highest.

    In the units of the metrics; see :func:`mlpbench.datasets.baseline.trivial_errors`. Empty where no record says it.
    """
    values_of: dict[str, list[float]] = {}
    for record in study.records:
        if (record.get("identifiers") or {}).get("dataset") == dataset:
            errors = ((record.get("split") or {}).get("trivial_errors") or {}).get(split) or {}
            for name, value in errors.items():
                values_of.setdefault(name, []).append(float(value))
    return {name: (sum(values) / len(values), min(values), max(values)) for name, values in values_of.items()}


def trivial(study: Study, dataset: str, name: str, split: str) -> float | None:
    """Error of a predictor without geometry in one metric on one split; None where it is not known."""
    known = trivial_errors(study, dataset, split).get(name)
    return None if known is None else known[0]


def shared_frames(records: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence for each outcome of a data set's leak check: copies and what was done about them, or none found.

    Args:
        records: of one data set; ``split.leak`` as :meth:`mlpbench.datasets.leak_check.LeakCheck.describe` gives it.
    """
    return unique([_sentence(check) for record in records if (check := (record.get("split") or {}).get("leak"))])


def split_warnings(records: Sequence[dict[str, Any]]) -> list[str]:
    """What the user should know before trusting an error measured on these splits."""
    return unique([text for record in records for text in (record.get("split") or {}).get("warnings") or []])


def detected(records: Sequence[dict[str, Any]]) -> list[str]:
    """What was detected or assumed when the files were read and split; warnings stand apart."""
    notes = [note for record in records for note in ((record.get("split") or {}).get("info") or {}).get("notes") or []]
    return [note for note in unique(notes) if not note.startswith("warning: ")]


def _sentence(check: dict[str, Any]) -> str:
    names = listing(list(check.get("splits") or {})) or "the test splits"
    how = f"invariant fingerprints, tolerance {check['tolerance_A']:g} Å"
    copies = len(check.get("pool_frames") or [])
    if not copies:
        return f"No frame of the training pool repeats one of {names} ({how})."
    fate = "dropped from the pool" if check.get("dropped") else "kept in the pool, as on_leak=warn asks"
    repeated = "; ".join(
        f"{plural(repeats['test_frames_repeated'], 'frame')} of {name}"
        for name, repeats in check["splits"].items()
        if repeats["test_frames_repeated"]
    )
    return f"{plural(copies, 'frame')} of the training pool, which repeat {repeated}, were {fate} ({how})."


def references_of(study: Study, trial: str) -> dict[str, Path]:
    """Name -> file of the reference's minimum, Hessian, scans and properties.

    Where the trial found them, else where the installed package has them: a study may come from another machine.
    """
    record = study.record[trial]
    recorded = {name: Path(str(path)) for name, path in ((record.get("split") or {}).get("references") or {}).items()}
    config = ((record.get("config") or {}).get("dataset")) or {}
    embedded = Path(__file__).parents[1] / "datasets" / "embedded"
    packaged = {name: embedded / str(path) for name, path in (config.get("references") or {}).items()}
    paths = {**packaged, **{name: path for name, path in recorded.items() if path.is_file()}}
    return {name: path for name, path in paths.items() if path.is_file()}


def reference_modes(study: Study, trial: str) -> Float | None:
    """(3N−6,) cm⁻¹ of the reference's Hessian; None where there is none."""
    path = references_of(study, trial).get("hessian")
    return None if path is None else reference_frequencies(path)
