"""A potential in a folder that stands alone: the package's own file, reference energies, scripts, and a card."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlpbench.backends.environment import Environment
from mlpbench.backends.launcher import launch
from mlpbench.errors import UserError
from mlpbench.exporting import card as cards
from mlpbench.exporting import potentials, scripts
from mlpbench.files import told
from mlpbench.frames import Frames
from mlpbench.potentials import baseline_of, environment_of, request_of, trained_record
from mlpbench.protocol import CHECKPOINT, Task
from mlpbench.study.study import Study

__all__ = ["Wish", "export", "export_committee", "members"]

SECONDS = 1800.0  # to load and write a potential
STEP_FS, UNTESTED = 0.5, "not tested for this potential: the energy of an NVE run must not drift"
NATIVE = """\
# {title}: with the pair style '{name}' of a LAMMPS of your own ({command}).
# UNPROVEN: mlpbench could not run this LAMMPS; the lines are those of the package's documentation. Energies are without
# the reference energies in potential.py. start.data has the atoms of start.xyz, types in the order {elements}.
"""


@dataclass(frozen=True)
class Wish:
    """What is exported beside the potential and its ASE calculator.

    Attributes:
        engines: of :data:`mlpbench.exporting.scripts.ENGINES`.
        command: of a LAMMPS of the user's own, asked for its pair styles.
        checkpoint: the checkpoint of the training too, to go on from.
    """

    engines: tuple[str, ...] = ("ase",)
    command: str | None = None
    checkpoint: bool = False


def export(folder: Path, to: Path, wish: Wish | None = None) -> list[str]:
    """Write the potential of a trial to ``to``.

    Args:
        folder: of the trial.
        to: a folder that is not there yet, or empty.
        wish: what else; None: nothing.

    Returns:
        The names of the files written.

    Raises:
        UserError: the trial is not trained, ``to`` holds something, or the package has no form that stands alone.
    """
    wish = wish or Wish()
    record = trained_record(folder)
    part = _begin(to)
    try:
        _member(part, folder, record, wish)
        _finish(part, to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return sorted(path.name for path in to.iterdir())


def export_committee(folders: Sequence[Path], to: Path, wish: Wish | None = None) -> list[str]:
    """Write the potentials of several trials, each in a folder of its own, and one calculator of them all.

    Args:
        folders: of trials that differ in their repetition alone.
        to: a folder that is not there yet, or empty.
        wish: engines, for the whole committee.

    Returns:
        The names of the files written.

    Raises:
        UserError: fewer than two trials, or as :func:`export`.
    """
    wish = wish or Wish()
    if len(folders) < 2:
        raise UserError("a committee needs two repetitions or more", "Run more: mlpbench run -m ... repetition=0,1,2")
    part = _begin(to)
    try:
        names = [f"member{number}" for number in range(len(folders))]
        title, torchsim = "", ""
        for name, folder in zip(names, folders, strict=True):
            (part / name).mkdir()
            title, torchsim = _member(part / name, folder, trained_record(folder), replace(wish, engines=("ase",)))
        text = potentials.COMMITTEE.format(title=title, count=len(folders), members=json.dumps(names))
        (part / "potential.py").write_text(text, encoding="utf-8")
        engines = tuple(engine for engine in wish.engines if engine != "torchsim")
        if len(engines) < len(wish.engines):
            raise UserError("a committee has no torch-sim model", "Leave torchsim out of --for.")
        record = trained_record(folders[0])
        _scripts(part, _facts(title, torchsim, record), engines)
        shutil.copyfile(part / names[0] / "requirements.txt", part / "requirements.txt")
        cards.write_committee(part, title, [folder.name for folder in folders], names, engines)
        _finish(part, to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return sorted(path.name for path in to.iterdir())


def members(folder: Path, results: Path) -> list[Path]:
    """The trials that differ from ``folder`` in their repetition alone, itself included, by repetition.

    Raises:
        UserError: its study cannot be read.
    """
    study = Study.load(folder.parent.name, folder.parent.parent if folder.parent.parent.is_dir() else results)
    table = study.table
    mine = table[table["trial"] == folder.name].iloc[0]
    same = table[(table["status"] == "done") & (table["dataset"] == mine["dataset"])]
    same = same[(same["candidate"] == mine["candidate"]) & (same["n_train"] == mine["n_train"])]
    return [folder.parent / str(name) for name in same.sort_values("repetition")["trial"]]


def _begin(to: Path) -> Path:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"{to} is there already and not empty", "Give another --to, or empty it.")
    with told():
        to.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{to.name}.", suffix=".part", dir=to.resolve().parent))


def _finish(part: Path, to: Path) -> None:
    part.chmod(0o755)
    if to.exists():
        to.rmdir()
    part.rename(to)


def _member(part: Path, folder: Path, record: dict[str, Any], wish: Wish) -> tuple[str, str]:
    """One potential with its card in ``part``; its title, and the source of its torch-sim model."""
    made = _package_form(folder, environment_of(record), part, wish.command)
    title = cards.title_of(record)
    train = Frames.load(folder.parent / record["split"]["directory"] / "train.npz")
    domain = cards.domain_of(train)
    (part / "potential.py").write_text(_potential(title, record, domain, made["code"]), encoding="utf-8")
    start = Frames.load(folder.parent / record["split"]["directory"] / "valid.npz").to_atoms()[0]
    _write_start(part, start)
    _scripts(part, _facts(title, made["torchsim"], record), wish.engines)
    versions = record["provenance"]["backend"]["versions"]
    pins = [f"{name}=={version}" for name, version in sorted(versions.items()) if version != "missing"]
    (part / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    if wish.checkpoint:
        shutil.copytree(folder / CHECKPOINT, part / CHECKPOINT)
    said = _native(part, title, made.get("pair"), wish, sorted(set(start.get_chemical_symbols())))
    cards.write(part, title, record, domain, wish.engines, said)
    return title, str(made["torchsim"])


def _package_form(folder: Path, environment: Environment, target: Path, command: str | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mlpbench-") as work:
        (Path(work) / CHECKPOINT).symlink_to(folder / CHECKPOINT)
        tasks = [Task("export", options={"folder": str(target), "command": command})]
        request = replace(request_of(folder), directory=work, device="cpu", tasks=tasks)
        result = launch(request, environment, timeout=SECONDS)["export"]
    if result.status != "done":
        raise UserError(f"{folder.name}: {result.reason}", "In Python, mlpbench.open_potential runs it as it is.")
    return result.values


def _potential(title: str, record: dict[str, Any], domain: dict[str, Any], code: str) -> str:
    baseline = baseline_of(record)
    moved = (record["training"].get("start") or {}).get("shifts_eV", {})  # which the package's own form does not hold
    reference = {
        symbol: energy + baseline.mean_per_atom + moved.get(symbol, 0.0) for symbol, energy in baseline.elements.items()
    }
    force, density = domain["largest_force_eV_per_A"], domain["density_g_per_cm3"]
    return potentials.POTENTIAL.format(
        title=title, trial=record["trial"], reference=json.dumps(reference, indent=4), code=code,
        shortest=domain["shortest_distance_A"], largest_force="None" if force is None else f"{force:.4f}",
        density="None" if density is None else f"({density[0]:.4f}, {density[1]:.4f})",
    )  # fmt: skip


def _facts(title: str, torchsim: str, record: dict[str, Any]) -> scripts.Facts:
    """The time step is the largest of constant-energy runs that were made; without any 0.5 fs."""
    runs = (record["tasks"].get("md") or {}).get("values", {}).get("runs", {})
    steps = [run["settings"]["time_step_fs"] for name, run in runs.items() if name.startswith("nve")]
    if not steps:
        return scripts.Facts(title, STEP_FS, UNTESTED, torchsim)
    tried = ", ".join(f"{step:g}" for step in sorted(steps))
    word = f"the largest step of its runs at constant energy ({tried} fs); see CARD.md"
    return scripts.Facts(title, max(steps), word, torchsim)


def _write_start(part: Path, atoms: Any) -> None:
    from ase import Atoms
    from ase.io import write

    plain = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    write(part / "start.xyz", plain, format="extxyz")


def _scripts(part: Path, facts: scripts.Facts, engines: Sequence[str]) -> None:
    for engine in engines:
        for name, text in scripts.FILES[engine](facts).items():
            (part / name).write_text(text, encoding="utf-8")
        if engine != "ase":
            lines = ["-r requirements.txt", *scripts.REQUIREMENTS[engine]]
            (part / f"requirements-{engine}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if "ipi" in engines:
        _write_ipi_input(part, facts)


def _write_ipi_input(part: Path, facts: scripts.Facts) -> None:
    """``input.xml`` and i-PI's own form of its structure, in the folder ``ipi`` that i-PI runs in."""
    from ase.io import read

    from mlpbench.worker.engines import ipi_md, lammps_md

    start = part / "start.xyz" if (part / "start.xyz").is_file() else part / "member0" / "start.xyz"
    atoms: Any = read(start)
    atoms = lammps_md.standing(atoms) if atoms.pbc.any() else atoms
    (part / "ipi").mkdir()
    ipi_md.write_positions(part / "ipi" / "start.xyz", atoms)
    text = ipi_md.system_input(
        atoms, "potential", steps=1000, time_step_fs=facts.step_fs, temperature_K=300.0, friction_per_ps=10.0,
        velocities=False, every=10, frames_every=100,
    )  # fmt: skip
    (part / "ipi" / "input.xml").write_text(text, encoding="utf-8")


def _native(part: Path, title: str, pair: dict[str, Any] | None, wish: Wish, elements: list[str]) -> str:
    """``in.native.lammps`` for the user's LAMMPS, and a sentence about it; empty where none was asked for."""
    from ase.io import read

    from mlpbench.worker.engines import lammps_md

    if pair is None:
        return ""
    if "reason" in pair:
        return f"No input for `{wish.command}`: {pair['reason']}."
    head = NATIVE.format(title=title, name=pair["name"], command=wish.command, elements=" ".join(elements))
    start: Any = read(part / "start.xyz")
    lammps_md.write_data(part / "start.data", lammps_md.standing(start))
    boundary = " ".join("p" if periodic else "s" for periodic in start.pbc)
    lines = [
        "units metal", "atom_style atomic", f"newton {pair['newton']}", "atom_modify map yes", f"boundary {boundary}",
        "read_data start.data",
        *(line.format(elements=" ".join(elements)) for line in pair["lines"]), "timestep 0.0005", "fix move all nve",
        "thermo 100", "run 1000",
    ]  # fmt: skip
    (part / "in.native.lammps").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return f"`in.native.lammps` uses the pair style `{pair['name']}` of `{wish.command}`: written and unproven."
