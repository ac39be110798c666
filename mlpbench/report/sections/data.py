"""The data-set card: what was learnt from and tested on, and how the frames were told apart."""

from __future__ import annotations

from typing import Any

from mlpbench.numbers import number
from mlpbench.report.facts import detected, level_of_theory, shared_frames, split_warnings, train_sizes
from mlpbench.report.section import Block, Bullets, Cell, Column, Details, Section, Table, Text
from mlpbench.study.rows import natural
from mlpbench.study.study import Study, unique

ORDER = 86


def build(study: Study) -> Section | None:
    """A card, and the splits, for each data set."""
    blocks: list[Block] = []
    for dataset in study.datasets:
        records = [r for r in study.records if r["identifiers"].get("dataset") == dataset]
        blocks += [_card(study, dataset, records), _splits(study, dataset, records)]
        blocks += _told_apart(records)
        traps = unique([trap for r in records[:1] for trap in (r["config"].get("dataset") or {}).get("traps") or []])
        if traps:
            blocks.append(Bullets(traps, role="note"))
    return Section("data", "Data", "", blocks)


def _told_apart(records: list[dict[str, Any]]) -> list[Block]:
    """Copies between pool and test splits, warnings, and what was detected in the files."""
    warnings, notes = split_warnings(records), detected(records)
    return [
        *(Text(sentence) for sentence in shared_frames(records)),
        *([Bullets(warnings, role="warning")] if warnings else []),
        *([Details("What was detected when the files were read", [Bullets(notes)])] if notes else []),
    ]


def _card(study: Study, dataset: str, records: list[dict[str, Any]]) -> Table:
    config = next((r["config"].get("dataset") or {} for r in records), {})
    info = next((r["split"].get("info") or {} for r in records), {})
    price = study.label_seconds(dataset)
    facts = {
        "Description": config.get("description"),
        "Level of theory": level_of_theory(study, dataset),
        "Labels used in training": ", ".join(config.get("labels") or []),
        "Training frames": ", ".join(str(n) for n in train_sizes(study, dataset)),
        "Validation frames": ", ".join(
            str(n) for n in sorted(unique([r["identifiers"].get("n_valid") for r in records]))
        ),
        "Cost of one label": f"{number(price)} s" if price else None,
        "Licence": config.get("licence"),
        "Source": config.get("citation"),
        **{
            key.replace("_", " ").capitalize(): str(value)
            for key, value in info.items()
            if isinstance(value, str | int | float) and key not in ("label_seconds", "level_of_theory", "licence")
        },
    }
    rows = [[Cell(key), Cell(str(value))] for key, value in facts.items() if value not in (None, "")]
    columns = [Column("Property", numeric=False), Column("Value", numeric=False)]
    return Table(f"data-{dataset}", f"The data set {dataset}.", columns, rows)


def _splits(study: Study, dataset: str, records: list[dict[str, Any]]) -> Table:
    """One row for each split that was written; trials that shared it had the very same frames."""
    seen: dict[str, dict[str, Any]] = {}
    for record in records:
        seen.setdefault(str(record["split"].get("directory")), record)
    parts = sorted({part for r in seen.values() for part in r["split"].get("counts") or {}}, key=natural)
    columns = [
        Column("Split", "", "folder below the study's", numeric=False),
        Column("n_train", "frames"),
        Column("Repetition"),
        *(Column(part, "frames") for part in parts),
        Column("Seed"),
        Column("Digest", "", "of all its frames", numeric=False),
    ]
    rows = [
        [
            Cell(name),
            _count(r["identifiers"].get("n_train")),
            _count(r["identifiers"].get("repetition")),
            *(_count((r["split"].get("counts") or {}).get(part)) for part in parts),
            _count(r["split"].get("split_seed")),
            Cell(str(r["split"].get("digest") or "–")[:12], str(r["split"].get("digest"))),
        ]
        for name, r in sorted(seen.items(), key=lambda item: natural(item[0]))
    ]
    return Table(
        f"splits-{dataset}",
        f"Splits of {dataset}: each was written once and shared by all architectures.",
        columns,
        rows,
    )


def _count(value: Any) -> Cell:
    return Cell("–") if value is None else Cell(str(value), value)
