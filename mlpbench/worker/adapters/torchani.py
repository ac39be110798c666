"""TorchANI (https://github.com/aiqm/torchani): ANI models, in mlpbench's loop, since the package has none.

Its models count in hartree; here their output is in units of the label scale until the package's own calculator is
asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import chemical_symbols
from ase.units import Hartree
from torchani.aev import ANIAngular, ANIRadial
from torchani.arch import Assembler
from torchani.ase import from_ase
from torchani.grad import energies_and_forces
from torchani.neighbors import Neighbors
from torchani.nn import ANINetworks

from mlpbench.frames import Frames
from mlpbench.protocol import Request
from mlpbench.worker.adapter import Unavailable
from mlpbench.worker.adapters._net import VOIGT, NetAdapter, NetPotential, elements_of
from mlpbench.worker.adapters._pairnet import Batch, PairNet
from mlpbench.worker.training import RefusedOption, label_scale, require_option

EXPORTED = """\
def package_calculator(folder, device):
    import torch
    from torchani.ase import Calculator

    return Calculator(torch.jit.load(str(folder / "model.pt"), map_location=device))
"""
PUBLISHED = {"ani1x": "like_1x", "ani2x": "like_2x"}  # the layers of these models, each element its own


class AniNet(PairNet):
    """An ANI model: symmetry functions and a network for each element.

    Args:
        facts: see :meth:`facts`.
        device: where it runs.
        dtype: of its weights.
    """

    title = "this ANI model"

    def __init__(self, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> None:
        self.elements, self.device, self.dtype = list(facts["elements"]), device, dtype
        self.scale = float(facts["scale"])
        self.model = assembled(facts["model"], facts["elements"]).to(device, dtype)
        self.cutoff = float(self.model.cutoff)

    @classmethod
    def facts(cls, request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
        """See :meth:`Net.facts`."""
        return {
            "model": model_options(request.architecture),
            "elements": elements_of(train, valid),
            "scale": label_scale(train, request.labels),
        }

    @classmethod
    def build(cls, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> AniNet:
        """See :meth:`Net.build`."""
        return cls(facts, device, dtype)

    def atomic(self, batch: Batch, vectors: torch.Tensor) -> torch.Tensor:
        """See :meth:`PairNet.atomic`."""
        index = self.model.species_converter(batch.species[None])
        neighbours = Neighbors(batch.pairs, vectors.norm(2, -1), vectors)
        found = self.model.compute_from_neighbors(index, batch.positions[None], neighbours, atomic=True)
        energies: torch.Tensor = found.energies[0]
        return energies


class AniPotential(NetPotential):
    """A trained ANI model, run eagerly."""

    def hartree_model(self) -> Any:
        """A copy of the model whose energies are in hartree, as the package has it."""
        model = copy.deepcopy(self.net.model)
        factor = self.net.scale / Hartree
        with torch.no_grad():
            for network in model.neural_networks.atomics.values():
                for parameter in network.final_layer.parameters():
                    parameter.mul_(factor)
        return model.eval().requires_grad_(False)

    def calculator(self) -> Calculator:
        """TorchANI's ASE calculator."""
        return Always(self.hartree_model().ase())

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: from what TorchANI itself gives for one frame at a time."""
        model, net, offsets = self.hartree_model(), self.net, frames.offsets
        energy, forces = [], []
        for i, atoms in enumerate(frames.to_atoms()):
            species, positions, cell, pbc = from_ase(atoms, net.device, net.dtype)
            found = energies_and_forces(model, species, positions, cell, pbc)
            off = float(found.energies.detach()) * Hartree - frames.target_energy[i]
            energy.append(abs(off) / len(atoms))
            values = found.forces[0].detach().double().cpu().numpy() * Hartree
            forces.append(np.abs(values - frames.forces[offsets[i] : offsets[i + 1]]).ravel())
        return {"energy_mae": float(np.mean(energy)), "force_mae": float(np.mean(np.concatenate(forces)))}


class Always(Calculator):
    """TorchANI's calculator asked for everything at once; it answers what is asked, one forward pass for each.

    Args:
        inner: TorchANI's.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012

    def __init__(self, inner: Calculator) -> None:
        super().__init__()
        self.inner = inner

    def calculate(
        self, atoms: Atoms | None = None, properties: Sequence[str] = ("energy",), system_changes: Any = ()
    ) -> None:
        """Energy and forces, and the stress of what repeats along all vectors."""
        super().calculate(atoms, list(properties), system_changes)
        assert self.atoms is not None
        wanted = ["energy", "free_energy", "forces", *(["stress"] if self.atoms.pbc.all() else [])]
        self.inner.calculate(self.atoms, wanted)
        self.results = dict(self.inner.results)
        stress = self.results.get("stress")
        if stress is not None and np.shape(stress) == (3, 3):
            self.results["stress"] = stress[VOIGT[0], VOIGT[1]]


