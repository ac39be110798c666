"""Draws geometries by molecular dynamics: ``bootstrap.py FOLDER mlpbench.worker.reference.sampling``.

``request.json`` has ``code`` (module:Class), ``method``, ``runs`` (name -> ``temperature_K, frames, seed`` and
``start``: ``numbers, positions, cell, pbc``; Å) and ``settings`` (``friction_per_ps, time_step_fs, equilibration_ps,
spacing_fs, hold_centre, relax_fmax, relax_steps``). Several processes may share the folder; each takes the next run
that nobody has claimed. While it goes, ``<name>.progress`` holds the steps that are done; at its end ``<name>.npz`` has
``positions`` (F, N, 3) Å, ``energy`` (F,) eV, ``kinetic_temperature_K`` (F,) and ``version``, or ``<name>.failed`` says
why there is nothing.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS

from mlpbench.protocol import replacing
from mlpbench.worker.process import die_with_parent
from mlpbench.worker.reference.ase_code import to_atoms
from mlpbench.worker.reference.code import Array, Code, Structure, claim, load

STEPS_PER_REPORT = 50


def main(argv: list[str]) -> int:
    """Carry out the runs of the request in the folder ``argv[0]`` that nobody else has taken."""
    die_with_parent()
    folder = Path(argv[0])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    scratch = folder / f"process-{os.getpid()}"
    scratch.mkdir()
    os.chdir(scratch)
    code: Code = load(request["code"])(request["method"])
    for name, run in request["runs"].items():
        if not claim(folder / f"{name}.claim"):
            continue
        try:
            drawn = draw(code, Structure.from_request(run["start"]), run, request["settings"], folder / name)
        except Exception as error:  # the code may fail in any way; other runs are still wanted
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            (folder / f"{name}.failed").write_text(text, encoding="utf-8")
            continue
        with replacing(folder / f"{name}.npz") as part, open(part, "wb") as stream:
            np.savez(stream, **drawn, version=code.version)
    return 0


def draw(code: Code, start: Structure, run: dict[str, Any], settings: dict[str, Any], path: Path) -> dict[str, Any]:
    """One Langevin trajectory from the relaxed start; frames are centred where the system is open.

    Raises:
        RuntimeError: the start does not relax, or the trajectory breaks.
    """
    atoms = to_atoms(start)
    atoms.calc = code.calculator() if hasattr(code, "calculator") else _Wrapped(code)
    if settings["relax_fmax"] is not None:
        optimiser = BFGS(atoms, logfile=None)
        if not optimiser.run(fmax=settings["relax_fmax"], steps=settings["relax_steps"]):
            raise RuntimeError(f"the start does not relax below {settings['relax_fmax']} eV/Å")
    if settings["hold_centre"]:
        warnings.filterwarnings("ignore", "The implementation of `fixcm=True`", FutureWarning)  # the schema warns of it
    generator = np.random.default_rng(run["seed"])
    MaxwellBoltzmannDistribution(atoms, temperature_K=run["temperature_K"], rng=generator)
    dynamics = Langevin(
        atoms, settings["time_step_fs"] * units.fs, temperature_K=run["temperature_K"],
        friction=settings["friction_per_ps"] / (1000 * units.fs), rng=generator,
        fixcm=settings["hold_centre"],
    )  # fmt: skip
    steps = _Steps(dynamics, path.with_suffix(".progress"))
    steps.run(round(1000 * settings["equilibration_ps"] / settings["time_step_fs"]))
    freedom = 3 * len(atoms) - (3 if settings["hold_centre"] else 0)
    positions: list[Array] = []
    energies: list[float] = []
    temperatures: list[float] = []
    for _ in range(run["frames"]):
        steps.run(round(settings["spacing_fs"] / settings["time_step_fs"]))
        energies.append(atoms.get_potential_energy())
        if not np.isfinite(energies[-1]) or not np.isfinite(atoms.positions).all():
            raise RuntimeError(f"the trajectory broke after {len(positions)} frames")
        positions.append(atoms.positions - (0 if atoms.pbc.any() else atoms.get_center_of_mass()))
        temperatures.append(2 * atoms.get_kinetic_energy() / (freedom * units.kB))
    return {
        "positions": np.array(positions), "energy": np.array(energies), "kinetic_temperature_K": np.array(temperatures),
    }  # fmt: skip


class _Steps:
    """Runs steps and says how many are done."""

    def __init__(self, dynamics: Langevin, path: Path) -> None:
        self.dynamics, self.path, self.done = dynamics, path, 0

    def run(self, steps: int) -> None:
        while steps > 0:
            some = min(steps, STEPS_PER_REPORT)
            self.dynamics.run(some)
            steps, self.done = steps - some, self.done + some
            self.path.write_text(str(self.done), encoding="ascii")


class _Wrapped(Calculator):
    """A code that is no ASE calculator, as one."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012  # ASE's base class has a list

    def __init__(self, code: Code) -> None:
        Calculator.__init__(self)
        self.code = code

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        Calculator.calculate(self, atoms, properties, system_changes)
        atoms = self.atoms
        assert atoms is not None
        answer = self.code.compute(Structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc))
        self.results = {"energy": answer.energy, "forces": answer.forces}
