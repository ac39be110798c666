"""CHGNet's ASE calculator in any precision and for any boundaries; needs nothing of mlpbench, and goes with exports."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import chgnet.graph.converter
import chgnet.model.model
import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from chgnet.model.composition_model import AtomRef
from chgnet.model.dynamics import CHGNetCalculator
from chgnet.model.model import CHGNet
from pymatgen.io.ase import AseAtomsAdaptor


class Reference(AtomRef):
    """CHGNet's constants of the elements, in the precision of the weights."""

    def __init__(self) -> None:
        super().__init__(is_intensive=True)
        self.fitted = True

    def _assemble_graphs(self, graphs: list[Any]) -> torch.Tensor:
        return super()._assemble_graphs(graphs).to(self.fc.weight.dtype)


def build(options: Mapping[str, Any], dtype: torch.dtype, has_reference: bool) -> CHGNet:
    """CHGNet's model with fresh weights, which is silent about it."""
    with contextlib.redirect_stdout(io.StringIO()), precision(dtype):
        return CHGNet(composition_model=Reference() if has_reference else None, **options).to(dtype)


@contextlib.contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """CHGNet, which is written for float32, computes in ``dtype`` inside the block."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with (
            mock.patch.object(chgnet.graph.converter, "TORCH_DTYPE", dtype),
            mock.patch.object(chgnet.model.model, "TORCH_DTYPE", dtype),
        ):
            yield
    finally:
        torch.set_default_dtype(before)


def lattice_of(atoms: Atoms, vacuum: float | None = None) -> np.ndarray:
    """(3, 3) Å: the right-handed lattice; along directions without periodicity unit vectors, or with ``vacuum`` beyond
    the atoms, so that no image is near.
    """
    cell = Atoms(cell=np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)).cell.complete().array
    if vacuum is not None and len(atoms):
        for axis in np.flatnonzero(~atoms.pbc):  # orthogonal to the others, of length 1
            cell[axis] *= np.ptp(atoms.positions @ cell[axis]) + vacuum
    return -cell if np.linalg.det(cell) < 0 else cell


class AnyCalculator(CHGNetCalculator):
    """CHGNet's calculator. What is not periodic stands in a box so large that nothing sees an image.

    Args:
        model: CHGNet's, in any precision.
        device: where it runs.
    """

    def __init__(self, model: CHGNet, device: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            super().__init__(model, use_device=device, on_isolated_atoms="ignore")
        self.dtype = next(model.parameters()).dtype

    def graph(self, atoms: Atoms) -> Any:
        """CHGNet's graph of a structure, on the CPU."""
        lattice = lattice_of(atoms, float(self.model.graph_converter.atom_graph_cutoff) + 1.0)
        with precision(self.dtype):
            boxed = Atoms(atoms.numbers, atoms.positions, cell=lattice, pbc=True)
            return self.model.graph_converter(AseAtomsAdaptor.get_structure(boxed))

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Energy and forces, and the stress of what repeats along all vectors."""
        Calculator.calculate(self, atoms, list(properties), system_changes)
        assert self.atoms is not None
        graph = self.graph(self.atoms)
        periodic = bool(self.atoms.pbc.all())
        with precision(self.dtype):
            found = self.model.predict_graph(graph.to(self.device), task="efs" if periodic else "ef")
        energy = float(found["e"]) * (len(self.atoms) if self.model.is_intensive else 1)
        self.results = {"energy": energy, "free_energy": energy, "forces": found["f"]}
        if periodic:
            stress = 0.5 * (found["s"] + found["s"].T) * units.GPa
            self.results["stress"] = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def package_calculator(folder: Path, device: str) -> AnyCalculator:
    """The calculator of an exported folder, energies without the reference energies of the data."""
    state = torch.load(folder / "model.pth.tar", map_location="cpu", weights_only=True)["model"]
    weights = state["state_dict"]
    has_reference = any(name.startswith("composition_model") for name in weights)
    model = build(state["model_args"], weights["mlp.layers.0.weight"].dtype, has_reference)
    model.load_state_dict(weights)
    return AnyCalculator(model.eval(), device)
