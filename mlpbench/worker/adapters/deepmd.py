"""DeePMD-kit (https://github.com/deepmodeling/deepmd-kit): se_e2_a, DPA-1 and DPA-3, trained by mlpbench's loop."""

from __future__ import annotations

import os

# DeePMD-kit takes the first GPU when it is imported, whatever device a request asks for: see use_device.
os.environ["DEVICE"] = "cpu"
os.environ["DP_INTRA_OP_PARALLELISM_THREADS"] = "0"  # what torch has; said here, or it asks for it in every log
os.environ["DP_INTER_OP_PARALLELISM_THREADS"] = "0"

import logging
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from deepmd.calculator import DP
from deepmd.infer import DeepPot
from deepmd.pt.train.wrapper import ModelWrapper

from mlpbench.frames import Frames
from mlpbench.protocol import Request
from mlpbench.worker.adapter import PairStyle, Unavailable
from mlpbench.worker.adapters._deepmd_config import model_section, own_training
from mlpbench.worker.adapters._deepmd_model import Batch, structures, use_device, whole_cell
from mlpbench.worker.adapters._deepmd_net import DeepmdNet, package_errors
from mlpbench.worker.adapters._net import NetAdapter, NetPotential, elements_of

# Scripted by the package itself; the second with its embedding networks as tables (`dp --pt compress`).
SCRIPTED, TABULATED = "TorchScript", "TorchScript, tabulated"
TABULATED_DESCRIPTORS = ("se_e2_a",)
STRIDE, EXTRAPOLATE = 0.01, 5  # defaults of `dp --pt compress`


class DeepmdPotential(NetPotential):
    """A trained ``EnergyModel`` of DeePMD-kit."""

    def __init__(self, net: DeepmdNet) -> None:
        super().__init__(net)
        net.model.requires_grad_(False)

    def calculator(self) -> Calculator:
        """DeePMD-kit's ASE calculator around a copy of the model, run eagerly."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            torch.save({"model": ModelWrapper(self.net.whole(), model_params=self.net.parameters).state_dict()}, path)
            return DeepmdCalculator(self.net, path, no_jit=True)

    def neighbours(self, calculator: Calculator) -> Callable[[Atoms], Any]:
        """See :meth:`Potential.neighbours`."""
        return calculator.search  # type: ignore[attr-defined,no-any-return]  # of the class below

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: what DeePMD-kit's loss reports of all frames as one batch."""
        known = {"energy": bool(np.isfinite(frames.target_energy).all()), "forces": frames.has_forces}
        batch = self.net.collate(self.net.prepare(frames, [label for label, there in known.items() if there]))
        self.net.model.eval()
        return package_errors(self.net.evaluate(batch), batch)

    def torchsim_model(self) -> Any:
        """A torch-sim model that evaluates all systems in one forward pass."""
        from mlpbench.worker.adapters._deepmd_torchsim import DeepmdTorchSim  # takes seconds to import

        return DeepmdTorchSim(self)


class DeepmdCalculator(DP):  # type: ignore[misc]  # DeePMD-kit has no annotations that mypy reads
    """DeePMD-kit's ASE calculator for slabs and clusters too: it knows three periodic directions or none.

    Args:
        net: whose model it is, for the number of places for neighbours.
        path: the model's file.
        no_jit: run a checkpoint eagerly instead of scripting it first.
    """

    def __init__(self, net: DeepmdNet, path: Path, no_jit: bool = False) -> None:
        Calculator.__init__(self)
        self.net = net
        use_device(net.device)
        self.dp = DeepPot(str(path), auto_batch_size=False, no_jit=no_jit)
        self.type_dict = {symbol: place for place, symbol in enumerate(self.dp.get_type_map())}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] = ["energy"],  # noqa: B006  # as ASE declares it
        system_changes: list[str] = all_changes,
    ) -> None:
        """Energy, forces, and stress where all directions are periodic.

        Raises:
            PropertyNotImplementedError: stress of what is not periodic in all directions.
            ValueError: an unknown element, or more neighbours than the potential has places for.
        """
        given: Any = self.atoms if atoms is None else atoms
        if "stress" in properties and not given.pbc.all():
            raise PropertyNotImplementedError("stress: the structure is not periodic along all vectors")
        if given.pbc.any() or len(given) > min(min(places.each) for places in self.net.places):
            self.net.prepare(Frames.from_atoms([given]))  # refuses what it has no room for
        whole = given.copy()
        if given.pbc.any():
            whole.cell = whole_cell(given.positions, given.cell.array, given.pbc, self.net.cutoff)
        super().calculate(whole, properties, system_changes)
        self.atoms = given.copy()
        if not given.pbc.all():
            self.results.pop("stress", None)

    def search(self, atoms: Atoms) -> Any:
        """The neighbour list that the package makes before its forward pass."""
        backend = self.dp.deep_eval
        types = torch.tensor([[self.type_dict[symbol] for symbol in atoms.get_chemical_symbols()]])
        box = torch.from_numpy(atoms.cell.array)[None] if atoms.pbc.any() else None
        arguments = (torch.from_numpy(atoms.positions)[None], types, box)
        on = [each if each is None else each.to(self.net.device) for each in arguments]
        return backend._nlist_builder.build(*on, backend.rcut, list(backend.dp.model["Default"].get_sel()))