class TorchAniAdapter(NetAdapter):
    """ANI models in mlpbench's loop; resumes exactly."""

    packages = ("torchani", "torch", "vesin")
    modules = ("mlpbench.worker.adapters._pairnet", "mlpbench.worker.adapters._pairs")
    deployments = {"compiled": ("TorchScript",)}  # noqa: RUF012
    net = AniNet
    potential = AniPotential

    def deploy(self, potential: Any, means: str) -> Calculator:
        """See :meth:`Adapter.deploy`."""
        if means != "TorchScript":
            raise Unavailable(f"TorchANI does not know {means}")
        return Always(potential.hartree_model().ase(jit=True))

    def export(self, folder: Path) -> str:
        """See :meth:`Adapter.export`: the model in TorchScript, in hartree."""
        potential: Any = self.load()
        torch.jit.script(potential.hartree_model()).save(folder / "model.pt")
        return EXPORTED


def model_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`assembled` builds, the user's ``native`` options merged over it.

    Raises:
        RefusedOption: an option that is not there, or an angular cutoff beyond the radial one.
    """
    names = (
        "cutoff", "angular_cutoff", "radial_start", "angular_start", "radial_shifts", "angular_shifts",
        "angular_sections", "radial_eta", "angular_eta", "angular_zeta", "cutoff_function", "networks", "layers",
        "activation", "bias",
    )  # fmt: skip
    options = {name: settings[name] for name in names}
    for option in settings.get("native") or {}:
        require_option(option, options, f"architecture.native.{option}", "TorchANI")
    options |= settings.get("native") or {}
    if options["angular_cutoff"] > options["cutoff"]:
        raise RefusedOption("architecture.angular_cutoff is beyond architecture.cutoff, which TorchANI does not do")
    if options["networks"] not in ("own", *PUBLISHED):
        raise RefusedOption(f"architecture.networks={options['networks']}: own, ani1x or ani2x")
    return options


def assembled(options: Mapping[str, Any], elements: Sequence[int]) -> Any:
    """TorchANI's model for ``elements``, with reference energies of zero and without repulsion or dispersion."""
    assembler = Assembler()
    assembler.set_symbols([chemical_symbols[z] for z in elements])
    assembler.set_global_cutoff_fn(options["cutoff_function"])
    assembler.set_aev_computer(
        radial=ANIRadial.cover_linearly(
            start=options["radial_start"], cutoff=float(options["cutoff"]), eta=options["radial_eta"],
            num_shifts=options["radial_shifts"],
        ),
        angular=ANIAngular.cover_linearly(
            start=options["angular_start"], cutoff=float(options["angular_cutoff"]), eta=options["angular_eta"],
            zeta=options["angular_zeta"], num_shifts=options["angular_shifts"],
            num_sections=options["angular_sections"],
        ),
        strategy="pyaev",
    )  # fmt: skip
    shape: dict[str, Any] = {"activation": options["activation"], "bias": options["bias"]}
    if options["networks"] == "own":
        shape |= {"dims": {}, "default_dims": tuple(options["layers"])}
    assembler.set_atomic_networks(ANINetworks, PUBLISHED.get(options["networks"], "build"), shape)
    assembler.set_zeros_as_self_energies()
    return assembler.assemble()
