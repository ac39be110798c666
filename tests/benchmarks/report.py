"""Size of a report, time and memory to write it: ``python -m tests.benchmarks.report [TRIALS]`` (default 200).

The study is made up and written as records; ``mlpbench report`` then reads them in a process of its own, makes both
tables and writes the page, as a user would. Ends with 1 if it takes more than 15 s of CPU time or 1 GiB, or if the page
of 200 trials is larger than 5 MB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mlpbench.protocol import write_json
from mlpbench.records import RECORD
from tests.unit.report.fabricate import Plan, make_records

LIMIT_MB = 5.0
LIMIT_SECONDS = 15.0
LIMIT_GIB = 1.0
REPORT = "import sys; from mlpbench.cli import main; sys.exit(main())"


def write_study(root: Path, trials: int) -> int:
    """Records of about that many trials below ``root``; returns how many there are."""
    sizes = (25, 50, 100, 200, 400)
    repetitions = max(1, min(10, round(trials / (4 * len(sizes)))))
    tried = max(1, round(trials / (4 * len(sizes) * repetitions)))
    settings = [{"training.lr": 0.01 * 1.03**k} for k in range(tried)] if tried > 1 else [{}]
    few = trials <= 2000  # a file of predictions for each trial fills the disk
    plan = Plan(n_train=sizes, repetitions=repetitions, settings=settings, epochs=500 if few else 100, predictions=few)
    records = make_records(root, plan)
    for record in records:
        write_json(root / str(record["trial"]) / RECORD, record)
    return len(records)


def main(trials: int) -> int:
    """Print what a study of about that many trials costs; 1 if it is more than it may be."""
    with tempfile.TemporaryDirectory() as folder:
        # Written in a process of its own too: this one's memory would count as the child's while it starts.
        subprocess.run([sys.executable, "-m", __spec__.name, "--write", folder, str(trials)], check=True)
        count = len(list(Path(folder).glob(f"results/benchmark/*/{RECORD}")))
        start = time.perf_counter()
        command = [sys.executable, "-c", REPORT, "report", "benchmark"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        wall, cpu = time.perf_counter() - start, used.ru_utime + used.ru_stime
        gib = used.ru_maxrss / 2**20
        size = (Path(folder) / "reports" / "benchmark" / "index.html").stat().st_size / 1e6
    print(f"{count} trials: page {size:.2f} MB, {wall:.1f} s wall, {cpu:.1f} s CPU, peak {gib:.2f} GiB")
    return int(status != 0 or (trials <= 200 and size > LIMIT_MB) or cpu > LIMIT_SECONDS or gib > LIMIT_GIB)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_study(Path(sys.argv[2]) / "results" / "benchmark", int(sys.argv[3]))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
