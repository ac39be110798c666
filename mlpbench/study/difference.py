"""What a result was made from beside what it should be made from: the comparison that says what is stale, and why.

Inputs are plain JSON (see :mod:`mlpbench.study.artefacts`). Nothing here reads a configuration or a data set.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mlpbench import files
from mlpbench.evaluators import SCORERS, Scorer
from mlpbench.files import digest
from mlpbench.protocol import Result

SCORE = "score:"

Inputs = dict[str, Any]
Action = Literal["keep", "score", "run"]
GONE = "is missing"
NEW = "not done yet"
AFTER = "the potential is retrained"


@dataclass(frozen=True)
class Made:
    """A result as it lies in the folder.

    Attributes:
        inputs: what it was made from; None where that was not written down (the core was killed in between).
        key: of a task: digest of the inputs it was asked for with.
        stamp: sha256 of the task's result, which tells one run of a task from another; of a score: that of its task.
        damage: why its files cannot be used; empty if they are as they were written.
    """

    inputs: Inputs | None
    key: str = ""
    stamp: str = ""
    damage: str = ""


@dataclass(frozen=True)
class Found:
    """What lies in a trial's folder.

    Attributes:
        results: task -> its result, ``done`` or ``skipped``; also those of tasks that this command does not ask for.
        made: artefact -> what it was made from.
        record: the trial's record; None if there is none that can be read.
    """

    results: dict[str, Result] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)
    record: dict[str, Any] | None = None


@dataclass(frozen=True)
class Verdict:
    """What is to be done about one artefact, and why."""

    artefact: str
    action: Action
    reason: str = ""


def score_inputs(
    scorer: Scorer,
    task_key: str,
    options: dict[str, Any],
    frames: dict[str, str],
    references: dict[str, dict[str, str]],
) -> Inputs:
    """What the scores of ``scorer`` are made from.

    Args:
        scorer: which formulas.
        task_key: of the result that it reads.
        options: of the task, as :func:`evaluation_options` fills them in.
        frames: split -> digest.
        references: see :func:`reference_digests`.
    """
    inputs: Inputs = {"task": task_key, "version": scorer.version}
    if scorer.options:
        known = {name: options.get(name) for name in scorer.options}
        inputs["options"] = {n: value for n, value in known.items() if n not in scorer.later or value is not None}
    if scorer.frames:
        inputs["frames"] = frames
    if scorer.references:
        inputs["references"] = {name: part["content"] for name, part in references.items()}
    return inputs


def reference_digests(references: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Name -> ``content`` (of the file) and ``structures`` (of its geometries alone: another energy moves no atom)."""
    digests = {}
    for name, path in references.items():
        stat = Path(path).stat()
        digests[name] = _reference_digest(name, str(path), stat.st_size, stat.st_mtime_ns)
    return digests


@lru_cache(maxsize=256)
def _reference_digest(name: str, path: str, size: int, time: int) -> dict[str, str]:
    from ase.io import iread

    content = files.sha256(Path(path))[:16]
    if name == "hessian":
        return {"content": content, "structures": "asked for"}  # the task computes one; the file is for the scores
    if not path.endswith("xyz"):
        return {"content": content, "structures": content}
    geometries = [
        [a.numbers.tolist(), np.asarray(a.positions).tolist(), a.cell.tolist(), a.pbc.tolist()]
        for a in iread(path, index=":")
    ]
    return {"content": content, "structures": digest(geometries)[:16]}


def difference(wanted: dict[str, Inputs], found: Found) -> list[Verdict]:
    """For every artefact wanted: keep it, rescore it, or run it again, and why.

    A checkpoint that was deleted is trained again only where something else has to be computed with it.
    """
    train = _task_verdict("train", wanted["train"], found.made.get("train"))
    made = found.made.get("train")
    if train.action == "run" and made is not None and made.damage.endswith(GONE):
        rest = _verdicts(wanted, found, Verdict("train", "keep"))
        if all(verdict.action != "run" for verdict in rest):
            return rest
    return _verdicts(wanted, found, train)


def _verdicts(wanted: dict[str, Inputs], found: Found, train: Verdict) -> list[Verdict]:
    verdicts = {"train": train}
    for name, inputs in wanted.items():
        if name.startswith(SCORE):
            task = SCORERS[name.removeprefix(SCORE)].task
            verdicts[name] = _score_verdict(name, inputs, found, verdicts[task])
        elif name != "train":
            again = train.action == "run"
            made = found.made.get(name)
            verdicts[name] = Verdict(name, "run", AFTER) if again else _task_verdict(name, inputs, made)
    return list(verdicts.values())


