"""Where everything comes from: versions and machines, how to repeat it, what to cite, what the words mean."""

from __future__ import annotations

import shlex
from typing import Any

import pandas as pd
from markupsafe import Markup

from mlpbench.evaluators.training import SOLVED
from mlpbench.literature import Reference, published_values, references, references_for
from mlpbench.metrics import metric
from mlpbench.numbers import listing, plural
from mlpbench.protocol import WEIGHTS
from mlpbench.report.facts import budgets, declared, hardware
from mlpbench.report.section import Block, Cell, Column, Commands, Details, Section, Table, Text
from mlpbench.study.rows import display_name, natural
from mlpbench.study.study import Study, rows_of, unique

CHAPTERS = {"provenance": 90, "reproduce": 93, "cite": 95, "glossary": 99}


def provenance_section(study: Study) -> Section | None:
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
        versions = [_joined(study.trials.loc[study.trials["backend"] == b, f"version_{package}"]) for b in backends]
        rows.append([Cell(package), *(Cell(f) for f in versions)])
    rows.append([Cell("environment"), *(Cell(_environment(study, b)) for b in backends)])
    said = [known.get(str(b)) for b in backends]
    rows.append([Cell("licence"), *(Cell((one and one.licence) or "–") for one in said)])
    rows.append([Cell("trains on"), *(Cell(listing(list(one.labels)) if one else "–") for one in said)])
    loops = {"package": "its own trainer", "mlpbench": "mlpbench's loop"}
    by = ["–" if one is None else loops[one.trainer] if one.iterations else "one linear solution" for one in said]
    rows.append([Cell("trained by"), *map(Cell, by)])
    rows.append([Cell("periodic"), *(Cell("–" if one is None else "yes" if one.periodic else "no") for one in said)])
    columns = [Column("Package", numeric=False), *(Column(str(b), numeric=False) for b in backends)]
    caption = "Each backend runs in an environment of its own. environment: digest of its pinned requirements."
    return Table("versions", caption, columns, rows)


def _joined(values: pd.Series) -> str:
    return ", ".join(sorted({str(v) for v in values.dropna() if str(v)}, key=natural)) or "–"


