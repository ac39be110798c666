"""DeePMD-kit (https://github.com/deepmodeling/deepmd-kit): se_e2_a, DPA-1 and DPA-3, trained by mlpbench's loop."""

from __future__ import annotations

import os

# DeePMD-kit takes the first GPU when it is imported, whatever device a request asks for: see use_device.
os.environ["DEVICE"] = "cpu"

import copy
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.data import atomic_numbers
from deepmd.calculator import DP
from deepmd.infer import DeepPot
from deepmd.pt.model.model import get_model
from deepmd.pt.train.wrapper import ModelWrapper

from mlpbench.frames import Frames
from mlpbench.protocol import EventLog, Request
from mlpbench.worker.adapter import Adapter, Potential, Prediction, TrainOutcome, Unavailable
from mlpbench.worker.adapters import _deepmd_train as native
from mlpbench.worker.adapters._deepmd_config import (
    COMMAND,
    columns,
    elements_of,
    model_section,
    training_config,
    write_native,
)
from mlpbench.worker.adapters._deepmd_model import (
    Batch,
    batches,
    crowded,
    evaluate,
    join,
    systems,
    use_device,
    whole_cell,
)
from mlpbench.worker.training import TrainingLog

WEIGHTS = {"energy": "energy_weight", "forces": "force_weight", "stress": "stress_weight"}
# Scripted by the package itself; the second with its embedding networks as tables (`dp --pt compress`).
SCRIPTED, TABULATED = "TorchScript", "TorchScript, tabulated"
TABULATED_DESCRIPTORS = ("se_e2_a",)
STRIDE, EXTRAPOLATE = 0.01, 5  # defaults of `dp --pt compress`


class DeepmdPotential(Potential):
    """A trained ``EnergyModel`` of DeePMD-kit.

    Args:
        model: with the weights of the best validation and the output's scale in them.
        parameters: the definition that it was built from.
        labels: those that it was trained on.
        device: where it runs.
    """

    def __init__(self, model: Any, parameters: dict[str, Any], labels: list[str], device: str) -> None:
        self.model = model.to(device).eval().requires_grad_(False)
        self.n_parameters = sum(weight.numel() for weight in model.parameters())
        self.parameters, self.labels, self.device = parameters, labels, device
        self.elements = [atomic_numbers[symbol] for symbol in parameters["type_map"]]
        self.cutoff = float(model.get_rcut())
        sel = list(model.get_sel())
        self.sel = [sum(sel)] if model.mixed_types() else sel

    def predict(self, frames: Frames, batch_size: int, stress: bool = False) -> Prediction:
        """See :meth:`Potential.predict`. The stress of a frame that is not periodic along all vectors is NaN.

        Raises:
            ValueError: an element that the potential does not know, or more neighbours than it has places for.
        """
        found: dict[str, list[Any]] = {
            "energy": [np.zeros(0)], "forces": [np.zeros((0, 3))], "stress": [np.zeros((0, 6))],
        }  # fmt: skip
        single_frames = self.batches(frames)
        for start in range(0, len(single_frames), batch_size):
            batch = join(single_frames[start : start + batch_size]).to(self.device)
            self.require_room(batch, start)
            for name, value in evaluate(self.model, batch).items():
                found[name].append(value.detach().to("cpu", torch.float64).numpy())
        arrays = {name: np.concatenate(parts) for name, parts in found.items()}
        return Prediction(arrays["energy"], arrays["forces"], arrays["stress"] if stress else None)

    def batches(self, frames: Frames, labels: list[str] | None = None) -> list[Batch]:
        """One batch for each frame, on the CPU."""
        return batches(columns(frames, self.elements, labels or []), self.cutoff, labels or [])

    def require_room(self, batch: Batch, first: int = 0) -> None:
        """Refuse frames in which an atom has more neighbours than the model has places for.

        Raises:
            ValueError: names the frame; ``first`` is the number of the batch's first one.
        """
        full = torch.nonzero(self.crowded(batch)).flatten().tolist()
        if full:
            raise ValueError(
                f"frame {first + full[0]}: an atom has more neighbours than this potential has places for "
                f"({self.sel}), and DeePMD-kit would leave out the farthest: train with more architecture.neighbours"
            )

    def crowded(self, batch: Batch) -> torch.Tensor:
        """(F,) see :func:`_deepmd_model.crowded`."""
        return crowded(batch, self.sel, len(self.elements))

    def calculator(self) -> Calculator:
        """DeePMD-kit's ASE calculator around a copy of the model, run eagerly."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt"
            torch.save({"model": ModelWrapper(self.model, model_params=self.parameters).state_dict()}, path)
            return DeepmdCalculator(self, path, no_jit=True)

    def neighbours(self, calculator: Calculator) -> Callable[[Atoms], Any]:
        """See :meth:`Potential.neighbours`."""
        return calculator.search  # type: ignore[attr-defined,no-any-return]  # of the class below

    def package_loss(self, frames: Frames, training: dict[str, Any]) -> float:
        """DeePMD-kit's loss as the training uses it, see :meth:`Potential.package_loss`; it equals the common loss."""
        labels = [label for label in self.labels if label != "stress" or frames.has_stress]
        weights = {**training, **({} if "stress" in labels else {"stress_weight": 0.0})}
        batch = join(self.batches(frames, labels)).to(self.device)
        return float(native.CommonLoss(weights)(evaluate(self.model, batch), batch))

    def package_metrics(self, frames: Frames, batch_size: int) -> dict[str, float]:
        """See :meth:`Potential.package_metrics`: what DeePMD-kit's loss reports of all frames as one batch."""
        known = {"energy": bool(np.isfinite(frames.target_energy).all()), "forces": frames.has_forces}
        batch = join(self.batches(frames, [label for label, there in known.items() if there])).to(self.device)
        return native.errors(evaluate(self.model, batch), batch)

    def torchsim_model(self) -> Any:
        """A torch-sim model that evaluates all systems in one forward pass."""
        from mlpbench.worker.adapters._deepmd_torchsim import DeepmdTorchSim  # takes seconds to import

        return DeepmdTorchSim(self)