def _task_verdict(name: str, inputs: Inputs, made: Made | None) -> Verdict:
    if made is None:
        return Verdict(name, "run", NEW)
    if made.inputs is None and made.key != digest(inputs):
        return Verdict(name, "run", "made from other inputs")
    if made.inputs is not None and made.inputs != inputs:
        return Verdict(name, "run", unlike(made.inputs, inputs))
    return Verdict(name, "run", made.damage) if made.damage else Verdict(name, "keep")


def _score_verdict(name: str, inputs: Inputs, found: Found, task: Verdict) -> Verdict:
    """A task that was skipped has no scores, and needs none."""
    if task.action == "run":
        return Verdict(name, "score", f"{task.artefact} is run")
    result, made = found.results.get(task.artefact), found.made.get(name)
    if result is not None and result.status == "skipped":
        return Verdict(name, "keep")
    if made is None or made.inputs is None:
        return Verdict(name, "score", "not scored yet")
    if made.inputs != inputs:
        return Verdict(name, "score", unlike(made.inputs, inputs))
    stamp = found.made[task.artefact].stamp
    return Verdict(name, "score", f"{task.artefact} was run since") if made.stamp != stamp else Verdict(name, "keep")


def unlike(before: Inputs, now: Inputs) -> str:
    """``made from another reference stretch_OH``: the first few inputs that differ, in words."""
    told = [_told(name, before, now) for name in _leaves(before, now)]
    more = f" and {len(told) - 3} more" if len(told) > 3 else ""
    return f"made {', '.join(told[:3])}{more}"


def _told(path: tuple[str, ...], before: Inputs, now: Inputs) -> str:
    old, new = _at(before, path), _at(now, path)
    kind, name = path[0], ".".join(path[1:])
    if kind == "version":
        return f"with version {old} of the formulas, now {new}"
    words = {"references": "reference", "reference structures": "structures of reference", "frames": "frames of"}
    if kind in words or kind in ("task", "potential", "adapter", "environment"):
        return f"from another {words.get(kind, kind)} {name}".rstrip()
    return f"with {name or kind} = {_short(old)}, now {_short(new)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _leaves(before: Any, now: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = list(dict.fromkeys([*before, *now]))
        return [leaf for n in names for leaf in _leaves(before.get(n), now.get(n), (*path, str(n)))]
    return [path] if before != now else []


def _at(node: Any, path: Sequence[str]) -> Any:
    for name in path:
        node = node.get(name) if isinstance(node, dict) else None
    return node


def outdated(record: dict[str, Any]) -> dict[str, str]:
    """Scorer -> why its scores in this record are not those of this version, or of the reference files as they are now.

    A reference file that is not on this machine is taken to be as it was. A scorer that the record does not have yet
    is named too, where its task is done.
    """
    reasons: dict[str, str] = {}
    inputs = record.get("inputs", {})
    for scorer in SCORERS.values():
        if record["tasks"].get(scorer.task, {}).get("status") != "done":
            continue
        made = inputs.get(SCORE + scorer.name)
        if made is None:
            if scorer.applies(record["split"].get("references", {})):
                reasons[scorer.name] = "not scored yet"
            continue
        now = {**made, "version": scorer.version}
        if scorer.references:
            present = {n: p for n, p in record["split"].get("references", {}).items() if Path(p).is_file()}
            now["references"] = {**made.get("references", {})} | {
                name: part["content"] for name, part in reference_digests(present).items()
            }
        if now != made:
            reasons[scorer.name] = unlike(made, now)
    return reasons


def current(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """``records`` without the rows of scores that are outdated, so that no table mixes two versions of one; says so."""
    left_out: dict[str, tuple[int, str]] = {}
    study = ""
    for record in records:
        reasons = outdated(record)
        study = str(record["study"])
        for name, reason in reasons.items():
            left_out[name] = (left_out.get(name, (0, ""))[0] + 1, reason)
        if reasons:
            record["metrics"] = [row for row in record["metrics"] if row.get("scorer") not in reasons]
        yield record
    for name, (count, reason) in left_out.items():
        trials = f"{count} trial{'s' * (count != 1)}"
        print(f"notice: {trials} without their scores of {name} ({reason}); mlpbench score {study}", file=sys.stderr)
