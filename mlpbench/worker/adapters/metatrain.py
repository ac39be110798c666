"""metatrain (https://github.com/metatensor/metatrain): its SOAP-BPNN and PET, with its loss, in mlpbench's loop.

metatrain's trainer counts epochs, chooses its own batches and schedule, and keeps what its own metric calls the best.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sphericart.torch  # noqa: F401  # an exported SOAP-BPNN has wrong forces, without a word, where this is missing
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from metatensor.torch import TensorBlock, TensorMap
from metatomic.torch import System
from metatomic_ase import MetatomicCalculator
from metatrain.scaler import train_or_load_scaler
from metatrain.utils.architectures import check_architecture_options, get_default_hypers, import_architecture
from metatrain.utils.data import DatasetInfo, TargetInfo
from metatrain.utils.data.target_info import get_energy_target_info
from metatrain.utils.evaluate_model import evaluate_model
from metatrain.utils.loss import LossAggregator
from metatrain.utils.metrics import MAEAccumulator
from metatrain.utils.neighbor_lists import get_requested_neighbor_lists, get_system_with_neighbor_lists
from metatrain.utils.per_atom import average_by_num_atoms
from scipy.spatial.transform import Rotation

from mlpbench.frames import Frames
from mlpbench.protocol import Request
from mlpbench.worker.adapter import Unavailable
from mlpbench.worker.adapters._net import Net, NetAdapter, NetPotential, default_dtype, elements_of, require_elements
from mlpbench.worker.training import RefusedOption, label_scale, require_option

VOIGT = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))
WEIGHTS = {"energy": "energy_weight", "forces": "force_weight"}
# Keys of a preset -> metatrain's own; what is left of a preset is told to the architecture under its own name.
SOAP_BPNN = {
    "cutoff": "soap.cutoff.radius", "cutoff_width": "soap.cutoff.width", "max_angular": "soap.max_angular",
    "max_radial": "soap.max_radial", "n_layers": "bpnn.num_hidden_layers", "n_neurons": "bpnn.num_neurons_per_layer",
    "layer_norm": "bpnn.layernorm", "element_networks": "legacy",
}  # fmt: skip
PET = {
    "cutoff": "cutoff", "cutoff_width": "cutoff_width", "n_edge_features": "d_pet", "n_node_features": "d_node",
    "n_feedforward": "d_feedforward", "n_head_features": "d_head", "n_heads": "num_heads",
    "n_attention_layers": "num_attention_layers", "n_gnn_layers": "num_gnn_layers",
}  # fmt: skip
EXPORTED = """\
def package_calculator(folder, device):
    import sphericart.torch  # without it an exported SOAP-BPNN has wrong forces, and says nothing
    from metatomic_ase import MetatomicCalculator

    return MetatomicCalculator(
        str(folder / "model.pt"), device=device, extensions_directory=str(folder / "extensions"),
        uncertainty_threshold=None,
    )
