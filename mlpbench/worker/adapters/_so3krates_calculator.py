"""SO3krates' ASE calculator in any precision and for any cell; needs nothing of mlpbench, and goes with exports."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from so3krates_torch.blocks.so3_conv_invariants import L0Contraction
from so3krates_torch.calculator.so3 import TorchkratesCalculator
from so3krates_torch.modules.models import SO3LR, So3krates


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """torch's default dtype inside the block: the package makes its tensors in it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def build(options: Mapping[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """The network, with the physical terms of SO3LR around it where ``options`` has their settings."""
    kind = SO3LR if "zbl_repulsion_bool" in options else So3krates
    with default_dtype(dtype):
        model = kind(**{**options, "device": "cpu", "dtype": dtype}).to(dtype)
    for module in model.modules():
        if isinstance(module, L0Contraction):  # made in float32 whatever is asked for
            module.cg_rep = L0Contraction(module.degrees, dtype=dtype).cg_rep
    return model


class AnyCalculator(TorchkratesCalculator):
    """The package's calculator, with a stress for what repeats along all vectors.

    Args:
        model: in any precision.
        device: where it runs.
    """

    def __init__(self, model: torch.nn.Module, device: str) -> None:
        self.dtype = next(model.parameters()).dtype
        physical = isinstance(model, SO3LR)
        with default_dtype(self.dtype), contextlib.redirect_stdout(io.StringIO()):
            super().__init__(
                models=model, device=device, compute_stress=True, model_type="so3lr" if physical else "so3krates",
                r_max_lr=model.r_max_lr if physical else None, default_dtype=str(self.dtype).rpartition(".")[2],
            )  # fmt: skip

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Energy and forces, and the stress of what repeats along all vectors."""
        Calculator.calculate(self, atoms, list(properties), system_changes)
        assert self.atoms is not None
        periodic = bool(self.atoms.pbc.all())
        # Only what is there: charges or labels in the structure would be read too.
        plain = Atoms(self.atoms.numbers, self.atoms.positions, cell=self.atoms.cell, pbc=self.atoms.pbc)
        self.compute_stress = periodic
        with default_dtype(self.dtype):
            super().calculate(plain)
        self.atoms = atoms.copy() if atoms is not None else None
        found = self.results
        self.results = {"energy": float(found["energy"]), "free_energy": float(found["energy"])}
        self.results["forces"] = np.array(found["forces"])
        if periodic:
            self.results["stress"] = np.array(found["stress"])


def package_calculator(folder: Path, device: str) -> AnyCalculator:
    """The calculator of an exported folder, energies without the reference energies of the data."""
    state = torch.load(folder / "model.pt", map_location="cpu", weights_only=True)
    weights = state["weights"]
    model = build(state["options"], next(value.dtype for value in weights.values() if value.is_floating_point()))
    model.load_state_dict(weights)
    return AnyCalculator(model.eval(), device)
