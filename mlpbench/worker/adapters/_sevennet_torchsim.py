"""SevenNet's torch-sim model in any precision, and for left-handed cells."""

from __future__ import annotations

import copy
from typing import Any

import torch
from sevenn.torchsim import SevenNetModel
from torch_sim.neighbors import torch_nl_linked_cell


class SevenNetTorchSim(SevenNetModel):  # type: ignore[misc]  # sevenn has no annotations for it
    """SevenNet's batched model.

    Args:
        model: SevenNet's; it is changed.
        device: where it runs.
        dtype: of its weights. SevenNet's class refuses float64, and would round the weights.
    """

    def __init__(self, model: Any, device: str, dtype: torch.dtype) -> None:
        cuda = device.startswith("cuda")
        # torch-sim's own choice of a neighbour list is made for GPUs
        super().__init__(copy.deepcopy(model), neighbor_list_fn=None if cuda else torch_nl_linked_cell, device=device)
        self.model = model.to(device).eval()
        self._dtype = dtype

    def forward(self, state: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Energies (eV), forces (eV/Å) and stress (eV/Å³); SevenNet takes the signed volume of the cell."""
        left = torch.linalg.det(state.cell) < 0
        if bool(left.any()):
            state = state.clone()
            state.cell = torch.where(left[:, None, None], -state.cell, state.cell)  # the same lattice
        found: dict[str, torch.Tensor] = super().forward(state, **kwargs)
        return found
