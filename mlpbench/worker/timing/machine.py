"""The machine while something is timed: other processes, the clock of the cores, the energy that a device used."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import Any

OTHERS = 0.25  # cores; above this the timing says that the machine was busy
SLOWER = 0.95  # of the clock at the start; below this the timing says that the clock fell

PROC = Path("/proc")


class Watch:
    """From its creation to :meth:`report`: load, other processes' share of the cores, clock.

    Args:
        threads: of the numerical libraries, for the record.
        device: likewise.
    """

    def __init__(self, threads: int, device: str) -> None:
        self._facts = {"threads": threads, "device": device}
        self._start = time.perf_counter()
        self._load = os.getloadavg()[0]
        self._busy = busy_seconds()
        self._own = own_seconds()
        self._clock = clock_mhz()

    def report(self) -> dict[str, Any]:
        """The conditions of what was timed since.

        ``load`` (one-minute average at start and end), ``others_cores`` (cores that other processes kept busy on
        average; None where the system does not tell), ``clock_mhz`` (mean over cores at start and end, or None),
        ``cores`` (usable), ``threads``, ``device``, ``busy`` and ``notice`` (what a reader must know; empty if quiet).
        """
        seconds = time.perf_counter() - self._start
        now = busy_seconds()
        others = None
        if now is not None and self._busy is not None:
            others = max(0.0, (now - self._busy - (own_seconds() - self._own)) / max(seconds, 0.1))
        clock = (self._clock, clock_mhz())
        notices = []
        if others is not None and others > OTHERS:
            notices.append(f"other processes kept {others:.1f} cores busy")
        if clock[0] and clock[1] and clock[1] < SLOWER * clock[0]:
            notices.append(f"the clock fell from {clock[0]:.0f} to {clock[1]:.0f} MHz")
        return {
            **self._facts, "seconds": seconds, "load": [self._load, os.getloadavg()[0]], "others_cores": others,
            "clock_mhz": list(clock) if clock[0] and clock[1] else None, "cores": usable_cores(),
            "busy": bool(notices), "notice": "; ".join(notices),
        }  # fmt: skip


def usable_cores() -> int:
    """Logical cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def own_seconds() -> float:
    """CPU seconds of this process, and of children it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def busy_seconds() -> float | None:
    """CPU seconds that all cores of the machine have spent on anything but idling; None without ``/proc/stat``."""
    try:
        fields = (PROC / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    ticks = [int(field) for field in fields]
    # user nice system idle iowait irq softirq steal; guest time is in user already
    return float(sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def clock_mhz() -> float | None:
    """Mean clock of the cores now; None where the system does not tell."""
    try:
        text = (PROC / "cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = [float(line.split(":")[1]) for line in text.splitlines() if line.startswith("cpu MHz")]
    return sum(found) / len(found) if found else None


LIBRARY = "libnvidia-ml.so.1"  # comes with the driver


class EnergyMeter:
    """Counts from its creation on.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:N`` as torch counts them.
    """

    def __init__(self, device: str) -> None:
        self._uuid = _uuid(device) if device.startswith("cuda") else None
        self._start = self._read()

    def watt_hours(self) -> float | None:
        """Wh since then; None where there is no counter (before Volta, in some virtual machines, on CPUs)."""
        now = self._read()
        return None if now is None or self._start is None else (now - self._start) / 3.6e6  # from mJ

    def _read(self) -> int | None:
        """The counter in mJ since the driver was loaded."""
        if self._uuid is None:
            return None
        try:
            nvml = ctypes.CDLL(LIBRARY)
        except OSError:
            return None
        handle, value = ctypes.c_void_p(), ctypes.c_ulonglong()
        found = (  # each is 0 for success, and is not called where one before it failed
            nvml.nvmlInit_v2() == 0
            and nvml.nvmlDeviceGetHandleByUUID(self._uuid, ctypes.byref(handle)) == 0
            and nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value)) == 0
        )
        return int(value.value) if found else None


def _uuid(device: str) -> bytes:
    import torch  # only where there is a CUDA device

    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return (uuid if uuid.startswith("GPU-") else f"GPU-{uuid}").encode()
