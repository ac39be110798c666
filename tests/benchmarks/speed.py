"""Is a time true? Our timing of each package's own calculator against a bare loop, and the A/A check.

    python -m tests.benchmarks.speed RESULTS/STUDY [--rounds 15] [--seconds 0.3] [--studies 40]

For each trial of the study: our blocks, their A/A twins and those of a bare ASE loop around the same calculator, in
turn; the median ratio must be 1 to 3 %, or to the run's own noise floor (A/A, 95 %) where that is larger. Then many
short studies of the same thing against itself: at most 5 % may be called different
(:func:`mlpbench.evaluators.speed.differ`). Exits with 1 if either fails. Nothing else should run
meanwhile; what did is printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mlpbench.backends.environment import resolve
from mlpbench.backends.processes import worker_environment
from mlpbench.config import load_backends
from mlpbench.evaluators.speed import differ, median_interval, noise_floor
from mlpbench.records import load_all

PROBE = Path(__file__).with_name("speed_probe.py")
ROOT = Path(__file__).parents[2]
AGREE = 3.0  # percent
BLOCKS = 5  # of an A/A study


def probe(root: Path, record: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Raw times of one trial, measured in its backend's environment."""
    environment = resolve(load_backends()[record["identifiers"]["backend"]])
    variables = {**worker_environment(environment, 1), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(environment.python), "-m", "tests.benchmarks.speed_probe", str((root / record["trial"]).resolve()),
         record["split"]["in_distribution"], str(arguments.rounds), str(arguments.seconds), str(arguments.studies),
         str(BLOCKS)],
        cwd=ROOT, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"{record['trial']}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> int:
    """Print the figures; 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--size", default="tiny")
    arguments = parser.parse_args()
    broken, called, total = 0, 0, 0
    for record in load_all(arguments.study):
        if record["identifiers"]["size"] != arguments.size:
            continue
        found = probe(arguments.study, record, arguments)
        ratio, low, high = median_interval(np.array(found["ours"]) / np.array(found["bare"]))
        floor = noise_floor(*found["floor"])
        agrees = 100 * abs(ratio - 1) <= max(AGREE, floor)
        different = sum(differ((a, b), (c, d)) for a, b, c, d in found["twins"])
        broken, called, total = broken + (not agrees), called + different, total + len(found["twins"])
        print(
            f"{record['identifiers']['architecture']:8s} ours/bare {ratio:.4f} ({low:.4f} to {high:.4f}), "
            f"{1e3 * float(np.median(found['ours'])):.3f} ms, noise floor {floor:.1f} %: "
            f"{'agrees' if agrees else 'DOES NOT AGREE'}; A/A called different {different} of {len(found['twins'])}; "
            f"{found['conditions']['notice'] or 'quiet'}",
            flush=True,
        )  # fmt: skip
    if not total:
        raise SystemExit(f"no trial of size {arguments.size} in {arguments.study}")
    print(f"A/A: {called} of {total} called different ({100 * called / total:.1f} %), allowed are 5 %")
    return 1 if broken or called > 0.05 * total else 0


if __name__ == "__main__":
    sys.exit(main())
