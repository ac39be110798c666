"""Energies and forces of R replicas of one system, in one forward pass of the backend."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from ase import Atoms

from mlpbench.frames import Float, Frames
from mlpbench.worker.adapter import Potential


class Labels(NamedTuple):
    """``energy`` (R,) eV, ``forces`` (R, N, 3) eV/Å, ``stress`` (R, 6) eV/Å³ (NaN where not asked for)."""

    energy: Float
    forces: Float
    stress: Float


class Forces(Protocol):
    """What the engine asks for its forces."""

    def __call__(self, positions: Float, cell: Float) -> Labels:
        """``positions`` (R, N, 3) Å and ``cell`` (R, 3, 3) Å; R may fall from call to call."""
        ...


class PredictForces:
    """Through :meth:`Potential.predict`: works for every backend, but builds its input again at each step."""

    name = "predict"

    def __init__(self, potential: Potential, start: Atoms, stress: bool = False) -> None:
        self.potential = potential
        self.start = start
        self.stress = stress

    def __call__(self, positions: Float, cell: Float) -> Labels:
        """See :class:`Forces`."""
        frames = replicate(self.start, positions, cell)
        prediction = self.potential.predict(frames, len(frames), stress=self.stress)
        stress = np.full((len(frames), 6), np.nan) if prediction.stress is None else prediction.stress
        return Labels(prediction.energy, prediction.forces.reshape(positions.shape), stress)


class TorchSimForces:
    """Through the backend's torch-sim model, which keeps its tensors and its neighbour list on the device."""

    name = "torch-sim"

    def __init__(self, potential: Potential, start: Atoms, stress: bool = False) -> None:
        self.model = potential.torchsim_model()
        self.start = start
        self.stress = stress
        self.state: Any = None

    def __call__(self, positions: Float, cell: Float) -> Labels:
        """See :class:`Forces`."""
        import torch

        count, n_atoms = positions.shape[:2]
        if self.state is None or self.state.n_systems != count:
            self.state = self._make_state(count)
        kind = {"device": self.model.device, "dtype": self.model.dtype}
        self.state.positions = torch.as_tensor(positions.reshape(-1, 3), **kind)
        # torch-sim keeps lattice vectors in columns.
        self.state.cell = torch.as_tensor(np.ascontiguousarray(cell.transpose(0, 2, 1)), **kind)
        output = self.model(self.state)
        energy = output["energy"].detach().double().cpu().numpy().reshape(count)
        forces = output["forces"].detach().double().cpu().numpy().reshape(count, n_atoms, 3)
        stress = np.full((count, 6), np.nan)
        if self.stress:
            full = output["stress"].detach().double().cpu().numpy().reshape(count, 3, 3)
            stress = full[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        return Labels(energy, forces, stress)

    def _make_state(self, count: int) -> Any:
        import torch
        from torch_sim.state import SimState

        n_atoms = len(self.start)
        kind = {"device": self.model.device, "dtype": self.model.dtype}
        return SimState(
            positions=torch.zeros((count * n_atoms, 3), **kind),
            masses=torch.as_tensor(np.tile(self.start.get_masses(), count), **kind),
            cell=torch.zeros((count, 3, 3), **kind),
            pbc=[bool(p) for p in self.start.pbc],
            atomic_numbers=torch.as_tensor(np.tile(self.start.numbers, count), device=self.model.device),
            system_idx=torch.arange(count, device=self.model.device).repeat_interleave(n_atoms),
        )


class CalculatorForces:
    """Through the package's ASE calculator, one replica after another: what most users run, and the yardstick."""

    name = "ase"

    def __init__(self, potential: Potential, start: Atoms, stress: bool = False) -> None:
        self.atoms: Atoms = start.copy()
        self.atoms.calc = potential.calculator()
        self.stress = stress

    def __call__(self, positions: Float, cell: Float) -> Labels:
        """See :class:`Forces`."""
        energy, forces = np.zeros(len(positions)), np.zeros(positions.shape)
        stress = np.full((len(positions), 6), np.nan)
        for r in range(len(positions)):
            self.atoms.set_cell(cell[r])
            self.atoms.set_positions(positions[r])
            energy[r] = self.atoms.get_potential_energy()
            forces[r] = self.atoms.get_forces()
            if self.stress:
                stress[r] = self.atoms.get_stress(voigt=True)
        return Labels(energy, forces, stress)


def choose(potential: Potential, start: Atoms, engine: str = "auto", stress: bool = False) -> Any:
    """The force provider called ``engine``; ``auto`` takes torch-sim where the backend has it, else ``predict``.

    Raises:
        ValueError: no such engine.
        NotImplementedError: ``torch-sim`` was asked for and the backend has none.
    """
    makers = {"torch-sim": TorchSimForces, "predict": PredictForces, "ase": CalculatorForces}
    if engine != "auto":
        if engine not in makers:
            raise ValueError(f"engine '{engine}' is not known; known: auto, {', '.join(makers)}")
        return makers[engine](potential, start, stress)
    has_own = type(potential).torchsim_model is not Potential.torchsim_model
    return (TorchSimForces if has_own else PredictForces)(potential, start, stress)


def replicate(start: Atoms, positions: Float, cell: Float) -> Frames:
    """Frames of ``start``'s atoms at (R, N, 3) ``positions`` and (R, 3, 3) ``cell``, without labels."""
    count, n_atoms = positions.shape[:2]
    return Frames(
        n_atoms=np.full(count, n_atoms, dtype=np.int64),
        numbers=np.tile(start.numbers, count).astype(np.int64),
        positions=np.asarray(positions, dtype=np.float64).reshape(-1, 3),
        cell=np.asarray(cell, dtype=np.float64),
        pbc=np.tile(start.pbc, (count, 1)),
        energy=np.full(count, np.nan),
        forces=np.full((count * n_atoms, 3), np.nan),
        stress=np.full((count, 6), np.nan),
        baseline=np.zeros(count),
        group=np.zeros(count, dtype=np.int64),
    )
