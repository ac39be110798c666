"""MACE's own faster paths: ``torch.compile`` through its calculator, and the kernels of NVIDIA and OpenEquivariance."""

from __future__ import annotations

import copy
from typing import Any

from ase.calculators.calculator import Calculator
from mace.calculators import MACECalculator
from mace.calculators import mace as calculators

from mlpbench.worker.adapter import Unavailable

DEPLOYMENTS = {"compiled": ("torch.compile",), "accelerated": ("cuEquivariance", "OpenEquivariance")}

_KERNELS = {"cuEquivariance": "enable_cueq", "OpenEquivariance": "enable_oeq"}
_INSTALLED = {"cuEquivariance": calculators.CUEQQ_AVAILABLE, "OpenEquivariance": calculators.OEQ_AVAILABLE}
_PACKAGES = {"cuEquivariance": "cuequivariance-torch and its CUDA operations", "OpenEquivariance": "openequivariance"}


def deploy(model: Any, device: str, means: str) -> Calculator:
    """MACE's calculator around a copy of ``model``, with the default dtype already set to the model's.

    Raises:
        Unavailable: kernels that are not installed.
    """
    name = str(next(model.parameters()).dtype).removeprefix("torch.")
    settings: dict[str, Any] = {"device": device, "default_dtype": name}
    if means == "torch.compile":
        # Padded to a fixed number of edges by MACE: a new size, or a denser frame, compiles once more.
        return MACECalculator(models=[copy.deepcopy(model)], compile_mode="default", **settings)
    if not _INSTALLED[means]:
        raise Unavailable(f"not installed; adopt an environment with {_PACKAGES[means]} (backend.mace.python)")
    return MACECalculator(models=[copy.deepcopy(model)], **{_KERNELS[means]: True}, **settings)
