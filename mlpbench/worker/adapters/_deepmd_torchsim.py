"""DeePMD-kit's potentials in torch-sim: all systems of a state in one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch_sim.models.interface import ModelInterface
from torch_sim.neighbors import torchsim_nl

from mlpbench.worker.adapters._deepmd_model import Batch

PAIRS_AT_MOST = 2_000_000  # pairs of all atoms of all molecules that are looked at one by one


class DeepmdTorchSim(ModelInterface):
    """A torch-sim model around a potential, with stress.

    A system in which an atom has more neighbours than the potential has places for gets NaN: DeePMD-kit would leave
    out the farthest.

    Args:
        potential: a ``DeepmdPotential``.
    """

    def __init__(self, potential: Any) -> None:
        super().__init__()
        self.potential = potential
        self._device = torch.device(potential.net.device)
        self._dtype = torch.float64  # of positions, energies and forces, whatever the networks have
        self._compute_forces = self._compute_stress = True
        largest = max(potential.net.elements)
        self._place = torch.full((largest + 1,), -1, device=self._device)
        for place, number in enumerate(potential.net.elements):
            self._place[number] = place

    @ModelInterface.compute_stress.setter
    def compute_stress(self, compute_stress: bool) -> None:
        """Stress comes with the energy whatever is asked for."""
        self._compute_stress = compute_stress

    @ModelInterface.compute_forces.setter
    def compute_forces(self, compute_forces: bool) -> None:
        """Forces come with the energy whatever is asked for."""
        self._compute_forces = compute_forces

    def forward(self, state: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Of S systems: ``energy`` (S,) eV, ``forces`` (n, 3) eV/Å, ``stress`` (S, 3, 3) eV/Å³, NaN without a volume.

        Raises:
            ValueError: an element that the potential does not know.
        """
        positions, cell = state.positions.detach().to(self._dtype), state.row_vector_cell.to(self._dtype)
        pbc = torch.as_tensor(state.pbc, device=self._device).reshape(-1, 3).expand(state.n_systems, 3)
        numbers = state.atomic_numbers.long()
        if int(numbers.max()) >= len(self._place) or bool((self._place[numbers] < 0).any()):
            raise ValueError(f"the potential knows the elements {self.potential.net.elements} (atomic numbers) only")
        centre, neighbour, offset = self._neighbours(positions, cell, pbc, state.system_idx)
        volume = torch.linalg.det(cell).abs()
        batch = Batch(
            types=self._place[numbers],
            positions=positions,
            frame=state.system_idx,
            volume=torch.where(pbc.all(dim=1) & (volume > 0), volume, torch.nan),
            centre=centre,
            neighbour=neighbour,
            offset=offset,
        )
        net = self.potential.net
        net.model.eval()
        found, full = net.evaluate(batch), net.crowded(batch)
        return {
            "energy": found["energy"].detach().masked_fill(full, torch.nan),
            "forces": found["forces"].detach().masked_fill(full[batch.frame][:, None], torch.nan),
            "stress": found["stress"].detach().masked_fill(full[:, None, None], torch.nan),
        }

    def _neighbours(
        self, positions: torch.Tensor, cell: torch.Tensor, pbc: torch.Tensor, system_idx: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Centres in ascending order, neighbours, and (pairs, 3) Å offsets of the neighbours' images."""
        sizes = torch.bincount(system_idx)
        cutoff = self.potential.net.cutoff
        if not pbc.any() and len(positions) * int(sizes.max()) <= PAIRS_AT_MOST:
            first = (torch.cumsum(sizes, 0) - sizes)[system_idx]
            centre = torch.arange(len(positions), device=sizes.device).repeat_interleave(sizes[system_idx])
            start = torch.cumsum(sizes[system_idx], 0) - sizes[system_idx]
            neighbour = torch.arange(len(centre), device=sizes.device) - start[centre] + first[centre]
            distance = (positions[neighbour] - positions[centre]).norm(dim=1)
            near = (distance < cutoff) & (centre != neighbour)
            return centre[near], neighbour[near], positions.new_zeros(int(near.sum()), 3)
        mapping, system_of_pair, shifts = torchsim_nl(positions, cell, pbc, cutoff, system_idx)
        offset = torch.einsum("pi,pij->pj", shifts.to(cell.dtype), cell[system_of_pair])
        order = torch.argsort(mapping[0], stable=True)
        return mapping[0][order], mapping[1][order], offset[order]
