"""SchNetPack's faster paths: scripted as its ``spkdeploy`` does it for LAMMPS, and ``torch.compile``."""

from __future__ import annotations

import copy
from typing import Any

import torch
from ase.calculators.calculator import Calculator

DEPLOYMENTS = {"compiled": ("TorchScript", "torch.compile")}


def deploy(calculator: Calculator, means: str) -> Calculator:
    """``calculator``, with its model scripted or compiled. The model's postprocessors must not change its dtype."""
    model: Any = copy.deepcopy(calculator.model)  # type: ignore[attr-defined]  # SchNetPack's
    if means == "TorchScript":
        # spkdeploy drops casts, the only postprocessors of ours; offsets are added outside, in float64.
        model.postprocessors = torch.nn.ModuleList()
        calculator.model = torch.jit.script(model)  # type: ignore[attr-defined]
    else:
        calculator.model = torch.compile(model, dynamic=True)  # type: ignore[attr-defined]
    return calculator
