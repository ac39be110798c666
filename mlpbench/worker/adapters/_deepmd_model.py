"""DeePMD-kit's models on batches of any structures, through the interface that its LAMMPS pair style uses.

``forward_common_lower`` takes atoms, periodic images and neighbour lists. All frames of a batch stand there as one
large system, so that sizes, compositions and periodicities may differ within a batch (the package's own data loader
wants one number of atoms and one periodicity).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import vesin
from deepmd.pt.utils.utils import to_torch_tensor

from mlpbench.frames import Frames

STATISTICS_FRAMES = 200  # of which the mean and deviation of a model's input are taken, at most


@dataclass(frozen=True)
class Batch:
    """F frames with A atoms and P pairs of an atom and a neighbour, as tensors.

    Attributes:
        types: (A,) places in the model's list of elements.
        positions: (A, 3) Å.
        frame: (A,) the frame of each atom.
        volume: (F,) Å³; NaN where a frame is not periodic along all vectors.
        centre: (P,) atoms, in ascending order.
        neighbour: (P,) atoms.
        offset: (P, 3) Å, from the neighbour to its periodic image that is meant.
        labels: ``energy`` (F,) eV, ``forces`` (A, 3) eV/Å, ``stress`` (F, 6) eV/Å³, those that there are.
    """

    types: torch.Tensor
    positions: torch.Tensor
    frame: torch.Tensor
    volume: torch.Tensor
    centre: torch.Tensor
    neighbour: torch.Tensor
    offset: torch.Tensor
    labels: dict[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.volume)

    def to(self, device: str | torch.device) -> Batch:
        """The same on another device."""
        labels = {name: label.to(device) for name, label in self.labels.items()}
        rest = {name: value.to(device) for name, value in vars(self).items() if name != "labels"}
        return Batch(**rest, labels=labels)

    def n_atoms(self) -> torch.Tensor:
        """(F,) atoms of each frame."""
        return torch.bincount(self.frame, minlength=len(self))


def single(
    types: Any, positions: Any, cell: Any, pbc: Any, cutoff: float, labels: dict[str, Any] | None = None
) -> Batch:
    """A batch of one frame, with its neighbours.

    Args:
        types: (n,) places in the model's list of elements.
        positions: (n, 3) Å.
        cell: (3, 3) Å, rows are lattice vectors; zero where there is none.
        pbc: (3,) periodic along each vector.
        cutoff: Å.
        labels: ``energy``, ``forces`` (n, 3), ``stress`` (6,).
    """
    positions, cell, pbc = np.asarray(positions, dtype=float), np.asarray(cell, dtype=float), np.asarray(pbc, bool)
    search = vesin.NeighborList(cutoff=cutoff, full_list=True)
    i, j, shift = search.compute(points=positions, box=cell, periodic=pbc, quantities="ijS")
    order = np.argsort(i, kind="stable")
    i, j, offset = i[order].astype(np.int64), j[order].astype(np.int64), shift[order] @ cell
    volume = abs(np.linalg.det(cell)) if pbc.all() else np.nan
    shapes = {"energy": (1,), "forces": (-1, 3), "stress": (1, 6)}
    return Batch(
        types=torch.as_tensor(np.asarray(types), dtype=torch.long),
        positions=torch.from_numpy(positions),
        frame=torch.zeros(len(positions), dtype=torch.long),
        volume=torch.tensor([volume], dtype=torch.float64),
        centre=torch.from_numpy(i),
        neighbour=torch.from_numpy(j),
        offset=torch.from_numpy(offset),
        labels={
            name: torch.as_tensor(label, dtype=torch.float64).reshape(shapes[name])
            for name, label in (labels or {}).items()
        },
    )


def structures(frames: Frames, elements: Sequence[int], cutoff: float, labels: Sequence[str] = ()) -> list[Batch]:
    """One batch for each frame, energies without the baseline.

    Args:
        frames: of the elements that the model knows.
        elements: their atomic numbers, ascending.
        cutoff: Å.
        labels: those of ``energy``, ``forces`` and ``stress`` to keep.
    """
    types, offsets, found = np.searchsorted(np.asarray(elements), frames.numbers), frames.offsets, []
    known = {"energy": frames.target_energy, "forces": frames.forces, "stress": frames.stress}
    for i in range(len(frames)):
        atoms = slice(offsets[i], offsets[i + 1])
        own = {name: known[name][atoms if name == "forces" else i] for name in labels}
        found.append(single(types[atoms], frames.positions[atoms], frames.cell[i], frames.pbc[i], cutoff, own))
    return found


def join(parts: Sequence[Batch]) -> Batch:
    """All frames of ``parts`` as one batch."""
    atoms, frames, moved = 0, 0, []
    for part in parts:
        moved.append((part.frame + frames, part.centre + atoms, part.neighbour + atoms))
        atoms, frames = atoms + len(part.types), frames + len(part)
    frame, centre, neighbour = (torch.cat(column) for column in zip(*moved, strict=True))
    names = ("types", "positions", "volume", "offset")
    whole = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    labels = {name: torch.cat([part.labels[name] for part in parts]) for name in parts[0].labels}
    return Batch(**whole, frame=frame, centre=centre, neighbour=neighbour, labels=labels)


def evaluate(model: Any, batch: Batch) -> dict[str, torch.Tensor]:
    """Energy (F,), forces (A, 3) and stress (F, 3, 3; NaN without a volume, ASE's sign) of a batch.

    In training mode they can be differentiated with respect to the weights.
    """
    n_atoms, n_frames = len(batch.types), len(batch)
    image = batch.offset.ne(0).any(dim=1)
    mapping = torch.cat([torch.arange(n_atoms, device=image.device), batch.neighbour[image]])
    coordinates = torch.cat([batch.positions, batch.positions[batch.neighbour[image]] + batch.offset[image]])
    index = torch.where(image, n_atoms + torch.cumsum(image, 0) - 1, batch.neighbour)
    out = model.forward_common_lower(
        coordinates[None], batch.types[mapping][None], _neighbour_list(batch, coordinates, index)[None], mapping[None]
    )
    pull = out["energy_derv_r"].reshape(-1, 3)
    forces = torch.zeros_like(batch.positions).index_add(0, mapping, pull)
    virial = out["energy_derv_c"].reshape(-1, 3, 3)
    virials = virial.new_zeros(n_frames, 3, 3).index_add(0, batch.frame[mapping], virial)
    atom_energy = out["energy"].reshape(-1)
    return {
        "energy": atom_energy.new_zeros(n_frames).index_add(0, batch.frame, atom_energy),
        "forces": forces,
        "stress": -0.5 * (virials + virials.transpose(1, 2)) / batch.volume[:, None, None],
    }


def _neighbour_list(batch: Batch, coordinates: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(A, largest number of neighbours) places in ``coordinates``, nearest first, filled up with -1."""
    n_atoms = len(batch.types)
    distance = (coordinates[index] - coordinates[batch.centre]).norm(dim=1)
    order = torch.argsort(distance, stable=True)
    order = order[torch.argsort(batch.centre[order], stable=True)]
    centre = batch.centre[order]
    counts = torch.bincount(centre, minlength=n_atoms)
    first = torch.cumsum(counts, 0) - counts
    place = torch.arange(len(centre), device=centre.device) - first[centre]
    width = int(counts.max()) if len(centre) else 0
    found = index.new_full((n_atoms, width), -1)
    found[centre, place] = index[order]
    return found


def neighbour_counts(batch: Batch, n_types: int, radius: float = float("inf")) -> torch.Tensor:
    """(A, n_types) neighbours of each type that each atom has, those nearer than ``radius`` Å."""
    bond = batch.positions[batch.neighbour] + batch.offset - batch.positions[batch.centre]
    near = bond.norm(dim=1) < radius
    pair = batch.centre[near] * n_types + batch.types[batch.neighbour[near]]
    return torch.bincount(pair, minlength=len(batch.types) * n_types).reshape(-1, n_types)


@dataclass(frozen=True)
class Places:
    """How many neighbours a model has places for; beyond them the package drops the farthest.

    Attributes:
        each: one number for each type, or a single one for all together.
        within: Å, counted nearer than this.
    """

    each: tuple[int, ...]
    within: float = float("inf")

    def lacking(self, batch: Batch, n_types: int) -> torch.Tensor:
        """(F,) whether an atom of the frame has more."""
        counts = neighbour_counts(batch, n_types, self.within)
        if len(self.each) != n_types:
            counts = counts.sum(dim=1, keepdim=True)
        full = (counts > torch.tensor(self.each, device=counts.device)).any(dim=1)
        return torch.zeros(len(batch), dtype=torch.bool, device=full.device).index_fill_(0, batch.frame[full], True)


def whole_cell(positions: Any, cell: Any, pbc: Any, cutoff: float) -> Any:
    """A right-handed cell with three vectors, wide along those that are not periodic.

    DeePMD-kit knows three periodic directions or none, and finds no images in a left-handed cell.

    Args:
        positions: (n, 3) Å.
        cell: (3, 3) Å.
        pbc: (3,) periodic along each vector.
        cutoff: Å; no atom comes nearer than that to its image along the vectors that are made up.
    """
    cell, pbc = np.array(cell, dtype=float), np.asarray(pbc, dtype=bool)
    span, _ = np.linalg.qr(cell[pbc].T, mode="complete") if pbc.any() else (np.eye(3), None)
    for vector, direction in zip(np.flatnonzero(~pbc), span.T[pbc.sum() :], strict=True):
        height = np.asarray(positions) @ direction
        cell[vector] = direction * (np.ptp(height) + 2 * cutoff)
    return cell if np.linalg.det(cell) > 0 else -cell  # the same lattice


def systems(frames: Frames, elements: Sequence[int], cutoff: float) -> list[dict[str, Any]]:
    """Frames as DeePMD-kit wants them for the statistics of its input, evenly spread over all."""
    types, offsets, found = np.searchsorted(np.asarray(elements), frames.numbers), frames.offsets, []
    for i in np.unique(np.linspace(0, len(frames) - 1, min(len(frames), STATISTICS_FRAMES)).astype(int)):
        atoms = slice(offsets[i], offsets[i + 1])
        positions, pbc, count = frames.positions[atoms], frames.pbc[i], int(frames.n_atoms[i])
        box = whole_cell(positions, frames.cell[i], pbc, cutoff).reshape(1, 9) if pbc.any() else None
        arrays = {"coord": positions[None], "atype": types[atoms][None], "box": box, "natoms": np.array([[count] * 2])}
        found.append({name: to_torch_tensor(value) for name, value in arrays.items()})
    return found


def use_device(device: str) -> None:
    """From now on DeePMD-kit's modules make their tensors on ``device``.

    The package takes the first GPU when it is imported, and keeps that in dozens of modules.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith("deepmd.pt"):
            for attribute in ("DEVICE", "device"):
                if isinstance(vars(module).get(attribute), torch.device):
                    setattr(module, attribute, torch.device(device))
