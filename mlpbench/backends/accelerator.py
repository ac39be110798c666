"""Whether this machine can have a device for torch at all, told without torch."""

from __future__ import annotations

import os

# NVIDIA, NVIDIA under WSL, AMD. Asking torch itself takes seconds, and needs a torch.
_DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def driver_present() -> bool:
    """Whether the machine has a driver for a device that torch could use."""
    return any(os.path.exists(path) for path in _DEVICE_FILES)


def hidden() -> bool:
    """Whether ``CUDA_VISIBLE_DEVICES`` hides every device."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
