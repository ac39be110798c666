"""How costs grow with the atoms, in words: of the reference method, of the potentials, and where they would meet."""

from __future__ import annotations

import math

from mlpbench.numbers import number
from mlpbench.report.section import Block, Bullets
from mlpbench.report.timed import FAR, Timed, beside, unlike
from mlpbench.report.ways import Way, scaling
from mlpbench.statistics.extrapolation import fit_power_law
from mlpbench.study.study import Study


def growth(study: Study, ran: list[Way], references: list[Timed]) -> list[Block]:
    """How the reference's cost grows, and where it would meet the potentials'."""
    items = []
    for one in references:
        if one.law is None:
            continue
        law = one.law
        known = math.isfinite(law.lower)
        ends = f" (95 % {law.lower:.2f} to {law.upper:.2f})" if known else " (two points: no interval)"
        items.append(
            f"{one.name} on {one.machine}: time grows as N^{law.exponent:.2f}{ends} over {one.series} of "
            f"{law.smallest:.0f} to {law.largest:.0f} atoms."
        )
        for way in ran:
            text = _meeting(study, way, one)
            if text:
                items.append(text)
    return [Bullets(items)] if items else []


def _meeting(study: Study, way: Way, one: Timed) -> str:
    points, _ = scaling(study, way)
    if len(points) < 2 or one.law is None or beside(way, [one]) is None:
        return ""
    law = fit_power_law([p[0] for p in points], [p[1] for p in points])
    assert law is not None
    last = points[-1][0]
    largest = min(last, FAR * one.law.largest)
    cheaper = all(law.at(n) < one.law.at(n) for n in (one.law.smallest, one.law.largest))
    meeting = law.reaches(one.law)
    where = (
        f"the two fits would meet at {number(meeting)} atoms"
        if meeting is not None and meeting <= FAR * max(last, one.law.largest)
        else "the two fits meet at no number of atoms near these"
    )
    measured = "at every size measured it is the cheaper one" if cheaper else "at some sizes the reference is cheaper"
    ahead = one.law.at(largest) / law.at(largest)
    far = " (reference extrapolated)" if largest > one.law.largest else ""
    return (
        f"{way.candidate} grows as N^{law.exponent:.2f} over {law.smallest:.0f} to {last:.0f} atoms; {measured}, "
        f"{where}; at {largest:.0f} atoms it is {number(ahead)} times as fast{far}{unlike(way, one)}."
    )
