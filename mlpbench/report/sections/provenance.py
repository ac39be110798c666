"""Where the numbers come from: versions side by side, hardware, settings, commit."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mlpbench.numbers import listing, plural
from mlpbench.report.facts import budgets, declared, hardware
from mlpbench.report.section import Block, Cell, Column, Section, Table, Text
from mlpbench.study.rows import natural
from mlpbench.study.study import Study, rows_of, unique

ORDER = 90


def build(study: Study) -> Section | None:
    """Versions of each backend's environment, then the hardware, then mlpbench itself."""
    blocks: list[Block] = [_versions(study), _hardware(study), _settings(study), Text(_mlpbench(study))]
    return Section("provenance", "Versions and hardware", "", blocks)


def _versions(study: Study) -> Table:
    columns_of = [c for c in study.trials.columns if c.startswith("version_")]
    backends = sorted(study.trials["backend"].unique())
    known = declared(study)
    first = ["torch", *(backend.distribution for backend in known.values() if backend.distribution)]
    packages = sorted(
        (c.removeprefix("version_") for c in columns_of),
        key=lambda p: (first.index(p) if p in first else len(first), p),
    )
    rows = []
    for package in packages:
        found = [_joined(study.trials.loc[study.trials["backend"] == b, f"version_{package}"]) for b in backends]
        rows.append([Cell(package), *(Cell(f) for f in found)])
    rows.append([Cell("environment"), *(Cell(_environment(study, b)) for b in backends)])
    said = [known.get(str(b)) for b in backends]
    rows.append([Cell("licence"), *(Cell((one and one.licence) or "–") for one in said)])
    rows.append([Cell("trains on"), *(Cell(listing(list(one.labels)) if one else "–") for one in said)])
    loops = {"package": "its own trainer", "mlpbench": "mlpbench's loop"}
    rows.append([Cell("trained by"), *(Cell("–" if one is None else loops[one.trainer]) for one in said)])
    rows.append([Cell("periodic"), *(Cell("–" if one is None else "yes" if one.periodic else "no") for one in said)])
    columns = [Column("Package", numeric=False), *(Column(str(b), numeric=False) for b in backends)]
    caption = "Each backend runs in an environment of its own. environment: digest of its pinned requirements."
    return Table("versions", caption, columns, rows)


def _joined(values: pd.Series) -> str:
    return ", ".join(sorted({str(v) for v in values.dropna() if str(v)}, key=natural)) or "–"


def _environment(study: Study, backend: str) -> str:
    found = []
    for record in study.records:
        if record["identifiers"].get("backend") == backend:
            entry = record["provenance"].get("backend") or {}
            found.append(str(entry.get("lock") or "")[:12] + (" (the user's own)" if entry.get("adopted") else ""))
    return ", ".join(unique(found)) or "–"


def _hardware(study: Study) -> Table:
    keys = [hardware(row) for row in rows_of(study.trials)]
    rows = []
    for name, part in study.trials.assign(hardware=keys).groupby("hardware"):
        rows.append(
            [
                Cell(str(name)),
                Cell(str(len(part)), len(part)),
                Cell(_joined(part["dtype"])),
                Cell(_joined(part["backend"])),
            ]
        )
    columns = [
        Column("Hardware", numeric=False),
        Column("Trials"),
        Column("Numbers", "", "of weights and forward pass", numeric=False),
        Column("Backends", numeric=False),
    ]
    return Table("hardware", "What the trials ran on; times from different hardware are never pooled.", columns, rows)


def _settings(study: Study) -> Table:
    """Training settings of each architecture; a setting with several values lists them."""
    found: dict[str, dict[str, set[str]]] = {}
    names = []
    for record in study.records:
        config, ids = record.get("config") or {}, record["identifiers"]
        name = f"{ids['architecture']} {ids['size']}"
        names.append(name)
        for group in ("architecture", "training"):
            for key, value in (config.get(group) or {}).items():
                if not isinstance(value, dict | list) and key not in ("name", "backend"):
                    found.setdefault(f"{group}.{key}", {}).setdefault(name, set()).add(_text(value))
    order = sorted(found, key=lambda key: (key.startswith("architecture"), len(found[key]) < len(unique(names)), key))
    rows = [
        [Cell(key), *(Cell(", ".join(sorted(found[key].get(n, {"–"}), key=natural))) for n in unique(names))]
        for key in order
    ]
    columns = [Column("Setting", numeric=False), *(Column(n, numeric=False) for n in unique(names))]
    return Table("settings", f"How they were trained. Budget: {'; '.join(budgets(study))}.", columns, rows)


def _text(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _mlpbench(study: Study) -> str:
    entries = [r["provenance"] for r in study.records]
    versions = unique([f"mlpbench {e.get('mlpbench')}" for e in entries])
    commits = unique(
        [
            f"{str(e['commit'])[:12]}{' (with local changes)' if e.get('dirty') else ''}"
            for e in entries
            if e.get("commit")
        ]
    )
    python = unique([str(e.get("python")) for e in entries if e.get("python")])
    commit = f", {'commit' if len(commits) == 1 else 'commits'} {listing(commits)}" if commits else ""
    dates = sorted(r["started"] for r in study.records if r.get("started"))
    span = f"; {plural(len(entries), 'record')} from {dates[0][:10]} to {dates[-1][:10]}" if dates else ""
    return f"{listing(versions)}{commit}, Python {listing(python)}{span}."
