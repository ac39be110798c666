"""Time a potential: single calls, batches, MD steps, growing systems, and the other ways to run it.

Warm-up is discarded until the times are stationary; inputs change at every call, so that nothing can be cached; the
device is synchronised around each block; the same thing is timed twice, interleaved, as a noise floor. The eager path
in the trial's own dtype is timed here. Every other path, and systems that grow until memory ends, are timed in
processes of their own, one after the other.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from mlpbench.frames import Frames
from mlpbench.protocol import EVENTS, EventLog, Result, read_events
from mlpbench.worker.adapter import Adapter, Potential
from mlpbench.worker.tasks import scaling
from mlpbench.worker.timing import paths
from mlpbench.worker.timing.child import run_child, total_memory_mb
from mlpbench.worker.timing.clock import Clock
from mlpbench.worker.timing.machine import Watch
from mlpbench.worker.timing.systems import each, md_steps, single

FOLDER = "speed"


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: see ``conf/evaluation/fast.yaml``, node ``speed``.

    Returns lists of seconds, one a block: ``latency``, ``latency_again`` (the A/A twin), ``neighbours`` (the part of a
    call before the forward pass; empty where the package does not have it apart), ``batched``, ``md``; ``scaling`` (see
    :func:`mlpbench.worker.tasks.scaling.series`); ``conditions`` (see :class:`Watch`); and ``paths``: of each further
    path its settings, ``status``, ``reason``, and what :mod:`mlpbench.worker.tasks.speed_path` returns.
    """
    potential = adapter.load()
    frames = Frames.load(adapter.request.frames[options["split"]])
    frames = frames.select(slice(min(options["n_frames"], len(frames))))
    clock = Clock(adapter.request.device, options["blocks"], options["block_seconds"])
    found: dict[str, Any] = {"n_atoms": float(np.mean(frames.n_atoms)), "timestep_fs": options["timestep_fs"]}
    watch = Watch(adapter.request.threads, adapter.request.device)
    structures = frames.to_atoms()
    calculator = potential.calculator()
    found["latency"], found["latency_again"], found["warmup_blocks"] = clock.twice(single(calculator, structures))
    prepare = potential.neighbours(calculator)
    found["neighbours"] = clock.times(each(prepare, structures)) if prepare is not None else []
    events.write("progress", text="timed single calls")
    found["batched"] = [_batched(clock, potential, frames, size) for size in options["batch_sizes"]]
    events.write("progress", text="timed batches")
    found["md"] = md_steps(clock, calculator, structures[0], options)
    events.write("progress", text="timed MD steps")
    if options["memory_fraction"] is None:
        found["scaling"] = list(scaling.series(adapter, calculator, options, events))
    found["conditions"] = watch.report()
    del potential, calculator
    _give_back(adapter.request.device)
    eager = paths.Path("eager", "", adapter.request.dtype, False)
    if options["memory_fraction"] is not None:
        found["scaling"] = _until_memory_ends(adapter, eager, options)
        events.write("progress", text="timed growing systems")
    planned = paths.plan(options, adapter.request.dtype, adapter.request.device, adapter.deployments)
    found["paths"] = [_path(adapter, path, options, events) for path in planned]
    return found


def _batched(clock: Clock, potential: Potential, frames: Frames, size: int) -> dict[str, Any]:
    """Seconds per frame in batches of ``size``; frames repeat where there are fewer."""
    batch = frames.select(np.arange(size) % len(frames))
    times = clock.times(lambda: potential.predict(batch, size))
    return {"batch_size": size, "seconds_per_frame": [value / size for value in times]}


def _path(adapter: Adapter, path: paths.Path, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """One further path: its settings, how it ended, and its times."""
    if path.reason:
        return {**path.to_dict(), "status": "skipped", "reason": path.reason}
    result = run_child(
        adapter.request, adapter.directory / FOLDER / path.label, "speed_path",
        {**options, "path": asdict(path)}, seconds=options["path_seconds"],
    )  # fmt: skip
    events.write("progress", text=f"{path.label}: {result.status}")
    peak = (result.peak_device_memory_mb or result.peak_memory_mb) if result.status == "done" else None
    return {
        **path.to_dict(), "status": result.status, "reason": result.reason, "peak_memory_mb": peak, **result.values
    }


def _until_memory_ends(adapter: Adapter, path: paths.Path, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The scaling series in a child: on a CPU up to a share of the memory, on a GPU until it is out of memory."""
    folder = adapter.directory / FOLDER / "scaling"
    cap = None if adapter.request.device.startswith("cuda") else options["memory_fraction"] * total_memory_mb()
    result = run_child(
        adapter.request, folder, "scaling", {**options, "path": asdict(path), "forever": True},
        seconds=options["path_seconds"], cap_mb=cap,
    )  # fmt: skip
    if result.status == "done":
        found: list[dict[str, Any]] = result.values["scaling"]
        return found
    return _what_was_reached(list(read_events(folder / EVENTS)), result)


def _what_was_reached(events: list[dict[str, Any]], result: Result) -> list[dict[str, Any]]:
    """The sizes that a child finished before it ended, and the one that it ended at."""
    kept = ("n_atoms", "seconds", "peak_mb")
    done = [{key: event[key] for key in kept} for event in events if event["event"] == "size"]
    begun = [event["n_atoms"] for event in events if event["event"] == "growing"]
    last = begun[-1] if begun else 0
    return [*done, {"n_atoms": last, "seconds": [], "stopped": result.reason or result.status}]


def _give_back(device: str) -> None:
    """Free the device's memory for the children."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
