"""Exploration: train a committee, let its dynamics find frames, label those worth a label, train on them, and so on.

Each round writes a manifest of what it chose before a label is paid for, labels are kept in the label store, and
potentials are trials: a command that was stopped, killed too, goes on to the same manifests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.acquisition.exploring import (
    Exploration,
    RoundManifest,
)
from mlpbench.backends.registry import BackendConfig
from mlpbench.errors import UserError
from mlpbench.files import locked
from mlpbench.finding import CHOSEN, OnEvent, find_frames, without_labels
from mlpbench.frames import Frames
from mlpbench.protocol import ProtocolError, read_json, write_json
from mlpbench.references.labels import Label, OnLabel, label, label_file
from mlpbench.references.own import ENERGY_TOLERANCE, FORCE_TOLERANCE
from mlpbench.study.acquired import member_of
from mlpbench.study.explored import Acquired, median_seconds
from mlpbench.study.trial import Trial

CarryOut = Callable[[Trial], dict[str, Any]]
LABELS = "labels.json"  # in a round's folder: what came of its frames
OUT_OF_TIME = "out of time"  # as mlpbench.references.labels says it


@dataclass(frozen=True)
class Labelling:
    """How labels are made.

    Attributes:
        method: complete reference method.
        backend: whose environment has the code.
        jobs: processes at once.
        threads: of the code, in each.
        on_label: see :data:`mlpbench.references.labels.OnLabel`.
    """

    method: dict[str, Any]
    backend: BackendConfig
    jobs: int = 1
    threads: int = 1
    on_label: OnLabel | None = None


@dataclass(frozen=True)
class Round:
    """A round that is through.

    Attributes:
        manifest: what it found and chose.
        labelled: frames that got a label.
        left_out: reason -> frames that got none.
        seconds: wall time of its labels' calculations.
        complete: whether every chosen frame has a label or can get none; False: the hours ran out.
    """

    manifest: RoundManifest
    labelled: int
    left_out: dict[str, int]
    seconds: float
    complete: bool


@dataclass(frozen=True)
class Explored:
    """What came of an exploration.

    Attributes:
        rounds: those that are through.
        ended: why no further round follows.
        failed: the record of a trial that failed; None: none did.
        record: of the last training, on all labels.
    """

    rounds: list[Round]
    ended: str
    failed: dict[str, Any] | None = None
    record: dict[str, Any] | None = None


def explore(
    acquired: Acquired,
    options: Exploration,
    labelling: Labelling,
    carry_out: CarryOut,
    *,
    on_event: OnEvent | None = None,
    on_round: Callable[[Round], None] | None = None,
) -> Explored:
    """Rounds until the budget of labels, hours or rounds is spent, or nothing is left to choose.

    Args:
        acquired: the data set that grows.
        options: settings.
        labelling: how labels are made.
        carry_out: runs a trial and returns its record.
        on_event: called with the progress of dynamics.
        on_round: called with each round that is through.

    Raises:
        UserError: dynamics or predictions fail, the method labels nothing, or another process explores here.
    """
    with locked(acquired.folder / ".lock", wait=False, busy=f"another process explores {acquired.name}"):
        return _explore(acquired, options, labelling, carry_out, on_event, on_round)


def _explore(
    acquired: Acquired,
    options: Exploration,
    labelling: Labelling,
    carry_out: CarryOut,
    on_event: OnEvent | None,
    on_round: Callable[[Round], None] | None,
) -> Explored:
    rounds: list[Round] = []
    ended = ""
    while not ended:
        number = len(rounds) + 1
        ended = _spent(options, rounds)
        if ended:
            break
        first = acquired.trial(number)
        trials = [first, *(member_of(first, member) for member in range(1, options.members))]
        records = []
        for trial in trials:
            records.append(carry_out(trial))
            if records[-1]["status"] != "done":
                return Explored(rounds, "a training failed", failed=records[-1])
        count = min(options.batch, options.labels - sum(len(one.manifest.chosen) for one in rounds))
        manifest = find_frames(acquired, number, options, trials, records, count, on_event)
        if not manifest.chosen:
            ended = _nothing_left(manifest)
            break
        rounds.append(_label(acquired, number, manifest, labelling, options, rounds))
        acquired.write_entry(number + 1, median_seconds(acquired.labelled_rounds(number + 1)))
        if on_round is not None:
            on_round(rounds[-1])
    acquired.write_entry(len(rounds) + 1, median_seconds(acquired.labelled_rounds(len(rounds) + 1)))
    record = carry_out(acquired.trial(len(rounds) + 1))
    return Explored(rounds, ended, None if record["status"] == "done" else record, record)


def require_method(start: Trial, labelling: Labelling) -> float:
    """Label a training frame again and compare with the data set's label.

    Returns:
        Seconds that the label took.

    Raises:
        UserError: the method does not label it, or says something else: its labels cannot be learnt with the others.
    """
    frame = Frames.load(start.split.files["train"]).select([0])
    answer = label(frame, labelling.method, labelling.backend, threads=labelling.threads)[0]
    if not isinstance(answer, Label):
        raise UserError(f"the reference method does not label the first training frame: {answer.reason}")
    energy, force = abs(answer.energy - float(frame.energy[0])), float(np.abs(answer.forces - frame.forces).max())
    if energy > ENERGY_TOLERANCE or force > FORCE_TOLERANCE:
        raise UserError(
            f"the reference method is not that of {start.dataset.name}: on its first training frame the energy differs "
            f"by {energy * 1e3:.3g} meV and the forces by up to {force * 1e3:.3g} meV/Å",
            "Give the data set's method (reference=...), or label its frames with this one: mlpbench data label.",
        )
    return answer.seconds


def relabelled(frames: Frames, labelling: Labelling) -> Frames:
    """``frames`` with the method's labels in place of their own.

    Raises:
        UserError: the method does not label one of them.
    """
    answers = label(
        frames, labelling.method, labelling.backend, threads=labelling.threads, jobs=labelling.jobs,
        on_label=labelling.on_label,
    )  # fmt: skip
    good = [answer for answer in answers if isinstance(answer, Label)]
    if len(good) < len(answers):
        reason = next(answer.reason for answer in answers if not isinstance(answer, Label))
        raise UserError(f"{len(answers) - len(good)} frames of the start have no label from the method: {reason}")
    nothing = np.full(6, np.nan)
    stress = [nothing if answer.stress is None else answer.stress for answer in good]
    return Frames.from_atoms(
        without_labels(frames).to_atoms(), [one.energy for one in good], [one.forces for one in good], np.array(stress)
    )


def _spent(options: Exploration, rounds: Sequence[Round]) -> str:
    """Which budget is spent; empty: none."""
    if rounds and not rounds[-1].complete:
        return f"the {options.hours:g} hours of labelling are spent"
    if options.hours is not None and sum(one.seconds for one in rounds) >= 3600 * options.hours:
        return f"the {options.hours:g} hours of labelling are spent"
    chosen = sum(len(one.manifest.chosen) for one in rounds)
    if chosen >= options.labels:
        return f"the budget of {options.labels} labels is spent"
    return f"{options.rounds} rounds are through" if len(rounds) >= options.rounds else ""


def _nothing_left(manifest: RoundManifest) -> str:
    counts = manifest.counts
    return (
        f"nothing was left to choose in round {manifest.round}: of {counts['sound']} sound frames {counts['accurate']} "
        f"are accurate, {counts['failed']} too wrong, and {counts['candidates']} candidates that repeat labelled ones"
    )


# --- labels ---------------------------------------------------------------------------------------------------------


def _label(
    acquired: Acquired, number: int, manifest: RoundManifest, labelling: Labelling, options: Exploration,
    before: Sequence[Round],
) -> Round:  # fmt: skip
    """The labels of a round; those that are in the label store cost nothing."""
    folder, target = acquired.round_folder(number), acquired.labelled_file(number)
    known = _known(folder, target, manifest)
    if known is not None and (known.complete or (options.hours is not None and _left(options, [*before, known]) <= 0)):
        return known
    filed = label_file(
        folder / CHOSEN, target, labelling.method, labelling.backend, jobs=labelling.jobs, threads=labelling.threads,
        seconds=_left(options, before) / max(1, labelling.jobs) if options.hours else None,
        on_label=labelling.on_label,
    )  # fmt: skip
    reasons = Counter(answer.reason for _, answer in filed.left_out)
    through = Round(
        manifest, len(filed.good), dict(sorted(reasons.items())), float(sum(one.seconds for one in filed.good)),
        not any(answer.reason == OUT_OF_TIME for _, answer in filed.left_out),
    )  # fmt: skip
    if not through.labelled and through.complete:
        raise UserError(
            f"the reference method labels none of the {len(manifest.chosen)} frames of round {number}: {reasons}"
        )
    write_json(folder / LABELS, {
        "manifest": manifest.digest, "labelled": through.labelled, "left_out": through.left_out,
        "seconds": through.seconds, "complete": through.complete,
    })  # fmt: skip
    return through


def _left(options: Exploration, rounds: Sequence[Round]) -> float:
    """Seconds of labelling that are left."""
    return 3600 * float(options.hours or 0) - sum(one.seconds for one in rounds)


def _known(folder: Path, target: Path, manifest: RoundManifest) -> Round | None:
    """What came of the round's labels, if they are there."""
    try:
        stored = read_json(folder / LABELS)
    except (FileNotFoundError, ProtocolError):
        return None
    if stored["manifest"] != manifest.digest or (stored["labelled"] and not target.is_file()):
        return None
    return Round(manifest, stored["labelled"], stored["left_out"], stored["seconds"], stored["complete"])
