"""What starting a trial costs, beside its training and prediction: a resident worker against a process each.

    python -m tests.benchmarks.launching [--trials 20] [--steps 2] [architecture ...]

Trials of 40 frames (ethanol, tiny preset, one thread) that train for two epochs and predict 20 frames. Prints for each
architecture and kind of start the median over trials of the wall time of a launch, of the seconds its tasks took, of
the difference, which is the machinery, and of the processor's seconds of a whole launch (the figure to compare on a
busy machine); then the first trial by itself and the memory held in between.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from mlpbench import config
from mlpbench.backends.environment import resolve
from mlpbench.protocol import Task
from mlpbench.testing import Subject, split_frames

SWITCH = "MLPBENCH_RESIDENT"


def measure(architecture: str, trials: int, resident: bool) -> None:
    """Launch ``trials`` trials and print what each cost."""
    os.environ[SWITCH] = "1" if resident else "0"
    trial = config.load_trial([f"architecture={architecture}", "size=tiny"])
    environment = resolve(trial.backend_config)
    frames = split_frames()
    tasks = [Task("train"), Task("predict", options={"splits": ["valid"], "batch_size": 10})]
    walls, works, cpus, held = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(architecture, environment, trial, Path(folder))
        for number in range(trials):
            start, cpu = time.perf_counter(), cpu_seconds()
            results = subject.run(f"{number}", tasks, frames, budget={"epochs": 2}, seed=number)
            walls.append(time.perf_counter() - start)
            cpus.append(cpu_seconds() - cpu)
            failures = {name: r.reason for name, r in results.items() if r.status != "done"}
            assert not failures, failures
            works.append(sum(result.wall_seconds for result in results.values()))
            held.append(sum(child.memory_info().rss for child in psutil.Process().children(recursive=True)) / 1e6)
    rest = [wall - work for wall, work in zip(walls, works, strict=True)]
    kind = "resident" if resident else "separate"
    print(
        f"{architecture:8} {kind}: n = {trials}, wall {statistics.median(walls):.2f} s, "
        f"tasks {statistics.median(works):.2f} s, machinery {statistics.median(rest):.2f} s "
        f"(first {rest[0]:.2f}, largest of the others {max(rest[1:] or rest):.2f}), "
        f"processor {statistics.median(cpus):.2f} s (first {cpus[0]:.2f}); "
        f"held between trials: {held[0]:.0f} MB after the first, {held[-1]:.0f} MB after the last",
        flush=True,
    )


def cpu_seconds() -> float:
    """Processor seconds of all workers so far: of processes that have ended, and of resident ones with their forks."""
    spent = os.times()
    total = spent.children_user + spent.children_system
    for child in psutil.Process().children():
        times = child.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=["toy", "schnet", "painn", "nequip", "mace"])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--kinds", nargs="*", default=["separate", "resident"], choices=["separate", "resident"])
    arguments = parser.parse_args()
    for architecture in arguments.architectures:
        for kind in arguments.kinds:
            measure(architecture, arguments.trials, kind == "resident")


if __name__ == "__main__":
    main()
