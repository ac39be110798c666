"""SchNetPack's potentials in torch-sim: all systems of a state in one forward pass."""

from __future__ import annotations

from typing import Any

import torch
from schnetpack import properties
from torch_sim.models.interface import ModelInterface
from torch_sim.neighbors import torchsim_nl

PAIRS_AT_MOST = 2_000_000  # pairs of all atoms of all molecules that are looked at one by one


class SchnetpackTorchSim(ModelInterface):
    """A torch-sim model around a potential.

    Molecules without periodicity have all their pairs measured, and the list of pairs is kept as long as the
    systems keep their sizes (in MD, always); for anything else there is torch-sim's batched neighbour list.

    Args:
        potential: a ``SchnetpackPotential``.
        compute_stress: give the stress too, (S, 3, 3) eV/Å³ with ASE's sign; NaN where there is no volume.
    """

    def __init__(self, potential: Any, compute_stress: bool = False) -> None:
        super().__init__()
        self.potential = potential
        self.cutoff = potential.facts["cutoff"]
        self._device = torch.device(potential.device)
        self._dtype = getattr(torch, potential.dtype)
        self._compute_forces = True
        self._compute_stress = compute_stress
        self._sizes: torch.Tensor | None = None
        self._pairs: tuple[torch.Tensor, torch.Tensor]

    @ModelInterface.compute_stress.setter
    def compute_stress(self, compute_stress: bool) -> None:
        """Switch the stress on or off."""
        self._compute_stress = compute_stress

    @ModelInterface.compute_forces.setter
    def compute_forces(self, compute_forces: bool) -> None:
        """Forces come with the energy whatever is asked for."""
        self._compute_forces = compute_forces

    def forward(self, state: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Of S systems: ``energy`` (S,) eV, ``forces`` (n, 3) eV/Å, if switched on ``stress`` (S, 3, 3) eV/Å³."""
        model = self.potential.stress_model() if self._compute_stress else self.potential.model
        positions = state.positions.detach().clone()  # SchNetPack marks its inputs for differentiation
        cell, pbc = state.row_vector_cell, _per_system(state.pbc, state.n_systems)
        idx_i, idx_j, offsets = self._neighbours(positions, cell, pbc, state.system_idx)
        volume_sign = torch.sign(torch.linalg.det(cell))[:, None, None]
        out = model(
            {
                properties.Z: state.atomic_numbers.long(),
                properties.R: positions.to(self._dtype),
                properties.cell: cell.to(self._dtype),
                properties.pbc: pbc.reshape(-1),
                properties.idx_m: state.system_idx,
                properties.n_atoms: torch.bincount(state.system_idx, minlength=state.n_systems),
                properties.idx_i: idx_i,
                properties.idx_j: idx_j,
                properties.offsets: offsets.to(self._dtype),
            }
        )
        results = {"energy": out["energy"].detach(), "forces": out["forces"].detach()}
        if self._compute_stress:
            # SchNetPack divides by the signed volume; a left-handed cell would flip the stress
            results["stress"] = torch.where(volume_sign == 0, torch.nan, out["stress"].detach() * volume_sign)
        return results

    def _neighbours(
        self, positions: torch.Tensor, cell: torch.Tensor, pbc: torch.Tensor, system_idx: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Centres, neighbours and (pairs, 3) Å offsets of the neighbours' images."""
        sizes = torch.bincount(system_idx)
        if not pbc.any() and int((sizes * sizes).sum()) <= PAIRS_AT_MOST:
            idx_i, idx_j = self._all_pairs(sizes)
            near = (positions[idx_j] - positions[idx_i]).square().sum(dim=1) < self.cutoff**2
            idx_i, idx_j = idx_i[near], idx_j[near]
            return idx_i, idx_j, positions.new_zeros(len(idx_i), 3)
        mapping, system_of_pair, shifts = torchsim_nl(positions, cell, pbc, self.cutoff, system_idx)
        offsets = torch.einsum("pi,pij->pj", shifts.to(cell.dtype), cell[system_of_pair])
        return mapping[0], mapping[1], offsets

    def _all_pairs(self, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._sizes is None or not torch.equal(self._sizes, sizes):
            starts = torch.cumsum(sizes, 0) - sizes
            blocks = []
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
                atoms = torch.arange(start, start + size, device=sizes.device)
                blocks.append(torch.cartesian_prod(atoms, atoms))
            pairs = torch.cat(blocks)
            idx_i, idx_j = pairs[pairs[:, 0] != pairs[:, 1]].t().contiguous()
            self._sizes, self._pairs = sizes, (idx_i, idx_j)
        return self._pairs


def _per_system(pbc: Any, n_systems: int) -> torch.Tensor:
    """(S, 3) periodicity from torch-sim's, which may be one for all systems."""
    return torch.as_tensor(pbc).reshape(-1, 3).expand(n_systems, 3)