"""
NAMES = {"soap_bpnn": SOAP_BPNN, "pet": PET}


@dataclass(frozen=True)
class Structure:
    """One frame as metatrain needs it; energies in eV without the baseline, lengths in Å.

    Attributes:
        system: with its neighbour list, but for the gradients of positions.
        energy: () or None.
        forces: (n, 3) or None.
        stress: (3, 3), ASE's sign, or None.
    """

    system: System
    energy: torch.Tensor | None
    forces: torch.Tensor | None
    stress: torch.Tensor | None

    def turned(self, rotation: torch.Tensor, neighbours: Any) -> Structure:
        """The frame and its labels, turned (or reflected) by a (3, 3) matrix R: x → R x."""
        turn = rotation.T
        system = System(
            types=self.system.types, positions=self.system.positions @ turn, cell=self.system.cell @ turn,
            pbc=self.system.pbc,
        )  # fmt: skip
        block = self.system.get_neighbor_list(neighbours)
        values = (block.values.squeeze(-1) @ turn).unsqueeze(-1)
        system.add_neighbor_list(neighbours, TensorBlock(values, block.samples, block.components, block.properties))
        return replace(
            self, system=system,
            forces=None if self.forces is None else self.forces @ turn,
            stress=None if self.stress is None else rotation @ self.stress @ turn,
        )  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """Frames on the device, and their labels where there are any: (F,), (A, 3) and (F, 3, 3)."""

    systems: list[System]
    energy: torch.Tensor | None
    forces: torch.Tensor | None
    stress: torch.Tensor | None


class MetatrainNet(Net):
    """A model of metatrain with one energy target, scaled by the size of the labels.

    Args:
        facts: see :meth:`facts`.
        device: where it runs.
        dtype: of its weights.
    """

    def __init__(self, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> None:
        self.facts_, self.device, self.dtype = facts, device, dtype
        self.scale = float(facts["scale"])
        info = DatasetInfo("angstrom", list(facts["elements"]), {"energy": target_info(stress=True)})
        model = import_architecture(facts["architecture"]).__model__(copy.deepcopy(facts["hypers"]), info)
        self.composition = model.additive_models[0]
        train_or_load_scaler(model.scaler, [], [], 1, False, fixed_weights={"energy": self.scale})
        self.composition.sync_tensor_maps()  # zeros: the baseline holds the mean
        self.model = model.to(device, dtype)
        model.scaler.to(torch.float64)
        model.scaler.scales_to(torch.device(device), torch.float64)
        self.composition.to(torch.float64).weights_to(torch.device(device), torch.float64)
        (self.neighbours,) = get_requested_neighbor_lists(self.model)
        self.augments = bool(facts["augment"])

    @classmethod
    def facts(cls, request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
        """See :meth:`Net.facts`."""
        name = request.architecture["name"]
        return {
            "architecture": name,
            "hypers": model_hypers(name, NAMES[name], request.architecture),
            "elements": elements_of(train, valid),
            "scale": label_scale(train, request.labels),
            "augment": request.architecture.get("augment", False),
        }

    @classmethod
    def build(cls, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> MetatrainNet:
        """See :meth:`Net.build`."""
        return cls(facts, device, dtype)

    def again(self) -> MetatrainNet:
        """A second net with the same weights; TorchScript functions inside a model keep it from being copied."""
        with default_dtype(self.dtype):
            other = self.build(self.facts_, self.device, self.dtype)
        other.model.load_state_dict(self.model.state_dict())
        return other

    def prepare(self, frames: Frames, labels: Sequence[str] = ()) -> list[Any]:
        """See :meth:`Net.prepare`."""
        require_elements(frames, self.facts_["elements"], "this potential")
        offsets, structures = frames.offsets, []
        for i, atoms in enumerate(frames.to_atoms()):
            part = slice(offsets[i], offsets[i + 1])
            stress = frames.stress[i][[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3)
            structures.append(
                Structure(
                    system=get_system_with_neighbor_lists(self._system(atoms), [self.neighbours]),
                    energy=self._tensor(frames.target_energy[i]) if "energy" in labels else None,
                    forces=self._tensor(frames.forces[part]) if "forces" in labels else None,
                    stress=self._tensor(stress) if "stress" in labels else None,
                )
            )
        return structures

    def _system(self, atoms: Atoms) -> System:
        cell = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)  # metatomic wants no vector where nothing repeats
        return System(
            types=torch.from_numpy(atoms.numbers).to(torch.int32),
            positions=self._tensor(atoms.positions),
            cell=self._tensor(cell),
            pbc=torch.from_numpy(atoms.pbc),
        )

    def _tensor(self, value: Any) -> torch.Tensor:
        return torch.as_tensor(np.array(value), dtype=self.dtype)

    def collate(self, inputs: Sequence[Any]) -> Batch:
        """See :meth:`Net.collate`."""

        def joined(name: str, join: Callable[[list[torch.Tensor]], torch.Tensor]) -> torch.Tensor | None:
            parts = [getattr(structure, name) for structure in inputs]
            return None if parts[0] is None else join(parts).to(self.device)

        systems = [structure.system.to(device=self.device) for structure in inputs]
        return Batch(systems, joined("energy", torch.stack), joined("forces", torch.cat), joined("stress", torch.stack))

    def training_batch(self, inputs: Sequence[Any], seed: Sequence[int]) -> Batch:
        """See :meth:`Net.training_batch`: PET learns rotations and reflections from turned copies, as in metatrain."""
        if self.augments:
            random = np.random.default_rng(list(seed))
            turns = Rotation.random(len(inputs), rng=random).as_matrix() * random.choice(
                (-1.0, 1.0), (len(inputs), 1, 1)
            )
            inputs = [one.turned(self._tensor(turn), self.neighbours) for one, turn in zip(inputs, turns, strict=True)]
        return self.collate(inputs)

    def outputs(self, batch: Batch, stress: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """See :meth:`Net.outputs`. Frames without a volume have a stress of NaN."""
        self.model.eval()
        block = self._evaluate(batch, stress, training=False).block()
        found = self._stress(block, batch) if stress else None
        return block.values.reshape(-1), -block.gradient("positions").values.squeeze(-1), found

    def loss(self, batch: Batch, training: Mapping[str, Any]) -> torch.Tensor:
        """See :meth:`Net.loss`: metatrain's own loss on energies per atom and forces, which it divides by the scale.

        The stress term is mlpbench's: metatrain's is on the strain derivative of the energy per atom.
        """
        self.model.train()  # the output is not scaled then
        stress = float(training.get("stress_weight") or 0.0)
        found = self._evaluate(batch, stress > 0, training=True)
        predicted = average_by_num_atoms({"energy": plain(found)}, batch.systems, [])
        labels = average_by_num_atoms({"energy": self._labels(batch, found)}, batch.systems, [])
        weights = [float(training[weight]) for weight in WEIGHTS.values()]
        loss = loss_function(*weights)(predicted, labels, {}) * self.scale**2
        if stress:
            assert batch.stress is not None
            off = self._stress(found.block(), batch) * self.scale - batch.stress
            loss = loss + stress * off[:, VOIGT[0], VOIGT[1]].square().mean()
        return loss

    def _evaluate(self, batch: Batch, stress: bool, training: bool) -> TensorMap:
        """Energies with their gradients, scaled if the model is not in training mode."""
        return evaluate_model(self.model, batch.systems, {"energy": target_info(stress)}, is_training=training)[
            "energy"
        ]

    def _stress(self, block: TensorBlock, batch: Batch) -> torch.Tensor:
        """(F, 3, 3) eV/Å³, ASE's sign: the energy's derivative by strain over the volume."""
        strain = block.gradient("strain").values.squeeze(-1)
        volume = torch.stack([torch.linalg.det(system.cell).abs() for system in batch.systems])
        symmetric = 0.5 * (strain + strain.transpose(1, 2))
        return torch.where(volume > 0, 1.0 / volume, torch.nan)[:, None, None] * symmetric

    def _labels(self, batch: Batch, like: TensorMap) -> TensorMap:
        """The labels in the form of the prediction, over the scale; zero where a label is not trained on."""
        block, forces = like.block(), like.block().gradient("positions")
        energy = torch.zeros_like(block.values) if batch.energy is None else batch.energy.reshape(-1, 1) / self.scale
        gradient = torch.zeros_like(forces.values) if batch.forces is None else -batch.forces.unsqueeze(-1) / self.scale
        made = TensorBlock(energy.detach(), block.samples, block.components, block.properties)
        made.add_gradient(
            "positions", TensorBlock(gradient.detach(), forces.samples, forces.components, forces.properties)
        )
        return TensorMap(like.keys, [made])


class MetatrainPotential(NetPotential):
    """A trained model of metatrain, run eagerly."""

    def calculator(self) -> Calculator:
        """metatomic's ASE calculator around a copy of the model."""
        return calculator_of(self.net.again().model.export(), self.net.device)

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: metatrain's accumulator of absolute errors."""
        net, accumulator = self.net, MAEAccumulator()
        inputs = net.prepare(frames, ["energy", "forces"])
        net.model.eval()
        for start in range(0, len(inputs), batch_size):
            batch = net.collate(inputs[start : start + batch_size])
            found = net._evaluate(batch, False, training=False)
            labels = scaled(net._labels(batch, found), net.scale)
            pair = [average_by_num_atoms({"energy": one}, batch.systems, []) for one in (found, labels)]
            accumulator.update(*pair)
        metrics = accumulator.finalize(not_per_atom=["positions_gradients"])
        energy = next(value for name, value in metrics.items() if "gradients" not in name)
        forces = next(value for name, value in metrics.items() if "positions_gradients" in name)
        return {"energy_mae": float(energy), "force_mae": float(forces)}


