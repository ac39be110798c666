"""Harness overhead: a trial through mlpbench against the package alone with the trial's own native configuration.

    python -m tests.benchmarks.overhead [--pairs 2] [--epochs 10] [architecture ...]

Interleaved (mlpbench, package, package, mlpbench ...), same machine, same work: training only. Prints the wall times,
the ratio of each pair and the median. mlpbench's time is that of the whole command, its own start included.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlpbench.backends.environment import resolve
from mlpbench.backends.processes import worker_environment
from mlpbench.config import load_backends


def trial(root: Path, architecture: str, epochs: int, repetition: int) -> tuple[float, Path]:
    """Seconds of ``mlpbench run`` for one trial, and the trial's folder."""
    command = [
        sys.executable, "-m", "mlpbench", "run", "study=overhead", f"architecture={architecture}", "size=tiny",
        "dataset.n_train=200", "budget=epochs", f"budget.epochs={epochs}", f"repetition={repetition}", "device=cpu",
    ]  # fmt: skip
    start = time.perf_counter()
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    seconds = time.perf_counter() - start
    records = sorted((root / "results" / "overhead").glob(f"{architecture}-*-r{repetition}-*/record.json"))
    return seconds, records[-1].parent


def alone(folder: Path, scratch: Path) -> float:
    """Seconds of the package's own training from a copy of the trial's native folder."""
    record = json.loads((folder / "record.json").read_text())
    environment = resolve(load_backends()[record["identifiers"]["backend"]])
    native = scratch / "native"
    shutil.rmtree(native, ignore_errors=True)
    shutil.copytree(folder / "native", native)
    variables = worker_environment(environment, record["config"]["threads"])
    variables["PATH"] = f"{environment.python.parent}{os.pathsep}{os.environ['PATH']}"
    start = time.perf_counter()
    subprocess.run(
        record["training"]["native_command"], shell=True, cwd=native, env=variables, check=True, capture_output=True
    )
    return time.perf_counter() - start


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", default=["schnet", "nequip", "mace"])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    for architecture in arguments.architectures:
        ratios, differences = [], []
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for pair in range(arguments.pairs):
                ours, where = trial(root, architecture, arguments.epochs, pair)
                theirs = alone(where, root)
                ratios.append(ours / theirs)
                differences.append(ours - theirs)
                print(f"{architecture}: mlpbench {ours:.1f} s, package alone {theirs:.1f} s, ratio {ours / theirs:.3f}")
        print(
            f"{architecture}: median ratio {statistics.median(ratios):.3f}, "
            f"median difference {statistics.median(differences):.1f} s", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
