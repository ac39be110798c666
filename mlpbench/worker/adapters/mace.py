"""MACE (https://github.com/ACEsuit/mace): its own model, loss, trainer, calculator and torch-sim wrapper."""

from __future__ import annotations

import copy
import importlib.util
import os
import warnings
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers
from ase.stress import full_3x3_to_voigt_6_stress
from mace.calculators import MACECalculator
from mace.data import AtomicData, Configuration
from mace.tools import AtomicNumberTable, build_default_arg_parser
from mace.tools.torch_geometric.dataloader import DataLoader
from mace.tools.train import evaluate

from mlpbench.frames import Frames
from mlpbench.protocol import EventLog, Request, read_json, write_json
from mlpbench.worker.adapter import Adapter, PairStyle, Potential, Prediction, TrainOutcome, Unavailable
from mlpbench.worker.adapters import _mace_foundation, _pair_styles
from mlpbench.worker.adapters._mace_config import build_config, carried_over, write_native
from mlpbench.worker.adapters._mace_corrections import common_loss_function
from mlpbench.worker.adapters._mace_training import POTENTIAL, Progress, fit
from mlpbench.worker.adapters._net import default_dtype
from mlpbench.worker.training import TrainingLog, require_option

# e3nn 0.4.4 annotates attributes in a way that newer torch warns about, once for every layer it compiles.
warnings.filterwarnings("ignore", message="The TorchScript type system doesn't support", category=UserWarning)

# MACE's own faster paths: torch.compile through its calculator, and the kernels of NVIDIA and OpenEquivariance.
DEPLOYMENTS = {"compiled": ("torch.compile",), "accelerated": ("cuEquivariance", "OpenEquivariance")}
_KERNELS = {"cuEquivariance": "enable_cueq", "OpenEquivariance": "enable_oeq"}
_MODULES = {"cuEquivariance": "cuequivariance_torch", "OpenEquivariance": "openequivariance"}
_PACKAGES = {"cuEquivariance": "cuequivariance-torch and its CUDA operations", "OpenEquivariance": "openequivariance"}

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class MacePotential(Potential):
    """A MACE model, run eagerly.

    Args:
        model: MACE's ``ScaleShiftMACE`` with the weights of the best epoch.
        device: where it runs.
    """

    def __init__(self, model: torch.nn.Module, device: str) -> None:
        self.n_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.model = model.to(device).eval().requires_grad_(False)
        self.device = device
        self.dtype = next(model.parameters()).dtype
        self.elements = AtomicNumberTable([int(z) for z in model.atomic_numbers])
        self.own_energies: dict[int, float] = {}

    def atomic_energies(self) -> dict[int, float]:
        """See :meth:`Potential.atomic_energies`: a foundation model's, which were taken out of it."""
        return self.own_energies

    def predict(self, frames: Frames, batch_size: int, stress: bool = False) -> Prediction:
        """See :meth:`Potential.predict`. The stress of a frame that is not periodic along all vectors is NaN."""
        energy, forces, stresses = [np.zeros(0)], [np.zeros((0, 3))], [np.zeros((0, 3, 3))]
        for batch in self._batches(frames, batch_size):
            out = self._run(batch, stress)
            energy.append(_numpy(out["energy"]))
            forces.append(_numpy(out["forces"]))
            if stress:
                stresses.append(_numpy(out["stress"]))
        voigt = full_3x3_to_voigt_6_stress(np.concatenate(stresses))
        if stress:  # MACE divides by the volume of a box it makes up along the directions that are not periodic
            voigt[~frames.pbc.all(axis=1)] = np.nan
        return Prediction(np.concatenate(energy), np.concatenate(forces), voigt if stress else None)

    def calculator(self) -> Calculator:
        """MACE's ASE calculator around a copy of the model."""
        name = next(name for name, dtype in DTYPES.items() if dtype == self.dtype)
        return MACECalculator(models=[copy.deepcopy(self.model)], device=self.device, default_dtype=name)

    def neighbours(self, calculator: Calculator) -> Callable[[Atoms], Any]:
        """See :meth:`Potential.neighbours`."""
        found: Callable[[Atoms], Any] = calculator._atoms_to_batch  # type: ignore[attr-defined]  # MACE's
        return found

    def package_loss(self, frames: Frames, training: dict[str, Any]) -> float:
        """MACE's loss as the training uses it; see :meth:`Potential.package_loss`. It equals the common loss."""
        stress = bool(training.get("stress_weight")) and frames.has_stress
        loss = self._loss(training, stress)
        (batch,) = self._batches(frames, len(frames))
        return loss(pred=self._run(batch, stress), ref=batch).item()

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: MACE's ``evaluate``, in the potential's dtype."""
        loss = self._loss({"energy_weight": 1.0, "force_weight": 1.0}, stress=False)
        outputs = {"energy": True, "forces": True, "virials": False, "stress": False}
        with default_dtype(self.dtype):
            _, found = evaluate(self.model, loss, self._batches(frames, batch_size), outputs, torch.device(self.device))
        names = {"mae_e_per_atom": "energy_mae", "mae_e": "energy_mae_total", "mae_f": "force_mae"}
        return {ours: float(found[theirs]) for theirs, ours in names.items() if theirs in found}

    def torchsim_model(self) -> Any:
        """torch-sim's ``MaceModel`` around a copy of the model, with stress; neighbour lists in torch on a CPU."""
        from torch_sim.models.mace import MaceModel  # torch-sim takes seconds to import
        from torch_sim.neighbors import torch_nl_linked_cell

        cuda = self.device.startswith("cuda")
        return MaceModel(
            model=copy.deepcopy(self.model),
            device=torch.device(self.device),
            dtype=self.dtype,
            neighbor_list_fn=None if cuda else torch_nl_linked_cell,  # torch-sim's choice is made for GPUs
            compute_stress=True,
        )

    def _loss(self, training: dict[str, Any], stress: bool) -> torch.nn.Module:
        with default_dtype(self.dtype):
            return common_loss_function(
                training["energy_weight"], training["force_weight"], training.get("stress_weight") or 0.0, stress
            ).to(self.device)

    def _batches(self, frames: Frames, batch_size: int) -> DataLoader:
        """MACE's graphs of ``frames``, with the labels they have, ``batch_size`` at a time."""
        with default_dtype(self.dtype):
            graphs = [
                AtomicData.from_config(configuration, self.elements, float(self.model.r_max), self.model.heads)
                for configuration in _configurations(frames)
            ]
        return DataLoader(graphs, batch_size=batch_size, shuffle=False)

    def _run(self, batch: Any, stress: bool) -> dict[str, torch.Tensor]:
        return self.model(batch.to(self.device).to_dict(), training=False, compute_stress=stress)