def _environment(study: Study, backend: str) -> str:
    parts = []
    for record in study.records:
        if record["identifiers"].get("backend") == backend:
            entry = record["provenance"].get("backend") or {}
            parts.append(str(entry.get("lock") or "")[:12] + (" (the user's own)" if entry.get("adopted") else ""))
    return ", ".join(unique(parts)) or "–"


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
    """Training settings of each architecture; a setting with several values lists them.

    A model that is solved at once has no settings of the training but the weights of its loss.
    """
    settings: dict[str, dict[str, set[str]]] = {}
    names = []
    for record in study.records:
        config, ids = record.get("config") or {}, record["identifiers"]
        name = f"{ids['architecture']} {ids['size']}"
        names.append(name)
        solved = record["training"].get("stopped_by") == SOLVED
        for group in ("architecture", "training"):
            for key, value in (config.get(group) or {}).items():
                if group == "training" and solved and key not in WEIGHTS.values():
                    continue
                if not isinstance(value, dict | list) and key not in ("name", "backend"):
                    settings.setdefault(f"{group}.{key}", {}).setdefault(name, set()).add(_text(value))
    order = sorted(
        settings, key=lambda key: (key.startswith("architecture"), len(settings[key]) < len(unique(names)), key)
    )
    rows = [
        [Cell(key), *(Cell(", ".join(sorted(settings[key].get(n, {"–"}), key=natural))) for n in unique(names))]
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


NATIVE = 40  # command lines of single trials in the page; each trial's folder has its own


def reproduce_section(study: Study) -> Section | None:
    """The commands that were typed, in order of first use."""
    commands = unique(
        [r["provenance"].get("command") for r in sorted(study.records, key=lambda r: str(r.get("started")))]
    )
    commits = unique([r["provenance"].get("commit") for r in study.records])
    blocks: list[Block] = []
    if commits:
        blocks.append(Commands([f"git checkout {commits[-1]}"], "With mlpbench at the commit of this study,"))
    blocks.append(Commands(commands or ["the records hold no command"], "these commands make the same trials:"))
    blocks.append(
        Commands([f"mlpbench report {shlex.quote(study.name)}"], "and this one writes this report from them:")
    )
    blocks.append(
        Text(
            "Trials on a CPU with a budget in epochs or steps are repeatable to the last digit on the same "
            "versions and processor; a budget in seconds is not.",
            role="note",
        )
    )
    native = [line for line in (_native(record) for record in study.records) if line]
    if native:
        shown = Commands(
            native[:NATIVE], "Each trial's folder holds the package's own configuration. Without mlpbench:"
        )
        blocks.append(Details("With the packages alone", [shown], paper=False))
    return Section("reproduce", "How to repeat this", "", blocks)


def _native(record: dict[str, Any]) -> str:
    command = (record.get("training") or {}).get("native_command")
    if not command:
        return ""
    line = command if isinstance(command, str) else shlex.join(str(part) for part in command)
    return f"# {record['trial']}\n{line}"


CORE = ("ase", "torch-sim-atomistic")  # packages that every backend brings and that have a paper


def cite_section(study: Study) -> Section | None:
    """What each is cited for, and one block to copy."""
    known = _bibliography(study)
    cited = {words: [key for key in keys if key in known] for words, keys in _used(study).items()}
    keys = unique([*(key for keys in cited.values() for key in keys), *_sources(study)])
    if not keys:
        return None
    entries = [one for one in known.values() if one.key in keys]
    blocks: list[Block] = [_table(study, entries, cited)]
    bibtex = "\n\n".join(one.bibtex for one in entries).splitlines()
    blocks.append(Details("BibTeX", [Commands(bibtex, "", file="references.bib")], paper=False))
    missing = [words for words, keys in cited.items() if not keys]
    if missing:
        blocks.append(Text(f"No entry is known for {listing(missing)}: cite their own sources.", role="note"))
    return Section("cite", "What to cite", "", blocks)


def _bibliography(study: Study) -> dict[str, Reference]:
    """Every entry known by its key: mlpbench's own, then those that the study's backends bring."""
    known = dict(references())
    for backend in declared(study).values():
        path = backend.bibliography_path()
        if path is not None and path.is_file():  # the package may be installed elsewhere only
            known = {**references(path), **known}
    return known


def _used(study: Study) -> dict[str, list[str]]:
    """What the study used, in words -> the keys of its references."""
    keys: dict[str, list[str]] = {}
    backends = declared(study)
    infos = {name: info for backend in backends.values() for name, info in backend.architectures.items()}
    for name in unique(study.trials["architecture"].tolist()):
        keys[f"{display_name(name, study.records)} (architecture)"] = infos[name].cite if name in infos else []
    for name, backend in backends.items():
        if backend.distribution or backend.cite:
            keys[f"{backend.distribution or name} (package)"] = backend.cite
    packages = {c.removeprefix("version_") for c in study.trials.columns if c.startswith("version_")}
    for name in sorted(set(CORE) & packages):
        keys[f"{name} (package)"] = [one.key for one in references_for([f"package:{name}"])]
    for config in study.config():
        data = config.get("dataset") or {}
        name = str(data.get("collection") or data.get("name") or "")
        if name:
            keys[f"{data.get('name') or name} (data)"] = [one.key for one in references_for([f"dataset:{name}"])]
    return keys


def _sources(study: Study) -> list[str]:
    """Papers whose values stand in the section of published values."""
    return unique([one.key for dataset in study.datasets for one in published_values(dataset)])


def _table(study: Study, entries: list[Reference], cited: dict[str, list[str]]) -> Table:
    rows = []
    for one in entries:
        what = [words for words, keys in cited.items() if one.key in keys]
        rows.append([Cell(one.key), Cell(listing(what) or "published values"), Cell(one.short)])
    columns = [Column("Key", numeric=False), Column("For", numeric=False), Column("Reference", numeric=False)]
    return Table("references", f"What a paper that uses {study.name} should cite.", columns, rows)


WORDS = {
    "Trial": "One training of one architecture at one size and one number of frames, with its evaluation.",
    "Repetition": "The same trial with other training frames and another initialisation. Repetition k has "
    "the same frames for "
    "all architectures, so that differences are paired.",
    "95 % interval": "Where the mean over very many repetitions lies, in 95 of 100 studies like this one: "
    "Student's t on the "
    "logarithm of the error, the variance pooled over the settings that share it.",
    "Better, tie, undecided": "Better: the Holm-corrected 95 % interval of the paired error ratio excludes "
    "1. Tie: the interval lies inside the margin (±5 % unless the report says otherwise). Undecided: neither; more "
    "repetitions would tell.",
    "At rest": "The training's curve has flattened under its finished schedule, near its lowest error. One that is not "
    "at rest says how fast an architecture is optimised, not what it can reach.",
    "Converged": "At rest, and a training of another length agrees (budget=converge tests it).",
    "Budget": "The limit on training, the same for every architecture: epochs, optimiser steps or seconds.",
    "In and out of distribution": "A split in distribution comes from the same conditions as the training "
    "frames but from "
    "another trajectory; out of distribution: other temperatures, sizes or compositions.",
    "Power": "The chance that a comparison with that many repetitions finds a difference that is really there.",
    "Committee": "The repetitions of one candidate together: where they disagree, the error is likely large.",
    "Best checkpoint so far": "At any moment of a training, the epoch with the lowest validation loss until then: the "
    "potential that stopping there would have given.",
    "Parity plot": "Prediction against reference; a perfect potential lies on the diagonal.",
    "Pareto front": "The candidates that no other beats in both quantities at once.",
    "Baseline": "Reference energies of the atoms and the mean of the rest, taken off the total energy "
    "before training and put "
    "back in double precision afterwards.",
}


def glossary_section(study: Study) -> Section | None:
    """Words first, then the metrics the study has."""
    metrics = {}
    for name in study.metric_names:
        entry = metric(name)
        better = {"lower": "Lower is better.", "higher": "Higher is better.", "none": ""}[entry.direction]
        unit = f" ({entry.unit})" if entry.unit else ""
        source = f" Source: {entry.source}." if entry.source else ""
        metrics[f"{entry.symbol}{unit}"] = f"{name}: {entry.description} {better}{source}"
    blocks: list[Block] = [Text(_list(WORDS)), Text(_list(metrics))] if metrics else [Text(_list(WORDS))]
    return Section("glossary", "Glossary", "", blocks)


def _list(entries: dict[str, str]) -> Markup:
    rows = Markup("").join(Markup("<dt>{}</dt><dd>{}</dd>").format(key, value) for key, value in entries.items())
    return Markup("<dl>{}</dl>").format(rows)
