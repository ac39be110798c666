"""Time a potential: single calls, batches, MD steps, growing systems, and its other deployments.

Warm-up is discarded until the times are stationary; inputs change at every call, so that nothing can be cached; the
device is synchronised around each block; the same thing is timed twice, interleaved, as a noise floor. The eager path
in the trial's own dtype is timed here. Every other path, and systems that grow until memory ends, are timed in
processes of their own, one after the other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator

from mlpbench.frames import Frames
from mlpbench.protocol import EVENTS, EventLog, Result, read_events
from mlpbench.worker import paths
from mlpbench.worker.adapter import Adapter, Potential, Unavailable
from mlpbench.worker.clock import Clock, Watch, each, grown, labels, md_steps, single
from mlpbench.worker.main import peak_memory_mb
from mlpbench.worker.paths import Deployment, differences, disagreement, run_child, total_memory_mb
from mlpbench.worker.tasks import Skip, engines

FOLDER = "speed"


def speed(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: see ``conf/evaluation/fast.yaml``, node ``speed``.

    Returns lists of seconds, one a block: ``latency``, ``latency_again`` (the A/A twin), ``neighbours`` (the part of a
    call before the forward pass; empty where the package does not have it apart), ``batched``, ``md``; ``scaling`` (see
    :func:`series`); ``conditions`` (see :class:`Watch`); ``paths``: of each further
    path its settings, ``status``, ``reason``, and what :func:`speed_path` returns; and, where asked for, ``engines``
    (see :func:`mlpbench.worker.tasks.engines.rows`).
    """
    potential = adapter.load()
    frames = Frames.load(adapter.request.frames[options["split"]])
    frames = frames.select(slice(min(options["n_frames"], len(frames))))
    clock = Clock(adapter.request.device, options["blocks"], options["block_seconds"])
    values: dict[str, Any] = {"n_atoms": float(np.mean(frames.n_atoms)), "timestep_fs": options["timestep_fs"]}
    watch = Watch(adapter.request.threads, adapter.request.device)
    structures = frames.to_atoms()
    calculator = potential.calculator()
    values["latency"], values["latency_again"], values["warmup_blocks"] = clock.twice(single(calculator, structures))
    prepare = potential.neighbours(calculator)
    values["neighbours"] = clock.times(each(prepare, structures)) if prepare is not None else []
    events.write("progress", text="timed single calls")
    values["batched"] = [_batched(clock, potential, frames, size) for size in options["batch_sizes"]]
    events.write("progress", text="timed batches")
    values["md"] = md_steps(clock, calculator, structures[0], options)
    events.write("progress", text="timed MD steps")
    if options["memory_fraction"] is None:
        values["scaling"] = list(series(adapter, calculator, options, events))
    values["conditions"] = watch.report()
    del potential, calculator
    _give_back(adapter.request.device)
    eager = paths.Deployment("eager", "", adapter.request.dtype, False)
    if options["memory_fraction"] is not None:
        values["scaling"] = _until_memory_ends(adapter, eager, options)
        events.write("progress", text="timed growing systems")
    planned = paths.plan(options, adapter.request.dtype, adapter.request.device, adapter.deployments)
    values["paths"] = [_path(adapter, path, options, events) for path in planned]
    if options.get("engines"):
        values["engines"] = list(engines.rows(adapter, options, adapter.directory / FOLDER, events))
    return values


def _batched(clock: Clock, potential: Potential, frames: Frames, size: int) -> dict[str, Any]:
    """Seconds per frame in batches of ``size``; frames repeat where there are fewer."""
    batch = frames.select(np.arange(size) % len(frames))
    times = clock.times(lambda: potential.predict(batch, size))
    return {"batch_size": size, "seconds_per_frame": [value / size for value in times]}


