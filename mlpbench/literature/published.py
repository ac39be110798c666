"""Errors that papers report: ``published.csv``, each with its source and what is known of its protocol."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mlpbench.literature.bibliography import references


@dataclass(frozen=True)
class Published:
    """One published error.

    Attributes:
        dataset: as mlpbench names it, variant included.
        split: test split, likewise.
        architecture: as mlpbench names it, or what the paper calls one that mlpbench does not run.
        variant: which one of the architecture, e.g. ``L=2``; empty where the paper has one.
        n_train: training frames; None where the source does not say.
        n_valid: validation frames that come on top; None likewise.
        metric: name of the metric, which gives the unit.
        value: in the metric's unit.
        std: over the paper's repetitions; None where there is none.
        key: of the source in the bibliography.
        place: table of the source, and how its number came here if not from the source itself.
        protocol: what differs from training and testing on this data set's own split, in words.
    """

    dataset: str
    split: str
    architecture: str
    variant: str
    n_train: int | None
    n_valid: int | None
    metric: str
    value: float
    std: float | None
    key: str
    place: str
    protocol: str

    @property
    def source(self) -> str:
        """The source with its table."""
        return f"{references()[self.key].short}, {self.place}"


def published_values(dataset: str) -> list[Published]:
    """What is published for a data set, in the order of the file; empty where nothing is."""
    return [one for one in _all() if one.dataset == dataset]


@cache
def _all() -> tuple[Published, ...]:
    text = files("mlpbench.literature").joinpath("published.csv").read_text(encoding="utf-8")
    return tuple(_entry(row) for row in csv.DictReader(text.splitlines()))


def _entry(row: dict[str, str]) -> Published:
    return Published(
        row["dataset"], row["split"], row["architecture"], row["variant"],
        int(row["n_train"]) if row["n_train"] else None, int(row["n_valid"]) if row["n_valid"] else None,
        row["metric"], float(row["value"]), float(row["std"]) if row["std"] else None,
        row["key"], row["place"], row["protocol"],
    )  # fmt: skip
