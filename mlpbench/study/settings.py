"""Settings of a study: what differs between its trials, and which of them the validation error chooses.

A *setting* is what differs between the resolved configurations of the trials of one data set, architecture and size (a
*line*); repetition, seeds and the number of training frames apart. What was typed plays no part: a default that was
typed once and left out once is one setting. A *candidate* is the setting of a line that the validation error chose at
one number of training frames: what every table, figure and decision has as a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

Record = Mapping[str, Any]
Line = tuple[str, str, str]  # data set, architecture, size
LINE = ("dataset", "architecture", "size")
PLACE = (*LINE, "n_train")

# Where a trial ran, where its results lie, what was measured afterwards, and what makes repetitions: no settings.
_NO_SETTING = {
    "study", "repetition", "split_seed", "init_seed", "size", "device", "threads", "timeout", "results_dir",
    "reports_dir", "evaluation",
}  # fmt: skip
# What a data set's file tells its reader, and what only evaluations read.
_TOLD = {
    f"dataset.{key}"
    for key in (
        "name", "n_train", "description", "contents", "level_of_theory", "licence", "citation", "homepage", "traps",
        "variant", "variants", "per_variant", "downloads", "collection", "label_seconds", "references",
        "reference_method", "max_net_force", "in_distribution", "label_noise",
    )
}  # fmt: skip
_OF_TRAINING = {"dataset.n_valid", "dataset.labels"}  # all other keys of a data set describe its content
_BACKEND = ("adapter", "adapter_version")
_GROUPS = ("training", "budget")  # groups of conf/ whose option is a shorter name for several changed keys
_MOST_KEYS = 3  # changed keys that a label lists one by one
DATA, EXTENSION, HARDWARE = "data", "extension", "hardware"
STEPS, CONVERGE, LADDER = "budget.steps", "budget.converge", "until converged"


@dataclass(frozen=True)
class Setting:
    """What the trials of one line have in common.

    Attributes:
        line: data set, architecture, size.
        values: key -> value, of the keys that differ within the line, e.g. ``{"training.lr": 0.01}``.
        label: the shortest text that tells it from the other settings of its line, e.g. ``lr=0.01``; empty for the only
            setting of a line.
        overrides: what the label says, as overrides of ``mlpbench run``.
    """

    line: Line
    values: Mapping[str, Any]
    label: str
    overrides: Mapping[str, str]


def settings_of(records: Sequence[Record], studies: Sequence[str] | None = None) -> list[Setting]:
    """The setting of each record; records of one setting share the object.

    Args:
        records: with ``identifiers``, ``config``, ``training`` and ``provenance``.
        studies: of each record. A key is part of a setting if it takes two values within a line of one study; one that
            only differs between studies is what changed, not a setting.
    """
    leaves = _Leaves()
    lines: dict[Line, list[int]] = {}
    for index, record in enumerate(records):
        lines.setdefault(_line(record), []).append(index)
    parts = [leaves.of(record, climbs) for record, climbs in zip(records, climbing(records), strict=True)]
    keys: dict[Line, list[str]] = {}
    for line, places in lines.items():
        varied: set[str] = set()
        for study in dict.fromkeys(studies[i] for i in places) if studies is not None else [None]:
            varied |= _varying([parts[i] for i in places if studies is None or studies[i] == study])
        keys[line] = sorted(varied)
    short = _short_names({key for found in keys.values() for key in found})
    result: list[Setting | None] = [None] * len(records)
    for line, places in lines.items():
        groups: dict[tuple[str, ...], list[int]] = {}
        for index in places:
            groups.setdefault(tuple(_text(_get(parts[index], key)) for key in keys[line]), []).append(index)
        examples = [members[0] for members in groups.values()]
        values = [{key: _get(parts[index], key) for key in keys[line]} for index in examples]
        labels = _labels(values, [records[index]["config"] for index in examples], short)
        for members, value, (label, overrides) in zip(groups.values(), values, labels, strict=True):
            setting = Setting(line, value, label, overrides)
            for index in members:
                result[index] = setting
    return [setting for setting in result if setting is not None]


def climbing(records: Sequence[Record]) -> list[bool]:
    """Whether each trial is a rung of a ladder of budgets, ``budget=converge``: its steps are then no setting.

    The first rung may have been run before, as an ordinary trial; it is recognised by the ladder that it shares.
    """
    asked = [bool((record["config"].get("budget") or {}).get("converge")) for record in records]
    own = [ladder_of(record) for record in records]
    ladders = {ladder for ladder, climbs in zip(own, asked, strict=True) if climbs and ladder}
    return [climbs or ladder in ladders for climbs, ladder in zip(asked, own, strict=True)]


def ladder_of(record: Record) -> str | None:
    """Digest that the rungs of a ladder of budgets share, also those that failed and have no ``training``."""
    return record.get("ladder") or (record.get("training") or {}).get("ladder")


def _line(record: Record) -> Line:
    identifiers = record["identifiers"]
    return str(identifiers["dataset"]), str(identifiers["architecture"]), str(identifiers["size"])


Parts = dict[str, dict[str, Any]]  # node of the configuration -> its leaves, full key -> value


class _Leaves:
    """Flattens configurations. Nodes that records share (see :mod:`mlpbench.records`) are flattened once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[Any, dict[str, Any]]] = {}

    def of(self, record: Record, climbs: bool) -> Parts:
        """What may be a setting in this record, by the first part of its key."""
        config = record["config"]
        parts = {
            name: self._flat(name, value)
            for name, value in config.items()
            if name not in _NO_SETTING and name != "backend"
        }
        if isinstance(config.get("backend"), Mapping):
            node = config["backend"].get(record["identifiers"].get("backend")) or {}
            parts["backend"] = {f"backend.{key}": node.get(key) for key in _BACKEND}
        parts[DATA] = {DATA: record["identifiers"].get(DATA) or None}
        parts[EXTENSION] = {EXTENSION: list((record.get("split") or {}).get("extensions") or [])}
        budget = config.get("budget") or {}
        if climbs:
            rest = {key: value for key, value in parts["budget"].items() if not key.startswith(CONVERGE)}
            parts["budget"] = {**rest, STEPS: LADDER, CONVERGE: None}
        if budget.get("seconds"):
            machine = (record.get("provenance") or {}).get("hardware") or {}
            name = machine.get("device_name") or machine.get("cpu")
            parts[HARDWARE] = {HARDWARE: f"{name}, {machine.get('threads')} threads"}
        return parts

    def _flat(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            return {name: value}
        key = (name, id(value))
        if key not in self._known:
            flat = {k: v for k, v in _flatten(value, name) if k not in _TOLD}
            self._known[key] = value, flat  # with the node itself, so that its id is not given to another
        return self._known[key][1]


def _flatten(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value


def _varying(rows: Sequence[Parts]) -> set[str]:
    """Keys that take more than one value.

    A field that some configurations lack is no difference by itself, as it may be newer than they are; an entry of a
    mapping (an option of a package, an isolated atom's energy) or of an architecture is one.
    """
    varied: set[str] = set()
    for name in dict.fromkeys(name for row in rows for name in row):
        different = list({id(row[name]): row[name] for row in rows if name in row}.values())
        if len(different) < 2:
            continue
        seen: dict[str, list[str]] = {}
        for flat in different:
            for key, value in flat.items():
                seen.setdefault(key, []).append(_text(value))
        for key, texts in seen.items():
            lacking = len(texts) < len(different) and (name == "architecture" or key.count(".") > 1)
            if (len(set(texts)) > 1 or lacking) and not any(other.startswith(f"{key}.") for other in seen):
                varied.add(key)
    if _one_chain([row[EXTENSION][EXTENSION] for row in rows]):
        varied.discard(EXTENSION)
    known = all(row[DATA][DATA] for row in rows)
    if known and DATA not in varied:  # the same frames and labels, however they were found and read
        varied -= {key for key in varied if key.startswith("dataset.") and key not in _OF_TRAINING}
    return varied


def _one_chain(extensions: Sequence[list[str]]) -> bool:
    """Whether the data of all trials are one growing set: each list of extensions is the start of the longest."""
    longest = max(extensions, key=len, default=[])
    return all(longest[: len(one)] == one for one in extensions)


def _get(parts: Parts, key: str) -> Any:
    return parts.get(key.split(".")[0], {}).get(key)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _short_names(keys: Iterable[str]) -> dict[str, str]:
    """Each key's last part, or all of it where two keys end alike."""
    last: dict[str, list[str]] = {}
    for key in keys:
        last.setdefault(key.rpartition(".")[2], []).append(key)
    return {key: (name if len(same) == 1 else key) for name, same in last.items() for key in same}


def _labels(
    values: Sequence[Mapping[str, Any]], configs: Sequence[Mapping[str, Any]], short: Mapping[str, str]
) -> list[tuple[str, dict[str, str]]]:
    """Label and overrides of each setting of one line.

    Keys that tell the settings apart in the same way go together: by the name of a group's option where every setting
    has one (``training=recommended``), else at most :data:`_MOST_KEYS` of them by name.
    """
    overrides: list[dict[str, str]] = [{} for _ in values]
    texts: list[list[str]] = [[] for _ in values]
    bundles: dict[tuple[tuple[int, ...], str], list[str]] = {}
    for key in values[0] if values else ():
        codes = [_text(value[key]) for value in values]
        partition = tuple(codes.index(code) for code in codes)
        bundles.setdefault((partition, key.split(".")[0]), []).append(key)
    partitions = [partition for partition, name in bundles if name != DATA]
    for (partition, group), keys in bundles.items():
        if group == DATA and partition in partitions:
            continue  # another key names the difference in words
        names = _options(partition, group, configs) if len(keys) > 1 else None
        for index, value in enumerate(values):
            if names is not None:
                overrides[index][group] = names[index]
                texts[index].append(f"{group}={names[index]}")
                continue
            shown = keys if len(keys) <= _MOST_KEYS else keys[:2]
            overrides[index] |= {key: plain(value[key]) for key in keys}
            texts[index] += [f"{short[key]}={plain(value[key])}" for key in shown]
            if len(shown) < len(keys):
                texts[index].append(f"and {len(keys) - len(shown)} more")
    labels = [", ".join(found) for found in texts]
    for index, label in enumerate(labels):  # values that differ in digits that a label rounds away
        if labels.count(label) > 1:
            labels[index] = ", ".join(f"{short[key]}={value!r}" for key, value in values[index].items())
    return list(zip(labels, overrides, strict=True))


def _options(partition: Sequence[int], group: str, configs: Sequence[Mapping[str, Any]]) -> list[str] | None:
    """For each setting the option of ``group`` that it was made with; None where options do not tell them apart."""
    if group not in _GROUPS:
        return None
    from mlpbench.config.overrides import option_of  # Hydra takes long to import, and few studies need it

    known: dict[int, str] = {}
    for place, config in zip(partition, configs, strict=True):
        if place not in known:
            option = option_of(config, group)
            if option is not None:
                known[place] = option
    if set(known) != set(partition) or len(set(known.values())) < len(known):
        return None
    return [known[place] for place in partition]


def plain(value: Any) -> str:
    """A value as it is written in an override; rounded to six digits."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, float | np.floating):
        return f"{value:g}"
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(value, separators=(",", ":"), default=str)
    return str(value)


@dataclass(frozen=True)
class Tried:
    """A setting that was tried at one training size.

    Attributes:
        label: of the setting.
        valid_error: geometric mean over the repetitions that the settings have in common; NaN where there is none.
        trials: trials spent on it, shorter budgets of a ladder included.
        done: of those that count, how many are done.
    """

    label: str
    valid_error: float
    trials: int
    done: int


@dataclass(frozen=True)
class Candidate:
    """The setting of a line that validation error chose at one number of training frames.

    Attributes:
        dataset: name.
        architecture: name, as in ``conf/architecture``.
        size: of the architecture.
        n_train: training frames.
        setting: the chosen one.
        name: of its line, as in tables and figures, e.g. ``MACE`` or ``MACE small``.
        trials: of the setting at this training size, whatever became of them; of a ladder of budgets the longest.
        settings: every setting that was tried at this training size, the chosen one included.
        tuning_seconds: their training time in all; NaN where it is not recorded.
    """

    dataset: str
    architecture: str
    size: str
    n_train: int
    setting: Setting
    name: str
    trials: tuple[str, ...]
    settings: tuple[Tried, ...]
    tuning_seconds: float

    @property
    def tried(self) -> int:
        """How many settings were tried."""
        return len(self.settings)

    @property
    def tuning_trials(self) -> int:
        """Trials spent on them."""
        return sum(one.trials for one in self.settings)

    @property
    def valid_error(self) -> float:
        """By which it was chosen; NaN where no trial has one."""
        return next(one.valid_error for one in self.settings if one.label == self.setting.label)

    @property
    def label(self) -> str:
        """Readable and unique within a data set, e.g. ``MACE, N = 200, lr=0.01``."""
        return candidate_label(self.name, self.n_train, self.setting.label)


def candidate_label(name: str, n_train: int, setting: str) -> str:
    """Line, training frames, and what its setting differs in."""
    return f"{name}, N = {n_train}{', ' if setting else ''}{setting}"


def choose(trials: pd.DataFrame, settings: Mapping[str, Setting], valid: Mapping[str, float]) -> list[Candidate]:
    """For each line and training size the setting with the lowest validation error; test frames have no say.

    The error is the geometric mean over the repetitions that all settings with results have in common (all of a
    setting's own, if there are none in common), so that no setting profits from an easy split. Where no trial has a
    validation error, the setting with the most finished trials is taken, the first of them.

    Args:
        trials: one row a trial: ``trial``, :data:`PLACE`, ``name``, ``setting`` (label), ``status``, ``counts_as``
            (missing: does not count), ``train_seconds``, ``superseded``.
        settings: trial -> setting.
        valid: trial -> validation error, smaller is better.
    """
    columns = ["trial", *PLACE, "name", "setting", "status", "counts_as", "train_seconds", "superseded"]
    rows = trials[columns].assign(error=trials["trial"].map(valid))
    rows.loc[rows["status"] != "done", "error"] = np.nan
    candidates = []
    for _, part in rows.groupby(list(PLACE), sort=False):
        current = part[~part["superseded"]]
        labels = list(dict.fromkeys(current["setting"]))
        best, errors = _best(current, labels)
        spent, done = part["setting"].value_counts(), current.loc[current["status"] == "done", "setting"].value_counts()
        tried = [Tried(name, errors.get(name, np.nan), int(spent[name]), int(done.get(name, 0))) for name in labels]
        mine = current[current["setting"] == best]
        head = mine.iloc[0]
        candidates.append(
            Candidate(
                head["dataset"], head["architecture"], head["size"], int(head["n_train"]),
                settings[head["trial"]], head["name"], tuple(mine["trial"]), tuple(tried),
                float(part["train_seconds"].astype(float).sum(min_count=1)),
            )
        )  # fmt: skip
    return candidates


def _best(rows: pd.DataFrame, labels: Sequence[str]) -> tuple[str, dict[str, float]]:
    """The label to take, and the error of each that has one."""
    scored = rows[rows["error"].gt(0) & rows["counts_as"].notna()]
    if scored.empty:
        done = rows.loc[rows["status"] == "done", "setting"].value_counts()
        return max(labels, key=lambda label: done.get(label, 0)), {}
    if len(labels) == 1:
        return labels[0], {labels[0]: float(np.exp(np.log(scored["error"].to_numpy(dtype=float)).mean()))}
    wide = scored.pivot_table(index="counts_as", columns="setting", values="error", sort=False)
    common = wide.dropna()
    means = np.exp(np.nanmean(np.log((common if len(common) else wide).to_numpy(dtype=float)), axis=0))
    errors = {str(name): float(error) for name, error in zip(wide.columns, means, strict=True)}
    return min(errors, key=lambda name: errors[name]), errors