class DeepmdCalculator(DP):  # type: ignore[misc]  # DeePMD-kit has no annotations that mypy reads
    """DeePMD-kit's ASE calculator for slabs and clusters too: it knows three periodic directions or none.

    Args:
        potential: for the number of places for neighbours.
        path: the model's file.
        no_jit: run a checkpoint eagerly instead of scripting it first.
    """

    def __init__(self, potential: DeepmdPotential, path: Path, no_jit: bool = False) -> None:
        Calculator.__init__(self)
        self.potential = potential
        use_device(potential.device)
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
        if given.pbc.any() or len(given) > min(self.potential.sel):
            self.potential.require_room(join(self.potential.batches(Frames.from_atoms([given]))))
        whole = given.copy()
        if given.pbc.any():
            whole.cell = whole_cell(given.positions, given.cell.array, given.pbc, self.potential.cutoff)
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
        on = [each if each is None else each.to(self.potential.device) for each in arguments]
        return backend._nlist_builder.build(*on, backend.rcut, list(backend.dp.model["Default"].get_sel()))


class DeepmdAdapter(Adapter):
    """DeePMD-kit's models, statistics, loss and checkpoints in a training loop of mlpbench's; resumes exactly."""

    packages = ("deepmd-kit", "torch", "vesin", "torch-sim-atomistic")
    deployments: ClassVar[Mapping[str, tuple[str, ...]]] = {"compiled": (SCRIPTED, TABULATED)}

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        torch.set_num_threads(request.threads)
        logging.getLogger("deepmd").setLevel(logging.WARNING)
        self.best = self.checkpoints / native.BEST

    def train(self, train: Frames, valid: Frames, events: EventLog) -> TrainOutcome:
        """See :meth:`Adapter.train`."""
        request, elements = self.request, elements_of(train, valid)
        labels = native.CommonLoss(request.training).labels
        unused = sorted(set(labels) - set(request.labels))
        if unused:
            raise ValueError(f"the loss has a weight for {', '.join(unused)}, which the training does not use")
        parts = [columns(frames, elements, labels) for frames in (train, valid)]
        cutoff = float(request.architecture["cutoff"])
        each = [batches(part, cutoff, labels) for part in parts]
        model = model_section(request, elements, each[0] + each[1])
        config = training_config(request, model, train, labels)
        write_native(self.native, config, *parts)
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        log = TrainingLog(events, request, len(train))
        trainer = native.Trainer(config, *each, systems(parts[0], cutoff), request.device)
        native.fit(trainer, log, self.checkpoints)
        return TrainOutcome.of(log, COMMAND)

    def load(self, dtype: str | None = None) -> Potential:
        """See :meth:`Adapter.load`."""
        if not self.best.exists():
            raise FileNotFoundError(f"no trained DeePMD-kit potential: {self.best} does not exist")
        state = torch.load(self.best, map_location="cpu", weights_only=True)["model"]
        parameters = copy.deepcopy(state["_extra_state"]["model_params"])
        for part in ("descriptor", "fitting_net"):
            parameters[part]["precision"] = dtype or self.request.dtype
        use_device("cpu")
        wrapper = ModelWrapper(get_model(copy.deepcopy(parameters)))
        wrapper.load_state_dict(state)
        use_device(self.request.device)
        labels = [label for label in self.request.labels if self.request.training.get(WEIGHTS[label])]
        return DeepmdPotential(wrapper.model["Default"], parameters, labels, self.request.device)

    def deploy(self, potential: Potential, means: str) -> Calculator:
        """See :meth:`Adapter.deploy`: what ``dp --pt freeze`` and ``dp --pt compress`` make."""
        assert isinstance(potential, DeepmdPotential)
        descriptor = potential.parameters["descriptor"]["type"]
        model = copy.deepcopy(potential.model)
        if means == TABULATED:
            if descriptor not in TABULATED_DESCRIPTORS:
                raise Unavailable(f"DeePMD-kit has no tables for {descriptor} with these options")
            train = potential.batches(Frames.load(self.request.frames["train"]))
            model.min_nbor_dist = torch.tensor(min(_nearest(frame) for frame in train), dtype=torch.float64)
            model.enable_compression(EXTRAPOLATE, STRIDE, 10 * STRIDE, -1)
        path = self.checkpoints / f"{'frozen' if means == SCRIPTED else 'compressed'}.pth"
        torch.jit.save(torch.jit.script(model.eval()), str(path), {"data_modifier.pth": ""})
        return DeepmdCalculator(potential, path)


def _nearest(frame: Batch) -> float:
    """The shortest distance between neighbours (Å)."""
    bond = frame.positions[frame.neighbour] + frame.offset - frame.positions[frame.centre]
    return float(bond.norm(dim=1).min()) if len(bond) else float("inf")
