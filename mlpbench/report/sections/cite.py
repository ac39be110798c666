"""What to cite: BibTeX of the architectures, packages and data sets of the study."""

from __future__ import annotations

from mlpbench.literature import Reference, published_values, references, references_for
from mlpbench.numbers import listing
from mlpbench.report.facts import declared
from mlpbench.report.section import Block, Cell, Column, Commands, Details, Section, Table, Text
from mlpbench.study.rows import display_name
from mlpbench.study.study import Study, unique

ORDER = 95
CORE = ("ase", "torch-sim-atomistic")  # packages that every backend brings and that have a paper


def build(study: Study) -> Section | None:
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
