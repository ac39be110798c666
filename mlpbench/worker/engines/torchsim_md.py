"""Molecular dynamics in torch-sim from ASE's structures, with ASE's units at both ends."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch_sim as ts
from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.data import atomic_numbers
from torch_sim.models.interface import ModelInterface
from torch_sim.units import MetalUnits


def state_of(structures: Sequence[Atoms], model: Any) -> Any:
    """A state of all structures side by side, with their velocities.

    Args:
        structures: of any sizes.
        model: whose device and dtype the state has.
    """
    state = ts.io.atoms_to_state(list(structures), device=model.device, dtype=model.dtype)
    momenta = np.concatenate([atoms.get_momenta() for atoms in structures])
    # amu Å over ASE's unit of time, which is that of torch-sim
    state.momenta = torch.as_tensor(momenta, device=model.device, dtype=model.dtype)
    return state


class Dynamics:
    """Constant energy, or a Langevin bath.

    Args:
        structures: see :func:`state_of`.
        model: a ``ModelInterface``.
        time_step_fs: of velocity Verlet, or of BAOAB with the bath.
        temperature_K: of the bath.
        friction_per_ps: None: constant energy.
    """

    def __init__(
        self, structures: Sequence[Atoms], model: Any, time_step_fs: float, temperature_K: float = 300.0,
        friction_per_ps: float | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        start = state_of(structures, model)
        momenta = start.momenta
        self.kT = temperature_K * float(MetalUnits.temperature)
        self.dt = time_step_fs / 1000 * float(MetalUnits.time)
        self.gamma = None if friction_per_ps is None else friction_per_ps / float(MetalUnits.time)
        begin = ts.nve_init if self.gamma is None else ts.nvt_langevin_init
        self.state = begin(start, model, kT=self.kT)
        self.state.momenta = momenta

    def run(self, steps: int) -> None:
        """``steps`` steps of all systems."""
        for _ in range(steps):
            if self.gamma is None:
                self.state = ts.nve_step(self.state, self.model, dt=self.dt)
            else:
                self.state = ts.nvt_langevin_step(self.state, self.model, dt=self.dt, kT=self.kT, gamma=self.gamma)

    def potential_energies(self) -> np.ndarray:
        """(S,) eV."""
        energies: np.ndarray = self.state.energy.detach().double().cpu().numpy()
        return energies

    def total_energies(self) -> np.ndarray:
        """(S,) eV."""
        kinetic = ts.calc_kinetic_energy(
            masses=self.state.masses, momenta=self.state.momenta, system_idx=self.state.system_idx
        )
        energies: np.ndarray = self.potential_energies() + kinetic.detach().double().cpu().numpy()
        return energies


class Referenced(ModelInterface):  # type: ignore[misc]  # torch-sim's, which the core does not have
    """A torch-sim model with the reference energies added, in float64.

    Args:
        model: whose energies are without them.
        reference: symbol -> eV.
    """

    def __init__(self, model: Any, reference: Mapping[str, float]) -> None:
        super().__init__()
        self.inner = model
        self._device, self._dtype = model.device, model.dtype
        self._compute_stress, self._compute_forces = model.compute_stress, model.compute_forces
        table = torch.full((119,), torch.nan, dtype=torch.float64)
        for symbol, energy in reference.items():
            table[atomic_numbers[symbol]] = energy
        self.table = table.to(model.device)

    def forward(self, state: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """See ``ModelInterface``; an element without a reference energy gives NaN."""
        out: dict[str, torch.Tensor] = dict(self.inner(state, **kwargs))
        shift = torch.zeros(state.n_systems, dtype=torch.float64, device=self.device)
        shift.index_add_(0, state.system_idx, self.table[state.atomic_numbers.long()])
        out["energy"] = out["energy"].double() + shift
        return out


class AseModel(ModelInterface):  # type: ignore[misc]
    """A torch-sim model around an ASE calculator, for packages without one of their own: one system after another.

    Args:
        calculator: eV, eV/Å, eV/Å³.
        device: where torch-sim keeps its tensors.
    """

    def __init__(self, calculator: Any, device: str = "cpu") -> None:
        super().__init__()
        self.calculator = calculator
        self._device, self._dtype = torch.device(device), torch.float64
        self._compute_forces, self._compute_stress = True, False

    def forward(self, state: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """See ``ModelInterface``."""
        energies, forces = [], []
        for atoms in state.to_atoms():
            self.calculator.calculate(atoms, ["energy", "forces"], all_changes)
            energies.append(float(self.calculator.results["energy"]))
            forces.append(np.array(self.calculator.results["forces"], dtype=float))
        kind = {"dtype": self.dtype, "device": self.device}
        return {"energy": torch.tensor(energies, **kind), "forces": torch.tensor(np.concatenate(forces), **kind)}
