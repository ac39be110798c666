"""Settings of a study: what differs between its trials; and data sets: which of them rest on the same frames.

A *setting* is what differs between the resolved configurations of the trials of one data set, architecture, size,
start and acquisition (a *line*); repetition, seeds and the number of training frames apart. What was typed plays no
part: a default that was typed once and left out once is one setting. A *candidate* is the setting of a line that the
validation error chose at one number of training frames: what every table, figure and decision has as a row
(:mod:`mlpbench.study.candidates`).

Frames are no setting: an error on other frames is the answer to another question, so none is chosen for its error.
Several contents under one name are several data sets (:func:`data_names`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Record = Mapping[str, Any]
Line = tuple[str, str, str, str, str]  # data set, architecture, size, start, acquisition
LINE = ("dataset", "architecture", "size", "start", "acquisition")
PLACE = (*LINE, "n_train")

# Where a trial ran, where its results lie, what was measured afterwards, and what makes repetitions: no settings.
_NO_SETTING = {
    "study", "repetition", "split_seed", "init_seed", "size", "device", "threads", "timeout", "results_dir",
    "reports_dir", "evaluation", "logging", "engine",
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
DATA, FRAMES, EXTENSION, HARDWARE = "data", "frames", "extension", "hardware"
GIVEN = "given_name"  # of the data set, in a record that a study calls otherwise
SCRATCH = "scratch"  # the start of a training with fresh weights
RANDOM = "random"  # the acquisition of training frames that nothing chose
_OF_ROUNDS = {
    f"acquisition.{key}" for key in ("kind", "until", "margin", "beyond_noise")
}  # decide no frame of a round that is there
ZERO_SHOT = "zero_shot"  # begins the start's name where nothing is trained
STEPS, CONVERGE, LADDER = "budget.steps", "budget.converge", "until converged"


@dataclass(frozen=True)
class Setting:
    """What the trials of one line have in common.

    Attributes:
        line: data set, architecture, size, start (see :func:`start_of`), acquisition (:func:`acquisition_of`).
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
    for index, (record, name) in enumerate(zip(records, data_names(records, studies), strict=True)):
        identifiers = record["identifiers"]
        line = (
            name,
            str(identifiers["architecture"]),
            str(identifiers["size"]),
            start_of(record),
            acquisition_of(record),
        )
        lines.setdefault(line, []).append(index)
    parts = [leaves.of(record, climbs) for record, climbs in zip(records, climbing(records), strict=True)]
    keys = {line: _varying_within(places, parts, studies) for line, places in lines.items()}
    short = _short_names({key for varied in keys.values() for key in varied})
    result: list[Setting | None] = [None] * len(records)
    for line, places in lines.items():
        groups = _groups(places, parts, keys[line])
        examples = [members[0] for members in groups.values()]
        values = [{key: _get(parts[index], key) for key in keys[line]} for index in examples]
        labels = _labels(values, [records[index]["config"] for index in examples], short)
        for members, value, (label, overrides) in zip(groups.values(), values, labels, strict=True):
            setting = Setting(line, value, label, overrides)
            for index in members:
                result[index] = setting
    return [setting for setting in result if setting is not None]


def data_names(records: Sequence[Record], studies: Sequence[str] | None = None) -> list[str]:
    """What the data set of each record is called: its own name, and in brackets what tells it from others of that name.

    Trials that share a name share every frame of the pool and of the tests, so that their errors can be compared. A
    pool that only grew (``dataset.extensions``) stays one data set.

    Args:
        records: with ``identifiers``, ``config`` and ``split``.
        studies: of each record; contents that only differ between studies are what changed, and keep one name.
    """
    leaves = _Leaves()
    parts = [leaves.of_data(record) for record in records]
    same_name: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        same_name.setdefault(given_name(record), []).append(index)
    names = [given_name(record) for record in records]
    for name, places in same_name.items():
        if not all(_content(records[index], FRAMES) for index in places):  # recorded by an older version
            for index in places:
                parts[index] = {**parts[index], DATA: {DATA: _content(records[index], DATA)}}
        keys = _varying_within(places, parts, studies)
        if not keys:
            continue
        groups = _groups(places, parts, keys)
        values = [{key: _get(parts[members[0]], key) for key in keys} for members in groups.values()]
        labels = _labels(values, [records[members[0]]["config"] for members in groups.values()], _short_names(keys))
        for members, (label, _) in zip(groups.values(), labels, strict=True):
            for index in members:
                names[index] = f"{name} ({label})"
    return names