class DeepmdAdapter(NetAdapter):
    """DeePMD-kit's models and loss in mlpbench's loop; resumes exactly."""

    packages = ("deepmd-kit", "torch", "vesin", "torch-sim-atomistic")
    preload: ClassVar[tuple[str, ...]] = (*NetAdapter.preload, "deepmd.pt.infer.deep_eval")
    deployments: ClassVar[Mapping[str, tuple[str, ...]]] = {"compiled": (SCRIPTED, TABULATED)}
    pair_styles = ("deepmd",)
    net = DeepmdNet
    potential = DeepmdPotential
    modules = tuple(f"mlpbench.worker.adapters._deepmd_{name}" for name in ("config", "model"))

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        logging.getLogger("deepmd").setLevel(logging.WARNING)

    def check_options(self, train: Frames, valid: Frames) -> None:
        """See :meth:`Adapter.check_options`."""
        elements, cutoff = elements_of(train, valid), float(self.request.architecture["cutoff"])
        model_section(self.request, elements, structures(Frames.concatenate([train, valid]), elements, cutoff))
        own_training(self.request, len(train))

    def deploy(self, potential: Any, means: str) -> Calculator:
        """See :meth:`Adapter.deploy`: what ``dp --pt freeze`` and ``dp --pt compress`` make."""
        net: DeepmdNet = potential.net
        model, descriptor = net.whole(), net.parameters["descriptor"]["type"]
        if means == TABULATED:
            if descriptor not in TABULATED_DESCRIPTORS:
                raise Unavailable(f"DeePMD-kit has no tables for {descriptor} with these options")
            train = structures(Frames.load(self.request.frames["train"]), net.elements, net.cutoff)
            model.min_nbor_dist = torch.tensor(min(_nearest(frame) for frame in train), dtype=torch.float64)
            model.enable_compression(EXTRAPOLATE, STRIDE, 10 * STRIDE, -1)
        elif means != SCRIPTED:
            raise Unavailable(f"DeePMD-kit does not know {means}")
        path = self.checkpoints / f"{'frozen' if means == SCRIPTED else 'compressed'}.pth"
        _freeze(model, path)
        return DeepmdCalculator(net, path)

    def pair_style(self, folder: Path, known: Collection[str]) -> PairStyle:
        """See :meth:`Adapter.pair_style`; the style is a plugin that comes with DeePMD-kit, in its own precision.

        Takes frames whose atoms have no more neighbours than the potential has places: LAMMPS leaves out the farthest.
        """
        potential: Any = self.load()
        if potential.net.device != "cpu":
            raise Unavailable("mlpbench runs DeePMD-kit's pair style on CPUs only")
        _freeze(potential.net.whole(), folder / "frozen.pth")
        from deepmd import lmp  # on import it sets the paths that its plugin needs

        names = ("LD_LIBRARY_PATH", "LD_PRELOAD")
        plugin = Path(lmp.op_dir) / "libdeepmd_lmpplugin.so"
        if not plugin.is_file():
            raise Unavailable(f"DeePMD-kit has no {plugin.name} here")
        lines = (f"plugin load {plugin}", "pair_style deepmd frozen.pth", "pair_coeff * * {elements}")
        variables = {name: os.environ[name] for name in names if os.environ.get(name)}
        variables |= {
            "DP_INTRA_OP_PARALLELISM_THREADS": str(self.request.threads),
            "DP_INTER_OP_PARALLELISM_THREADS": "1",
        }
        return PairStyle("deepmd", lines, variables=variables)


def _freeze(model: Any, path: Path) -> None:
    torch.jit.save(torch.jit.script(model), str(path), {"data_modifier.pth": ""})


def _nearest(frame: Batch) -> float:
    """The shortest distance between neighbours (Å)."""
    bond = frame.positions[frame.neighbour] + frame.offset - frame.positions[frame.centre]
    return float(bond.norm(dim=1).min()) if len(bond) else float("inf")
