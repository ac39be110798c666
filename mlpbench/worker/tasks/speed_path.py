"""Time one path of a trained potential (deployment × dtype × TF32); a task of a child process of ``speed``."""

from __future__ import annotations

import time
from typing import Any

from ase.calculators.calculator import Calculator

from mlpbench.frames import Frames
from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Adapter, Unavailable
from mlpbench.worker.tasks import Skip
from mlpbench.worker.timing.clock import Clock
from mlpbench.worker.timing.machine import Watch
from mlpbench.worker.timing.paths import Path, differences, disagreement
from mlpbench.worker.timing.systems import labels, md_steps, single


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Build the path, hold its labels to eager ones, and time it as ``speed`` times the eager path.

    Options: those of ``speed`` and ``path``.

    Returns ``prepare_seconds`` (until the first call's answer, compilation included), ``energy_difference`` (eV/atom)
    and ``force_difference`` (eV/Å) from eager, ``latency``, ``latency_again``, ``md`` (s, one value a block) and
    ``conditions``.

    Raises:
        Skip: the path cannot run here, or computes something else than the eager one.
    """
    path = Path(**options["path"])
    frames = Frames.load(adapter.request.frames[options["split"]])
    structures = frames.select(slice(min(options["n_frames"], len(frames)))).to_atoms()
    # Another deployment is held to eager in the same dtype; another dtype to the trial's own.
    truth = adapter.load(path.dtype if path.deployment != "eager" else None).calculator()
    expected = labels(truth, structures)
    start = time.perf_counter()
    calculator = deployed(adapter, options["path"])
    found = labels(calculator, structures[:1])
    prepare = time.perf_counter() - start
    found = labels(calculator, structures)
    energy, force = differences(found, expected)
    coarser = path if path.deployment != "eager" else Path("eager", "", "float32", path.tf32)
    reason = disagreement(coarser, energy, force)
    if reason:
        raise Skip(reason)
    watch = Watch(adapter.request.threads, adapter.request.device)
    clock = Clock(adapter.request.device, options["blocks"], options["block_seconds"])
    latency, again, discarded = clock.twice(single(calculator, structures))
    return {
        "prepare_seconds": prepare, "energy_difference": energy, "force_difference": force,
        "latency": latency, "latency_again": again, "warmup_blocks": discarded,
        "md": md_steps(clock, calculator, structures[0], options), "conditions": watch.report(),
    }  # fmt: skip


def deployed(adapter: Adapter, node: dict[str, Any]) -> Calculator:
    """The calculator of a path.

    Raises:
        Skip: it cannot run here.
    """
    path = Path(**node)
    potential = adapter.load(path.dtype)
    if path.tf32:
        adapter.allow_tf32()
    if path.deployment == "eager":
        return potential.calculator()
    try:
        return adapter.deploy(potential, path.means)
    except Unavailable as error:
        raise Skip(str(error)) from error
