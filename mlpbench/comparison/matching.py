"""Which trial of one study is which of the other, and what differs between the two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlpbench.comparison.model import Change
from mlpbench.errors import UserError
from mlpbench.files import digest
from mlpbench.protocol import ProtocolError, read_json
from mlpbench.records import usable
from mlpbench.study.candidates import candidate_label
from mlpbench.study.rows import display_name, line_name
from mlpbench.study.settings import Setting, is_member, settings_of
from mlpbench.study.study import Study

SEEDS = ("split_seed", "init_seed")
Record = dict[str, Any]
Key = tuple[str, ...]


def load_side(name: str, results: Path) -> Study:
    """A study by its name below ``results``, or by the path of its folder.

    Raises:
        UserError: there is no such study; the message has the close match.
    """
    path = Path(name)
    return Study.load(path.name, path.parent if len(path.parts) > 1 else results)


def frames_of(study: Study, record: Record) -> dict[str, str]:
    """Split -> digest of its frames, from the manifest; empty where the split files are gone."""
    try:
        manifest = read_json(study.root / str(record["split"]["directory"]) / "manifest.json")
    except (FileNotFoundError, ProtocolError):
        return {}
    return {name: digest(part["sha256"]) for name, part in manifest.get("splits", {}).items()}


@dataclass(frozen=True)
class Matched:
    """A trial of each study with the same setting and repetition.

    Attributes:
        setting: label of the setting.
        dataset: its data set.
        family: label without the number of training frames: settings that may share a variance.
        repetition: its number, with the seeds where they were swept.
        before: record of the first study.
        after: record of the second.
        frames: digests of each split in both, see :func:`frames_of`.
    """

    setting: str
    dataset: str
    family: str
    repetition: Key
    before: Record
    after: Record
    frames: tuple[dict[str, str], dict[str, str]]

    @property
    def done(self) -> bool:
        """Both trials have a result."""
        return usable(self.before) and usable(self.after)

    def same(self, split: str) -> bool:
        """Whether both were given the very same frames as this split; False where that is not known any more."""
        if self.before["split"]["digest"] == self.after["split"]["digest"]:
            return True
        one, two = self.frames
        return split in one and one[split] == two.get(split)


@dataclass(frozen=True)
class Matching:
    """All pairs, and what has no partner (labels with the repetition)."""

    pairs: list[Matched]
    only_first: list[str]
    only_second: list[str]
    repeated: int


@dataclass(frozen=True)
class _Keyed:
    """A trial with what it is matched by."""

    setting: Setting
    n_train: int
    repetition: Key
    record: Record

    @property
    def key(self) -> tuple[Key, int, tuple[tuple[str, str], ...], Key]:
        """What two trials of two studies must share to be a pair: line, training size, setting, repetition."""
        values = tuple((key, str(value)) for key, value in sorted(self.setting.values.items()))
        return self.setting.line, self.n_train, values, self.repetition

    def label(self, *, dataset: bool, sizes: bool, n_train: bool = True) -> str:
        """What it is of, as everywhere; ``dataset`` and ``sizes``: whether there are several to tell apart."""
        data, architecture, size, start, acquisition = self.setting.line
        name = line_name(display_name(architecture, [self.record]), size if sizes else "", start, acquisition)
        text = candidate_label(name, self.n_train, self.setting.label)
        if not n_train:
            text = ", ".join(part for part in (name, self.setting.label) if part)
        return f"{data}: {text}" if dataset else text


def match(first: Study, second: Study) -> Matching:
    """Pair the trials of two studies by setting, number of training frames and repetition.

    A key is part of a setting if it takes several values within one of the studies. One that is constant in each study
    but differs between them is a change.

    Raises:
        UserError: no trial of one has a partner in the other.
    """
    one, two = ([record for record in study.records if not is_member(record)] for study in (first, second))
    records = [*one, *two]
    sides = ["first"] * len(one) + ["second"] * len(two)
    settings = settings_of(records, sides)
    seeds = [name for name in SEEDS if any(record["config"].get(name) is not None for record in records)]
    lines = {setting.line for setting in settings}
    several = {"dataset": len({line[0] for line in lines}) > 1,
               "sizes": len({line[:3] for line in lines}) > len({line[:2] for line in lines})}  # fmt: skip
    trials = [
        _Keyed(setting, int(record["identifiers"]["n_train"]), _repetition(record, seeds), record)
        for setting, record in zip(settings, records, strict=True)
    ]
    before, again = _latest(trials[: len(one)])
    after, again_after = _latest(trials[len(one) :])
    common = sorted((key for key in before if key in after), key=str)
    if not common:
        example, other = next(iter(before.values())), next(iter(after.values()))
        raise UserError(
            f"no trial of {first.name} has the setting and repetition of one of {second.name}",
            f"{first.name} has, for example, {_text(example, several)}; {second.name} has {_text(other, several)}.",
        )
    common.sort(key=lambda key: (key[0], key[1]))
    pairs = [
        Matched(
            before[key].label(**several), before[key].setting.line[0], before[key].label(**several, n_train=False),
            key[-1], before[key].record, after[key].record,
            (frames_of(first, before[key].record), frames_of(second, after[key].record)),
        )
        for key in common
    ]  # fmt: skip
    alone = [
        [_text(one, several) for key, one in mine.items() if key not in other]
        for mine, other in ((before, after), (after, before))
    ]
    return Matching(pairs, alone[0], alone[1], again + again_after)


def _repetition(record: Record, seeds: Sequence[str]) -> Key:
    own = {"split_seed": record["split"].get("split_seed"), "init_seed": record["provenance"].get("init_seed")}
    return (str(record["identifiers"]["repetition"]), *(str(own[name]) for name in seeds))


def _latest(trials: Iterable[_Keyed]) -> tuple[dict[Any, _Keyed], int]:
    """One trial for each key, a finished one before others and then the latest; and how many were left out."""
    kept: dict[Any, _Keyed] = {}
    repeated = 0
    for one in trials:
        known = kept.get(one.key)
        repeated += known is not None
        if known is None or _rank(one) > _rank(known):
            kept[one.key] = one
    return kept, repeated


def _rank(one: _Keyed) -> tuple[bool, str]:
    return usable(one.record), str(one.record["finished"])


def _text(one: _Keyed, several: dict[str, bool]) -> str:
    return f"{one.label(**several)}, repetition {'/'.join(one.repetition)}"


# Where results lie and how long they may take determines nothing.
_PLACES = {
    "study", "results_dir", "reports_dir", "timeout", "logging", "engine", "repetition", "split_seed", "init_seed",
    "device", "threads",
}  # fmt: skip
_HARDWARE = ("cpu", "device", "device_name", "threads")
_NOTHING = "–"


def find_changes(pairs: list[Matched]) -> list[Change]:
    """Every difference, each once, with the architectures (or backends) that it concerns."""
    seen: dict[tuple[str, str], dict[str, tuple[set[str], set[str]]]] = {}
    for pair in pairs:
        place = str(pair.before["identifiers"]["architecture"])
        for kind, what, before, after in _differences(pair):
            sides = seen.setdefault((kind, what), {}).setdefault(place, (set(), set()))
            sides[0].add(_short(before))
            sides[1].add(_short(after))
    every = {str(pair.before["identifiers"]["architecture"]) for pair in pairs}
    changes = []
    for (kind, what), places in seen.items():
        for sides, names in _alike(places):
            where = "" if set(names) == every else ", ".join(names)
            changes.append(Change(kind, what, ", ".join(sorted(sides[0])), ", ".join(sorted(sides[1])), where))
    order = ("configuration", "package", "environment", "hardware", "data", "seed")
    return sorted(changes, key=lambda c: (order.index(c.kind), c.what, c.where))


def _alike(places: dict[str, tuple[set[str], set[str]]]) -> Iterator[tuple[tuple[set[str], set[str]], list[str]]]:
    """Places with the same values before and after go together."""
    rest = dict(places)
    while rest:
        sides = next(iter(rest.values()))
        names = sorted(name for name, value in rest.items() if value == sides)
        yield sides, names
        for name in names:
            del rest[name]


def _differences(pair: Matched) -> Iterator[tuple[str, str, Any, Any]]:
    before, after = pair.before, pair.after
    own = str(before["identifiers"]["backend"])
    yield from (
        ("configuration", *rest)
        for rest in _unlike(_configuration(before, own), _configuration(after, str(after["identifiers"]["backend"])))
    )
    one, two = before["provenance"], after["provenance"]
    backends = [side.get("backend") or {} for side in (one, two)]
    yield from (("package", *rest) for rest in _unlike(*(b.get("versions") or {} for b in backends)))
    software = [
        {"lock of the environment": str(b.get("lock") or "")[:12], "adopted interpreter": bool(b.get("adopted")),
         "Python": b.get("python"), "mlpbench": side.get("mlpbench"), "commit": str(side.get("commit") or "")[:12]}
        for b, side in zip(backends, (one, two), strict=True)
    ]  # fmt: skip
    yield from (("environment", *rest) for rest in _unlike(*software))
    machines = [{key: (side.get("hardware") or {}).get(key) for key in _HARDWARE} for side in (one, two)]
    yield from (("hardware", *rest) for rest in _unlike(*machines))
    splits = [name for name in sorted({*pair.frames[0], *pair.frames[1]}) if not pair.same(name)]
    if splits:
        yield "data", "frames of " + ", ".join(splits), "its own", "its own"
    elif before["split"]["digest"] != after["split"]["digest"] and not (pair.frames[0] and pair.frames[1]):
        yield "data", "split (its files are gone: which frames differ is not known)", "its own", "its own"
    for name, values in (
        ("split_seed", [side["split"].get("split_seed") for side in (before, after)]),
        ("init_seed", [side.get("init_seed") for side in (one, two)]),
    ):
        if values[0] != values[1]:
            yield "seed", name, "its own", "its own"


def _configuration(record: dict[str, Any], backend: str) -> dict[str, Any]:
    config = dict(record.get("config") or {})
    # Of the backend's node only what is a setting: its interpreter is a place.
    node = dict((config.pop("backend", None) or {}).get(backend) or {})
    plain = {key: value for key, value in config.items() if key not in _PLACES}
    plain["backend"] = {key: node.get(key) for key in ("adapter", "adapter_version")}
    return dict(_flat(plain))


def _flat(node: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unlike(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted({*before, *after}):
        if before.get(key, _NOTHING) != after.get(key, _NOTHING):
            yield key, before.get(key, _NOTHING), after.get(key, _NOTHING)


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
