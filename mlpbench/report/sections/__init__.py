"""The chapters of the report, one module each.

A module has ``ORDER`` (its place; leave gaps) and ``build(study) -> Section | None``; None when the study
has nothing for it. Modules are found by themselves, so a new chapter is one new file:

====== ============================================================
ORDER  chapters
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
from itertools import pairwise
from types import ModuleType

from mlpbench.report.section import Section
from mlpbench.report.study import Study


def modules() -> list[ModuleType]:
    """Every section's module, in the order of the report.

    Raises:
        ValueError: two modules claim the same place.
    """
    found = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    ordered = sorted(found, key=lambda module: int(module.ORDER))
    for first, second in pairwise(ordered):
        if first.ORDER == second.ORDER:
            raise ValueError(f"{first.__name__} and {second.__name__} both have ORDER = {first.ORDER}")
    return ordered


def build_all(study: Study) -> list[Section]:
    """The sections the study has something for, in order."""
    built = [module.build(study) for module in modules()]
    return [section for section in built if section is not None]
