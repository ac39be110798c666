"""Nets whose atomic energies depend on the vectors between neighbours: batches of pairs, forces, stress, and the loss.

A batch is one set of atoms with the pairs of each frame, so that it may mix sizes and periodicities. For packages that
have a model and neither a loss nor a loader of data for potentials.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms

from mlpbench.frames import Frames
from mlpbench.worker.adapters._net import Net, require_elements, squared_errors
from mlpbench.worker.adapters._pairs import half_list


@dataclass(frozen=True)
class Structure:
    """One frame; energies in eV without the baseline, lengths in Å.

    Attributes:
        species: (n,) atomic numbers.
        positions: (n, 3).
        pairs: (2, P) atoms within the cutoff of each other, each pair and image once.
        shifts: (P, 3) of the first atom of a pair relative to the second.
        volume: of the cell; 0 where it does not repeat along all vectors.
        labels: ``energy`` (), ``forces`` (n, 3), ``stress`` (3, 3).
    """

    species: torch.Tensor
    positions: torch.Tensor
    pairs: torch.Tensor
    shifts: torch.Tensor
    volume: float
    labels: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Batch:
    """Frames one after another on the device; ``frame`` (A,) is the frame of each atom, ``counts`` (F,) their sizes."""

    species: torch.Tensor
    positions: torch.Tensor
    pairs: torch.Tensor
    shifts: torch.Tensor
    frame: torch.Tensor
    counts: torch.Tensor
    volumes: torch.Tensor
    labels: dict[str, torch.Tensor]


class PairNet(Net):
    """A net of the vectors between neighbours, each pair once.

    Attributes:
        title: in messages, e.g. ``this ANI model``.
        cutoff: Å, up to which atoms are neighbours.
        elements: atomic numbers that it was built for.
        scale: eV; what :meth:`atomic` gives is in this unit.
    """

    title: ClassVar[str]
    cutoff: float
    elements: list[int]
    scale: float

    @abstractmethod
    def atomic(self, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
        """(A,) energies of the atoms in units of the scale; ``vectors`` (P, 3) Å point from each pair's second atom
        to its first, and the result can be differentiated by them.
        """

    def prepare(self, frames: Frames, labels: Sequence[str] = ()) -> list[Any]:
        """See :meth:`Net.prepare`."""
        require_elements(frames, self.elements, self.title)
        offsets, structures = frames.offsets, []
        for i, atoms in enumerate(frames.to_atoms()):
            part = slice(offsets[i], offsets[i + 1])
            values = {
                "energy": frames.target_energy[i],
                "forces": frames.forces[part],
                "stress": frames.stress[i][[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3),
            }
            structures.append(self.structure(atoms, {name: self._tensor(values[name]) for name in labels}))
        return structures

    def structure(self, atoms: Atoms, labels: dict[str, torch.Tensor]) -> Structure:
        """One frame with its pairs."""
        first, second, shift = half_list(atoms, self.cutoff)
        return Structure(
            species=torch.from_numpy(atoms.numbers).long(),
            positions=self._tensor(atoms.positions),
            pairs=torch.from_numpy(np.stack([first, second])).long(),
            shifts=self._tensor(-(shift @ atoms.cell.array)),
            volume=float(atoms.cell.volume) if atoms.pbc.all() else 0.0,
            labels=labels,
        )

    def _tensor(self, value: Any) -> torch.Tensor:
        return torch.as_tensor(np.array(value), dtype=self.dtype)

    def collate(self, inputs: Sequence[Any]) -> Batch:
        """See :meth:`Net.collate`."""
        counts = torch.tensor([len(one.species) for one in inputs])
        starts = torch.cumsum(counts, 0) - counts
        joined = {
            "species": torch.cat([one.species for one in inputs]),
            "positions": torch.cat([one.positions for one in inputs]),
            "pairs": torch.cat([one.pairs + start for one, start in zip(inputs, starts, strict=True)], dim=1),
            "shifts": torch.cat([one.shifts for one in inputs]),
            "frame": torch.repeat_interleave(torch.arange(len(inputs)), counts),
            "counts": counts,
            "volumes": torch.tensor([one.volume for one in inputs], dtype=self.dtype),
        }
        labels = {
            name: (torch.cat if name == "forces" else torch.stack)([one.labels[name] for one in inputs])
            for name in inputs[0].labels
        }
        return Batch(
            **{name: value.to(self.device) for name, value in joined.items()},
            labels={name: value.to(self.device) for name, value in labels.items()},
        )

    def outputs(self, batch: Batch, stress: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """See :meth:`Net.outputs`. Frames without a volume have a stress of NaN."""
        self.model.eval()
        energy, forces, found = self._evaluate(batch, training=False)
        return energy, forces, found if stress else None

    def loss(self, batch: Batch, training: Mapping[str, Any]) -> torch.Tensor:
        """See :meth:`Net.loss`: the common loss, since the package has none."""
        self.model.train()
        found = self._evaluate(batch, training=True)
        return squared_errors(found, batch.labels, batch.counts, training)

    def _evaluate(self, batch: Batch, training: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(F,) energies, (A, 3) forces, (F, 3, 3) stress, from the energy's gradient by the pairs' vectors."""
        pairs = batch.pairs
        vectors = batch.positions[pairs[0]] - batch.positions[pairs[1]] + batch.shifts
        vectors.requires_grad_(True)
        atomic = self.atomic(batch, vectors)
        energy = self.scale * atomic.new_zeros(len(batch.counts)).index_add(0, batch.frame, atomic)
        (slope,) = torch.autograd.grad(energy.sum(), vectors, create_graph=training, allow_unused=True)
        if slope is None:  # no atom has a neighbour
            slope = torch.zeros_like(vectors)
        forces = torch.zeros_like(batch.positions).index_add(0, pairs[1], slope).index_add(0, pairs[0], -slope)
        virial = slope.new_zeros(len(batch.counts), 3, 3)
        virial = virial.index_add(0, batch.frame[pairs[0]], slope[:, :, None] * vectors[:, None, :])
        per_volume = torch.where(batch.volumes > 0, 1.0 / batch.volumes, torch.nan)[:, None, None]
        return energy, forces, per_volume * 0.5 * (virial + virial.transpose(1, 2))
