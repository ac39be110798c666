"""SO3krates and SO3LR (https://github.com/tohenkes/So3krates-torch): the models, in mlpbench's loop.

Its own trainer counts epochs and knows no stress. From scratch the network is alone unless ``physics`` is set: SO3LR
adds short-range repulsion, electrostatics and dispersion to it, in absolute units.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from so3krates_torch.blocks import (
    embedding,
    euclidean_transformer,
    output_block,
    physical_potentials,
    radial_basis,
    so3_conv_invariants,
)
from so3krates_torch.modules import cutoff as cutoffs
from so3krates_torch.modules import spherical_harmonics
from so3krates_torch.modules.models import SO3LR, So3krates

from mlpbench.frames import Frames
from mlpbench.protocol import Request, write_json
from mlpbench.worker.adapter import Unusable, first_line
from mlpbench.worker.adapters import _so3krates_calculator
from mlpbench.worker.adapters._loop import BEST, save
from mlpbench.worker.adapters._net import (
    FACTS,
    Net,
    NetAdapter,
    NetPotential,
    default_dtype,
    elements_of,
    require_elements,
    squared_errors,
)
from mlpbench.worker.adapters._pairs import half_list
from mlpbench.worker.adapters._so3krates_calculator import AnyCalculator, build
from mlpbench.worker.training import RefusedOption, label_scale, require_option

N_ELEMENTS = 118
LONG_RANGE = {"r_max_lr": 12.0, "dispersion_energy_cutoff_lr_damping": 2.0}  # Å; as the package's SO3LRCalculator
SO3LR_ELEMENTS = (1, 6, 7, 8, 9, 15, 16, 17)
# Arguments that other settings decide, or that this package does not have for energies of neutral structures.
DECIDED = (
    "self", "args", "kwargs", "device", "dtype", "seed", "num_elements", "avg_num_neighbors", "r_max", "degrees",
    "atomic_type_shifts", "use_charge_embed", "use_spin_embed", "use_pme", "pme_smearing", "pme_mesh_spacing",
    "neighborlist_format_lr", "input_convention",
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One frame: its arrays as the model names them, without those of a batch, and its labels."""

    data: dict[str, torch.Tensor]
    labels: dict[str, torch.Tensor]
    volume: float


@dataclass(frozen=True)
class Batch:
    """Frames one after another on the device; ``counts`` and ``volumes`` (F,), a volume 0 where there is none."""

    data: dict[str, torch.Tensor]
    labels: dict[str, torch.Tensor]
    counts: torch.Tensor
    volumes: torch.Tensor