def _path(adapter: Adapter, path: paths.Deployment, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """One further path: its settings, how it ended, and its times."""
    if path.reason:
        return {**path.to_dict(), "status": "skipped", "reason": path.reason}
    result = run_child(
        adapter.request, adapter.directory / FOLDER / path.label, "speed_path",
        {**options, "path": asdict(path)}, seconds=options["path_seconds"],
    )  # fmt: skip
    events.write("progress", text=f"{path.label}: {result.status}")
    peak = (result.peak_device_memory_mb or result.peak_memory_mb) if result.status == "done" else None
    return {**path.to_dict(), "status": result.status, "reason": result.reason, "peak_memory_mb": peak, **result.values}


def _until_memory_ends(adapter: Adapter, path: paths.Deployment, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The scaling series in a child: on a CPU up to a share of the memory, on a GPU until it is out of memory."""
    folder = adapter.directory / FOLDER / "scaling"
    cap = None if adapter.request.device.startswith("cuda") else options["memory_fraction"] * total_memory_mb()
    result = run_child(
        adapter.request, folder, "scaling", {**options, "path": asdict(path), "forever": True},
        seconds=options["path_seconds"], cap_mb=cap,
    )  # fmt: skip
    if result.status == "done":
        sizes: list[dict[str, Any]] = result.values["scaling"]
        return sizes
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


def speed_path(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Build the path, hold its labels to eager ones, and time it as ``speed`` times the eager path.

    Options: those of ``speed`` and ``path``.

    Returns ``prepare_seconds`` (until the first call's answer, compilation included), ``energy_difference`` (eV/atom)
    and ``force_difference`` (eV/Å) from eager, ``latency``, ``latency_again``, ``md`` (s, one value a block) and
    ``conditions``.

    Raises:
        Skip: the path cannot run here, or computes something else than the eager one.
    """
    path = Deployment(**options["path"])
    frames = Frames.load(adapter.request.frames[options["split"]])
    structures = frames.select(slice(min(options["n_frames"], len(frames)))).to_atoms()
    # Another deployment is compared with eager in the same dtype; another dtype to the trial's own.
    truth = _loaded(adapter, path.dtype if path.deployment != "eager" else None).calculator()
    expected = labels(truth, structures)
    start = time.perf_counter()
    calculator = deployed(adapter, options["path"])
    answer = labels(calculator, structures[:1])
    prepare = time.perf_counter() - start
    answer = labels(calculator, structures)
    energy, force = differences(answer, expected)
    coarser = path if path.deployment != "eager" else Deployment("eager", "", "float32", path.tf32)
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
    path = Deployment(**node)
    potential = _loaded(adapter, path.dtype)
    if path.tf32:
        adapter.allow_tf32()
    if path.deployment == "eager":
        return potential.calculator()
    try:
        return adapter.deploy(potential, path.means)
    except Unavailable as error:
        raise Skip(str(error)) from error


def _loaded(adapter: Adapter, dtype: str | None) -> Potential:
    """The potential in ``dtype``.

    Raises:
        Skip: the package does not compute in it.
    """
    try:
        return adapter.load(dtype)
    except Unavailable as error:
        raise Skip(str(error)) from error


SYSTEMS = 4  # different structures of a size, in turn
SLOW_BLOCKS = 3  # of a call that takes longer than a block: enough for a curve


def scaling(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: as :func:`series`, with ``path`` (see :func:`speed_path`) and ``forever``.

    Each size is written as an event ``size`` as soon as it is done, so that it is known whatever happens to the next.
    """
    calculator = deployed(adapter, options["path"])
    return {"scaling": list(series(adapter, calculator, options, events))}


def series(adapter: Adapter, calculator: Any, options: dict[str, Any], events: EventLog) -> Iterator[dict[str, Any]]:
    """``n_atoms``, ``seconds`` (one value a block) and ``peak_mb`` of each size; the last may say why it ``stopped``.

    Options: ``split``, ``n_frames``, ``blocks``, ``block_seconds``, ``copies`` (of the system, side by side),
    ``max_seconds_per_call``, ``forever``: after the last of ``copies`` go on doubling.
    """
    frames = Frames.load(adapter.request.frames[options["split"]])
    structures = frames.select(slice(min(options["n_frames"], len(frames)))).to_atoms()[:SYSTEMS]
    clock = Clock(adapter.request.device, options["blocks"], options["block_seconds"])
    for copies in _copies(options["copies"], bool(options.get("forever"))):
        size: dict[str, Any] = {"n_atoms": len(structures[0]) * copies}
        events.write("growing", **size)
        try:
            call = single(calculator, [grown(atoms, copies) for atoms in structures])
            first = clock.block(call, 1)
            if first > options["max_seconds_per_call"]:
                limit = options["max_seconds_per_call"]
                yield {**size, "seconds": [first], "stopped": f"a call takes longer than {limit:g} s"}
                return
            slow = first > clock.seconds  # it fills a block by itself, and is warm after one
            size["seconds"] = [clock.block(call, 1) for _ in range(SLOW_BLOCKS)] if slow else clock.times(call)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not _says_memory(error):
                raise
            yield {**size, "seconds": [], "stopped": "out of memory"}
            return
        size["peak_mb"] = _peak_mb(adapter.request.device)
        events.write("size", **size)
        yield size


def _copies(listed: Sequence[int], forever: bool) -> Iterator[int]:
    yield from listed
    copies = listed[-1] if listed else 1
    while forever:
        copies *= 2
        yield copies


def _says_memory(error: RuntimeError) -> bool:
    """torch says so in words: its allocator on a CPU raises a plain RuntimeError."""
    text = str(error).lower()
    return "out of memory" in text or "not enough memory" in text or "can't allocate memory" in text


def _peak_mb(device: str) -> float:
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    return peak_memory_mb()