EXPORT = """\
def package_calculator(folder, device):
    from mace.calculators import MACECalculator

    return MACECalculator(model_paths=str(folder / "potential.model"), device=device, default_dtype="{dtype}")
"""
EXPORT_TORCHSIM = """\
def package_torchsim(folder, device):
    import torch
    from torch_sim.models.mace import MaceModel
    from torch_sim.neighbors import torch_nl_linked_cell

    model = torch.load(folder / "potential.model", map_location=device, weights_only=False)
    neighbours = torch_nl_linked_cell if device == "cpu" else None  # torch-sim's choice is made for GPUs
    kind = {{"device": torch.device(device), "dtype": torch.{dtype}}}
    return MaceModel(model=model, neighbor_list_fn=neighbours, compute_stress=True, **kind)
"""


class MaceAdapter(Adapter):
    """Trains as ``mace_run_train`` does, in this process; resumes exactly from the last finished epoch."""

    packages = ("mace-torch", "torch", "e3nn", "torch-ema", "matscipy", "torch-sim-atomistic")
    preload = ("git", "configargparse")
    deployments = DEPLOYMENTS
    pair_styles = ("mliap unified", "mace")

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        torch.set_num_threads(request.threads)
        if request.device.startswith("cuda:"):
            torch.cuda.set_device(request.device)  # MACE's trainer knows "cuda" only

    def check_options(self, train: Frames, valid: Frames) -> None:
        """See :meth:`Adapter.check_options`."""
        self._config(train, valid)

    def _config(self, train: Frames, valid: Frames) -> dict[str, Any]:
        known = {action.dest for action in build_default_arg_parser()._actions}
        for option in self.request.architecture.get("native") or {}:
            require_option(option, known, f"architecture.native.{option}", "MACE")
        return build_config(self.request, train, valid)

    def train(self, train: Frames, valid: Frames, events: EventLog) -> TrainOutcome:
        """See :meth:`Adapter.train`."""
        request = self.request
        config = self._config(train, valid)
        if self.start is not None:
            own = self.start.checkpoints / _mace_foundation.OWN  # a foundation model has hyperparameters of its own
            options = read_json(own)["options"] if own.exists() else {}
            config = carried_over({**config, **options}, self.start.load().model, self.native)
        command = write_native(self.native, config, request, train, valid)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        log = TrainingLog(events, request, len(train))
        fit(self.native, Progress(log, request, self.checkpoints.resolve()))
        return TrainOutcome.of(log, command)

    def adopt(self, file: Path, options: Mapping[str, Any], *, trust: bool) -> None:
        """See :meth:`Adapter.adopt`: a ``.model`` file, which is a pickle."""
        model, own, energies = _mace_foundation.adopt(_mace_foundation.read(file, trust), DTYPES[self.request.dtype])
        write_json(self.checkpoints / _mace_foundation.OWN, {"options": own, "atomic_energies_eV": energies})
        torch.save(model, self.checkpoints / POTENTIAL)

    def load(self, dtype: str | None = None) -> MacePotential:
        """See :meth:`Adapter.load`."""
        path = self.checkpoints / POTENTIAL
        if not path.exists():
            raise FileNotFoundError(f"no trained MACE potential: {path} does not exist")
        # Saved whole, as MACE saves its models: a pickle, which only this backend wrote and reads.
        model = torch.load(path, map_location="cpu", weights_only=False)
        wanted = DTYPES[dtype or self.request.dtype]
        if next(model.parameters()).dtype != wanted:
            model = _in_dtype(model, wanted)
        potential = MacePotential(model, self.request.device)
        own = self.checkpoints / _mace_foundation.OWN
        if own.exists():
            energies = read_json(own)["atomic_energies_eV"]
            potential.own_energies = {atomic_numbers[symbol]: float(value) for symbol, value in energies.items()}
        return potential

    def export(self, folder: Path) -> str:
        """See :meth:`Adapter.export`: the model as ``mace_run_train`` leaves it."""
        potential = self.load()
        assert isinstance(potential, MacePotential)
        torch.save(potential.model.to("cpu"), folder / "potential.model")
        return EXPORT.format(dtype=self.request.dtype)

    def export_torchsim(self) -> str:
        """See :meth:`Adapter.export_torchsim`: torch-sim's ``MaceModel``."""
        return EXPORT_TORCHSIM.format(dtype=self.request.dtype)

    def pair_style(self, folder: Path, known: Collection[str]) -> PairStyle:
        """See :meth:`Adapter.pair_style`: what ``mace_create_lammps_model`` writes."""
        style = _pair_styles.choose(self.pair_styles, known)
        potential: Any = self.load()
        torch.save(potential.model.to("cpu"), folder / "potential.model")
        made = "mliap" if style == "mliap unified" else "libtorch"
        arguments = ["potential.model", "--format", made, "--dtype", self.request.dtype]
        _pair_styles.write("mace.cli.create_lammps_model", arguments, folder, os.environ)
        file = "potential.model-mliap_lammps.pt" if made == "mliap" else "potential.model-lammps.pt"
        return _pair_styles.lines(style, file)

    def deploy(self, potential: Any, means: str) -> Calculator:
        """See :meth:`Adapter.deploy`."""
        settings = {"device": potential.device, "default_dtype": str(potential.dtype).removeprefix("torch.")}
        model = copy.deepcopy(potential.model)
        with default_dtype(potential.dtype):  # MACE builds the model anew
            if means == "torch.compile":
                # Padded to a fixed number of edges by MACE: a new size, or a denser frame, compiles once more.
                return MACECalculator(models=[model], compile_mode="default", **settings)
            if potential.device == "cpu":
                raise Unavailable(f"{means}'s kernels are made for GPUs")
            if importlib.util.find_spec(_MODULES[means]) is None:  # MACE's own flags are true without it
                raise Unavailable(f"not installed; adopt an environment with {_PACKAGES[means]} (backend.mace.python)")
            return MACECalculator(models=[model], **{_KERNELS[means]: True}, **settings)


