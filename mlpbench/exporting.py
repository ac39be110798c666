"""A potential in a folder that stands alone: the package's own file, reference energies, scripts, and a card."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.backends.environment import Environment
from mlpbench.backends.launcher import launch
from mlpbench.errors import UserError
from mlpbench.files import sha256, told
from mlpbench.frames import Frames
from mlpbench.metrics import metric
from mlpbench.numbers import number
from mlpbench.potentials import baseline_of, environment_of, request_of, trained_record
from mlpbench.protocol import CHECKPOINT, Task, write_json

SECONDS = 1800.0  # to load and write a potential
SCRIPT = '''\
"""{title}, trained by mlpbench as {trial}.

    from potential import calculator

    atoms.calc = calculator("cpu")      # or "cuda"; energies are those of the data set it was trained on

Needs the packages in requirements.txt, and nothing of mlpbench. CARD.md says what the potential is good for.
"""

from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list

HERE = Path(__file__).resolve().parent
# eV; the package's own energies are without these.
REFERENCE = {reference}
# What the training frames held.
SHORTEST = {shortest:.4f}  # Å between two atoms
LARGEST_FORCE = {largest_force}  # eV/Å, a component; None where forces were no labels


{code}

class Potential(Calculator):
    """The package's calculator with the reference energies added."""

    def __init__(self, device="cpu"):
        super().__init__()
        self.inner = package_calculator(HERE, device)
        known = self.inner.implemented_properties
        self.implemented_properties = ["energy", "free_energy", "forces"] + [p for p in ("stress",) if p in known]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        asked = ["energy", "forces"] + [p for p in ("stress",) if p in properties]
        self.inner.calculate(self.atoms, asked, all_changes)
        shift = sum(REFERENCE[symbol] for symbol in self.atoms.get_chemical_symbols())
        energy = float(self.inner.results["energy"]) + shift
        self.results = {{"energy": energy, "free_energy": energy}}
        for name in asked[1:]:
            self.results[name] = np.array(self.inner.results[name], dtype=float)


def calculator(device="cpu"):
    """An ASE calculator: eV, eV/Å, eV/Å³."""
    return Potential(device)


def warnings_for(atoms):
    """Sentences that say where a structure lies outside of what the potential was trained on; empty if nowhere."""
    said = []
    strange = sorted(set(atoms.get_chemical_symbols()) - set(REFERENCE))
    if strange:
        said.append(f"it has no training frame with {{', '.join(strange)}}")
    near = neighbor_list("d", atoms, SHORTEST)
    if len(near) and near.min() < 0.95 * SHORTEST:
        said.append(f"two atoms are {{near.min():.3f}} Å apart, in the training frames {{SHORTEST:.3f}} Å or more")
    forces = atoms.calc.results.get("forces") if atoms.calc is not None else None
    if forces is not None and LARGEST_FORCE is not None and np.abs(forces).max() > 1.2 * LARGEST_FORCE:
        said.append(f"a force of {{np.abs(forces).max():.1f}} eV/Å is larger than any in the training frames")
    return said
'''
DYNAMICS = '''\
"""Molecular dynamics from a structure: python md.py start.xyz [--temperature 300] [--steps 1000] [--device cpu]"""

import argparse

import numpy as np
from ase import units
from ase.io import read
from ase.io.trajectory import Trajectory
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from potential import calculator, warnings_for

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("start")
parser.add_argument("--temperature", type=float, default=300.0, help="K")
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--timestep", type=float, default=0.5, help="fs; the energy of an NVE run must not drift")
parser.add_argument("--device", default="cpu")
parser.add_argument("--out", default="md.traj")
given = parser.parse_args()

atoms = read(given.start)
atoms.calc = calculator(given.device)
rng = np.random.default_rng(0)
MaxwellBoltzmannDistribution(atoms, temperature_K=given.temperature, rng=rng)
Stationary(atoms)
bath = {"temperature_K": given.temperature, "friction": 0.01 / units.fs, "rng": rng}
dynamics = Langevin(atoms, given.timestep * units.fs, **bath)
dynamics.attach(Trajectory(given.out, "w", atoms).write, interval=10)


def say():
    kelvin = atoms.get_temperature()
    print(f"step {dynamics.nsteps:6d}  E {atoms.get_potential_energy():.4f} eV  T {kelvin:.0f} K", *warnings_for(atoms))


