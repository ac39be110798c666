"""The verdict on each metric: the same settings, repetitions and test frames in both studies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mlpbench.comparison.matching import Matched, find_changes, match
from mlpbench.comparison.model import EVERY, Judged, StudyComparison, Verdict
from mlpbench.errors import UserError, close_match
from mlpbench.metrics import METRICS, is_linear
from mlpbench.metrics import metric as find_metric
from mlpbench.records import usable
from mlpbench.statistics.paired import MARGIN, Comparison, Pair, compare
from mlpbench.study.study import Study

Float = npt.NDArray[np.float64]
DEFAULT = (
    "force_mae", "energy_mae", "stress_mae", "frequency_mae", "md_survival", "own_trajectory_force_mae", "us_per_atom",
    "ms_per_md_step", "train_seconds",
)  # fmt: skip
_TIMES = ("speed", "cost")
_NO_TEST = ("train", "valid")


def compare_studies(
    first: Study,
    second: Study,
    metrics: Sequence[str] = (),
    splits: Sequence[str] = (),
    *,
    margin: float = MARGIN,
) -> StudyComparison:
    """What became of the second study's metrics since the first.

    Args:
        first: for example before an upgrade.
        second: after it.
        metrics: names; empty: errors of energy, forces and stress, and speed, survival and training time where both
            studies have them.
        splits: test splits of the errors; empty: the one in distribution.
        margin: relative difference that does not matter.

    Raises:
        UserError: nothing matches, or a metric or split that is not in both studies.
    """
    matched = match(first, second)
    done = [pair for pair in matched.pairs if pair.done]
    for name in metrics:
        find_metric(name)
    scores = [(first.scores[pair.before["trial"]], second.scores[pair.after["trial"]]) for pair in done]
    values = {id(pair): _values(*both) for pair, both in zip(done, scores, strict=True)}
    present = sorted({place for both in values.values() for place in both})
    wanted = _wanted(present, done, metrics, splits)
    judged = [row for place in wanted for row in _judge(place, done, values, margin)]
    tests = sorted({split for name, split in present if find_metric(name).group == "accuracy"} - set(_NO_TEST))
    return StudyComparison(
        first=first.name, second=second.name, trials=(len(first.records), len(second.records)),
        settings=tuple(dict.fromkeys(pair.setting for pair in done)), matched=len(done),
        same_potential=sum(pair.before["key"] == pair.after["key"] for pair in done),
        same_training=sum(pair.same("train") and pair.same("valid") for pair in done),
        same_frames={split: sum(pair.same(split) for pair in done) for split in tests},
        other_frames={split: sum(not pair.same(split) for pair in done) for split in tests},
        changes=tuple(find_changes(matched.pairs)), only_first=tuple(matched.only_first),
        only_second=tuple(matched.only_second),
        lost=tuple(_state(p, p.after) for p in matched.pairs if usable(p.before) and not usable(p.after)),
        gained=tuple(_state(p, p.before) for p in matched.pairs if usable(p.after) and not usable(p.before)),
        judged=tuple(judged), margin=margin, notes=tuple(_notes(matched.repeated, done)),
    )  # fmt: skip


def _values(
    before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]
) -> dict[tuple[str, str], tuple[float, float]]:
    """(metric, split) -> its value before and after, where both trials have one."""
    return {place: (value, after[place]) for place, value in before.items() if place in after}


def _wanted(
    present: list[tuple[str, str]], done: list[Matched], metrics: Sequence[str], splits: Sequence[str]
) -> list[tuple[str, str]]:
    """The (metric, split) to judge, metrics in the order in which they were asked for."""
    names = {name for name, _ in present}
    for name in metrics:
        if name not in names:
            raise UserError(f"the two studies have no '{name}' in common", close_match(name, names or METRICS))
    known = {split for name, split in present if find_metric(name).group == "accuracy"}
    for split in splits:
        if split not in known:
            raise UserError(f"the two studies have no split '{split}' in common", close_match(split, known))
    own = {str(pair.before["split"].get("in_distribution")) for pair in done}
    tests = sorted(known - set(_NO_TEST))
    chosen = list(splits) or [split for split in tests if split in own] or tests
    return [
        (name, split)
        for name in (metrics or [name for name in DEFAULT if name in names])
        for split in (chosen if find_metric(name).group == "accuracy" else sorted({s for n, s in present if n == name}))
        if (name, split) in present
    ]


def _judge(
    place: tuple[str, str], done: list[Matched], values: dict[int, dict[tuple[str, str], tuple[float, float]]],
    margin: float,
) -> list[Judged]:  # fmt: skip
    """One metric on one split, at three levels: all settings, each architecture over its settings, each setting."""
    name, split = place
    pairs = [pair for pair in done if place in values[id(pair)]]
    numbers = np.array([values[id(pair)][place] for pair in pairs], dtype=np.float64).reshape(-1, 2)
    linear = is_linear(name) or bool((numbers <= 0).any())
    change = numbers[:, 1] - numbers[:, 0] if linear else np.log(numbers[:, 1] / numbers[:, 0])
    judged: list[Judged] = []
    labels = ([EVERY] * len(pairs), [f"{p.family}, {EVERY}" for p in pairs], [p.setting for p in pairs])
    for level in labels:
        groups = {label: [i for i, own in enumerate(level) if own == label] for label in dict.fromkeys(level)}
        if level is not labels[-1]:  # a mean over one setting would only repeat it
            groups = {g: rows for g, rows in groups.items() if len({pairs[i].setting for i in rows}) > 1}
        if level is labels[1] and len({pair.family for pair in pairs}) == 1:
            continue
        asked = [
            Pair("after", "before", _by_repetition([pairs[i] for i in rows], change[rows]),
                 family=pairs[rows[0]].family if level is labels[-1] else "")
            for rows in groups.values()
        ]  # fmt: skip
        results = compare(asked, margin=margin, at=()) if asked else []
        for (label, rows), result in zip(groups.items(), results, strict=True):
            obstacle = _obstacle(name, split, [pairs[i] for i in rows])
            judged.append(_row(place, label, numbers[rows], result, obstacle, linear))
    return judged


def _by_repetition(pairs: list[Matched], change: Float) -> Float:
    """(R,) the mean change over settings in each repetition, free of which settings the repetition lacks."""
    settings = {pair.setting for pair in pairs}
    mean = {s: float(np.mean([c for p, c in zip(pairs, change, strict=True) if p.setting == s])) for s in settings}
    rest: dict[object, list[float]] = {}
    for pair, value in zip(pairs, change, strict=True):
        rest.setdefault(pair.repetition, []).append(float(value) - mean[pair.setting])
    known = [np.mean(values) for values in rest.values() if 2 * len(values) >= len(settings)]
    return np.mean(list(mean.values())) + np.array(known)


def _row(
    place: tuple[str, str], label: str, numbers: Float, result: Comparison, obstacle: Verdict | None, linear: bool
) -> Judged:
    entry = find_metric(place[0])
    mean = numbers.mean(axis=0) if linear else np.exp(np.log(numbers).mean(axis=0))
    if label.endswith(EVERY):  # a mean over training sizes is no error of anything
        mean = np.full(2, np.nan)
    ratio, lower, upper = (float(np.log(x)) if linear else x for x in (result.ratio, result.lower, result.upper))
    verdict: Verdict = "undecided"
    if bool((numbers[:, 0] == numbers[:, 1]).all()):
        verdict = "identical"
    elif obstacle is not None:
        verdict = obstacle
    elif result.verdict == "unknown":
        verdict = "one repetition"
    elif result.verdict == "tie":
        verdict = "tie"
    elif result.verdict == "better":
        verdict = "better" if (result.ratio < 1) == (entry.direction == "lower") else "worse"
    return Judged(
        *place, entry.unit, label, float(mean[0]), float(mean[1]), ratio, lower, upper, result.n, verdict,
        result.within_margin, result.further, linear,
    )  # fmt: skip


def _obstacle(name: str, split: str, pairs: list[Matched]) -> Verdict | None:
    """Why the numbers cannot be compared."""
    group = find_metric(name).group
    if group == "accuracy" and not all(pair.same(split) for pair in pairs):
        return "other frames"
    if group in _TIMES and find_metric(name).unit and any(_machine(p.before) != _machine(p.after) for p in pairs):
        return "other hardware"
    return None


def _machine(record: dict[str, object]) -> list[object]:
    provenance = record["provenance"]
    hardware = provenance.get("hardware") or {} if isinstance(provenance, dict) else {}
    return [hardware.get(key) for key in ("cpu", "device", "device_name", "threads")]


def _state(pair: Matched, record: dict[str, object]) -> str:
    reason = f", {record['reason']}" if record["reason"] else ""
    return f"{pair.setting}, repetition {'/'.join(pair.repetition)}: {record['status']}{reason}"


def _notes(repeated: int, done: list[Matched]) -> list[str]:
    notes = []
    if repeated:
        notes.append(f"{repeated} trials are there again with the same setting and repetition: the latest one counts.")
    open_ended = [sum((side["training"] or {}).get("at_rest") is False for side in sides)
                  for sides in ([p.before for p in done], [p.after for p in done])]  # fmt: skip
    if any(open_ended):
        notes.append(
            f"Not at rest when the budget ended: {open_ended[0]} of the matched trials before, {open_ended[1]} after. "
            "Among these a difference is one of optimisation speed."
        )
    return notes
