"""CHGNet (https://github.com/CederGroupHub/chgnet): its model and graphs, in mlpbench's loop.

Its own trainer weighs all nine components of the stress, counts epochs and has float32 alone. Molecules need no box
here: the lists of neighbours are mlpbench's, and hold no images along directions that do not repeat.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from chgnet.graph import CrystalGraph
from chgnet.model.model import CHGNet

from mlpbench.frames import Frames
from mlpbench.protocol import Request, write_json
from mlpbench.worker.adapter import Unusable, first_line
from mlpbench.worker.adapters import _chgnet_calculator
from mlpbench.worker.adapters._chgnet_calculator import AnyCalculator, build, lattice_of, precision
from mlpbench.worker.adapters._loop import BEST, save
from mlpbench.worker.adapters._net import (
    FACTS,
    Net,
    NetAdapter,
    NetPotential,
    elements_of,
    require_elements,
    squared_errors,
)
from mlpbench.worker.adapters._pairs import half_list
from mlpbench.worker.training import RefusedOption, label_scale, require_option

GPA = 1.0 / 160.21766208  # eV/Å³, as in CHGNet's model
HEAVIEST = 94  # CHGNet's embedding ends with plutonium
# Options of the model that other settings decide, or that would make a training depend on more than its seed.
DECIDED = (
    "atom_graph_cutoff", "composition_model", "version", "is_intensive", "mlp_first", "graph_converter_algorithm",
    "conv_dropout", "mlp_dropout", "read_out", "kwargs", "self",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One frame: the arrays of CHGNet's graph, and labels as :func:`squared_errors` takes them."""

    graph: dict[str, Any]
    labels: dict[str, torch.Tensor]
    count: int


@dataclass(frozen=True)
class Batch:
    """CHGNet's graphs on the device; ``counts`` (F,) atoms of each."""

    graphs: list[CrystalGraph]
    labels: dict[str, torch.Tensor]
    counts: torch.Tensor