dynamics.attach(say, interval=100)
dynamics.run(given.steps)
'''


def export(folder: Path, to: Path) -> list[str]:
    """Write the potential of a trial to ``to``.

    Args:
        folder: of the trial.
        to: a folder that is not there yet, or empty.

    Returns:
        The names of the files written.

    Raises:
        UserError: the trial is not trained, ``to`` holds something, or the package has no form that stands alone.
    """
    record = trained_record(folder)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to} is there already and not empty", "Give another --to, or empty it.")
    with told():
        to.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{to.name}.", suffix=".part", dir=to.resolve().parent))
    try:
        code = _package_form(folder, environment_of(record), part)
        _write(part, record, folder, code)
        part.chmod(0o755)
        if to.exists():
            to.rmdir()
        part.rename(to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return sorted(path.name for path in to.iterdir())


def _package_form(folder: Path, environment: Environment, target: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="mlpbench-") as work:
        (Path(work) / CHECKPOINT).symlink_to(folder / CHECKPOINT)
        tasks = [Task("export", options={"folder": str(target)})]
        request = replace(request_of(folder), directory=work, device="cpu", tasks=tasks)
        result = launch(request, environment, timeout=SECONDS)["export"]
    if result.status != "done":
        raise UserError(f"{folder.name}: {result.reason}", "In Python, mlpbench.open_potential runs it as it is.")
    return str(result.values["code"])


def _write(target: Path, record: dict[str, Any], folder: Path, code: str) -> None:
    baseline = baseline_of(record)
    start = record["training"].get("start") or {}
    moved = start.get("shifts_eV", {})  # of the energy zero, which the package's own form does not hold
    reference = {
        symbol: energy + baseline.mean_per_atom + moved.get(symbol, 0.0) for symbol, energy in baseline.elements.items()
    }
    train = Frames.load(folder.parent / record["split"]["directory"] / "train.npz")
    force = float(np.abs(train.forces).max()) if train.has_forces else None
    title = _title(record)
    shortest = _shortest(train)
    script = SCRIPT.format(
        title=title, trial=record["trial"], reference=json.dumps(reference, indent=4), code=code, shortest=shortest,
        largest_force="None" if force is None else f"{force:.4f}",
    )  # fmt: skip
    (target / "potential.py").write_text(script, encoding="utf-8")
    (target / "md.py").write_text(DYNAMICS, encoding="utf-8")
    versions = record["provenance"]["backend"]["versions"]
    pins = [f"{name}=={version}" for name, version in sorted(versions.items()) if version != "missing"]
    (target / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    card = _card(record, train, shortest, force)
    card["sha256"] = {path.name: sha256(path) for path in sorted(target.iterdir())}
    write_json(target / "card.json", card)
    (target / "CARD.md").write_text(_card_text(title, card), encoding="utf-8")


def _title(record: dict[str, Any]) -> str:
    identifiers = record["identifiers"]
    node = record["config"]["backend"][identifiers["backend"]]
    name = (node.get("architectures") or {}).get(identifiers["architecture"], {}).get("title")
    return f"{name or identifiers['architecture']} for {identifiers['dataset']}"


def _shortest(frames: Frames) -> float:
    from ase.neighborlist import neighbor_list

    found = [neighbor_list("d", atoms, 3.5) for atoms in frames.to_atoms()]
    return float(min((distances.min() for distances in found if len(distances)), default=0.0))


def _card(record: dict[str, Any], train: Frames, shortest: float, force: float | None) -> dict[str, Any]:
    identifiers, training, info = record["identifiers"], record["training"], record["split"]["info"]
    backend = record["config"]["backend"][identifiers["backend"]]
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
        "domain": {"elements": sorted(set(train.to_atoms()[0].get_chemical_symbols())
                                      .union(*(a.get_chemical_symbols() for a in train.to_atoms()))),
                   "atoms": [int(train.n_atoms.min()), int(train.n_atoms.max())],
                   "periodic": bool(train.pbc.any()), "shortest_distance_A": shortest, "largest_force_eV_per_A": force},
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
    return f"started from the potential of {start['trial']}; " if start else ""


def _length(training: dict[str, Any]) -> str:
    return "solved at once" if training["steps"] is None else f"{training['steps']} optimiser steps"


def _card_text(title: str, card: dict[str, Any]) -> str:
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
        + (f"; forces up to {domain['largest_force_eV_per_A']:.1f} eV/Å." if domain["largest_force_eV_per_A"] else "."),
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
        lines += [f"| {metric(r['metric']).description} | {number(r['value'])} {r['unit']} |" for r in card["other"]]
    lines += [
        "", "## Use", "",
        "    pip install -r requirements.txt", "    python md.py start.xyz --temperature 300 --steps 1000", "",
        "`potential.calculator()` is an ASE calculator; `potential.warnings_for(atoms)` says where a structure lies "
        "outside of the training frames. The file of the potential is the package's own; loading it executes what is "
        "in it, so take it from people you trust.", "",
        f"Made by mlpbench {card['mlpbench']} (commit {card['commit']}): `{card['command']}`. Cite: "
        f"{card['cite']['data']}; {', '.join(card['cite']['package'])} (see mlpbench's bibliography).", "",
    ]  # fmt: skip
    return "\n".join(lines)
