"""What differs between matched trials: configuration, packages, hardware, data and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mlpbench.comparison.matching import Matched
from mlpbench.comparison.model import Change

# Where results lie and how long they may take determines nothing.
_PLACES = {
    "study", "results_dir", "reports_dir", "timeout", "repetition", "split_seed", "init_seed", "device", "threads",
}  # fmt: skip
_HARDWARE = ("cpu", "device", "device_name", "threads")
_NOTHING = "–"


def find_changes(pairs: list[Matched]) -> list[Change]:
    """Every difference, each once, with the architectures (or backends) that it concerns."""
    found: dict[tuple[str, str], dict[str, tuple[set[str], set[str]]]] = {}
    for pair in pairs:
        place = str(pair.before["identifiers"]["architecture"])
        for kind, what, before, after in _differences(pair):
            sides = found.setdefault((kind, what), {}).setdefault(place, (set(), set()))
            sides[0].add(_short(before))
            sides[1].add(_short(after))
    every = {str(pair.before["identifiers"]["architecture"]) for pair in pairs}
    changes = []
    for (kind, what), places in found.items():
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