class So3kratesNet(Net):
    """The model; the network's part of the energy is multiplied by a scale.

    Args:
        facts: see :meth:`facts`.
        device: where it runs.
        dtype: of its weights.
    """

    readout = ("atomic_energy_output_block.", "partial_charges_output_block.", "hirshfeld_output_block.")

    def __init__(self, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> None:
        self.facts_, self.device, self.dtype = facts, device, dtype
        self.scale = float(facts["scale"])
        self.model = build(facts["model"], dtype).to(device)
        self.model.device = device
        self.kept = frozenset(name for name, p in self.model.named_parameters() if not p.requires_grad)
        self.long_range = float(facts["model"].get("r_max_lr") or 0.0)
        if self.scale != 1.0:
            scale = self.scale
            self.model.atomic_energy_output_block.register_forward_hook(lambda _module, _inputs, out: scale * out)

    @classmethod
    def facts(cls, request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
        """See :meth:`Net.facts`: arguments of the model, and the scale of its output."""
        options = model_options(request.architecture)
        options["avg_num_neighbors"] = mean_neighbours(train, options["r_max"])
        return {"model": options, "elements": elements_of(train, valid), "scale": label_scale(train, request.labels)}

    @classmethod
    def build(cls, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> So3kratesNet:
        """See :meth:`Net.build`."""
        return cls(facts, device, dtype)

    def prepare(self, frames: Frames, labels: Sequence[str] = ()) -> list[Any]:
        """See :meth:`Net.prepare`."""
        require_elements(frames, self.facts_["elements"], "this SO3krates")
        offsets, samples = frames.offsets, []
        for i, atoms in enumerate(frames.to_atoms()):
            values = {
                "energy": frames.target_energy[i],
                "forces": frames.forces[offsets[i] : offsets[i + 1]],
                "stress": frames.stress[i][[0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(3, 3),
            }
            known = {name: self._real(values[name]) for name in labels}
            volume = float(atoms.cell.volume) if atoms.pbc.all() else 0.0
            samples.append(Sample(self._arrays(atoms), known, volume))
        return samples

    def _arrays(self, atoms: Atoms) -> dict[str, torch.Tensor]:
        numbers = torch.from_numpy(atoms.numbers).long()
        edges, shifts = full_list(atoms, float(self.facts_["model"]["r_max"]))
        data = {
            "positions": self._real(atoms.positions), "atomic_numbers": numbers,
            "node_attrs": torch.nn.functional.one_hot(numbers - 1, N_ELEMENTS).to(self.dtype),
            "edge_index": torch.from_numpy(edges), "shifts": self._real(shifts),
        }  # fmt: skip
        if self.long_range:
            edges, shifts = full_list(atoms, self.long_range)
            data |= {"edge_index_lr": torch.from_numpy(edges), "shifts_lr": self._real(shifts)}
        return data

    def _real(self, value: Any) -> torch.Tensor:
        return torch.as_tensor(np.array(value), dtype=self.dtype)

    def collate(self, inputs: Sequence[Any]) -> Batch:
        """See :meth:`Net.collate`."""
        counts = torch.tensor([len(one.data["positions"]) for one in inputs])
        ends = torch.cumsum(counts, 0)
        data = {}
        for name in inputs[0].data:
            if name.startswith("edge_index"):
                parts = [one.data[name] + end - count for one, end, count in zip(inputs, ends, counts, strict=True)]
                data[name] = torch.cat(parts, dim=1)
            else:
                data[name] = torch.cat([one.data[name] for one in inputs])
        none = torch.zeros(len(inputs), dtype=self.dtype)
        data |= {
            "batch": torch.repeat_interleave(torch.arange(len(inputs)), counts),
            "ptr": torch.cat([torch.zeros(1, dtype=torch.long), ends]), "head": torch.zeros(len(inputs)).long(),
            "total_charge": none, "total_spin": none, "cell": torch.zeros(3 * len(inputs), 3, dtype=self.dtype),
        }  # fmt: skip
        labels = {
            name: (torch.cat if name == "forces" else torch.stack)([one.labels[name] for one in inputs])
            for name in inputs[0].labels
        }
        volumes = torch.tensor([one.volume for one in inputs], dtype=self.dtype)

        def placed(values: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {name: value.to(self.device) for name, value in values.items()}

        return Batch(placed(data), placed(labels), counts.to(self.device), volumes.to(self.device))

    def outputs(self, batch: Batch, stress: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """See :meth:`Net.outputs`. Frames without a volume have a stress of NaN."""
        self.model.eval()
        energy, forces, tensor = self._evaluate(batch, training=False)
        return energy, forces, tensor if stress else None

    def loss(self, batch: Batch, training: Mapping[str, Any]) -> torch.Tensor:
        """See :meth:`Net.loss`: the common loss, which is the package's too where it has no weights of frames."""
        self.model.train()
        return squared_errors(self._evaluate(batch, training=True), batch.labels, batch.counts, training)

    def _evaluate(self, batch: Batch, training: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(F,) energies, (A, 3) forces, (F, 3, 3) stress, from the energy's gradients by positions and strain."""
        frame, data = batch.data["batch"], dict(batch.data)
        positions = data["positions"].detach().requires_grad_(True)
        strain = positions.new_zeros(len(batch.counts), 3, 3, requires_grad=True)
        deform = 0.5 * (strain + strain.transpose(1, 2))

        def strained(vectors: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
            return vectors + torch.einsum("ai,aij->aj", vectors, deform[frames])

        data["positions"] = strained(positions, frame)
        for suffix in ("", "_lr") if self.long_range else ("",):
            data[f"shifts{suffix}"] = strained(data[f"shifts{suffix}"], frame[data[f"edge_index{suffix}"][0]])
        with default_dtype(self.dtype):
            energy = self.model(data, compute_force=False)["energy"]
        slope, virial = torch.autograd.grad(
            energy.sum(), (positions, strain), create_graph=training, materialize_grads=True
        )
        per_volume = torch.where(batch.volumes > 0, 1.0 / batch.volumes, torch.nan)[:, None, None]
        return energy, -slope, per_volume * virial


class So3kratesPotential(NetPotential):
    """A trained SO3krates or SO3LR."""

    def scaled_model(self) -> torch.nn.Module:
        """A copy of the model whose output needs no scale."""
        net = self.net
        model = build(net.facts_["model"], net.dtype)
        model.load_state_dict(net.model.state_dict())
        with torch.no_grad():
            for parameter in model.atomic_energy_output_block.final_layer.parameters():
                parameter.mul_(net.scale)
        return model.to(net.device).eval().requires_grad_(False)

    def calculator(self) -> Calculator:
        """The package's ASE calculator around a copy of the model."""
        return AnyCalculator(self.scaled_model(), self.net.device)

    def atomic_energies(self) -> dict[int, float]:
        """See :meth:`Potential.atomic_energies`: of a foundation model."""
        values = self.net.model.atomic_energy_output_block.energy_shifts.detach().cpu().numpy()
        return {z: float(value) for z, value in enumerate(values, start=1) if value}

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: from the package's own graphs, frame by frame, by its calculator."""
        calculator, offsets = self.calculator(), frames.offsets
        energy, forces = [], []
        for i, atoms in enumerate(frames.to_atoms()):
            calculator.calculate(atoms)
            energy.append(abs(calculator.results["energy"] - frames.target_energy[i]) / len(atoms))
            forces.append(np.abs(calculator.results["forces"] - frames.forces[offsets[i] : offsets[i + 1]]).ravel())
        return {"energy_mae": float(np.mean(energy)), "force_mae": float(np.mean(np.concatenate(forces)))}


class So3kratesAdapter(NetAdapter):
    """SO3krates and SO3LR in mlpbench's loop; resumes exactly."""

    packages = ("so3krates-torch", "torch", "vesin")
    net = So3kratesNet
    potential = So3kratesPotential
    modules = ("mlpbench.worker.adapters._so3krates_calculator", "mlpbench.worker.adapters._pairs")

    def adopt(self, file: Path, options: Mapping[str, Any], *, trust: bool) -> None:
        """See :meth:`Adapter.adopt`: a whole model, as the package saves it (``so3lr.model``)."""
        if options:
            raise Unusable(f"SO3LR's files take no options: start.options={dict(options)}")
        model = read_model(file, trust)
        given = vars(model)
        names = set(arguments(type(model))) - {"self", "args", "kwargs", "device", "dtype", "avg_num_neighbors"}
        saved = {"cutoff_fn": "cutoff_fn_name", "activation_fn": "activation_fn_name",
                 "energy_activation_fn": "energy_activation_fn_name"}  # fmt: skip
        args = {name: given[saved.get(name, name)] for name in names if saved.get(name, name) in given}
        args["avg_num_neighbors"] = given["avg_num_neighbors"]
        if isinstance(model, SO3LR):
            args |= {name: args.get(name) or value for name, value in LONG_RANGE.items()}
        published = args["num_elements"] == N_ELEMENTS and args.get("atomic_type_shifts") is None
        if not published or args.get("use_pme"):
            raise Unusable(f"{file.name}: a model for other than {N_ELEMENTS} elements, or with PME, is not known here")
        try:
            fresh = build(args, torch.float32)
            fresh.load_state_dict(model.state_dict())
        except Exception as error:  # whatever options of another version come to
            raise Unusable(f"{file.name}: this version cannot build its model: {first_line(error)}") from error
        facts = {"model": args, "elements": list(SO3LR_ELEMENTS), "scale": 1.0}
        write_json(self.checkpoints / FACTS, facts)
        save({"model": {name: p.detach() for name, p in fresh.named_parameters()}, "epoch": 0}, self.checkpoints / BEST)

    def export(self, folder: Path) -> str:
        """See :meth:`Adapter.export`: arguments and weights of the model."""
        potential: Any = self.load()
        weights = potential.scaled_model().state_dict()
        torch.save({"options": dict(potential.net.facts_["model"]), "weights": weights}, folder / "model.pt")
        return Path(_so3krates_calculator.__file__).read_text(encoding="utf-8")


def read_model(file: Path, trust: bool) -> torch.nn.Module:
    """A whole model; unless it is trusted, a file may hold nothing but the package's own and torch's modules.

    Raises:
        Unusable: it cannot be read like that, or is something else.
    """
    modules = (
        cutoffs, embedding, euclidean_transformer, output_block, physical_potentials, radial_basis,
        so3_conv_invariants, spherical_harmonics,
    )  # fmt: skip
    known: list[Any] = [SO3LR, So3krates, set]
    known += [kind for module in modules for _, kind in inspect.getmembers(module, inspect.isclass)]
    layers = ("ModuleList", "Sequential", "SiLU", "Identity", "Embedding", "Linear", "LayerNorm", "ParameterList")
    known += [getattr(torch.nn, name) for name in layers]
    try:
        with torch.serialization.safe_globals(known):
            model = torch.load(file, map_location="cpu", weights_only=not trust)
    except Exception as error:  # whatever a file that is no model of the package's comes to
        raise Unusable(f"{file.name} is no model of so3krates-torch's: {first_line(error)}") from error
    if type(model) not in (SO3LR, So3krates):
        raise Unusable(f"{file.name} holds a {type(model).__name__}; a SO3LR or So3krates is needed")
    return model


def arguments(kind: type) -> list[str]:
    """Names of the arguments of a model's class, those of its base included."""
    bases = (base for base in kind.__mro__ if issubclass(base, So3krates))
    return [name for base in bases for name in inspect.signature(base.__init__).parameters]


def model_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the model, the user's ``native`` options merged over them.

    Raises:
        RefusedOption: an option that the package does not have, that another setting decides, or a width that the
            heads or degrees do not divide.
    """
    degrees, channels, heads = list(range(1, int(settings["l_max"]) + 1)), settings["channels"], settings["n_heads"]
    options = {
        "r_max": float(settings["cutoff"]), "num_radial_basis_fn": settings["n_radial_basis"], "degrees": degrees,
        "num_features": channels, "num_heads": heads, "num_layers": settings["n_layers"],
        "energy_regression_dim": channels, "radial_basis_fn": "bernstein", "cutoff_fn": "phys",
        "layer_normalization_1": True, "layer_normalization_2": True, "residual_mlp_1": True,
    }  # fmt: skip
    kind = SO3LR if settings["physics"] else So3krates
    if settings["physics"]:
        options |= {
            "zbl_repulsion_bool": True, "electrostatic_energy_bool": True, "dispersion_energy_bool": True, **LONG_RANGE,
        }  # fmt: skip
    native = dict(settings.get("native") or {})
    for option in native:
        known = set(arguments(kind)) - set(DECIDED)
        require_option(option, known, f"architecture.native.{option}", "so3krates-torch")
    if channels % heads or channels % len(degrees) or channels % 4:
        raise RefusedOption(
            f"architecture.channels={channels}: so3krates-torch divides it by 4, by n_heads={heads} and by "
            f"l_max={len(degrees)}"
        )
    return {**options, **native}


def full_list(atoms: Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """(2, E) pairs within ``cutoff``, each in both directions, and (E, 3) Å shifts of the second atom."""
    first, second, shift = half_list(atoms, cutoff)
    shifts = shift @ atoms.cell.array
    edges = np.stack([np.concatenate([first, second]), np.concatenate([second, first])])
    return edges, np.concatenate([shifts, -shifts])


def mean_neighbours(frames: Frames, cutoff: float) -> float:
    """The mean number of neighbours of an atom, at least one: what messages are divided by."""
    edges = sum(full_list(atoms, cutoff)[0].shape[1] for atoms in frames.to_atoms())
    return max(1.0, edges / int(frames.n_atoms.sum()))
