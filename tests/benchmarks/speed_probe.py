"""Raw block times of one trained potential, as JSON; run by tests/benchmarks/speed.py in the backend's environment."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.md_throughput import mount


def bare(calculator: Any, structures: list[Any], calls: int) -> float:
    """Seconds per call of a loop that anyone would write: ASE, the package's calculator, nothing of mlpbench."""
    frames = [atoms.copy() for atoms in structures]
    for atoms in frames:
        atoms.calc = calculator
    start = time.perf_counter()
    for i in range(calls):
        atoms = frames[i % len(frames)]
        atoms.get_potential_energy()
        atoms.get_forces()
    return (time.perf_counter() - start) / calls


def main(folder: Path, split: str, rounds: int, seconds: float, studies: int, blocks: int) -> None:
    """Print ``ours``, its twin and ``bare`` (in turn, s per call, one a round), and ``twins`` of each A/A study."""
    mount()
    from dataclasses import replace

    from mlpbench.frames import Frames
    from mlpbench.protocol import REQUEST, Request
    from mlpbench.worker.clock import Clock, Watch, single
    from mlpbench.worker.main import load_adapter

    request = replace(Request.read(folder / REQUEST), directory=str(folder.resolve()))
    adapter = load_adapter(request.adapter)(request)
    calculator = adapter.load().calculator()
    path = folder.parent / "splits"
    files = sorted(path.rglob(f"{split}.npz"))
    structures = Frames.load(files[0]).select(slice(8)).to_atoms()
    clock = Clock(request.device, rounds, seconds)
    watch = Watch(request.threads, request.device)
    call = single(calculator, structures)
    calls, _ = clock.warm_up(call)
    bare(calculator, structures, calls)
    ours: list[float] = []
    again: list[float] = []
    theirs: list[float] = []
    turns = [(ours, True), (theirs, False), (again, True)]
    for turn in range(rounds):  # rotated, so that a drift of the machine hits all three alike
        for found, mine in turns[turn % 3 :] + turns[: turn % 3]:
            found.append(clock.block(call, calls) if mine else bare(calculator, structures, calls))
    short = max(1, calls // 5)
    twins = [_four(clock, call, short, blocks) for _ in range(studies)]
    print(json.dumps({
        "architecture": request.architecture["name"], "size": folder.name.split("-")[1], "calls": calls,
        "ours": ours, "bare": theirs, "floor": [ours, again], "twins": twins, "conditions": watch.report(),
    }))  # fmt: skip


def _four(clock: Any, call: Any, calls: int, blocks: int) -> list[list[float]]:
    """Four series of the same thing in turn: A, its twin, B, its twin."""
    found: list[list[float]] = [[], [], [], []]
    for i in range(blocks):
        for k in range(4):
            found[(k + i) % 4].append(clock.block(call, calls))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))
