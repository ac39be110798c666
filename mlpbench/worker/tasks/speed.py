"""Time a potential: single calls, batches, MD steps, and growing systems.

Warm-up is discarded until the times are stationary; inputs change at every call, so that nothing can be cached; the
device is synchronised around each block; the same thing is timed twice, interleaved, as a noise floor.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet

from mlpbench.frames import Frames
from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Adapter, Potential

STATIONARY = 0.05  # warm-up ends when two successive blocks agree to this fraction ...
MAX_WARMUP_BLOCKS = 10  # ... or after so many


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Time the potential of this trial in the trial's own dtype.

    Options: ``split`` (whose frames are the inputs), ``n_frames``, ``blocks`` (timed repeats), ``block_seconds``
    (length of a block, s), ``batch_sizes``, ``md_block_steps`` (MD steps in a block), ``timestep_fs``,
    ``temperature_K``, ``copies`` (how many copies of the system, side by side, for the scaling series),
    ``max_seconds_per_call`` (end of the series).

    Returns lists of seconds, one a block: ``latency``, ``latency_again`` (the A/A twin), ``batched``, ``md``,
    ``scaling``; and ``load`` of the machine before and after.
    """
    potential = adapter.load()
    frames = Frames.load(adapter.request.frames[options["split"]])
    frames = frames.select(slice(min(options["n_frames"], len(frames))))
    clock = Clock(adapter.request.device, options["blocks"], options["block_seconds"])
    found: dict[str, Any] = {"n_atoms": float(np.mean(frames.n_atoms)), "load": [os.getloadavg()[0]]}
    structures = frames.to_atoms()
    calculator = potential.calculator()
    call = _call(calculator, structures)
    found["latency"], found["latency_again"], found["warmup_blocks"] = clock.twice(call)
    events.write("progress", text="timed single calls")
    found["batched"] = [_batched(clock, potential, frames, size) for size in options["batch_sizes"]]
    events.write("progress", text="timed batches")
    found["md"] = _md(clock, calculator, structures[0], options)
    found["timestep_fs"] = options["timestep_fs"]
    events.write("progress", text="timed MD steps")
    found["scaling"] = list(_scaling(clock, calculator, structures, options))
    found["load"].append(os.getloadavg()[0])
    found["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return found


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


def _call(calculator: Calculator, structures: list[Atoms]) -> Callable[[], Any]:
    """One energy-and-forces call, on the next structure each time."""
    turn: Iterator[Atoms] = cycle(structures)

    def call() -> Any:
        atoms = next(turn)
        calculator.calculate(atoms, ["energy", "forces"], ["positions", "numbers"])
        return calculator.results["forces"]

    return call


def _batched(clock: Clock, potential: Potential, frames: Frames, size: int) -> dict[str, Any]:
    """Seconds per frame in batches of ``size``; frames repeat where there are fewer."""
    batch = frames.select(np.arange(size) % len(frames))
    times = clock.times(lambda: potential.predict(batch, size))
    return {"batch_size": size, "seconds_per_frame": [value / size for value in times]}


def _md(clock: Clock, calculator: Calculator, atoms: Atoms, options: dict[str, Any]) -> list[float]:
    """Seconds per velocity-Verlet step of one replica, one value a block."""
    moving = atoms.copy()
    moving.calc = calculator
    MaxwellBoltzmannDistribution(moving, temperature_K=options["temperature_K"], rng=np.random.default_rng(0))
    Stationary(moving)
    dynamics = VelocityVerlet(moving, timestep=options["timestep_fs"] * units.fs)
    steps = options["md_block_steps"]
    clock.block(lambda: dynamics.run(steps), 1)
    return [clock.block(lambda: dynamics.run(steps), 1) / steps for _ in range(clock.blocks)]


def _scaling(
    clock: Clock, calculator: Calculator, structures: list[Atoms], options: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Growing systems, copies side by side (molecules 4 Å apart, crystals as supercells), until calls take long."""
    for copies in options["copies"]:
        systems = [_grown(atoms, copies) for atoms in structures[:4]]
        call = _call(calculator, systems)
        first = clock.block(call, 1)
        if first > options["max_seconds_per_call"]:
            yield {"n_atoms": len(systems[0]), "seconds": [first], "stopped": "a call takes longer than the limit"}
            return
        yield {"n_atoms": len(systems[0]), "seconds": clock.times(call)}


def _grown(atoms: Atoms, copies: int) -> Atoms:
    """``copies`` copies of the structure, in a box that keeps molecules apart; a row of cells where it is periodic."""
    if atoms.pbc.any():
        axis = int(np.argmax(atoms.pbc))
        repeat = [1, 1, 1]
        repeat[axis] = copies
        supercell: Atoms = atoms.repeat(repeat)
        return supercell
    extent = np.ptp(atoms.positions, axis=0) + 4.0
    side = int(np.ceil(copies ** (1 / 3)))
    grid = np.array([(i, j, k) for i in range(side) for j in range(side) for k in range(side)])[:copies]
    positions = (atoms.positions[None] + (grid * extent)[:, None]).reshape(-1, 3)
    return Atoms(np.tile(atoms.numbers, copies), positions=positions)