class ChgNet(Net):
    """CHGNet's model, whose output is multiplied by a scale.

    Args:
        facts: see :meth:`facts`.
        device: where it runs.
        dtype: of its weights.
    """

    readout = ("readout_norm.", "mlp.")

    def __init__(self, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> None:
        self.facts_, self.device, self.dtype = facts, device, dtype
        self.scale = float(facts["scale"])
        self.model = build(dict(facts["model"]), dtype, bool(facts.get("adopted"))).to(device)
        self.model.site_wise.requires_grad_(False)  # for magnetic moments, which are no labels here
        self.kept = frozenset(name for name, p in self.model.named_parameters() if not p.requires_grad)

    @classmethod
    def facts(cls, request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
        """See :meth:`Net.facts`: arguments of CHGNet's model, and the scale of its output."""
        elements = elements_of(train, valid)
        if elements[-1] > HEAVIEST:
            raise RefusedOption(
                f"CHGNet knows elements up to plutonium, the data hold the atomic number {elements[-1]}"
            )
        return {
            "model": model_options(request.architecture),
            "elements": elements,
            "scale": label_scale(train, request.labels),
        }

    @classmethod
    def build(cls, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> ChgNet:
        """See :meth:`Net.build`."""
        return cls(facts, device, dtype)

    def prepare(self, frames: Frames, labels: Sequence[str] = ()) -> list[Any]:
        """See :meth:`Net.prepare`."""
        require_elements(frames, self.facts_["elements"], "this CHGNet")
        offsets, samples = frames.offsets, []
        for i, atoms in enumerate(frames.to_atoms()):
            values = {
                "energy": frames.target_energy[i],
                "forces": frames.forces[offsets[i] : offsets[i + 1]],
                "stress": frames.stress[i][[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3),
            }
            known = {name: torch.as_tensor(np.array(values[name]), dtype=self.dtype) for name in labels}
            samples.append(Sample(graph(atoms, self.model.graph_converter, self.dtype), known, len(atoms)))
        return samples

    def collate(self, inputs: Sequence[Any]) -> Batch:
        """See :meth:`Net.collate`."""
        graphs = []
        for one in inputs:
            placed = {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in one.graph.items()}
            # a leaf of its own, so that nothing gathers in the stored one
            placed["atom_frac_coord"] = placed["atom_frac_coord"].clone().requires_grad_(True)
            graphs.append(CrystalGraph(**placed))
        labels = {
            name: (torch.cat if name == "forces" else torch.stack)([one.labels[name] for one in inputs]).to(self.device)
            for name in inputs[0].labels
        }
        return Batch(graphs, labels, torch.tensor([one.count for one in inputs], device=self.device))

    def outputs(self, batch: Batch, stress: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """See :meth:`Net.outputs`."""
        self.model.eval()
        energy, forces, tensor = self._evaluate(batch, stress)
        return energy, forces, tensor if stress else None

    def loss(self, batch: Batch, training: Mapping[str, Any]) -> torch.Tensor:
        """See :meth:`Net.loss`: the common loss; CHGNet's own differs from it in the components of the stress."""
        self.model.train()
        outputs = self._evaluate(batch, bool(training.get("stress_weight")))
        return squared_errors(outputs, batch.labels, batch.counts, training)

    def _evaluate(self, batch: Batch, stress: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(F,) energies, (A, 3) forces, (F, 3, 3) stress (empty unless asked for)."""
        with precision(self.dtype):
            found = self.model(batch.graphs, task="efs" if stress else "ef")
        energy = self.scale * found["e"] * batch.counts
        forces = self.scale * torch.cat(found["f"])
        tensor = self.scale * GPA * torch.stack(found["s"]) if stress else forces.new_zeros(0, 3, 3)
        return energy, forces, 0.5 * (tensor + tensor.transpose(1, 2))


class ChgNetPotential(NetPotential):
    """A trained CHGNet."""

    def scaled_model(self) -> CHGNet:
        """A copy of the model whose output needs no scale."""
        model = copy.deepcopy(self.net.model)
        with torch.no_grad():
            for parameter in model.mlp.layers[-1].parameters():
                parameter.mul_(self.net.scale)
        return model.eval().requires_grad_(False)

    def calculator(self) -> Calculator:
        """CHGNet's ASE calculator around a copy of the model."""
        return AnyCalculator(self.scaled_model(), self.net.device)

    def neighbours(self, calculator: Calculator) -> Callable[[Atoms], Any]:
        """See :meth:`Potential.neighbours`."""
        own: Any = calculator
        return lambda atoms: own.graph(atoms)

    def atomic_energies(self) -> dict[int, float]:
        """See :meth:`Potential.atomic_energies`: of a foundation model."""
        if self.net.model.composition_model is None:
            return {}
        values = self.net.model.composition_model.fc.weight.detach().cpu().numpy()[0]
        return {z: float(value) for z, value in enumerate(values, start=1)}

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: from CHGNet's own graphs, frame by frame, by its calculator."""
        calculator, offsets = AnyCalculator(self.scaled_model(), self.net.device), frames.offsets
        energy, forces = [], []
        for i, atoms in enumerate(frames.to_atoms()):
            calculator.calculate(atoms)
            energy.append(abs(calculator.results["energy"] - frames.target_energy[i]) / len(atoms))
            forces.append(np.abs(calculator.results["forces"] - frames.forces[offsets[i] : offsets[i + 1]]).ravel())
        return {"energy_mae": float(np.mean(energy)), "force_mae": float(np.mean(np.concatenate(forces)))}


class ChgNetAdapter(NetAdapter):
    """CHGNet in mlpbench's loop; resumes exactly."""

    packages = ("chgnet", "torch", "pymatgen", "vesin")
    net = ChgNet
    potential = ChgNetPotential
    modules = ("mlpbench.worker.adapters._chgnet_calculator", "mlpbench.worker.adapters._pairs")

    def adopt(self, file: Path, options: Mapping[str, Any], *, trust: bool) -> None:
        """See :meth:`Adapter.adopt`: a file that CHGNet's trainer wrote, such as those of its pretrained models."""
        if options:
            raise Unusable(f"CHGNet's files take no options: start.options={dict(options)}")
        try:
            state = torch.load(file, map_location="cpu", weights_only=not trust)["model"]
            weights, given = state["state_dict"], dict(state["model_args"])
        except Exception as error:  # whatever a file that is no checkpoint of CHGNet's comes to
            raise Unusable(f"{file.name} is no checkpoint of CHGNet's: {first_line(error)}") from error
        if not (given.get("mlp_first", True) and given.get("is_intensive", True) and _is_linear(weights)):
            raise Unusable(f"{file.name} holds a CHGNet that is no sum of atomic energies, or has no atomic constants")
        known = set(inspect.signature(CHGNet.__init__).parameters) | {"conv_norm", "final_mlp"}
        args = {k: v for k, v in given.items() if k in known - {"composition_model", "version", "kwargs"}}
        args["mlp_out_bias"] = any(name.endswith("mlp_out.layers.1.bias") for name in weights)
        facts = {"model": args, "elements": list(range(1, HEAVIEST + 1)), "scale": 1.0, "adopted": True}
        model = build(args, torch.float32, True)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise Unusable(f"{file.name}: its weights are not those of its options: {first_line(error)}") from error
        write_json(self.checkpoints / FACTS, facts)
        save({"model": {name: p.detach() for name, p in model.named_parameters()}, "epoch": 0}, self.checkpoints / BEST)

    def export(self, folder: Path) -> str:
        """See :meth:`Adapter.export`: a file as CHGNet's trainer writes it."""
        potential: Any = self.load()
        args = {name: value for name, value in potential.net.facts_["model"].items() if name != "composition_model"}
        state = {"state_dict": potential.scaled_model().state_dict(), "model_args": args}
        torch.save({"model": state}, folder / "model.pth.tar")
        return Path(_chgnet_calculator.__file__).read_text(encoding="utf-8")


def _is_linear(weights: Mapping[str, Any]) -> bool:
    return {name for name in weights if name.startswith("composition_model")} == {"composition_model.fc.weight"}


def model_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of CHGNet's model, the user's ``native`` options merged over them.

    Raises:
        RefusedOption: an option that CHGNet does not have, that another setting decides, or a norm over batches.
    """
    channels = int(settings["channels"])
    options = {
        "atom_fea_dim": channels, "bond_fea_dim": channels, "angle_fea_dim": channels,
        "atom_conv_hidden_dim": channels, "bond_conv_hidden_dim": channels,
        "num_radial": settings["n_radial_basis"], "num_angular": settings["n_angular_basis"],
        "n_conv": settings["n_layers"], "mlp_hidden_dims": list(settings["readout_mlp"]),
        "atom_graph_cutoff": float(settings["cutoff"]), "bond_graph_cutoff": float(settings["bond_cutoff"]),
        "cutoff_coeff": settings["cutoff_power"], "mlp_first": True, "is_intensive": True,
    }  # fmt: skip
    native = dict(settings.get("native") or {})
    known = set(inspect.signature(CHGNet.__init__).parameters) - set(DECIDED)
    for option, value in native.items():
        require_option(option, known, f"architecture.native.{option}", "CHGNet")
        if value == "batch":
            raise RefusedOption(f"architecture.native.{option}=batch: statistics of batches are not kept here")
    if options["num_angular"] % 2 == 0:
        raise RefusedOption(f"architecture.n_angular_basis={options['num_angular']}: CHGNet wants an odd number")
    if options["bond_graph_cutoff"] > options["atom_graph_cutoff"]:
        raise RefusedOption("architecture.bond_cutoff is beyond architecture.cutoff, which CHGNet does not do")
    return {**options, **native}


def graph(atoms: Atoms, converter: Any, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of CHGNet's :class:`CrystalGraph`, with images along periodic directions alone.

    Args:
        atoms: the structure.
        converter: CHGNet's, for its two cutoffs.
        dtype: of positions and lattice.
    """
    near = float(converter.bond_graph_cutoff)
    first, second, shift = half_list(atoms, float(converter.atom_graph_cutoff))
    count, lattice = len(first), lattice_of(atoms)
    image = np.rint(shift @ atoms.cell.array @ np.linalg.inv(lattice))
    centre, other = np.concatenate([first, second]), np.concatenate([second, first])
    vector = atoms.positions[second] - atoms.positions[first] + shift @ atoms.cell.array
    short = np.flatnonzero(np.tile(np.linalg.norm(vector, axis=1) < near, 2))
    one, two = angles(centre[short], len(atoms))
    one, two = short[one], short[two]
    undirected = np.tile(np.arange(count), 2)
    bonds = np.stack([centre[one], undirected[one], one, undirected[two], two], axis=1)

    def whole(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int32))

    def real(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values, dtype=dtype)

    return {
        "atomic_number": whole(atoms.numbers),
        "atom_frac_coord": real(atoms.positions @ np.linalg.inv(lattice)),
        "atom_graph": whole(np.stack([centre, other], axis=1)),
        "neighbor_image": real(np.concatenate([image, -image])),
        "directed2undirected": whole(undirected),
        "undirected2directed": whole(np.arange(count)),
        "bond_graph": whole(bonds),
        "lattice": real(lattice),
        "atom_graph_cutoff": converter.atom_graph_cutoff,
        "bond_graph_cutoff": near,
    }


def angles(centre: np.ndarray, n_atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """All ordered pairs of two different edges (indices into ``centre``) that share a centre."""
    order = np.argsort(centre, kind="stable")
    number = np.bincount(centre, minlength=n_atoms)
    begin = np.cumsum(number) - number
    partners = number[centre[order]]  # of each edge, itself included
    one = np.repeat(np.arange(len(order)), partners)
    within = np.arange(len(one)) - np.repeat(np.cumsum(partners) - partners, partners)
    two = np.repeat(begin[centre[order]], partners) + within
    kept = one != two
    return order[one[kept]], order[two[kept]]