def _configurations(frames: Frames) -> list[Configuration]:
    offsets, configurations = frames.offsets, []
    for i in range(len(frames)):
        atoms = slice(offsets[i], offsets[i + 1])
        labels = {"energy": frames.target_energy[i], "forces": frames.forces[atoms], "stress": frames.stress[i]}
        known = {name: value for name, value in labels.items() if np.isfinite(value).all()}
        configurations.append(
            Configuration(
                atomic_numbers=frames.numbers[atoms],
                positions=frames.positions[atoms],
                properties=known,
                property_weights={name: float(name in known) for name in labels},
                cell=frames.cell[i].copy(),  # MACE writes into it
                pbc=tuple(bool(x) for x in frames.pbc[i]),
            )
        )
    return configurations


def _in_dtype(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """The same weights in a model built anew in ``dtype``.

    Casting would keep constants (Wigner 3j symbols, Bessel frequencies ...) rounded to the old precision; built anew
    they are exact, and only what was learnt or measured on the training set is carried over.
    """
    if model.built_with is None:
        raise ValueError(f"{type(model).__name__} cannot be built in another dtype: load it in the request's")
    with default_dtype(dtype), torch.no_grad():
        other = type(model)(**model.built_with)
        learnt = dict(model.named_parameters())
        for name, parameter in other.named_parameters():
            parameter.copy_(learnt.pop(name))
    if learnt:
        raise ValueError(f"weights without a place in the model: {', '.join(learnt)}")
    return other


def _numpy(tensor: torch.Tensor) -> Any:
    return tensor.detach().to("cpu", torch.float64).numpy()
