"""Blocks of calls on a synchronised device, after a warm-up until stationary; and what is timed in them."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
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
        """Energy and forces of the next structure in turn."""
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


OTHERS = 0.25  # cores; above this the timing says that the machine was busy
SLOWER = 0.95  # of the clock at the start; below this the timing says that the clock fell

PROC = Path("/proc")


class Watch:
    """From its creation to :meth:`report`: load, other processes' share of the cores, clock.

    Args:
        threads: of the numerical libraries, for the record.
        device: likewise.
    """

    def __init__(self, threads: int, device: str) -> None:
        self._facts = {"threads": threads, "device": device}
        self._start = time.perf_counter()
        self._load = os.getloadavg()[0]
        self._busy = busy_seconds()
        self._own = own_seconds()
        self._clock = clock_mhz()

    def report(self) -> dict[str, Any]:
        """The conditions of what was timed since.

        ``load`` (one-minute average at start and end), ``others_cores`` (cores that other processes kept busy on
        average; None where the system does not tell), ``clock_mhz`` (mean over cores at start and end, or None),
        ``cores`` (usable), ``threads``, ``device``, ``busy`` and ``notice`` (what a reader must know; empty if quiet).
        """
        seconds = time.perf_counter() - self._start
        now = busy_seconds()
        others = None
        if now is not None and self._busy is not None:
            others = max(0.0, (now - self._busy - (own_seconds() - self._own)) / max(seconds, 0.1))
        clock = (self._clock, clock_mhz())
        notices = []
        if others is not None and others > OTHERS:
            notices.append(f"other processes kept {others:.1f} cores busy")
        if clock[0] and clock[1] and clock[1] < SLOWER * clock[0]:
            notices.append(f"the clock fell from {clock[0]:.0f} to {clock[1]:.0f} MHz")
        return {
            **self._facts, "seconds": seconds, "load": [self._load, os.getloadavg()[0]], "others_cores": others,
            "clock_mhz": list(clock) if clock[0] and clock[1] else None, "cores": usable_cores(),
            "busy": bool(notices), "notice": "; ".join(notices),
        }  # fmt: skip


def usable_cores() -> int:
    """Logical cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def own_seconds() -> float:
    """CPU seconds of this process, and of children it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def busy_seconds() -> float | None:
    """CPU seconds that all cores of the machine have spent on anything but idling; None without ``/proc/stat``."""
    try:
        fields = (PROC / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    ticks = [int(field) for field in fields]
    # user nice system idle iowait irq softirq steal; guest time is in user already
    return float(sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def clock_mhz() -> float | None:
    """Mean clock of the cores now; None where the system does not tell."""
    try:
        text = (PROC / "cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    frequencies = [float(line.split(":")[1]) for line in text.splitlines() if line.startswith("cpu MHz")]
    return sum(frequencies) / len(frequencies) if frequencies else None


LIBRARY = "libnvidia-ml.so.1"  # comes with the driver


class EnergyMeter:
    """Counts from its creation on.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N`` as torch counts them.
    """

    def __init__(self, device: str) -> None:
        self._uuid = _uuid(device) if device.startswith("cuda") else None
        self._start = self._read()

    def watt_hours(self) -> float | None:
        """Wh since then; None where there is no counter (before Volta, in some virtual machines, on CPUs)."""
        now = self._read()
        return None if now is None or self._start is None else (now - self._start) / 3.6e6  # from mJ

    def _read(self) -> int | None:
        """The counter in mJ since the driver was loaded."""
        if self._uuid is None:
            return None
        try:
            nvml = ctypes.CDLL(LIBRARY)
        except OSError:
            return None
        handle, value = ctypes.c_void_p(), ctypes.c_ulonglong()
        answered = (  # each is 0 for success, and is not called where one before it failed
            nvml.nvmlInit_v2() == 0
            and nvml.nvmlDeviceGetHandleByUUID(self._uuid, ctypes.byref(handle)) == 0
            and nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)) == 0
        )
        return int(value.value) if answered else None


def _uuid(device: str) -> bytes:
    import torch  # only where there is a CUDA device

    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return (uuid if uuid.startswith("GPU-") else f"GPU-{uuid}").encode()
