"""What to cite: BibTeX of the architectures, packages and data sets of the study."""

from __future__ import annotations

from mlpbench.literature import Reference, published_values, references_for
from mlpbench.literature.bibliography import references
from mlpbench.numbers import listing
from mlpbench.report.section import Block, Cell, Column, Commands, Details, Section, Table, Text
from mlpbench.study.study import Study, unique
from mlpbench.study.words import display_name

ORDER = 95
CORE = ("ase", "torch-sim-atomistic")  # packages that every backend brings and that have a paper


def build(study: Study) -> Section | None:
    """What each is cited for, and one block to copy."""
    used = _used(study)
    found = {subject: references_for([subject]) for subject in used}
    keys = unique([one.key for entries in found.values() for one in entries])
    keys += [key for key in _sources(study) if key not in keys]
    if not keys:
        return None
    entries = [one for one in references().values() if one.key in keys]
    blocks: list[Block] = [_table(study, entries, used)]
    bibtex = "\n\n".join(one.bibtex for one in entries).splitlines()
    blocks.append(Details("BibTeX", [Commands(bibtex, "", file="references.bib")], paper=False))
    missing = [words for subject, words in used.items() if not found[subject]]
    if missing:
        blocks.append(Text(f"No entry is known for {listing(missing)}: cite their own sources.", role="note"))
    return Section("cite", "What to cite", "", blocks)


def _used(study: Study) -> dict[str, str]:
    """Subject of the bibliography -> what it is, in words."""
    found: dict[str, str] = {}
    for name in unique(study.trials["architecture"].tolist()):
        found[f"architecture:{name}"] = f"{display_name(name)} (architecture)"
    packages = {c.removeprefix("version_") for c in study.trials.columns if c.startswith("version_")}
    backends = ("schnetpack", "nequip", "nequip-allegro", "mace-torch")
    for name in sorted((set(backends) | set(CORE)) & packages):
        found[f"package:{name}"] = f"{name} (package)"
    for config in study.config():
        data = config.get("dataset") or {}
        name = str(data.get("collection") or data.get("name") or "")
        if name:
            found[f"dataset:{name}"] = f"{data.get('name') or name} (data)"
    return found


def _sources(study: Study) -> list[str]:
    """Papers whose values stand in the section of published values."""
    return unique([one.key for dataset in study.datasets for one in published_values(dataset)])


def _table(study: Study, entries: list[Reference], used: dict[str, str]) -> Table:
    rows = []
    for one in entries:
        what = [words for subject, words in used.items() if subject in one.subjects]
        rows.append([Cell(one.key), Cell(listing(what) or "published values"), Cell(one.short)])
    columns = [Column("Key", numeric=False), Column("For", numeric=False), Column("Reference", numeric=False)]
    return Table("references", f"What a paper that uses {study.name} should cite.", columns, rows)
