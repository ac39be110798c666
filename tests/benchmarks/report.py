"""Size of a report and time to write it: ``python -m tests.benchmarks.report [TRIALS]`` (default 200)."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from mlpbench.report import write_report
from tests.unit.report.fabricate import Plan, fabricate

LIMIT_MB = 5.0
LIMIT_SECONDS = 15.0


def main(trials: int) -> int:
    """Print what a study of about that many trials costs; 1 if it is more than it may be."""
    sizes = (25, 50, 100, 200, 400)
    repetitions = max(1, min(10, round(trials / (4 * len(sizes)))))
    tried = max(1, round(trials / (4 * len(sizes) * repetitions)))
    settings = [{"training.lr": 0.01 * 1.03**k} for k in range(tried)] if tried > 1 else [{}]
    with tempfile.TemporaryDirectory() as folder:
        few = trials <= 2000  # a long curve and a file of predictions for each trial fill the memory and the disk
        plan = Plan(
            n_train=sizes,
            repetitions=repetitions,
            settings=settings,
            epochs=500 if few else 50,
            predictions=few,
        )
        study = fabricate(Path(folder) / "benchmark", plan)
        start, cpu = time.perf_counter(), time.process_time()
        page = write_report(study, Path(folder) / "out").page
        wall, used = time.perf_counter() - start, time.process_time() - cpu
        size = page.stat().st_size / 1e6
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"{len(study.trials)} trials: {size:.2f} MB, {wall:.1f} s wall, {used:.1f} s CPU, peak {memory:.0f} MB")
    return int((trials <= 200 and size > LIMIT_MB) or used > LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