def given_name(record: Record) -> str:
    """The data set's own name, also of a record that a study calls by one of :func:`data_names`."""
    return str(record.get(GIVEN) or record["identifiers"]["dataset"])


def start_of(record: Record) -> str:
    """Where a trial's training started: ``scratch``, or the study (and trial, if named) of the start's potential."""
    return str(record["identifiers"].get("start") or SCRATCH)


def acquisition_of(record: Record) -> str:
    """How a trial's training frames were chosen: ``random``, or the name of the acquisition."""
    return str(record["identifiers"].get("acquisition") or RANDOM)


def is_member(record: Record) -> bool:
    """Whether a trial is a further member of a committee: it shares its frames with the trial that counts."""
    return bool(record["identifiers"].get("member"))


def named(record: Record, name: str) -> dict[str, Any]:
    """The record with ``name`` for its data set; :func:`given_name` still finds its own."""
    identifiers = record["identifiers"]
    if name == identifiers["dataset"]:
        return dict(record)
    return {**record, GIVEN: given_name(record), "identifiers": {**identifiers, "dataset": name}}


def _content(record: Record, kind: str) -> str | None:
    return record["identifiers"].get(kind) or None


def _varying_within(places: Sequence[int], parts: Sequence[Parts], studies: Sequence[str] | None) -> list[str]:
    """Keys that take several values within ``places``, in one study."""
    varied: set[str] = set()
    for study in dict.fromkeys(studies[i] for i in places) if studies is not None else [None]:
        varied |= _varying([parts[i] for i in places if studies is None or studies[i] == study])
    return sorted(varied)


def _groups(places: Sequence[int], parts: Sequence[Parts], keys: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """``places`` with the same values of ``keys`` go together, in order of first appearance."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for index in places:
        groups.setdefault(tuple(_text(_get(parts[index], key)) for key in keys), []).append(index)
    return groups


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


Parts = dict[str, dict[str, Any]]  # node of the configuration -> its leaves, full key -> value


class _Leaves:
    """Flattens configurations. Nodes that records share (see :mod:`mlpbench.records`) are flattened once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, bool], tuple[Any, dict[str, Any]]] = {}

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
        budget = config.get("budget") or {}
        if climbs:
            rest = {key: value for key, value in parts["budget"].items() if not key.startswith(CONVERGE)}
            parts["budget"] = {**rest, STEPS: LADDER, CONVERGE: None}
        if budget.get("seconds"):
            machine = (record.get("provenance") or {}).get("hardware") or {}
            name = machine.get("device_name") or machine.get("cpu")
            parts[HARDWARE] = {HARDWARE: f"{name}, {machine.get('threads')} threads"}
        return parts

    def of_data(self, record: Record) -> Parts:
        """What may tell the data of this record from others of the same name."""
        return {
            DATA: {DATA: _content(record, FRAMES)},
            EXTENSION: {EXTENSION: list((record.get("split") or {}).get("extensions") or [])},
            "dataset": self._flat("dataset", record["config"].get("dataset") or {}, of_data=True),
        }

    def _flat(self, name: str, value: Any, of_data: bool = False) -> dict[str, Any]:
        """Leaves of a node; of ``dataset`` those that say which frames it holds, or the others."""
        if not isinstance(value, Mapping):
            return {name: value}
        key = (name, id(value), of_data)
        if key not in self._known:
            leaves = _flatten(value, name)
            leaves = ((k, v) for k, v in leaves if k not in _OF_ROUNDS)
            flat = {k: v for k, v in leaves if k not in _TOLD and (name != "dataset" or (k in _OF_TRAINING) != of_data)}
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
    if _one_chain([row[EXTENSION][EXTENSION] for row in rows if EXTENSION in row]):
        varied.discard(EXTENSION)
    if DATA not in varied and all(row.get(DATA, {}).get(DATA) for row in rows):
        # the same frames, however they were found and read
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
    labels = [", ".join(parts) for parts in texts]
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
