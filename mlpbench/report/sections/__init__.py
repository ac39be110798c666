"""The chapters of the report; a module holds those that change together.

``CHAPTERS`` of a module names them with their places (leave gaps), and ``<name>_section(study) -> Section | None``
makes each; None when the study has nothing for it. Modules are found by themselves, so a new chapter is a function and
an entry, in a module that is there or in a new one:

====== ============================================================
place  chapters
====== ============================================================
10–29  the answer: headline, summary table, which one to take
30–59  accuracy: learning curves, cost, parity, other distributions
60–79  further evaluations: physics, dynamics, speed
80–99  evidence: failures, trials, data, provenance, glossary
====== ============================================================
"""

from __future__ import annotations

import importlib
import pkgutil
import traceback
from dataclasses import dataclass, replace
from types import ModuleType

from mlpbench.report.section import Details, Figure, Section, Table, Text, walk
from mlpbench.study.study import Study

FOLDED = {"elements", "outliers", "parity", "uncertainty"}  # no pillar of the answer rests on them


@dataclass(frozen=True)
class Failed:
    """A section that could not be made.

    Attributes:
        name: of the chapter.
        reason: kind and message of the exception.
        traceback: in full, for whoever repairs it.
    """

    name: str
    reason: str
    traceback: str


def chapters() -> list[tuple[str, ModuleType]]:
    """Name and module of every chapter, in the order of the report.

    Raises:
        ValueError: two chapters claim the same place.
    """
    placed: dict[int, tuple[str, ModuleType]] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for name, place in module.CHAPTERS.items():
            if place in placed:
                raise ValueError(f"the chapters {placed[place][0]} and {name} both have the place {place}")
            placed[place] = (name, module)
    return [placed[place] for place in sorted(placed)]


def build_all(study: Study) -> tuple[list[Section], list[Failed]]:
    """The sections the study has something for, in order, and those that failed.

    A section that fails leaves a notice in its place: one wrong record must not cost the reader the page.
    """
    sections: list[Section] = []
    failed: list[Failed] = []
    for name, module in chapters():
        try:
            section = getattr(module, f"{name}_section")(study)
            if section is not None:
                _finish(section)
        except Exception as error:  # whatever it is, the other sections do not depend on it
            failed.append(Failed(name, f"{type(error).__name__}: {error}", traceback.format_exc()))
            section = _notice(failed[-1])
        if section is not None:
            sections.append(_folded(section) if name in FOLDED else section)
    return sections, failed


def _folded(section: Section) -> Section:
    """Its heading and finding stay; the rest opens on demand."""
    return replace(section, blocks=[Details("Figures and tables", section.blocks)]) if section.blocks else section


def _finish(section: Section) -> None:
    """Draw what is drawn on demand, so that a picture that fails is the failure of its section."""
    for block in walk(section.all_blocks):
        if isinstance(block, Figure):
            for panel in block.panels:
                _ = panel.svg
        elif isinstance(block, Table):
            block.frame()


def _notice(failed: Failed) -> Section:
    reason = f"This section could not be made: {failed.reason}. The other sections do not depend on it."
    return Section(failed.name, f"{failed.name.capitalize()} (failed)", "", [Text(reason, role="warning")])
