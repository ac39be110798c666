"""Which trial of one study is which of the other: the same setting and the same repetition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlpbench import tables
from mlpbench.errors import UserError
from mlpbench.protocol import ProtocolError, read_json
from mlpbench.records import load_all
from mlpbench.seeds import digest
from mlpbench.statistics.settings import BASE, varied_columns

SEEDS = ("split_seed", "init_seed")
Record = dict[str, Any]
Key = tuple[str, ...]


@dataclass(frozen=True)
class Side:
    """One of the two studies.

    Attributes:
        name: of the study.
        root: its folder.
        records: the content of its records.
    """

    name: str
    root: Path
    records: list[Record]

    def frames(self, record: Record) -> dict[str, str]:
        """Split -> digest of its frames, from the manifest; empty where the split files are gone."""
        try:
            manifest = read_json(self.root / str(record["split"]["directory"]) / "manifest.json")
        except (FileNotFoundError, ProtocolError):
            return {}
        return {name: digest(part["sha256"]) for name, part in manifest.get("splits", {}).items()}


def load_side(study: str, results: Path) -> Side:
    """A study by its name below ``results``, or by the path of its folder.

    Raises:
        UserError: there is no such study; the message has the close match.
    """
    path = Path(study)
    root = tables.find_study(path.name, path.parent if len(path.parts) > 1 else results)
    return Side(path.name, root, load_all(root))


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
        frames: digests of each split in both, see :meth:`Side.frames`.
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
        return bool(self.before["status"] == self.after["status"] == "done")

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


def match(first: Side, second: Side) -> Matching:
    """Pair the trials of two studies.

    A setting is data set, architecture, size, number of training frames, and every further one that takes several
    values within a study. One that is constant in each study but differs between them is a change, not a setting.

    Raises:
        UserError: no trial of one has a partner in the other.
    """
    names = sorted({name for side in (first, second) for r in side.records for name in r["swept"]} - set(SEEDS))
    shared = [tables.build(side.records, names)[0] for side in (first, second)]
    varied = [name for name in names if any(name in varied_columns(table) for table in shared)]
    seeds = [name for name in SEEDS if any(name in r["swept"] for s in (first, second) for r in s.records)]
    found: list[dict[tuple[Key, Key], Record]] = []
    repeated = 0
    for side, table in zip((first, second), shared, strict=True):
        mine: dict[tuple[Key, Key], Record] = {}
        for key, record in _keyed(table, side.records, varied, seeds):
            repeated += key in mine
            known = mine.get(key)
            if known is None or (record["status"] == "done", record["finished"]) > (
                known["status"] == "done",
                known["finished"],
            ):
                mine[key] = record
        found.append(mine)
    common = [key for key in found[0] if key in found[1]]
    if not common:
        raise UserError(
            f"no trial of {first.name} has the setting and repetition of one of {second.name}",
            f"{first.name} has, for example, {_text(next(iter(found[0])), varied)}; "
            f"{second.name} has {_text(next(iter(found[1])), varied)}.",
        )
    common.sort(key=lambda key: (key[0][:3], int(key[0][3]), key))
    several = len({key[0][0] for key in common}) > 1
    pairs = [
        Matched(
            _label(key[0], varied, several), key[0][0], _label(key[0], varied, several, with_n=False), key[1],
            found[0][key], found[1][key], (first.frames(found[0][key]), second.frames(found[1][key])),
        )
        for key in common
    ]  # fmt: skip
    alone = [[_text(key, varied) for key in mine if key not in other] for mine, other in (found, found[::-1])]
    return Matching(pairs, alone[0], alone[1], repeated)


def _keyed(
    table: pd.DataFrame, records: list[Record], varied: list[str], seeds: list[str]
) -> Iterator[tuple[tuple[Key, Key], Record]]:
    settings = table[[*BASE, *varied]].astype(str).itertuples(index=False, name=None)
    repeats = table[["repetition", *seeds]].astype(str).itertuples(index=False, name=None)
    for setting, repeat, record in zip(settings, repeats, records, strict=True):
        yield (tuple(setting), tuple(repeat)), record


def _label(setting: Key, varied: list[str], several: bool, with_n: bool = True) -> str:
    dataset, architecture, size, n_train = setting[: len(BASE)]
    rest = [f"{name}={value}" for name, value in zip(varied, setting[len(BASE) :], strict=True)]
    parts = [f"{architecture} {size}", *([f"N = {n_train}"] if with_n else []), *rest]
    return f"{dataset}: {', '.join(parts)}" if several else ", ".join(parts)


def _text(key: tuple[Key, Key], varied: list[str]) -> str:
    return f"{_label(key[0], varied, several=True)}, repetition {'/'.join(key[1])}"
