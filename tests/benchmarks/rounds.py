"""Seconds that a round of an acquisition costs beside training: predicting the candidates, choosing, bookkeeping.

    python -m tests.benchmarks.rounds [--architecture toy] [--rounds 3] [acquisition ...]

Runs a series on the embedded ethanol frames, then takes its manifests away and runs it again: every training is there,
and what is left is the rounds themselves. A third run, with the manifests, gives the cost of the command alone, which
is subtracted. ``chosen`` is what the manifests' own clock says of predicting and choosing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def command(architecture: str, kind: str, rounds: int) -> list[str]:
    """A series of ``rounds`` rounds after its start."""
    return [
        sys.executable, "-m", "mlpbench", "run", "study=rounds", "dataset=ethanol_mixed",
        f"architecture={architecture}", "size=tiny", "budget.steps=10", "budget.interval=10", "device=cpu",
        f"acquisition={kind}", "acquisition.start=20", "acquisition.batch=30",
        f"acquisition.until={20 + 30 * rounds}", "acquisition.members=3",
    ]  # fmt: skip


def timed(arguments: list[str], root: Path) -> float:
    """Wall seconds of a command."""
    start = time.perf_counter()
    subprocess.run(arguments, cwd=root, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Print one line for each acquisition."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("acquisitions", nargs="*", default=["random", "farthest", "committee", "committee_farthest"])
    parser.add_argument("--architecture", default="toy")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'acquisition':<20} {'s a round':>10} {'chosen':>8}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for kind in options.acquisitions:
            asked = command(options.architecture, kind, options.rounds)
            timed(asked, root)
            for path in (root / "results" / "rounds" / "acquisitions").glob(f"*-{kind}-*.json"):
                path.unlink()
            again, alone = timed(asked, root), timed(asked, root)
            clocks = (root / "results" / "rounds" / "acquisitions").glob(f"*-{kind}-n*.seconds.json")
            chosen = [sum(json.loads(path.read_text()).values()) for path in clocks]
            per_round = (again - alone) / options.rounds
            print(f"{kind:<20} {per_round:>10.2f} {sum(chosen) / max(1, len(chosen)):>8.2f}", flush=True)


if __name__ == "__main__":
    main()
