"""A comparison of two studies in words, for the terminal."""

from __future__ import annotations

from itertools import groupby

from mlpbench.comparison.model import Change, Judged, StudyComparison
from mlpbench.metrics import metric

_MOST = 8  # trials without a partner that are listed


def describe(found: StudyComparison) -> str:
    """The answer, what differs, and every metric."""
    lines = [found.headline, "", *_matching(found), "", "What differs between matched trials:"]
    lines += [f"  {change_text(change)}" for change in found.changes] or ["  nothing"]
    for _, rows in groupby(found.judged, key=lambda row: (row.metric, row.split)):
        lines += ["", *_table(list(rows), found.margin)]
    for title, items in (("Done before and not now", found.lost), ("Done now and not before", found.gained)):
        if items:
            lines += ["", f"{title}:", *[f"  {item}" for item in items]]
    if found.notes:
        lines += ["", *found.notes]
    return "\n".join(lines)


def _matching(found: StudyComparison) -> list[str]:
    lines = [
        f"{found.first}: {found.trials[0]} trials; {found.second}: {found.trials[1]}; {found.matched} pairs done in "
        f"both, {len(found.settings)} settings."
    ]
    lines.append(frames_text(found))
    for name, alone in ((found.first, found.only_first), (found.second, found.only_second)):
        if alone:
            more = f"; and {len(alone) - _MOST} more" if len(alone) > _MOST else ""
            lines.append(f"Only in {name}: {'; '.join(alone[:_MOST])}{more}.")
    return lines


def frames_text(found: StudyComparison) -> str:
    """Which frames the pairs share, plainly."""
    same = [s for s, count in found.same_frames.items() if count == found.matched]
    other = [f"{s} ({count} of {found.matched} pairs)" for s, count in found.other_frames.items() if count]
    parts = [f"Same training and validation frames in {found.same_training} of {found.matched} pairs"]
    if same:
        parts.append(f"the same test frames in {', '.join(same)}")
    if other:
        parts.append(f"OTHER test frames (or no longer known which) in {', '.join(other)}: errors there are not judged")
    if found.same_potential:
        parts.append(f"{found.same_potential} pairs have the same key, and so the same potential but for hardware")
    return "; ".join(parts) + "."


def change_text(change: Change) -> str:
    """One change in a line."""
    where = f" ({change.where})" if change.where else ""
    if change.before == change.after:
        return f"{change.kind}: {change.what} differ{'s' if change.kind == 'seed' else ''}{where}"
    return f"{change.kind}: {change.what} {change.before} -> {change.after}{where}"


def _table(rows: list[Judged], margin: float) -> list[str]:
    first = rows[0]
    entry = metric(first.metric)
    what = "difference" if first.linear else "ratio"
    where = f" on {first.split}" if first.split else ""
    unit = f" ({entry.unit})" if entry.unit else ""
    head = (
        f"{first.metric}{where}{unit}, {entry.direction} is better; {what} after/before with its 95 % interval "
        f"(Holm-corrected within each level), tie inside ±{100 * margin:g} %:"
    )
    width = max(len(row.setting) for row in rows)
    return [head, *[f"  {row.setting:<{width}}  {row_text(row)}" for row in rows]]


def row_text(row: Judged) -> str:
    """Means, ratio, interval and verdict of one row."""
    means = f"{row.before:.4g} -> {row.after:.4g}, " if row.before == row.before else ""
    sign = "+" if row.linear else ""
    span = f" [{row.lower:{sign}.3f}, {row.upper:{sign}.3f}]" if row.lower == row.lower else ""
    return f"{means}{row.ratio:{sign}.3f}{span}, n = {row.n}: {verdict_text(row)}"


def verdict_text(row: Judged) -> str:
    """The verdict with what a reader needs to act on it."""
    if row.verdict == "undecided":
        more = "more than 100" if row.further is None else f"about {row.further}"
        return f"undecided, {more} further repetitions would tell"
    if row.verdict == "one repetition":
        return "one repetition tells nothing of other trainings"
    if row.verdict in ("better", "worse") and row.within_margin:
        return f"{row.verdict}, by less than the margin"
    if row.verdict == "other frames":
        return "other test frames: not judged"
    if row.verdict == "other hardware":
        return "other hardware: not judged"
    return row.verdict
