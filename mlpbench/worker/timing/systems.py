"""What is timed: a calculator on structures that change at every call, an MD step, and larger systems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet

from mlpbench.frames import Float
from mlpbench.worker.timing.clock import Clock

GAP = 4.0  # Å between the boxes around molecules that stand side by side


def single(calculator: Calculator, structures: list[Atoms]) -> Callable[[], Any]:
    """One energy-and-forces call, on the next structure each time."""
    turn: Iterator[Atoms] = cycle(structures)

    def call() -> Any:
        atoms = next(turn)
        calculator.calculate(atoms, ["energy", "forces"], ["positions", "numbers"])
        return calculator.results["forces"]

    return call


def each(function: Callable[[Atoms], Any], structures: list[Atoms]) -> Callable[[], Any]:
    """``function`` of the next structure each time."""
    turn: Iterator[Atoms] = cycle(structures)
    return lambda: function(next(turn))


def labels(calculator: Calculator, structures: list[Atoms]) -> tuple[Float, list[Float]]:
    """Energies per atom (F,) eV/atom and forces [(N, 3)] eV/Å of ``structures``."""
    energies, forces = [], []
    for atoms in structures:
        calculator.calculate(atoms, ["energy", "forces"], ["positions", "numbers"])
        energies.append(float(calculator.results["energy"]) / len(atoms))
        forces.append(np.array(calculator.results["forces"], dtype=np.float64))
    return np.array(energies), forces


def md_steps(clock: Clock, calculator: Calculator, atoms: Atoms, options: dict[str, Any]) -> list[float]:
    """Seconds per velocity-Verlet step of one replica, one value a block.

    Options: ``temperature_K``, ``timestep_fs``, ``md_block_steps``.
    """
    moving = atoms.copy()
    moving.calc = calculator
    MaxwellBoltzmannDistribution(moving, temperature_K=options["temperature_K"], rng=np.random.default_rng(0))
    Stationary(moving)
    dynamics = VelocityVerlet(moving, timestep=options["timestep_fs"] * units.fs)
    steps = options["md_block_steps"]
    clock.block(lambda: dynamics.run(steps), 1)
    return [clock.block(lambda: dynamics.run(steps), 1) / steps for _ in range(clock.blocks)]


def grown(atoms: Atoms, copies: int) -> Atoms:
    """``copies`` copies of the structure: molecules on a grid, kept apart; a row of cells where it is periodic."""
    if atoms.pbc.any():
        axis = int(np.argmax(atoms.pbc))
        repeat = [1, 1, 1]
        repeat[axis] = copies
        supercell: Atoms = atoms.repeat(repeat)
        return supercell
    extent = np.ptp(atoms.positions, axis=0) + GAP
    side = 1
    while side**3 < copies:
        side += 1
    grid = np.array([(i, j, k) for i in range(side) for j in range(side) for k in range(side)])[:copies]
    positions = (atoms.positions[None] + (grid * extent)[:, None]).reshape(-1, 3)
    return Atoms(np.tile(atoms.numbers, copies), positions=positions)
