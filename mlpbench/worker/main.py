"""The worker's run: say hello, then carry out the tasks of ``request.json`` one after another."""

from __future__ import annotations

import importlib
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

from mlpbench import turns
from mlpbench.protocol import EVENTS, HELLO, REQUEST, VERSION, EventLog, Request, Result, Status, Task, write_json
from mlpbench.worker.adapter import Adapter
from mlpbench.worker.process import die_with_parent
from mlpbench.worker.start import begin
from mlpbench.worker.tasks import Skip, find_task

TIMED = {"speed"}  # nothing else of ours may compute on this machine meanwhile
# check_options computes nothing; serve lasts as long as its user likes, and takes its turn for every answer.
WITHOUT_A_TURN = {"check_options", "check_start", "serve"}
WAITING = "waiting: another trial is at work on this machine"


def main(arguments: list[str]) -> int:
    """Carry out the request in the folder given as the only argument. 0: every task has a result; 3: no request."""
    if len(arguments) != 1:
        print("usage: bootstrap.py FOLDER   (a trial's folder, with its request.json)", file=sys.stderr)
        return 3
    die_with_parent()
    directory = Path(arguments[0])
    request = Request.read(directory / REQUEST)
    events = EventLog(directory / EVENTS)
    adapter_class = load_adapter(request.adapter)
    write_json(directory / HELLO, hello(adapter_class, request))
    events.write("hello")
    adapter = begin(adapter_class, request)
    for task in request.tasks:
        with _turn(task, lambda: events.write("progress", text=WAITING, waiting=True)):
            events.write("task", task=task.name)
            result = carry_out(task, adapter, events, on_device=request.device != "cpu")
        result.write(directory)
        events.write("result", task=task.name, status=result.status, reason=result.reason)
        if task.name == "train" and result.status != "done":
            break  # without a checkpoint nothing after it can be done
        if result.status == "interrupted":
            break  # the user wants it to end, not to go on with the next task
    write_json(directory / HELLO, hello(adapter_class, request))  # packages set TF32 and threads as they run
    return 0


def _turn(task: Task, waits: Callable[[], None]) -> AbstractContextManager[None]:
    if task.name in WITHOUT_A_TURN:
        return nullcontext()
    return turns.alone(waits) if task.name in TIMED else turns.beside_others(waits)


def load_adapter(name: str) -> type[Adapter]:
    """The class named ``module:Class``.

    Raises:
        ImportError: the module, or the package it adapts, cannot be imported.
        AttributeError: the module has no such class.
    """
    module, _, attribute = name.partition(":")
    adapter: type[Adapter] = getattr(importlib.import_module(module), attribute)
    return adapter


def carry_out(task: Task, adapter: Adapter, events: EventLog, *, on_device: bool) -> Result:
    """Do one task; whatever goes wrong becomes a status and a reason, and the traceback goes to the log.

    ``on_device``: whether the task runs on a device, whose memory is then measured; one that merely stands in the
    machine is left alone.
    """
    start = time.perf_counter()
    values: dict[str, Any] = {}
    status: Status = "done"
    reason = ""
    if on_device:
        _reset_device_memory()
    try:
        values = find_task(task.name)(adapter, task.options, events)
    except Skip as skip:
        status, reason = "skipped", str(skip)
    except KeyboardInterrupt:
        status, reason = "interrupted", "interrupted by the user; run the same command again to go on"
    except MemoryError:
        status, reason = "out_of_memory", _memory_advice("the machine's memory")
    except Exception as error:
        traceback.print_exc()
        if type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error).lower():
            status, reason = "out_of_memory", _memory_advice("the device's memory")
        else:
            status, reason = "failed", f"{type(error).__name__}: {error}"
    return Result(
        task=task.name,
        key=task.key,
        status=status,
        reason=reason,
        wall_seconds=time.perf_counter() - start,
        peak_memory_mb=peak_memory_mb(),
        peak_device_memory_mb=_peak_device_memory_mb() if on_device else None,
        values=values,
    )


def hello(adapter: type[Adapter], request: Request) -> dict[str, Any]:
    """Versions, interpreter and hardware as the worker sees them."""
    versions: dict[str, str] = {}
    for package in ("numpy", "ase", *adapter.packages):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "missing"
    facts: dict[str, Any] = {
        "version": VERSION,
        "pid": os.getpid(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "versions": versions,
        "threads": request.threads,
        "device": request.device,
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["torch"] = _torch_facts(torch, request.device)
    return facts


def _torch_facts(torch: Any, device: str) -> dict[str, Any]:
    """What of torch's state and device decides speed and rounding."""
    facts: dict[str, Any] = {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "tf32": _tf32(torch.backends.cuda.matmul),
        "tf32_convolution": _tf32(torch.backends.cudnn),
    }
    if device.startswith("cuda") and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(device)
        facts["device_name"] = properties.name
        facts["device_memory_mb"] = properties.total_memory / 1e6
        facts["compute_capability"] = f"{properties.major}.{properties.minor}"
        facts["cudnn"] = torch.backends.cudnn.version()
    return facts


def _tf32(backend: Any) -> bool:
    """Whether float32 is rounded to TF32; torch raises if the old setting is read after the new one was written."""
    try:
        return bool(backend.allow_tf32)
    except RuntimeError:
        backend = getattr(backend, "conv", backend)
        return str(backend.fp32_precision) == "tf32"


def peak_memory_mb() -> float:
    """Largest resident memory so far (10⁶ bytes) of this process, or of a program that it ran and waited for."""
    ran = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return max(_own_peak_mb(), ran)


def _own_peak_mb() -> float:
    if sys.platform == "linux":
        # getrusage starts from the size of the process that started this one; this counts from exec.
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        if lines:
            return int(lines[0].split()[1]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6  # kilobytes on Linux, bytes on macOS


def _reset_device_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _peak_device_memory_mb() -> float | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return float(torch.cuda.max_memory_allocated()) / 1e6


def _memory_advice(where: str) -> str:
    return (
        f"ran out of {where}: try a smaller training.batch_size or evaluation.batch_size, "
        "a smaller size preset, or dtype=float32"
    )
