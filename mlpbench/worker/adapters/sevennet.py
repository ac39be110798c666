"""SevenNet (https://github.com/MDIL-SNU/SevenNet): its model, graphs, loss, trainer, calculator.

SevenNet 0.13 itself knows float32 alone. Its graphs and one-hot vectors are made in the request's precision here, which
is all that float64 needs.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import sevenn._keys as KEY
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from sevenn._const import DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG
from sevenn.atom_graph_data import AtomGraphData
from sevenn.calculator import SevenNetCalculator
from sevenn.checkpoint import SevenNetCheckpoint
from sevenn.error_recorder import ErrorRecorder
from sevenn.model_build import build_E3_equivariant_model
from sevenn.parse_input import init_model_config
from sevenn.train.dataload import unlabeled_atoms_to_graph
from sevenn.train.loss import ForceLoss, PerAtomEnergyLoss, StressLoss
from sevenn.train.trainer import Trainer
from sevenn.util import dtype_correct
from torch_geometric.loader.dataloader import Collater

from mlpbench.frames import Frames
from mlpbench.protocol import Request, write_json
from mlpbench.worker.adapter import Unusable, first_line
from mlpbench.worker.adapters._loop import BEST, save
from mlpbench.worker.adapters._net import FACTS, Net, NetAdapter, NetPotential, elements_of, require_elements
from mlpbench.worker.training import RefusedOption, label_scale, require_option

TO_SEVENNET = (0, 1, 2, 5, 3, 4)  # of ASE's Voigt order: SevenNet has xx yy zz xy yz zx, and the opposite sign
FROM_SEVENNET = (0, 1, 2, 4, 5, 3)
KBAR = StressLoss().TO_KB  # kbar in an eV/Å³, the unit of SevenNet's stress loss
DECIDED = (KEY.CHEMICAL_SPECIES, KEY.CUTOFF)  # options of the model that other settings decide
# What SevenNet's files of weights hold beside tensors, all of it harmless.
HARMLESS: list[Any] = [np.ndarray, np.dtype, *(type(np.dtype(name)) for name in ("f4", "f8", "i8"))]
for _place in ("numpy.core", "numpy._core"):  # where numpy had these functions before version 2, and has them since
    HARMLESS += [
        (function, f"{_place}.multiarray.{function.__name__}")
        for function in (np._core.multiarray._reconstruct, np._core.multiarray.scalar)
    ]


class SevenNet(Net):
    """SevenNet's sequential model and its trainer.

    Args:
        config: SevenNet's own configuration of the model.
        device: where it runs.
        dtype: of its weights.
        modality: of a model for several levels of theory the one that is meant; None: it knows one alone.
    """

    readout = ("reduce_input_to_hidden", "reduce_hidden_to_energy", "readout_FCN")

    def __init__(self, config: dict[str, Any], device: str, dtype: torch.dtype, modality: str | None = None) -> None:
        self.config, self.device, self.dtype, self.modality = config, device, dtype, modality
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e3nn's annotations
            model = build_E3_equivariant_model(config)
        self.model = model.to(device, dtype)
        self.model.get_submodule("onehot_idx_to_onehot").register_forward_hook(_one_hot_in(dtype))
        self.model.set_is_batch_data(True)
        self.collater = Collater([], None, None)

    @classmethod
    def facts(cls, request: Request, train: Frames, valid: Frames) -> dict[str, Any]:
        """See :meth:`Net.facts`: the section ``model`` of SevenNet's input, and the scale of its output."""
        options = model_options(request.architecture, elements_of(train, valid))
        cutoff = float(request.architecture["cutoff"])
        return {
            "model": options,
            "neighbours": mean_neighbours(train, cutoff),
            "scale": label_scale(train, request.labels),
        }

    @classmethod
    def build(cls, facts: Mapping[str, Any], device: str, dtype: torch.dtype) -> SevenNet:
        """See :meth:`Net.build`."""
        if "adopted" in facts:
            net = cls(restored(facts["adopted"]), device, dtype, facts["modality"])
            net.kept = frozenset(name for name, p in net.model.named_parameters() if not p.requires_grad)
            return net
        config = init_model_config(copy.deepcopy(facts["model"]))
        power = {"avg_num_neigh": 1.0, "sqrt_avg_num_neigh": 0.5}.get(str(config[KEY.CONV_DENOMINATOR]))
        if power is not None:
            config[KEY.CONV_DENOMINATOR] = float(facts["neighbours"]) ** power
        # The baseline holds the mean; the output is multiplied by the size of the labels.
        return cls({**config, KEY.SHIFT: 0.0, KEY.SCALE: float(facts["scale"])}, device, dtype)

    def prepare(self, frames: Frames, labels: Sequence[str] = ()) -> list[Any]:
        """See :meth:`Net.prepare`: SevenNet's graphs."""
        require_elements(frames, sorted(self.config[KEY.TYPE_MAP]), "this SevenNet")
        offsets, graphs = frames.offsets, []
        for i, atoms in enumerate(frames.to_atoms()):
            known: dict[str, Any] = {} if self.modality is None else {KEY.DATA_MODALITY: self.modality}
            if "energy" in labels:
                known[KEY.ENERGY] = np.array(frames.target_energy[i])
            if "forces" in labels:
                known[KEY.FORCE] = frames.forces[offsets[i] : offsets[i + 1]]
            if "stress" in labels:
                known[KEY.STRESS] = -frames.stress[i, TO_SEVENNET].reshape(1, 6)
            graphs.append(graph(atoms, self.model.cutoff, self.dtype, known))
        return graphs

    def collate(self, inputs: Sequence[Any]) -> Any:
        """See :meth:`Net.collate`."""
        return self.collater(list(inputs)).to(self.device)

    def outputs(self, batch: Any, stress: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """See :meth:`Net.outputs`."""
        out = self.model(batch)
        voigt = -out[KEY.PRED_STRESS][:, FROM_SEVENNET]
        tensor = voigt[:, [0, 5, 4, 5, 1, 3, 4, 3, 2]].reshape(-1, 3, 3) if stress else None
        return out[KEY.PRED_TOTAL_ENERGY], out[KEY.PRED_FORCE], tensor

    def loss(self, batch: Any, training: Mapping[str, Any]) -> torch.Tensor:
        """See :meth:`Net.loss`: SevenNet's own losses, weighted as in the training."""
        self.model.train()
        output = self.model(batch)
        parts = [weight * loss.get_loss(output, self.model) for loss, weight in loss_functions(training)]
        return torch.stack([part.reshape(()) for part in parts]).sum()

    def interval(
        self, optimizer: torch.optim.Optimizer, batches: Iterator[tuple[Any, int]], training: Mapping[str, Any]
    ) -> float:
        """See :meth:`Net.interval`: an epoch of SevenNet's trainer, whose error recorder gives the loss."""
        losses = loss_functions(training)
        recorder = ErrorRecorder.from_config(
            {KEY.ERROR_RECORD: [[loss.name, "ComponentRMSE"] for loss, _ in losses], KEY.IS_TRAIN_STRESS: True}
        )
        trainer = Trainer(self.model, losses, optimizer_cls=lambda _: optimizer, device=self.device)
        trainer.run_one_epoch((batch for batch, _ in batches), is_train=True, error_recorder=recorder)
        return sum(weight * metric.get() ** 2 for metric, (_, weight) in zip(recorder.metrics, losses, strict=True))


class SevenNetPotential(NetPotential):
    """A SevenNet model, run eagerly."""

    def calculator(self) -> Calculator:
        """SevenNet's ASE calculator around a copy of the model."""
        net = self.net
        return PreciseCalculator(copy.deepcopy(net.model), net.device, net.dtype, net.modality)

    def neighbours(self, calculator: Calculator) -> Callable[[Atoms], Any]:
        """See :meth:`Potential.neighbours`."""
        return lambda atoms: graph(atoms, self.net.model.cutoff, self.net.dtype, {})

    def atomic_energies(self) -> dict[int, float]:
        """See :meth:`Potential.atomic_energies`: the shift of each element."""
        shift = self.net.model.get_submodule("rescale_atomic_energy").shift.detach().cpu().numpy()
        if shift.ndim == 2:  # one row for each level of theory
            shift = shift[self.net.config[KEY.MODAL_MAP][self.net.modality]]
        types = self.net.config[KEY.TYPE_MAP]
        return {z: float(shift[place] if shift.size > 1 else shift[0]) for z, place in types.items()}

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: SevenNet's error recorder in an epoch of its trainer."""
        net = self.net
        recorder = ErrorRecorder.from_config(
            {KEY.ERROR_RECORD: [["Energy", "MAE"], ["TotalEnergy", "MAE"], ["Force", "MAE"]]}
        )
        inputs = net.prepare(frames, ["energy", "forces"])
        trainer = Trainer(net.model, [], optimizer_cls=torch.optim.Adam, device=net.device)
        batches = (net.collate(inputs[i : i + batch_size]) for i in range(0, len(inputs), batch_size))
        trainer.run_one_epoch(batches, is_train=False, error_recorder=recorder)
        names = ("energy_mae", "energy_mae_total", "force_mae")
        return {name: float(metric.get()) for name, metric in zip(names, recorder.metrics, strict=True)}

    def torchsim_model(self) -> Any:
        """SevenNet's torch-sim model around a copy of the model."""
        from mlpbench.worker.adapters._sevennet_torchsim import SevenNetTorchSim  # takes seconds to import

        if self.net.modality is not None:
            raise NotImplementedError("torch-sim's SevenNet for several levels of theory is not supported here")
        return SevenNetTorchSim(copy.deepcopy(self.net.model), self.net.device, self.net.dtype)


class PreciseCalculator(SevenNetCalculator):
    """SevenNet's calculator, with graphs in the precision of the model."""

    def __init__(self, model: torch.nn.Module, device: str, dtype: torch.dtype, modality: str | None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that kernels for GPUs are not used
            super().__init__(model, file_type="model_instance", device=device, modal=modality)
        self.dtype = dtype

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """As SevenNet's, but for the precision, and without a stress where there is no volume."""
        Calculator.calculate(self, atoms, properties, system_changes)
        assert atoms is not None
        known = {} if self.modal is None else {KEY.DATA_MODALITY: self.modal}
        output = self.model(graph(atoms, self.cutoff, self.dtype, known).to(self.device))
        self.results = self.output_to_results(output)
        if not atoms.pbc.all():
            del self.results["stress"]


class SevenNetAdapter(NetAdapter):
    """SevenNet's trainer, an epoch of which is an interval, inside mlpbench's loop; resumes exactly."""

    packages = ("sevenn", "torch", "e3nn", "torch-geometric", "matscipy", "torch-sim-atomistic")
    net = SevenNet
    potential = SevenNetPotential

    def adopt(self, file: Path, options: Mapping[str, Any], *, trust: bool) -> None:
        """See :meth:`Adapter.adopt`. Option ``modality``: of a model for several levels of theory, the one meant."""
        try:
            checkpoint = read_checkpoint(file, trust)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # e3nn's annotations
                model = checkpoint.build_model()
        except Exception as error:  # whatever a file that is no checkpoint of SevenNet's comes to
            raise Unusable(f"{file.name} is no checkpoint of SevenNet's: {first_line(error)}") from error
        config, modality = checkpoint.config, options.get("modality")
        known = list(config.get(KEY.MODAL_MAP) or {})
        if (modality in known) != bool(known) or (modality is not None and not known):
            raise Unusable(
                f"{file.name} knows the levels of theory {known or 'none'}: start.options.modality={modality}"
            )
        write_json(self.checkpoints / FACTS, {"adopted": as_json(config), "modality": modality})
        save({"model": {name: p.detach() for name, p in model.named_parameters()}, "epoch": 0}, self.checkpoints / BEST)


def read_checkpoint(file: Path, trust: bool) -> SevenNetCheckpoint:
    """A file of SevenNet's, read as tensors and plain values alone unless it is trusted.

    Raises:
        pickle.UnpicklingError: it holds something else, and is not trusted.
    """
    checkpoint = SevenNetCheckpoint(file)
    reader = partial(torch.load, weights_only=not trust, map_location="cpu")
    harmless = torch.serialization.safe_globals(HARMLESS)
    with mock.patch("sevenn.checkpoint.torch_load", lambda path, **_: reader(path)), harmless:
        checkpoint._load()
    return checkpoint


def as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """What SevenNet builds a model from, as JSON; mappings by number become lists of pairs."""
    needed = {
        *DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG, KEY.SHIFT, KEY.SCALE, KEY.NUM_SPECIES, KEY.TYPE_MAP, KEY.USE_MODALITY,
        KEY.NUM_MODALITIES, KEY.MODAL_MAP, KEY.USE_MODAL_WISE_SHIFT, KEY.USE_MODAL_WISE_SCALE, "version",
    }  # fmt: skip
    return {
        key: [[int(z), int(place)] for z, place in value.items()] if key == KEY.TYPE_MAP else value
        for key, value in config.items()
        if key in needed
    }


def restored(config: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`as_json` wrote."""
    return {**config, KEY.TYPE_MAP: {z: place for z, place in config[KEY.TYPE_MAP]}}


def model_options(settings: Mapping[str, Any], elements: Sequence[int]) -> dict[str, Any]:
    """The section ``model`` of SevenNet's input, the user's ``native`` options merged over it.

    Raises:
        RefusedOption: SevenNet does not know an option, does not accept its value, or another setting decides it.
    """
    shape = {
        KEY.CUTOFF_FUNCTION: {"cutoff_function_name": "poly_cut", KEY.POLY_CUT_P: settings["cutoff_power"]},
        KEY.CHEMICAL_SPECIES: [chemical_symbols[z] for z in elements],
        KEY.CUTOFF: float(settings["cutoff"]),
        KEY.NODE_FEATURE_MULTIPLICITY: settings["channels"],
        KEY.LMAX: settings["l_max"],
        KEY.NUM_CONVOLUTION: settings["n_layers"],
        KEY.IS_PARITY: settings["parity"],
        KEY.CONVOLUTION_WEIGHT_NN_HIDDEN_NEURONS: list(settings["radial_mlp"]),
        KEY.RADIAL_BASIS: {"radial_basis_name": "bessel", KEY.BESSEL_BASIS_NUM: settings["n_radial_basis"]},
        KEY.SELF_CONNECTION_TYPE: settings["self_connection"],
        KEY.CONV_DENOMINATOR: "avg_num_neigh",
    }
    native = dict(settings.get("native") or {})
    known = init_model_config(copy.deepcopy(shape))
    for option in native:
        require_option(option, known, f"architecture.native.{option}", "SevenNet")
        if option in DECIDED:
            raise RefusedOption(
                f"architecture.native.{option} cannot be set: architecture.cutoff and the data decide it"
            )
    merged = {**shape, **native}
    try:
        init_model_config(copy.deepcopy(merged))
    except ValueError as error:
        raise RefusedOption(f"architecture.native: SevenNet does not accept it: {error}") from error
    return merged


def loss_functions(training: Mapping[str, Any]) -> list[tuple[Any, float]]:
    """SevenNet's losses with the weights that make their sum the common loss; its stress loss is in kbar²."""
    criterion = torch.nn.MSELoss()
    energy, force = float(training["energy_weight"]), float(training["force_weight"])
    stress = float(training.get("stress_weight") or 0.0)
    weighted = ((PerAtomEnergyLoss, energy), (ForceLoss, force), (StressLoss, stress / KBAR**2))
    return [(kind(criterion=criterion), weight) for kind, weight in weighted if weight]


def graph(atoms: Atoms, cutoff: float, dtype: torch.dtype, labels: Mapping[str, Any]) -> AtomGraphData:
    """SevenNet's graph of a structure with ``labels``; SevenNet's own function rounds to float32."""
    data = {**unlabeled_atoms_to_graph(atoms, cutoff), **labels}
    return AtomGraphData(**{name: dtype_correct(value, dtype) for name, value in data.items()})


def mean_neighbours(frames: Frames, cutoff: float) -> float:
    """The mean number of neighbours of an atom, at least one: what SevenNet divides its messages by."""
    counts = [unlabeled_atoms_to_graph(atoms, cutoff)[KEY.EDGE_IDX].shape[1] for atoms in frames.to_atoms()]
    return max(1.0, float(sum(counts)) / int(frames.n_atoms.sum()))


def _one_hot_in(dtype: torch.dtype) -> Callable[..., None]:
    def cast(module: Any, inputs: Any, data: Any) -> None:
        for key in {module.key_output, module.key_additional_output} - {None}:
            data[key] = data[key].to(dtype)

    return cast
