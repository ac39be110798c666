"""What a comparison of two studies is made of, and how it is said in the terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from mlpbench.metrics import metric

Verdict = Literal[
    "identical", "better", "tie", "undecided", "worse", "one repetition", "other frames", "other hardware"
]
EVERY = "all settings"
_ORDER = ("worse", "better", "tie", "identical", "undecided", "one repetition", "other frames", "other hardware")
_CLEAR = ("worse", "better")
_MOST = 8  # trials without a partner that are listed


@dataclass(frozen=True)
class Change:
    """Something that differs between matched trials.

    Attributes:
        kind: ``configuration``, ``package``, ``environment``, ``hardware``, ``data`` or ``seed``.
        what: its name, e.g. ``budget.epochs`` or ``torch``.
        before: in the first study; several values joined.
        after: in the second.
        where: the architectures or backends concerned; empty: all of them.
    """

    kind: str
    what: str
    before: str
    after: str
    where: str = ""


@dataclass(frozen=True)
class Judged:
    """One metric of one setting in both studies.

    Attributes:
        metric: name.
        split: test split; empty for metrics of none.
        unit: of the means.
        setting: label; with :data:`EVERY` the mean over all settings, or over those of an architecture.
        before: mean over the matched repetitions, first study (geometric, or arithmetic for shares); NaN
            for a mean over settings.
        after: the same of the second.
        ratio: after / before; after − before where ``linear``.
        lower: lower end of its 95 % interval, Holm-corrected over the rows of its level (settings, architectures); NaN
            where there is none.
        upper: upper end.
        n: matched repetitions.
        verdict: of the second study against the first.
        within_margin: the whole interval lies inside the margin.
        further: further repetitions that would decide; 0 if decided, None if more than 100.
        linear: the ratio is a difference (survival and other shares).
    """

    metric: str
    split: str
    unit: str
    setting: str
    before: float
    after: float
    ratio: float
    lower: float
    upper: float
    n: int
    verdict: Verdict
    within_margin: bool
    further: int | None
    linear: bool

    @property
    def level(self) -> str:
        """``all``, ``architecture`` or ``setting``."""
        return "all" if self.setting == EVERY else "architecture" if self.setting.endswith(EVERY) else "setting"

    @property
    def regression(self) -> bool:
        """Worse, and by more than the margin can hide."""
        return self.verdict == "worse" and not self.within_margin


@dataclass(frozen=True)
class StudyComparison:
    """The second study against the first.

    Attributes:
        first: name of the first study.
        second: name of the second.
        trials: number of trials in each.
        settings: matched settings.
        matched: pairs of finished trials, one of each study with the same setting and repetition.
        same_potential: pairs whose trials have the same key: trained on the same frames from the same seed with the
            same packages.
        same_training: pairs with the same training and validation frames.
        same_frames: test split -> pairs that were tested on the very same frames.
        other_frames: test split -> pairs that were not, or of which it is not known any more.
        changes: what differs between matched trials.
        only_first: settings and repetitions that only the first study has, as text.
        only_second: likewise.
        lost: trials that are done in the first study and not in the second, with the reason.
        gained: the other way round.
        judged: for each metric and split, the mean over all settings, then each architecture's, then each setting.
        margin: relative difference that does not matter.
        notes: caveats.
    """

    first: str
    second: str
    trials: tuple[int, int]
    settings: tuple[str, ...]
    matched: int
    same_potential: int
    same_training: int
    same_frames: dict[str, int]
    other_frames: dict[str, int]
    changes: tuple[Change, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    lost: tuple[str, ...]
    gained: tuple[str, ...]
    judged: tuple[Judged, ...]
    margin: float
    notes: tuple[str, ...]

    @property
    def regressions(self) -> list[Judged]:
        """What became worse."""
        return [one for one in self.judged if one.regression]

    @property
    def undecided(self) -> list[Judged]:
        """What cannot be said, for whatever reason."""
        return [one for one in self.judged if one.verdict not in ("identical", "better", "tie", "worse")]

    @property
    def headline(self) -> str:
        """The answer in one sentence: each metric over all settings, and single ones where they differ."""
        places = list(dict.fromkeys((one.metric, one.split) for one in self.judged))
        verdicts = [self._verdict([one for one in self.judged if (one.metric, one.split) == place]) for place in places]
        lost = f"; {len(self.lost)} trials finished before and not now" if self.lost else ""
        said = "; ".join(verdicts) or "nothing to compare"
        return f"{self.second} against {self.first}, {self.matched} trials matched: {said}{lost}."

    def _verdict(self, rows: list[Judged]) -> str:
        over = next((one.verdict for one in rows if one.level == "all"), None)
        counts = Counter(str(one.verdict) for one in rows if one.level == "setting")
        apart = [one.setting for one in rows if one.level == "architecture" and one.verdict != over]
        clear = [f"{one.verdict} over {one.setting}" for one in rows if one.setting in apart and one.verdict in _CLEAR]
        listed = ", ".join(f"{counts[word]} {word}" for word in _ORDER if counts[word])
        name = f"{rows[0].metric} {over} over all settings" if over else rows[0].metric
        if over and list(counts) == [over]:
            return "; ".join([name, *clear])
        return "; ".join([f"{name} (settings: {listed})" if over else f"{name}: {listed}", *clear])


def describe(compared: StudyComparison) -> str:
    """The answer, what differs, and every metric."""
    lines = [compared.headline, "", *_matching(compared), "", "What differs between matched trials:"]
    lines += [f"  {change_text(change)}" for change in compared.changes] or ["  nothing"]
    for _, rows in groupby(compared.judged, key=lambda row: (row.metric, row.split)):
        lines += ["", *_table(list(rows), compared.margin)]
    for title, items in (("Done before and not now", compared.lost), ("Done now and not before", compared.gained)):
        if items:
            lines += ["", f"{title}:", *[f"  {item}" for item in items]]
    if compared.notes:
        lines += ["", *compared.notes]
    return "\n".join(lines)


def _matching(compared: StudyComparison) -> list[str]:
    lines = [
        f"{compared.first}: {compared.trials[0]} trials; {compared.second}: {compared.trials[1]}; "
        f"{compared.matched} pairs done in both, {len(compared.settings)} settings."
    ]
    lines.append(frames_text(compared))
    for name, alone in ((compared.first, compared.only_first), (compared.second, compared.only_second)):
        if alone:
            more = f"; and {len(alone) - _MOST} more" if len(alone) > _MOST else ""
            lines.append(f"Only in {name}: {'; '.join(alone[:_MOST])}{more}.")
    return lines


def frames_text(compared: StudyComparison) -> str:
    """Which frames the pairs share, plainly."""
    same = [s for s, count in compared.same_frames.items() if count == compared.matched]
    other = [f"{s} ({count} of {compared.matched} pairs)" for s, count in compared.other_frames.items() if count]
    parts = [f"Same training and validation frames in {compared.same_training} of {compared.matched} pairs"]
    if same:
        parts.append(f"the same test frames in {', '.join(same)}")
    if other:
        parts.append(f"OTHER test frames (or no longer known which) in {', '.join(other)}: errors there are not judged")
    if compared.same_potential:
        parts.append(f"{compared.same_potential} pairs have the same key, and so the same potential but for hardware")
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
        return f"undecided, {more} further repetitions would decide"
    if row.verdict == "one repetition":
        return "one repetition says nothing about other trainings"
    if row.verdict in ("better", "worse") and row.within_margin:
        return f"{row.verdict}, by less than the margin"
    if row.verdict == "other frames":
        return "other test frames: not judged"
    if row.verdict == "other hardware":
        return "other hardware: not judged"
    return row.verdict
