"""What a comparison of two studies is made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Verdict = Literal[
    "identical", "better", "tie", "undecided", "worse", "one repetition", "other frames", "other hardware"
]
EVERY = "all settings"
_ORDER = ("worse", "better", "tie", "identical", "undecided", "one repetition", "other frames", "other hardware")
_CLEAR = ("worse", "better")


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
        found = [self._verdict([one for one in self.judged if (one.metric, one.split) == place]) for place in places]
        lost = f"; {len(self.lost)} trials finished before and not now" if self.lost else ""
        said = "; ".join(found) or "nothing to compare"
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
