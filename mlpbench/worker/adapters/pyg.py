"""PyTorch Geometric (https://github.com/pyg-team/pytorch_geometric): DimeNet++, in mlpbench's loop: it has none."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from torch_geometric.nn.models.dimenet import DimeNetPlusPlus

from mlpbench.frames import Frames
from mlpbench.protocol import Request
from mlpbench.worker.adapters import _dimenet, _pairs
from mlpbench.worker.adapters._dimenet import DimeNetCalculator, DimeNetPP
from mlpbench.worker.adapters._loop import save
from mlpbench.worker.adapters._net import NetAdapter, NetPotential, elements_of
from mlpbench.worker.adapters._pairnet import Batch, PairNet
from mlpbench.worker.training import RefusedOption, label_scale, require_option

# Keys of a preset -> arguments of DimeNetPlusPlus.
NAMES = {
    "cutoff": "cutoff", "n_features": "hidden_channels", "n_blocks": "num_blocks", "n_triplet_features": "int_emb_size",
    "n_basis_features": "basis_emb_size", "n_output_features": "out_emb_channels",
    "n_output_layers": "num_output_layers", "n_spherical": "num_spherical", "n_radial": "num_radial",
    "envelope_exponent": "envelope_exponent", "output_init": "output_initializer",
}  # fmt: skip
LARGEST = 94  # atomic number, of which the package's embedding has a row
NOT_READ = ("out_channels", "max_num_neighbors")  # one energy; all neighbours within the cutoff count
EXPORTED = """\
def package_calculator(folder, device):
    import sys

    sys.path.insert(0, str(folder))
    from dimenet import DimeNetCalculator, read
    from half_list import half_list

    return DimeNetCalculator(*read(folder / "model.pt", device), half_list)
"""


class DimeNetNet(PairNet):
    """DimeNet++.

    Args:
        facts: see :meth:`facts`.
        device: where it runs.
        dtype: of its weights.
    """

    title = "this DimeNet++ model"
    readout = ("output_blocks.",)

    def __init__(self, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> None:
        self.options, self.elements, self.device, self.dtype = facts["model"], list(facts["elements"]), device, dtype
        self.scale, self.cutoff = float(facts["scale"]), float(facts["model"]["cutoff"])
        self.model = DimeNetPP(facts["model"]).to(device, dtype)

    @classmethod
    def facts(cls, request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
        """See :meth:`Net.facts`."""
        elements = elements_of(train, valid)
        if elements[-1] > LARGEST:
            raise RefusedOption(f"DimeNet++ of PyTorch Geometric knows no element beyond plutonium ({elements[-1]})")
        return {
            "model": model_options(request.architecture),
            "elements": elements,
            "scale": label_scale(train, request.labels),
        }

    @classmethod
    def build(cls, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> DimeNetNet:
        """See :meth:`Net.build`."""
        return cls(facts, device, dtype)

    def atomic(self, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
        """See :meth:`PairNet.atomic`."""
        energies: torch.Tensor = self.model(batch.species, batch.pairs, vectors)
        return energies


class DimeNetPotential(NetPotential):
    """A trained DimeNet++."""

    def calculator(self) -> Calculator:
        """mlpbench's calculator around a copy of the model: PyTorch Geometric has none."""
        net = self.net
        return DimeNetCalculator(copy.deepcopy(net.model), net.scale, net.elements, _pairs.half_list)

    def neighbours(self, calculator: Calculator) -> Callable[[Atoms], Any]:
        """See :meth:`Potential.neighbours`."""
        return lambda atoms: _pairs.half_list(atoms, self.net.cutoff)

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: torch's, of whole batches, since PyTorch Geometric has none."""
        net, energy, forces = self.net, [], []
        inputs = net.prepare(frames, ["energy", "forces"])
        for start in range(0, len(inputs), batch_size):
            batch = net.collate(inputs[start : start + batch_size])
            found = net.outputs(batch, stress=False)
            energy.append(((found[0].detach() - batch.labels["energy"]) / batch.counts).double())
            forces.append((found[1].detach() - batch.labels["forces"]).double())
        means = [torch.cat(parts).abs().mean() for parts in (energy, forces)]
        return {"energy_mae": float(means[0]), "force_mae": float(means[1])}


class PygAdapter(NetAdapter):
    """DimeNet++ in mlpbench's loop; resumes exactly."""

    packages = ("torch-geometric", "torch", "vesin")
    modules = tuple(f"mlpbench.worker.adapters.{name}" for name in ("_pairnet", "_pairs", "_dimenet"))
    net = DimeNetNet
    potential = DimeNetPotential

    def export(self, folder: Path) -> str:
        """See :meth:`Adapter.export`: weights, and copies of the two modules that run them."""
        potential: Any = self.load()
        net = potential.net
        kept = {"options": net.options, "scale": net.scale, "elements": net.elements, "state": net.model.state_dict()}
        save(kept, folder / "model.pt")
        for module, name in ((_dimenet, "dimenet.py"), (_pairs, "half_list.py")):
            (folder / name).write_text(inspect.getsource(module), encoding="utf-8")
        return EXPORTED


def model_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``DimeNetPlusPlus``: its defaults, the preset's, and the user's ``native`` ones over them.

    Raises:
        RefusedOption: an argument that it does not have, or one that has no effect here.
    """
    parameters = inspect.signature(DimeNetPlusPlus).parameters.values()
    options = {one.name: one.default for one in parameters if one.name not in NOT_READ}
    options |= {argument: settings[name] for name, argument in NAMES.items()}
    native = settings.get("native") or {}
    for option in native:
        require_option(option, options, f"architecture.native.{option}", "DimeNet++ of PyTorch Geometric")
    options |= native
    if options["num_spherical"] < 2:
        raise RefusedOption("architecture.n_spherical must be at least 2")
    if options["output_initializer"] not in ("zeros", "glorot_orthogonal"):
        raise RefusedOption("architecture.output_init: zeros or glorot_orthogonal")
    return options
