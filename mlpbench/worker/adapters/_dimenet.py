"""DimeNet++ of PyTorch Geometric's blocks on a given list of pairs. It imports nothing of mlpbench: exported potentials
have a copy of it.

PyTorch Geometric's own forward pass takes positions of molecules, finds neighbours and triplets with compiled packages
that PyPI does not have, keeps at most 32 neighbours of an atom, and derives its spherical basis symbolically, which
takes 5 to 15 s. Its blocks, parameters and initial weights are used here; pairs may cross periodic boundaries, all
neighbours within the cutoff count, and the same basis functions are evaluated by recurrence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.stress import full_3x3_to_voigt_6_stress
from torch_geometric.nn.models.dimenet import (
    BesselBasisLayer,
    EmbeddingBlock,
    Envelope,
    InteractionPPBlock,
    OutputPPBlock,
)
from torch_geometric.nn.models.dimenet_utils import Jn_zeros
from torch_geometric.nn.resolver import activation_resolver


class SphericalBasis:
    """DimeNet's basis of distance and angle, N_ln j_l(z_ln d/c)·u(d/c)·Y_l0(θ): what ``SphericalBasisLayer`` computes.

    Args:
        num_spherical: L, degrees of j and Y.
        num_radial: K, zeros of each j.
        cutoff: c in Å.
        exponent: of the envelope u.
    """

    def __init__(self, num_spherical: int, num_radial: int, cutoff: float, exponent: int) -> None:
        self.degrees, self.cutoff, self.envelope = num_spherical, cutoff, Envelope(exponent)
        self.zeros = torch.from_numpy(Jn_zeros(num_spherical, num_radial)).double()
        following = torch.stack([bessel(row, degree + 1) for degree, row in enumerate(self.zeros)])
        self.norms = (0.5 * following.square()).rsqrt()

    def radial(self, distances: torch.Tensor) -> torch.Tensor:
        """(P, L, K) for (P,) distances in Å, computed in float64: differences of large numbers in float32."""
        self.zeros, self.norms = self.zeros.to(distances.device), self.norms.to(distances.device)
        scaled = distances.double() / self.cutoff
        arguments = scaled[:, None, None] * self.zeros
        values = torch.stack([bessel(arguments[:, degree], degree) for degree in range(self.degrees)], dim=1)
        return (self.envelope(scaled)[:, None, None] * self.norms * values).to(distances.dtype)

    def angular(self, cosines: torch.Tensor) -> torch.Tensor:
        """(T, L) for the (T,) cosines of angles."""
        legendre = [torch.ones_like(cosines), cosines]
        for degree in range(2, self.degrees):
            legendre.append(((2 * degree - 1) * cosines * legendre[-1] - (degree - 1) * legendre[-2]) / degree)
        factors = [((2 * degree + 1) / (4 * np.pi)) ** 0.5 for degree in range(self.degrees)]
        return torch.stack([factor * value for factor, value in zip(factors, legendre, strict=True)], dim=1)


def bessel(x: torch.Tensor, degree: int) -> torch.Tensor:
    """The spherical Bessel function of the first kind, by upward recurrence: good for x not far below ``degree``."""
    before, value = torch.cos(x) / x, torch.sin(x) / x
    for step in range(degree):
        before, value = value, (2 * step + 1) / x * value - before
    return value


class DimeNetPP(torch.nn.Module):
    """The model; its parameters have the names and shapes of PyTorch Geometric's ``DimeNetPlusPlus``.

    Args:
        options: the keyword arguments of ``DimeNetPlusPlus`` but ``out_channels`` and ``max_num_neighbors``.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        one, act = dict(options), activation_resolver(options["act"])
        self.cutoff, hidden = float(one["cutoff"]), one["hidden_channels"]
        shape, exponent = (one["num_spherical"], one["num_radial"]), one["envelope_exponent"]
        self.basis = SphericalBasis(*shape, self.cutoff, exponent)
        self.rbf = BesselBasisLayer(one["num_radial"], self.cutoff, exponent)
        self.emb = EmbeddingBlock(one["num_radial"], hidden, act)
        self.output_blocks = torch.nn.ModuleList(
            OutputPPBlock(
                one["num_radial"], hidden, one["out_emb_channels"], 1, one["num_output_layers"], act,
                one["output_initializer"],
            )
            for _ in range(one["num_blocks"] + 1)
        )  # fmt: skip
        self.interaction_blocks = torch.nn.ModuleList(
            InteractionPPBlock(
                hidden, one["int_emb_size"], one["basis_emb_size"], *shape, one["num_before_skip"],
                one["num_after_skip"], act,
            )
            for _ in range(one["num_blocks"])
        )  # fmt: skip

    def forward(self, numbers: torch.Tensor, pairs: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """(A,) energies of atoms.

        Args:
            numbers: (A,) atomic numbers, at most 94.
            pairs: (2, P) atoms within the cutoff, each pair and image once.
            vectors: (P, 3) Å, from the second atom of a pair to the first.
        """
        target, source = pairs.t().reshape(-1), pairs.flip(0).t().reshape(-1)  # edge 2p, and back 2p + 1
        incoming, outgoing = triplets(source, target, len(numbers))
        distances = vectors.norm(dim=1)
        directions = torch.stack([vectors, -vectors], dim=1).reshape(-1, 3) / distances.repeat_interleave(2)[:, None]
        angular = self.basis.angular((directions[incoming] * directions[outgoing]).sum(dim=1))
        radial = self.basis.radial(distances)[torch.div(incoming, 2, rounding_mode="floor")]
        sbf = (radial * angular[:, :, None]).flatten(1)
        rbf = self.rbf(distances).repeat_interleave(2, dim=0)
        x = self.emb(numbers, rbf, target, source)
        energies = self.output_blocks[0](x, rbf, target, num_nodes=len(numbers))
        for interaction, output in zip(self.interaction_blocks, list(self.output_blocks)[1:], strict=True):
            x = interaction(x, rbf, sbf, incoming, outgoing)
            energies = energies + output(x, rbf, target, num_nodes=len(numbers))
        return energies[:, 0]


def triplets(source: torch.Tensor, target: torch.Tensor, atoms: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Edges k→j and j→i of all triplets k→j→i, but an edge and its own way back.

    Args:
        source: (E,) atom at which an edge begins; edges 2p and 2p + 1 are each other's way back.
        target: (E,) atom at which it ends.
        atoms: how many there are.
    """
    order = torch.argsort(target, stable=True)
    counts = torch.bincount(target, minlength=atoms)
    first, number = (torch.cumsum(counts, 0) - counts)[source], counts[source]
    outgoing = torch.repeat_interleave(torch.arange(len(source), device=source.device), number)
    place = torch.arange(len(outgoing), device=source.device) - (torch.cumsum(number, 0) - number)[outgoing]
    incoming = order[first[outgoing] + place]
    kept = incoming != (outgoing ^ 1)
    return incoming[kept], outgoing[kept]


class DimeNetCalculator(Calculator):
    """ASE's calculator; PyTorch Geometric has none.

    Args:
        model: a trained model.
        scale: eV; its energies are in this unit.
        elements: atomic numbers that it has learnt.
        search: gives the pairs (i, j) within a distance of each other and the (P, 3) lattice shifts of j.
    """

    implemented_properties: ClassVar[Sequence[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(
        self, model: DimeNetPP, scale: float, elements: Sequence[int], search: Callable[[Atoms, float], Any]
    ) -> None:
        super().__init__()
        self.model, self.scale, self.elements, self.search = model.eval().requires_grad_(False), scale, elements, search

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Any = ()
    ) -> None:
        """Energy and forces, and the stress of what repeats along all vectors.

        Raises:
            PropertyNotImplementedError: stress of what does not.
            ValueError: an element that it has not learnt.
        """
        super().calculate(atoms, list(properties), system_changes)
        given: Any = self.atoms
        if "stress" in properties and not given.pbc.all():
            raise PropertyNotImplementedError("stress: the structure is not periodic along all vectors")
        unknown = sorted(set(given.numbers.tolist()) - set(self.elements))
        if unknown:
            raise ValueError(f"the potential was not trained on the elements with the atomic numbers {unknown}")
        first, second, shift = self.search(given, self.model.cutoff)
        offsets = given.positions[first] - given.positions[second] - shift @ given.cell.array
        weights = self.model.rbf.freq
        vectors = torch.as_tensor(offsets, dtype=weights.dtype, device=weights.device).requires_grad_(True)
        pairs = torch.as_tensor(np.stack([first, second]), device=weights.device)
        numbers = torch.as_tensor(given.numbers, device=weights.device).long()
        energy = self.scale * self.model(numbers, pairs, vectors).sum()
        slope = np.zeros((len(first), 3))
        if len(first):
            slope = torch.autograd.grad(energy, vectors)[0].double().cpu().numpy()
        forces = np.zeros((len(given), 3))
        np.add.at(forces, second, slope)
        np.add.at(forces, first, -slope)
        value = float(energy.detach())
        self.results = {"energy": value, "free_energy": value, "forces": forces}
        if given.pbc.all():
            virial = slope.T @ offsets
            self.results["stress"] = full_3x3_to_voigt_6_stress(0.5 * (virial + virial.T) / given.cell.volume)


def read(path: Path, device: str) -> tuple[DimeNetPP, float, list[int]]:
    """Model, scale and elements, from a file with its ``options``, ``scale``, ``elements`` and ``state``."""
    kept = torch.load(path, map_location="cpu", weights_only=True)
    model = DimeNetPP(kept["options"])
    model.to(device, next(iter(kept["state"].values())).dtype).load_state_dict(kept["state"])
    return model, float(kept["scale"]), list(kept["elements"])
