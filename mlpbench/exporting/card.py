"""The card of an exported potential: what it is good for, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.config import load_backends
from mlpbench.evaluators import speed
from mlpbench.exporting import scripts
from mlpbench.files import sha256
from mlpbench.frames import Frames
from mlpbench.metrics import metric
from mlpbench.numbers import number
from mlpbench.protocol import write_json

SHORT = 3.5  # Å; nearest neighbours are looked for within
AMU_PER_A3 = 1.66053907  # g/cm³
SPEEDS = (
    "us_per_atom",
    "ms_per_md_step",
    "ns_per_day",
    "engine_overhead",
    "plateau_atoms",
    "memory_per_atom",
    "hours_per_ns",
)


def title_of(record: dict[str, Any]) -> str:
    """Architecture and data set in words."""
    identifiers = record["identifiers"]
    name = (_declared(record).get("architectures") or {}).get(identifiers["architecture"], {}).get("title")
    return f"{name or identifiers['architecture']} for {identifiers['dataset']}"


def _declared(record: dict[str, Any]) -> dict[str, Any]:
    """What its configuration says of the backend; what an older one did not say, as it is declared now."""
    name = str(record["identifiers"]["backend"])
    now = load_backends([]).get(name)
    known = {} if now is None else now.model_dump()
    return {**known, **{key: value for key, value in record["config"]["backend"][name].items() if value}}


def domain_of(train: Frames) -> dict[str, Any]:
    """What the training frames held: elements, numbers of atoms, periodicity, shortest distance (Å), largest force
    component (eV/Å; None without forces), density (lowest and highest, g/cm³; None without a volume).
    """
    from ase.neighborlist import neighbor_list

    structures = train.to_atoms()
    shortest = [distances.min() for a in structures if len(distances := neighbor_list("d", a, SHORT))]
    whole = all(atoms.pbc.all() for atoms in structures)
    densities = [AMU_PER_A3 * float(a.get_masses().sum()) / float(a.get_volume()) for a in structures] if whole else []
    return {
        "elements": sorted({symbol for atoms in structures for symbol in atoms.get_chemical_symbols()}),
        "atoms": [int(train.n_atoms.min()), int(train.n_atoms.max())],
        "periodic": bool(train.pbc.any()),
        "shortest_distance_A": float(min(shortest, default=0.0)),
        "largest_force_eV_per_A": float(np.abs(train.known_forces).max()) if train.has_forces else None,
        "density_g_per_cm3": [min(densities), max(densities)] if densities else None,
    }


def write(
    part: Path, title: str, record: dict[str, Any], domain: dict[str, Any], engines: Sequence[str], said: str
) -> None:
    """``card.json`` and ``CARD.md`` of what lies in ``part``.

    Args:
        part: the exported folder, complete but for the card.
        title: of the potential.
        record: of its trial.
        domain: see :func:`domain_of`.
        engines: whose scripts are there.
        said: a sentence on the user's own LAMMPS; empty: none was named.
    """
    card = _card(record, domain)
    card["sha256"] = checksums(part)
    card["engines"] = list(engines)
    write_json(part / "card.json", card)
    (part / "CARD.md").write_text(_card_text(title, card, engines, said), encoding="utf-8")


def write_committee(
    part: Path, title: str, trials: Sequence[str], names: Sequence[str], engines: Sequence[str]
) -> None:
    """The card of a committee, which points to those of its members."""
    write_json(part / "card.json", {"title": title, "members": dict(zip(names, trials, strict=True)),
                                    "sha256": checksums(part), "engines": list(engines)})  # fmt: skip
    lines = [
        f"# {title}: a committee of {len(names)}", "",
        "Energy, forces and stress are means over the members; `energy_std` and `forces_std` among the results of the "
        "calculator are their standard deviations.", "",
        *(f"- `{name}`: trial `{trial}`, [card]({name}/CARD.md)" for name, trial in zip(names, trials, strict=True)),
        "", "## Use", "", *_use(engines),
    ]  # fmt: skip
    (part / "CARD.md").write_text("\n".join(lines), encoding="utf-8")


def checksums(part: Path) -> dict[str, str]:
    """sha256 of every file below ``part``."""
    return {str(path.relative_to(part)): sha256(path) for path in sorted(part.rglob("*")) if path.is_file()}


def _use(engines: Sequence[str]) -> list[str]:
    lines = []
    for engine in engines:
        lines += [f"    {command}" for command in scripts.commands(engine)]
    return lines


def _card(record: dict[str, Any], domain: dict[str, Any]) -> dict[str, Any]:
    identifiers, training, info = record["identifiers"], record["training"], record["split"]["info"]
    backend = _declared(record)
    errors = [
        {key: row[key] for key in ("split", "metric", "value", "unit", "lower", "upper", "n")}
        for row in record["metrics"] if row["split"] not in ("", "valid", "train")
    ]  # fmt: skip
    return {
        "trial": record["trial"], "study": record["study"], "architecture": identifiers["architecture"],
        "size": identifiers["size"], "dataset": identifiers["dataset"], "level_of_theory": info["level_of_theory"],
        "n_train": identifiers["n_train"], "n_valid": identifiers["n_valid"], "repetition": identifiers["repetition"],
        "in_distribution": record["split"]["in_distribution"], "labels": record["labels"],
        "training": {key: training.get(key) for key in (
            "steps", "stopped_by", "at_rest", "rest_reason", "converged", "convergence_reason", "wall_seconds",
            "n_parameters", "start")},
        "errors": errors,
        "other": [row for row in record["metrics"] if row["split"] == "" and metric(row["metric"]).group != "cost"],
        "speed": [row for row in speed.rows(record) if row["metric"] in SPEEDS],
        "domain": domain,
        "licences": {"package": backend.get("licence"), "data": info["licence"]},
        "cite": {"data": info["citation"], "package": backend.get("cite", [])},
        "versions": record["provenance"]["backend"]["versions"], "hardware": record["provenance"]["hardware"],
        "mlpbench": record["provenance"]["mlpbench"], "commit": record["provenance"]["commit"],
        "command": record["provenance"]["command"],
    }  # fmt: skip


def _span(counts: list[int]) -> str:
    return f"{counts[0]}" if counts[0] == counts[1] else f"{counts[0]} to {counts[1]}"


def _begun(training: dict[str, Any]) -> str:
    start = training.get("start")
    if not start:
        return ""
    if "trial" in start:
        return f"started from the potential of {start['trial']}; "
    trust = ", a pickle that was trusted" if start.get("trust") else ""
    licence = f"licence {start['licence']}" if start.get("licence") else "licence not stated"
    return f"started from the foundation model {start['foundation']} ({licence}{trust}); "


def _length(training: dict[str, Any]) -> str:
    return "solved at once" if training["steps"] is None else f"{training['steps']} optimiser steps"


def _card_text(title: str, card: dict[str, Any], engines: Sequence[str], said: str) -> str:
    training, domain = card["training"], card["domain"]
    rest = {True: "at rest", False: "not at rest", None: "rest unknown"}[training["at_rest"]]
    converged = {True: "converged", False: "not converged", None: "convergence not tested"}[training["converged"]]
    lines = [
        f"# {title}", "",
        f"Trial `{card['trial']}` of the study `{card['study']}`, size `{card['size']}`, "
        f"{number(training['n_parameters'])} parameters.", "",
        f"- **Data:** {card['dataset']}, {card['level_of_theory']}; {card['n_train']} training and {card['n_valid']} "
        f"validation frames. Licence: {card['licences']['data']}.",
        f"- **Training:** {_begun(training)}{_length(training)}, {rest}, {converged}; labels "
        f"{', '.join(label for label, weight in card['labels'].items() if weight)}.",
        f"- **Domain:** {', '.join(domain['elements'])}; {_span(domain['atoms'])} atoms; "
        f"{'periodic' if domain['periodic'] else 'not periodic'}; no two atoms nearer than "
        f"{domain['shortest_distance_A']:.3f} Å"
        + (f"; forces up to {domain['largest_force_eV_per_A']:.1f} eV/Å" if domain["largest_force_eV_per_A"] else "")
        + ("; {:.3f} to {:.3f} g/cm³.".format(*domain["density_g_per_cm3"]) if domain["density_g_per_cm3"] else "."),
        f"- **Package:** {', '.join(f'{k} {v}' for k, v in card['versions'].items())}. "
        f"Licence: {card['licences']['package'] or 'not stated'}.",
        "", "## Errors on test frames", "",
        f"In distribution: `{card['in_distribution']}`. Intervals: 95 %, over frames.", "",
        "| split | metric | value | interval | frames |", "|---|---|---|---|---|",
    ]  # fmt: skip
    main = [row for row in card["errors"] if row["metric"] in ("energy_mae", "force_mae", "stress_mae")]
    for row in main:
        span = "–" if row["lower"] is None else f"{number(row['lower'])} to {number(row['upper'])}"
        value = f"{number(row['value'])} {row['unit']}"
        lines.append(f"| {row['split']} | {metric(row['metric']).symbol} | {value} | {span} | {row['n']} |")
    if card["other"]:
        lines += ["", "## Beyond test errors", "", "| metric | value |", "|---|---|"]
        lines += [
            f"| {_cell(metric(r['metric']).description)} | {_shown(r['value'])} {r['unit']} |" for r in card["other"]
        ]
    lines += _speed_lines(card)
    lines += [
        "", "## Use", "",
        *_use(engines), "", *([said, ""] if said else []),
        "`potential.calculator()` is an ASE calculator; `potential.warnings_for(atoms)` says where a structure lies "
        "outside of the training frames. The file of the potential is the package's own; loading it executes what is "
        "in it, so take it from people you trust.", "",
        f"Made by mlpbench {card['mlpbench']} (commit {card['commit']}): `{card['command']}`. Cite: "
        f"{card['cite']['data']}; {', '.join(card['cite']['package'])} (see mlpbench's bibliography).", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _cell(text: str) -> str:
    """For a cell of a Markdown table, in which a bar would end it."""
    return text.replace("|", r"\|")


def _shown(value: float) -> str:
    """A count without decimals."""
    return number(int(value)) if float(value).is_integer() else number(value)


def _speed_lines(card: dict[str, Any]) -> list[str]:
    """Measured speeds, one line a way and engine, with the hardware."""
    if not card["speed"]:
        return []
    hardware = card["hardware"]
    lines = ["", "## Speed", "", f"Measured on {hardware.get('cpu') or 'hardware that is not recorded'}.", "",
             "| run as | engine | atoms | metric | value |", "|---|---|---|---|---|"]  # fmt: skip
    for row in card["speed"]:
        way = ", ".join(str(part) for part in (row["deployment"], row["dtype"]) if part)
        engine = " ".join(str(part) for part in (row["engine"], row["means"]) if part) or "–"
        atoms = "–" if row["n_atoms"] is None else _shown(row["n_atoms"])
        said = "; ".join(filter(None, [row["reason"], row["notice"]]))
        far = f" ({said})" if said else ""
        lines.append(f"| {way} | {engine} | {atoms} | {metric(row['metric']).symbol} | {number(row['value'])} "
                     f"{row['unit']}{far} |")  # fmt: skip
    return lines