class MetatrainAdapter(NetAdapter):
    """metatrain's models and loss in mlpbench's loop; resumes exactly."""

    packages = (
        "metatrain", "torch", "metatomic-torch", "metatensor-torch", "metatomic-ase", "torch-spex", "sphericart-torch",
    )  # fmt: skip
    preload = ("torch._dynamo", *(f"metatrain.{name}{part}" for name in NAMES for part in ("", ".documentation")))
    deployments = {"compiled": ("TorchScript",)}  # noqa: RUF012
    net = MetatrainNet
    potential = MetatrainPotential

    def deploy(self, potential: Any, means: str) -> Calculator:
        """See :meth:`Adapter.deploy`: the exported file, as metatrain's users and MD codes run it."""
        if means != "TorchScript":
            raise Unavailable(f"metatrain does not know {means}")
        with tempfile.TemporaryDirectory() as folder:
            write_exported(potential, Path(folder))
            extensions = str(Path(folder) / "extensions")
            return calculator_of(str(Path(folder) / "model.pt"), potential.net.device, extensions)

    def export(self, folder: Path) -> str:
        """See :meth:`Adapter.export`: the file that ``mtt export`` writes, with its extensions."""
        write_exported(self.load(), folder)
        return EXPORTED


def write_exported(potential: Any, folder: Path) -> None:
    """metatomic's ``model.pt`` and the folder ``extensions`` with the libraries that it needs."""
    exported = potential.net.again().model.export()
    exported.save(folder / "model.pt", collect_extensions=str(folder / "extensions"))


