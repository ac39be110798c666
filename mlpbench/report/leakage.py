"""What training and test frames have in common, in sentences, from the leak checks that the records hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlpbench.numbers import listing, plural
from mlpbench.study.study import unique


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
        f"{plural(found['test_frames_repeated'], 'frame')} of {name}"
        for name, found in check["splits"].items()
        if found["test_frames_repeated"]
    )
    return f"{plural(copies, 'frame')} of the training pool, which repeat {repeated}, were {fate} ({how})."
