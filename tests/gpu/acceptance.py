"""All that a machine with a GPU can prove about mlpbench, in one command: what matters most first, resumable.

    python3 tests/gpu/acceptance.py OUT --bundle gpu-bundle --minutes 9   # a bare machine, see tests/gpu/bundle.py
    python tests/gpu/acceptance.py OUT                                    # where the backends' environments are built
    python tests/gpu/acceptance.py OUT --dry                              # on a CPU, smallest sizes: does it work?

Runs under Python 3.12 or later and needs nothing but the standard library. Steps, each with its own limit, a line in
the log and its rows written at once: ``install``, ``import`` (each backend); ``train`` (train, be interrupted, go on,
predict, stress; CPU against GPU; memory); ``cpu`` (a trial on the CPU of this machine); ``accuracy`` (real budgets,
``small``, all at the same time); ``md`` (1 to 1,000 replicas against the ASE loop, aim 20 times); ``speed`` (latency,
throughput, growth until the memory is full, eager and compiled); ``packing`` (4, 8, 16 trainings side by side, plain
and under MPS); ``published`` (AcAc, three trainings each of the published networks, side by side); ``tf32``; ``dft``;
``report``. The same command again goes on where the first ended; ``--earlier DIR`` names the OUT of a call on a machine
that is gone. Exits with 1 if a step is not done. An architecture that is new in ``conf/architecture`` gets its steps by
itself, if its backend is in the bundle or in the default set.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from measures import ROOT, Bench
from runner import Clock, Kept, Rows, Step, run_steps

PAGE = 30.0  # s that are kept free for the report, which comes last


def steps_of(bench: Bench, out: Path) -> list[Step]:
    """All of them, what matters most first."""
    sets = ["core", *(b for b in bench.backends if b != "toy")] if bench.bundle else []
    plan = [Step(f"install:{name}", 120, _with(bench.install, name), "install") for name in sets]
    plan += [Step(f"import:{name}", 120, _with(bench.importing, name), "import") for name in bench.backends]
    right = [*bench.architectures, *(["toy"] if bench.dry else [])]
    plan += [Step(f"train:{name}", 180, _with(bench.train, name), "train") for name in right]
    plan += [Step(f"cpu:{bench.with_torch[0]}", 60, _with(bench.on_cpu, bench.with_torch[0]), "train")]
    # The four that are compared come first, so that 15 minutes are enough for every kind of step.
    first, others = bench.timed[:4], bench.timed[4:]
    n_train = 50 if bench.dry else 200
    plan += [Step(f"accuracy:{n}-{n_train}", 240, _with(bench.accuracy, n, n_train), "accuracy") for n in bench.timed]
    plan += [Step(f"md:{n}", 240, _with(bench.md, n)) for n in (bench.with_torch if bench.dry else first)]
    plan += _packing(bench)
    plan += [Step(f"speed:{n}", 360, _with(bench.speed, n)) for n in reversed(first)]
    if not bench.dry:
        plan += [Step(f"accuracy:{n}-50", 240, _with(bench.accuracy, n, 50), "further") for n in bench.timed]
    plan += [Step("published:acac", 560, bench.published)]
    plan += [Step(f"md:{n}", 240, _with(bench.md, n)) for n in others]
    plan += [Step(f"speed:{n}", 360, _with(bench.speed, n)) for n in others]
    plan += [Step(f"tf32:{n}", 90, _with(bench.tf32, n)) for n in bench.timed]
    return [*plan, Step("dft:recorded", 60, bench.dft), Step("report:page", 120, _with(bench.report, out))]


def _packing(bench: Bench) -> list[Step]:
    counts = [2] if bench.dry else [16, 8, 4]
    plan = [Step("packing:alone", 300, bench.one_by_one)]
    plan += [Step(f"packing:{count}", 180, _with(bench.packing, count)) for count in counts]
    return [*plan, Step("packing:mps", 180, _with(bench.packing, counts[0], True))]


def _with(work: Callable[..., Rows], *given: Any) -> Callable[[Clock], Rows]:
    return lambda clock: work(clock, *given)


def main() -> int:
    """Run what is outstanding; 0 if everything is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the results: at most 8 files, a few MB")
    parser.add_argument("--bundle", type=Path, help="the folder that tests/gpu/bundle.py made")
    parser.add_argument(
        "--with",
        dest="also",
        action="append",
        default=[],
        metavar="NAME",
        help="a backend beside the default set",
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "gpu-work", help="trainings, logs, packages")
    parser.add_argument("--earlier", type=Path, help="OUT of an earlier call, whose finished steps are not repeated")
    parser.add_argument("--minutes", type=float, default=60.0, help="no longer than this in all (60)")
    parser.add_argument(
        "--only", nargs="+", metavar="KIND", help="only these steps, by kind (train) or name (train:mace)"
    )
    parser.add_argument("--steps", type=int, default=1000, help="optimiser steps of the step accuracy (1000)")
    parser.add_argument("--dry", action="store_true", help="on the CPU, smallest sizes")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):  # a job in the background may have been told to ignore Ctrl-C
        signal.signal(number, signal.default_int_handler)
    begin = time.monotonic()
    bench, out = Bench(options), options.out.absolute()
    kept = Kept(out, bench.work, options.earlier)
    bench.remember(kept)
    bench.machine(kept)
    steps = steps_of(bench, out)
    if options.only:
        steps = [s for s in steps if s.name in options.only or s.name.split(":")[0] in options.only]
    if not steps:
        parser.error(f"--only {' '.join(options.only)}: there is no such step")
    side_by_side = max(1, min(10, (os.cpu_count() or 1) * 2 // 3))
    for step in steps if options.dry else []:
        step.seconds *= 4  # a CPU that others use as well
    try:
        end = begin + options.minutes * 60
        page = [step for step in steps if step.name.startswith("report:")]
        finished = run_steps([step for step in steps if step not in page], kept, end - PAGE, side_by_side)
        for step in page:
            kept.state["steps"].pop(step.name, None)  # it shows what this call has added
        finished &= run_steps(page, kept, end + PAGE, 1)
    except KeyboardInterrupt:
        kept.say("interrupted; what was finished is kept, and the same command goes on")
        return 130
    done = sum(kept.done(step.name) for step in steps)
    spent = sum(float(kept.state["steps"].get(s.name, {}).get("cpu_seconds", 0.0)) for s in steps)
    kept.say(
        f"{done} of {len(steps)} steps done; {(time.monotonic() - begin) / 60:.1f} minutes, {spent:.0f} s CPU; {out}"
    )
    return 0 if finished else 1


if __name__ == "__main__":
    sys.exit(main())