def calculator_of(model: Any, device: str, extensions: str | None = None) -> Calculator:
    """metatomic's calculator; without the skin of its neighbour list, which changes nothing but the time of a step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return MetatomicCalculator(model, device=device, extensions_directory=extensions, uncertainty_threshold=None)


def model_hypers(name: str, names: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """metatrain's section ``architecture.model``: its defaults, the preset's values, the user's ``native`` options.

    Args:
        name: of metatrain's architecture.
        names: keys of a preset -> metatrain's own.
        settings: the preset's values.

    Raises:
        RefusedOption: metatrain does not know an option or does not accept its value.
    """
    options = get_default_hypers(name)
    hypers: dict[str, Any] = options["model"]
    for ours, theirs in names.items():
        *path, last = theirs.split(".")
        node = hypers
        for part in path:
            node = node[part]
        node[last] = settings[ours]
    merge(hypers, settings.get("native") or {}, "architecture.native")
    try:
        check_architecture_options(name, copy.deepcopy({**options, "name": name}))
    except Exception as error:  # metatrain's own and pydantic's
        raise RefusedOption(f"architecture.native: metatrain does not accept it: {error}") from error
    return hypers


def merge(hypers: dict[str, Any], native: Mapping[str, Any], place: str) -> None:
    """Put ``native`` over ``hypers``, refusing what is not there.

    Raises:
        RefusedOption: an option that metatrain does not have.
    """
    for option, value in native.items():
        require_option(option, hypers, f"{place}.{option}", "metatrain")
        if isinstance(value, Mapping) and isinstance(hypers[option], dict):
            merge(hypers[option], value, f"{place}.{option}")
        else:
            hypers[option] = value


def target_info(stress: bool) -> TargetInfo:
    """metatrain's description of the energy, with forces and, if asked for, stress as gradients."""
    target = {"quantity": "energy", "unit": "eV", "sample_kind": "system", "num_subtargets": 1, "type": "scalar",
              "description": ""}  # fmt: skip
    return get_energy_target_info("energy", target, add_position_gradients=True, add_strain_gradients=stress)


def loss_function(energy: float, forces: float) -> LossAggregator:
    """metatrain's loss with these weights; every term is a mean of squares."""

    def term(weight: float) -> dict[str, Any]:
        return {"type": "mse", "weight": weight, "reduction": "mean"}

    config = {"energy": {**term(energy), "gradients": {"positions": term(forces)}}}
    return LossAggregator({"energy": target_info(stress=False)}, config)


def plain(found: TensorMap) -> TensorMap:
    """A prediction with the gradients that metatrain's loss looks at: those of the positions."""
    block = found.block()
    made = TensorBlock(block.values, block.samples, block.components, block.properties)
    made.add_gradient("positions", block.gradient("positions").copy(deep=False))
    return TensorMap(found.keys, [made])


def scaled(found: TensorMap, factor: float) -> TensorMap:
    """A prediction or label, and its position gradients, times a factor."""
    block, forces = found.block(), found.block().gradient("positions")
    made = TensorBlock(factor * block.values, block.samples, block.components, block.properties)
    made.add_gradient(
        "positions", TensorBlock(factor * forces.values, forces.samples, forces.components, forces.properties)
    )
    return TensorMap(found.keys, [made])
