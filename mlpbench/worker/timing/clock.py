"""Blocks of calls on a synchronised device, after a warm-up until stationary; and what is timed in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet

from mlpbench.frames import Float

STATIONARY = 0.05  # warm-up ends when two successive blocks agree to this fraction ...
MAX_WARMUP_BLOCKS = 10  # ... or after so many


class Clock:
    """Times a function in blocks.

    Args:
        device: synchronised before and after each block if it is a CUDA device.
        blocks: timed blocks, after the warm-up.
        seconds: length of a block; the number of calls in it is found from the warm-up.
    """

    def __init__(self, device: str, blocks: int, seconds: float) -> None:
        self.device = device
        self.blocks = blocks
        self.seconds = seconds

    def block(self, call: Callable[[], Any], calls: int) -> float:
        """Seconds per call over ``calls`` calls."""
        self._synchronise()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        self._synchronise()
        return (time.perf_counter() - start) / calls

    def warm_up(self, call: Callable[[], Any]) -> tuple[int, int]:
        """Run until stationary; returns the calls that fill a block and the blocks that were discarded."""
        last = self.block(call, 1)
        for done in range(1, MAX_WARMUP_BLOCKS + 1):
            calls = max(1, round(self.seconds / last))
            now = self.block(call, calls)
            if abs(now / last - 1) < STATIONARY:
                return max(1, round(self.seconds / now)), done
            last = now
        return max(1, round(self.seconds / last)), MAX_WARMUP_BLOCKS

    def times(self, call: Callable[[], Any]) -> list[float]:
        """Seconds per call, one value a block."""
        calls, _ = self.warm_up(call)
        return [self.block(call, calls) for _ in range(self.blocks)]

    def twice(self, call: Callable[[], Any]) -> tuple[list[float], list[float], int]:
        """The same function as A and as B in turn, A B B A ..., and the warm-up blocks discarded."""
        calls, discarded = self.warm_up(call)
        first: list[float] = []
        second: list[float] = []
        for i in range(self.blocks):
            for target in (first, second) if i % 2 == 0 else (second, first):
                target.append(self.block(call, calls))
        return first, second, discarded

    def _synchronise(self) -> None:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self.device)


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
