"""Which device a trial runs on, and what the machine is made of."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from mlpbench import turns
from mlpbench.backends.environment import Environment
from mlpbench.backends.probe import driver_present, hidden, probe, run_python
from mlpbench.backends.registry import home
from mlpbench.errors import UserError
from mlpbench.protocol import replacing

_ASK_TORCH = (
    "import json, torch\n"
    "print('mlpbench-devices:' + json.dumps({'version': torch.__version__, 'cuda': torch.version.cuda, "
    "'hip': torch.version.hip, "
    "'devices': [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]}))"
)


def resolve_device(device: str, environment: Environment) -> str:
    """``cpu``, ``cuda`` or ``cuda:N`` for what was configured; ``auto``: ``cuda`` where torch sees one.

    Indices count the devices that ``CUDA_VISIBLE_DEVICES`` leaves visible, as torch counts them.

    Raises:
        UserError: it is none of these, or the backend's torch does not see that device.
    """
    if device == "cpu":
        return "cpu"
    if device != "auto" and not re.fullmatch(r"cuda(:\d+)?", device):
        raise UserError(f"device={device} is not known", "Use device=auto, cpu, cuda or cuda:N.")
    if device == "auto":
        return _auto(environment)
    names = torch_devices(environment) if accelerator_present() else []
    index = int(device.partition(":")[2] or 0)
    if index >= len(names):
        seen = (
            f"it sees {', '.join(f'cuda:{i} {name}' for i, name in enumerate(names))}"
            if names
            else _why_none(environment)
        )
        raise UserError(
            f"device={device}: the torch of backend '{environment.name}' sees no such device; {seen}",
            "Use device=auto or device=cpu, or see: mlpbench doctor",
        )
    return device


def require_locks() -> None:
    """Look at the folder of this machine's locks, before anything takes one.

    Raises:
        UserError: it cannot be made, or may be another user's doing.
    """
    try:
        turns.safe_place()
    except turns.Unsafe as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(
            f"the folder of this machine's locks, {turns.place()}, cannot be made: {error.strerror}",
            "Set MLPBENCH_TURNS to a folder of your own on this machine.",
        ) from error


@contextmanager
def one_device(device: str, environment: Environment) -> Iterator[str]:
    """The device to run a trial on, held while it runs: of several that ``cuda`` leaves open the one used least.

    Trials that run at the same time (``hydra/launcher=joblib``, several commands) are spread over all visible devices.
    Other devices are returned as they are.

    Raises:
        UserError: the folder of this machine's locks cannot be used.
    """
    require_locks()
    names = torch_devices(environment) if device == "cuda" else []
    if len(names) < 2:
        yield device
        return
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    # As the machine names them: what is cuda:0 here may be cuda:1 to another command.
    seats = [f"device-{visible[i] if i < len(visible) else i}" for i in range(len(names))]
    with turns.least_used(seats) as seat:
        yield f"cuda:{seats.index(seat)}"


def _auto(environment: Environment) -> str:
    if not accelerator_present():
        return "cpu"
    report = torch_report(environment)
    if not report or report["devices"]:
        return "cuda" if report else "cpu"
    if report["cuda"] is None and report["hip"] is None and nvidia():
        # Built where there was no GPU, such as a login node: slow in silence is the worst of answers.
        raise UserError(
            f"this machine has {nvidia()[0]['name']}, but the torch of backend '{environment.name}' is a CPU build",
            f"Run: mlpbench env build {environment.name} --rebuild --torch default, or say device=cpu",
        )
    return "cpu"


def accelerator_present() -> bool:
    """Whether this machine has a driver for a device torch could use, and it is not hidden."""
    return driver_present() and not hidden()


def torch_devices(environment: Environment) -> list[str]:
    """Names of the devices that the backend's torch sees; asked once for each machine and driver.

    Raises:
        UserError: its torch cannot be imported.
    """
    return list(torch_report(environment).get("devices", []))


def torch_report(environment: Environment) -> dict[str, Any]:
    """``version``, ``cuda`` (the version torch was built for, or None) and ``devices``; empty without torch.

    Raises:
        UserError: its torch cannot be imported.
    """
    installed = probe(environment.python, environment.pythonpath)
    if not installed.torch:
        return {}
    # What the answer depends on; the paths' times change when another torch is put there.
    depends = [
        str(environment.python), *environment.pythonpath, environment.lock,
        json.dumps(installed.paths, sort_keys=True),
        os.environ.get("CUDA_VISIBLE_DEVICES", "all"), *(str(gpu) for gpu in nvidia()),
        platform.node(),
    ]  # fmt: skip
    cached = home() / "probes" / f"torch-{hashlib.sha256(chr(0).join(depends).encode()).hexdigest()[:24]}.json"
    try:
        return dict(json.loads(cached.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        report = _ask_torch(environment)
    try:
        with replacing(cached) as part:
            part.write_text(json.dumps(report), encoding="utf-8")
    except OSError:
        return report  # a home that cannot be written to costs some seconds each time, and nothing else
    return report


def hardware() -> dict[str, Any]:
    """What speed depends on, for the record; no host name.

    Keys: ``cpu`` (model), ``cores`` (physical ones of the machine), ``threads_usable`` (logical ones this
    process may use), ``memory_gb`` (10⁹ bytes), ``os``, ``gpus`` (list of ``name``, ``driver``,
    ``memory_mb``; NVIDIA only).
    """
    return dict(_hardware())


@cache
def _hardware() -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(logical=False) or 0,
        "threads_usable": _usable_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "gpus": nvidia(),
    }


@cache
def _nvidia() -> tuple[tuple[str, str, float], ...]:
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return ()
    query = [smi, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()  # a driver that hangs is doctor's business, not a reason to fail
    if done.returncode != 0:
        return ()
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines() if line.count(",") == 2]
    return tuple((name, driver, float(memory) * 1.048576 if memory.isdigit() else 0.0) for name, driver, memory in rows)


def nvidia() -> list[dict[str, Any]]:
    """NVIDIA devices by ``nvidia-smi``: ``name``, ``driver``, ``memory_mb`` (10⁶ bytes; 0: not told)."""
    return [{"name": name, "driver": driver, "memory_mb": round(memory)} for name, driver, memory in _nvidia()]


def _ask_torch(environment: Environment) -> dict[str, Any]:
    done = run_python(environment.python, _ASK_TORCH, environment.pythonpath, timeout=600)
    for line in done.stdout.splitlines():
        if line.startswith("mlpbench-devices:"):
            return dict(json.loads(line.removeprefix("mlpbench-devices:")))
    last = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
    raise UserError(f"the torch of backend '{environment.name}' cannot be imported: {last}",
                    f"See: mlpbench env check {environment.name}")  # fmt: skip


def _why_none(environment: Environment) -> str:
    if hidden():
        return f"CUDA_VISIBLE_DEVICES='{os.environ['CUDA_VISIBLE_DEVICES']}' hides them all"
    if not driver_present():
        return "this machine has no driver for one"
    report = torch_report(environment)
    if not report:
        return "the backend has no torch"
    return (
        "it was built for the CPU only"
        if report["cuda"] is None and report["hip"] is None
        else "the driver and torch are incompatible"
    )


def _usable_threads() -> int:
    """Logical cores this process may use: its affinity, which a batch system narrows."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        query = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or platform.machine()
