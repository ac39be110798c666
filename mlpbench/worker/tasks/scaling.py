"""Growing systems until calls take too long or memory runs out; a task of a child process of ``speed``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mlpbench.frames import Frames
from mlpbench.protocol import EventLog
from mlpbench.worker.adapter import Adapter
from mlpbench.worker.main import peak_memory_mb
from mlpbench.worker.timing.clock import Clock
from mlpbench.worker.timing.systems import grown, single

SYSTEMS = 4  # different structures of a size, in turn
SLOW_BLOCKS = 3  # of a call that takes longer than a block: enough for a curve


def run(adapter: Adapter, options: dict[str, Any], events: EventLog) -> dict[str, Any]:
    """Options: as :func:`series`, with ``path`` (see :mod:`mlpbench.worker.tasks.speed_path`) and ``forever``.

    Each size is written as an event ``size`` as soon as it is done, so that it is known whatever happens to the next.
    """
    from mlpbench.worker.tasks.speed_path import deployed

    calculator = deployed(adapter, options["path"])
    return {"scaling": list(series(adapter, calculator, options, events))}


def series(
    adapter: Adapter, calculator: Any, options: dict[str, Any], events: EventLog
) -> Iterator[dict[str, Any]]:
    """``n_atoms``, ``seconds`` (one value a block) and ``peak_mb`` of each size; the last may say why it ``stopped``.

    Options: ``split``, ``n_frames``, ``blocks``, ``block_seconds``, ``copies`` (of the system, side by side),
    ``max_seconds_per_call``, ``forever``: after the last of ``copies`` go on doubling.
    """
    frames = Frames.load(adapter.request.frames[options["split"]])
    structures = frames.select(slice(min(options["n_frames"], len(frames)))).to_atoms()[:SYSTEMS]
    clock = Clock(adapter.request.device, options["blocks"], options["block_seconds"])
    for copies in _copies(options["copies"], bool(options.get("forever"))):
        found: dict[str, Any] = {"n_atoms": len(structures[0]) * copies}
        events.write("growing", **found)
        try:
            call = single(calculator, [grown(atoms, copies) for atoms in structures])
            first = clock.block(call, 1)
            if first > options["max_seconds_per_call"]:
                limit = options["max_seconds_per_call"]
                yield {**found, "seconds": [first], "stopped": f"a call takes longer than {limit:g} s"}
                return
            slow = first > clock.seconds  # it fills a block by itself, and is warm after one
            found["seconds"] = [clock.block(call, 1) for _ in range(SLOW_BLOCKS)] if slow else clock.times(call)
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, MemoryError) and not _says_memory(error):
                raise
            yield {**found, "seconds": [], "stopped": "out of memory"}
            return
        found["peak_mb"] = _peak_mb(adapter.request.device)
        events.write("size", **found)
        yield found


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
