"""Energy that an NVIDIA device used meanwhile, from its own counter (NVML); other devices do not tell."""

from __future__ import annotations

import ctypes

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
