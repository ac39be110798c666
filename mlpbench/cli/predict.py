"""``mlpbench predict`` and ``export``: a trained potential at work, here and elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mlpbench.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from ase import Atoms

    from mlpbench.potentials import Prediction


def register_predict(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench predict``."""
    parser.add_argument("trial", metavar="STUDY/TRIAL", help="a finished trial, or a path to its folder")
    parser.add_argument("frames", type=Path, metavar="FRAMES", help="structures, in any format that ASE reads")
    parser.add_argument("--out", type=Path, metavar="FILE", help="extxyz (default: FRAMES-predicted.xyz, here)")
    parser.add_argument("--stress", action="store_true", help="the stress as well")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (default: cpu)")
    parser.add_argument("--dtype", choices=["float32", "float64"], help="default: that of the training")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="structures in one pass (default: 32)")
    parser.add_argument("--force", action="store_true", help="write over FILE")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the studies")
    parser.epilog = (
        "example:\n  mlpbench predict quickstart/mace-tiny-ethanol-n200-r0-1b2c3d4e new.xyz --out new-mace.xyz"
    )


def execute_predict(arguments: argparse.Namespace) -> int:
    """Write FILE, and print how far the predictions are from labels that FRAMES has.

    Raises:
        UserError: no such trial or file, an element the potential does not know, FILE exists.
    """
    from mlpbench.potentials import Potential, find_trial
    from mlpbench.references.labels import read_structures

    out: Path = arguments.out or Path(f"{arguments.frames.stem}-predicted.xyz")
    if out.exists() and (not arguments.force or out.resolve() == arguments.frames.resolve()):
        raise UserError(f"{out} is there already", "Give another --out, or --force.")
    if arguments.batch_size < 1:
        raise UserError(f"--batch-size {arguments.batch_size} must be at least 1")
    folder = find_trial(arguments.trial, arguments.results)
    structures = read_structures(arguments.frames)
    with Potential(folder, arguments.device, arguments.dtype) as potential:
        prediction = potential.predict(structures, arguments.batch_size, arguments.stress)
    _write(out, structures, prediction, folder.name)
    print(f"{len(structures)} structure{'s' * (len(structures) != 1)} by {folder.name}: {out}")
    for line in _beside_labels(structures, prediction):
        print(line)
    return EXIT_DONE


def register_export(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``mlpbench export``."""
    parser.add_argument("trial", metavar="STUDY/TRIAL", help="a finished trial, or a path to its folder")
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="a folder that is not there yet, or empty"
    )
    parser.add_argument(
        "--for", dest="engines", default="ase", metavar="ENGINES",
        help="scripts for ase, lammps, ipi, torchsim: several with commas (default: ase)",
    )  # fmt: skip
    parser.add_argument("--committee", action="store_true", help="all repetitions of the trial, as one calculator")
    parser.add_argument("--checkpoint", action="store_true", help="the checkpoint too, for a training that goes on")
    parser.add_argument(
        "--lammps-command", metavar="COMMAND", help="a LAMMPS of your own: an input for the pair style it has, unproven"
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the studies")
    parser.epilog = (
        "DIR needs mlpbench no more: the package's own file, an ASE calculator with the reference energies, scripts\n"
        "for the engines, their requirements, and CARD.md, which says what the potential is good for.\n\n"
        "example:\n  mlpbench export quickstart/mace-tiny-ethanol-n200-r0-1b2c3d4e --to ethanol-mace\n"
        "  mlpbench export quickstart/mace-tiny-ethanol-n200-r0-1b2c3d4e --to trio --committee --for ase,lammps"
    )


def execute_export(arguments: argparse.Namespace) -> int:
    """Write the folder and list it.

    Raises:
        UserError: no such trial or engine, DIR holds something, or the package has no form that stands alone.
    """
    from mlpbench.exporting import Wish, export, export_committee, members
    from mlpbench.exporting.scripts import ENGINES, commands
    from mlpbench.potentials import find_trial

    engines = tuple(dict.fromkeys(name.strip() for name in arguments.engines.split(",") if name.strip())) or ("ase",)
    for name in engines:
        if name not in ENGINES:
            raise UserError(f"--for: there is no engine '{name}'", f"Known: {', '.join(ENGINES)}.")
    wish = Wish(engines, arguments.lammps_command, arguments.checkpoint)
    folder = find_trial(arguments.trial, arguments.results)
    if arguments.committee:
        names = export_committee(members(folder, arguments.results), arguments.to, wish)
    else:
        names = export(folder, arguments.to, wish)
    print(f"{folder.name}: {arguments.to}/ with {', '.join(names)}")
    print(f"use it, in {arguments.to}:")
    for engine in engines:
        print("  " + "; ".join(commands(engine)))
    return EXIT_DONE


def _write(out: Path, structures: list[Atoms], prediction: Prediction, trial: str) -> None:
    import numpy as np
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import write

    from mlpbench.files import told
    from mlpbench.protocol import replacing

    predicted = []
    for i, atoms in enumerate(structures):
        copy = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        copy.info["potential"] = trial
        values = {"energy": float(prediction.energy[i]), "forces": prediction.forces[i]}
        if prediction.stress is not None and np.isfinite(prediction.stress[i]).all():
            values["stress"] = prediction.stress[i]
        copy.calc = SinglePointCalculator(copy, **values)
        predicted.append(copy)
    with told(), replacing(out) as part:
        write(part, predicted, format="extxyz")


def _beside_labels(structures: list[Atoms], prediction: Prediction) -> list[str]:
    """Mean absolute errors against energies (per atom) and forces in the file, in its units if these are eV and Å."""
    import numpy as np

    known = [atoms.calc.results if atoms.calc is not None else {} for atoms in structures]
    energy = [
        abs(prediction.energy[i] - results["energy"]) / len(structures[i])
        for i, results in enumerate(known) if "energy" in results
    ]  # fmt: skip
    forces = [
        np.abs(prediction.forces[i] - results["forces"]).ravel()
        for i, results in enumerate(known) if "forces" in results
    ]  # fmt: skip
    lines = []
    if energy:
        lines.append(f"energies in {len(energy)} of them: MAE {1e3 * np.mean(energy):.3g} meV/atom, if they are in eV")
    if forces:
        worst = 1e3 * np.mean(np.concatenate(forces))
        lines.append(f"forces in {len(forces)} of them: MAE {worst:.3g} meV/Å, if they are in eV/Å")
    return lines
